//! Every field of the record and of `--status` against what really happened, in Redis and on one host.

use std::fs;

use rustix::process::{Signal, kill_process};

use crate::support::job_tools::{Notes, quoted};
use crate::support::ledger::{Facts, Ledger, NAME, Witness, host, now};
use crate::support::successor::take_over;
use crate::support::watch::{descriptors, is_alive};
use crate::support::{each, until};

/// The fields of a run that has ended, in their order, but for `ttl` and `ok`.
const ENDED: [&str; 9] = ["host", "pid", "program", "start", "end", "took", "result", "failed", "fence"];

/// A job's end: the script, a TIMEOUT, golock's exit code, and what is recorded.
type End = (&'static str, &'static str, i32, &'static str);

const ENDS: [End; 7] = [
    ("exit 0", "0", 0, "0"),
    ("exit 3", "0", 3, "3"),
    ("exit 202", "0", 202, "202"),
    ("kill -9 $$", "0", 137, "signal:9"),
    ("kill -15 $$", "0", 143, "signal:15"),
    ("exec sleep 1000", "1", 202, "timeout"),
    ("trap '' TERM; sleep 1000; sleep 1000", "1", 202, "timeout"),
];

#[test]
fn a_run_that_ends_is_told_to_the_letter() {
    let cases: Vec<(bool, End)> = [true, false].iter().flat_map(|&local| ENDS.map(|end| (local, end))).collect();
    each(&cases, |&(local, (script, timeout, code, result))| {
        let (ledger, witness) = (if local { Ledger::local() } else { Ledger::redis() }, Witness::new());
        let before = now();
        let golock = ledger.golock().set("TIMEOUT", timeout).args(witness.job(script)).spawn();
        let pid = golock.pid().as_raw_nonzero().get().to_string();
        assert_eq!(golock.wait().code, code);
        let (after, [_, parent, fence, began]) = (now(), witness.began());

        let (start, end) = (ledger.number("start"), ledger.number("end"));
        assert!(before <= start && start <= began && began <= end && end <= after, "{}", ledger.record());
        assert!(timeout == "0" || end - start >= 1000, "{}", ledger.record());
        assert_eq!((ledger.number("first"), fence / 1000), (start, start));

        let (facts, is_success) = (ledger.status(), code == 0);
        assert_eq!((facts.code, facts.head()), (0, format!("{NAME} free")));
        let ok = if is_success { &["ok"][..] } else { &[] };
        assert_eq!(facts.fields(), [&ENDED[..7], ok, &ENDED[7..]].concat());
        assert_eq!((facts.get("host"), facts.get("pid"), facts.get("program")), (&*host(), &*pid, "sh"));
        assert_eq!((facts.second("start"), facts.second("end")), (start / 1000, end / 1000));
        assert_eq!(facts.get("took"), format!("{}.{:03}", (end - start) / 1000, (end - start) % 1000));
        assert_eq!((facts.get("result"), facts.get("failed")), (result, if is_success { "0" } else { "1" }));
        assert_eq!(facts.get("ok"), if is_success { facts.get("end") } else { "" });
        assert_eq!((facts.get("fence"), parent.to_string()), (&*fence.to_string(), pid));
    });
}

#[test]
fn a_run_ends_when_its_job_does_though_redis_is_away_then() {
    let (ledger, witness) = (Ledger::redis(), Witness::new());
    let running = ledger.golock().args(witness.gated("exit 3")).spawn();
    witness.began();
    ledger.server().stop();
    witness.open();
    until("golock releases", || descriptors(running.pid()).iter().any(|file| file.starts_with("socket:")));
    let released = now();
    // Far longer than the confirmation was under way, which is not told from the run.
    until("time passes", || now() > released + 2000);
    ledger.server().cont();
    running.wait().assert_silent(3);
    assert!(ledger.number("end") <= released + 2000, "{} after {released}", ledger.record());
}

#[test]
fn a_run_is_told_while_it_runs_and_in_its_grace() {
    each(&Ledger::both(), |ledger| {
        let witness = Witness::new();
        let running = ledger.golock().set("GRACE", "1000").args(witness.gated("exit 0")).spawn();
        let [_, parent, fence, _] = witness.began();
        let facts = ledger.status();
        assert_eq!((facts.code, facts.head()), (200, format!("{NAME} running")));
        // A local lock lasts as long as its job; until when at most is the holder's to know.
        let ttl = if ledger.is_local() { &[][..] } else { &["ttl"] };
        assert_eq!(facts.fields(), [ttl, &["host", "pid", "program", "start", "took", "failed", "fence"]].concat());
        assert!(ledger.is_local() || (1..=86_400).contains(&facts.get("ttl").parse().unwrap()), "{facts:?}");
        let told = [facts.get("pid"), facts.get("fence")].map(String::from);
        assert_eq!(told, [parent.to_string(), fence.to_string()]);
        let took = |facts: &Facts| facts.get("took").parse::<f64>().unwrap();
        until("it has taken longer", || took(&ledger.status()) > took(&facts));

        witness.open();
        running.wait().assert_silent(0);
        let facts = ledger.status();
        assert_eq!((facts.code, facts.head()), (200, format!("{NAME} grace")));
        assert!((1..=1000).contains(&facts.get("ttl").parse().unwrap()), "{facts:?}");
        assert_eq!((facts.get("result"), facts.get("ok")), ("0", facts.get("end")));
    });
}

#[test]
fn failures_are_counted_until_a_success_and_what_was_first_stays() {
    each(&Ledger::both(), |ledger| {
        let run = |code: u8| {
            let job = Notes::new().job(&format!("exit {code}"));
            ledger.golock().args(job).run().assert_silent(code.into());
            [ledger.field("failed"), ledger.field("ok"), ledger.field("end")]
        };
        let [failed, ok, first_end] = run(3);
        let first = ledger.field("first");
        assert_eq!((&*failed, &*ok), ("1", ""));
        assert_eq!(run(4)[..2], ["2", ""]);
        let [failed, ok, end] = run(0);
        assert_eq!((&*failed, &ok), ("0", &end));
        for count in ["1", "2", "3"] {
            assert_eq!(run(5)[..2], [count, &ok]);
        }
        let [failed, newer, end] = run(0);
        assert_eq!((&*failed, &newer), ("0", &end));
        assert!(newer.parse::<u64>().unwrap() >= ok.parse().unwrap());
        assert!(ledger.field("first") == first && first.parse::<u64>().unwrap() <= first_end.parse().unwrap());
    });
}

#[test]
fn a_lease_that_is_lost_is_told_as_that() {
    let (ledger, witness) = (Ledger::redis(), Witness::new());
    let running = ledger.golock().set("LEASE", "3").args(witness.gated("exit 0")).spawn();
    witness.began();
    take_over(ledger.server(), NAME);
    running.wait().assert_one_line(201, &[NAME, "lost"]);
    let facts = ledger.status();
    assert_eq!((facts.get("result"), facts.get("failed"), facts.get("ok")), ("lost", "1", ""));
    assert!(!facts.get("end").is_empty());
}

#[test]
fn a_run_that_was_lost_to_another_says_nothing_in_the_record_of_that() {
    let (ledger, first, second) = (Ledger::redis(), Witness::new(), Witness::new());
    let loser = ledger.golock().args(first.gated("exit 3")).spawn();
    first.began();
    ledger.expire();
    let winner = ledger.golock().args(second.gated("exit 0")).spawn();
    let fence = second.began()[2];
    assert!(fence > first.began()[2]);
    // That the first has not ended counts as a failure as long as nobody knows better.
    assert_eq!((ledger.field("last"), ledger.number("failed")), (format!("?@{}", host()), 1));
    let record = ledger.record();
    first.open();
    loser.wait().assert_one_line(3, &[NAME, "lost"]);
    assert_eq!(ledger.record(), record);
    second.open();
    winner.wait().assert_silent(0);
    assert_eq!([ledger.number("fence"), ledger.number("failed")], [fence, 0]);
}

#[test]
fn a_host_that_dies_leaves_a_run_without_an_end() {
    each(&Ledger::both(), |ledger| {
        let witness = Witness::new();
        let golock = ledger.golock().args(witness.gated("exit 0")).spawn();
        let (pid, [job, _, fence, _]) = (golock.pid().as_raw_nonzero().get().to_string(), witness.began());
        let job = rustix::process::Pid::from_raw(job.try_into().unwrap()).unwrap();
        golock.signal(Signal::KILL);
        kill_process(job, Signal::KILL).unwrap();
        assert_eq!(golock.wait().code, -9);
        until("the job is gone", || !is_alive(job));
        if !ledger.is_local() {
            assert_eq!(ledger.status().head(), format!("{NAME} running"), "nobody knows better until the lock expires");
            ledger.expire();
        }
        // A local lock is held by what the job has left behind, too.
        until("the lock is free", || ledger.status().code == 0);
        let facts = ledger.status();
        assert_eq!(facts.head(), format!("{NAME} free"));
        assert_eq!(facts.fields(), ["host", "pid", "program", "start", "result", "failed", "fence"]);
        assert_eq!((facts.get("pid"), facts.get("result")), (&*pid, "unrecorded"));
        assert_eq!((facts.get("failed"), facts.get("fence")), ("1", &*fence.to_string()));

        // The next run counts it, and says what came before as long as it runs.
        let next = Witness::new();
        let golock = ledger.golock().args(next.gated("exit 4")).spawn();
        next.began();
        assert_eq!((ledger.field("last"), ledger.number("failed")), (format!("?@{}", host()), 1));
        next.open();
        golock.wait().assert_silent(4);
        assert!(ledger.number("failed") == 2 && !ledger.record().contains("last="), "{}", ledger.record());
    });
}

#[test]
fn with_a_lease_a_host_that_dies_is_known_once_the_lease_is_over() {
    let (ledger, witness) = (Ledger::redis(), Witness::new());
    let golock = ledger.golock().set("LEASE", "3").args(witness.gated("exit 0")).spawn();
    witness.began();
    golock.signal(Signal::KILL);
    assert_eq!(golock.wait().code, -9);
    until("the lease is over", || ledger.status().code == 0);
    let facts = ledger.status();
    assert_eq!((facts.head(), facts.get("result")), (format!("{NAME} free"), "unrecorded"));
}

#[test]
fn a_golock_that_is_killed_leaves_a_run_without_an_end() {
    each(&Ledger::both(), |ledger| {
        let witness = Witness::new();
        let golock = ledger.golock().args(witness.gated("exit 0")).spawn();
        witness.began();
        golock.signal(Signal::KILL);
        assert_eq!(golock.wait().code, -9);
        // The job runs on, and holds its lock.
        assert_eq!(ledger.status().head(), format!("{NAME} running"));
        witness.open();
        if ledger.is_local() {
            until("the kernel knows of the job's end", || ledger.status().code == 0);
        } else {
            ledger.expire();
        }
        assert_eq!(ledger.status().get("result"), "unrecorded");
    });
}

#[test]
fn a_command_that_could_not_be_started_has_not_run() {
    each(&Ledger::both(), |ledger| {
        let notes = Notes::new();
        let broken = notes.executable("broken.sh", "#!/does/not/exist\n");
        let done = ledger.golock().set("GRACE", "1000").args([broken]).run();
        done.assert_one_line(127, &["golock: broken.sh did not run: "]);
        let facts = ledger.status();
        assert_eq!(facts.head(), format!("{NAME} free"));
        assert_eq!(facts.fields(), ["host", "pid", "program", "end", "result", "failed", "fence"]);
        assert_eq!((facts.get("program"), facts.get("result"), facts.get("failed")), ("broken.sh", "127", "1"));
    });
}

#[test]
fn only_the_base_name_of_a_command_is_recorded() {
    each(&Ledger::both(), |ledger| {
        let notes = Notes::new();
        fs::create_dir(notes.path("a folder")).unwrap();
        let odd = notes.executable("a folder/back up\u{1b}[2J\"=%.sh", "#!/bin/sh\nexit 0\n");
        ledger.golock().args([odd.as_os_str(), "--password=secret".as_ref()]).run().assert_silent(0);
        assert_eq!(ledger.field("program"), "back%20up%1B%5B2J%22%3D%25.sh");
        // Named from where golock was started, it is no line for a shell either.
        let golock = ledger.golock().prelude(&format!("cd {}", quoted(&notes.folder())));
        golock.args([odd.strip_prefix(notes.folder()).unwrap()]).run().assert_silent(0);
        assert_eq!(ledger.field("program"), "back%20up%1B%5B2J%22%3D%25.sh");
        assert_eq!(ledger.status().get("program"), ledger.field("program"));
        assert!(!ledger.record().contains("secret") && !ledger.record().contains(&*notes.folder().to_string_lossy()));
    });
}

#[test]
fn a_skipped_run_changes_nothing_of_the_record() {
    each(&Ledger::both(), |ledger| {
        let witness = Witness::new();
        let running = ledger.golock().args(witness.gated("exit 0")).spawn();
        witness.began();
        let record = ledger.record();
        ledger.golock().args(["false"]).run().assert_silent(200);
        ledger.golock().args(["/does/not/exist"]).run().assert_one_line(127, &[]);
        assert_eq!(ledger.record(), record);
        witness.open();
        running.wait().assert_silent(0);
    });
}

#[test]
fn the_record_is_kept_for_as_long_as_is_said() {
    let ledger = Ledger::redis();
    let left = || ledger.server().pttl("cronlock.run.{cronlock.job}");
    ledger.golock().args(["true"]).run().assert_silent(0);
    assert!((35 * 86_400_000 - 3_600_000..=35 * 86_400_000).contains(&left()), "{}", left());
    ledger.golock().set("RECORD", "1h").args(["true"]).run().assert_silent(0);
    assert!((1..=3_600_000).contains(&left()), "{}", left());
    ledger.golock().set("RECORD", "1").args(["true"]).run().assert_silent(0);
    until("it is gone", || ledger.record().is_empty());
    assert_eq!(ledger.status().line, format!("{NAME} free"));
}

#[test]
fn without_a_record_only_the_lock_is_told() {
    each(&Ledger::both(), |ledger| {
        let witness = Witness::new();
        let running = ledger.golock().set("RECORD", "0").args(witness.gated("exit 0")).spawn();
        assert!(witness.notes().lines("began", 1)[0].contains(" none "));
        let facts = ledger.status();
        let ttl = if ledger.is_local() { &[][..] } else { &["ttl"] };
        assert_eq!((facts.head(), facts.fields()), (format!("{NAME} held"), [ttl, &["by"]].concat()));
        assert_eq!((facts.get("by"), ledger.record()), ("golock", String::new()));
        witness.open();
        running.wait().assert_silent(0);
        assert_eq!(ledger.status().line, format!("{NAME} free"));
    });
}
