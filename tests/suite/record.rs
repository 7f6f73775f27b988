//! The record decides nothing, and fails nothing: whatever stands in it, is missing, or cannot be written, the lock is what
//! it was. What is hostile in it is shown escaped, and never believed.

use crate::support::job_tools::Notes;
use crate::support::ledger::{Facts, Ledger, NAME, RECORD, Witness, now};
use crate::support::{Done, Golock, Job, Server, until};

/// What is no record, of which the last ones are nearly one.
fn garbage() -> Vec<Vec<u8>> {
    let good = "fence=7 host=web1 pid=4711 program=job start=1 end=2 result=0 ok=2 failed=0 first=1";
    let mut lines: Vec<Vec<u8>> = [
        "x",
        " ",
        "no record\u{1b}[2J\u{7}",
        "\u{202e}dlrow",
        "fence=1",
        "fence=1 host=",
        "1 2 3",
        "%s%n%x",
        "return redis.call('FLUSHALL')",
    ]
    .iter()
    .map(|line| (*line).into())
    .collect();
    lines.push(b"\0\xff\xfe\x80".to_vec());
    lines.push(vec![b'='; 3000]);
    lines.push(good.replace("web1", &"w".repeat(1000)).into());
    let spoilt = [
        ("fence=7", "fence=-7"),
        ("fence=7", "fence=99999999999999999999"),
        ("fence=7", "fence=9000000000000000001"),
        ("fence=7", "fence="),
        ("start=1", "start=0x1"),
        ("end=2", "end=two"),
        ("ok=2", "ok=99999999999999999999"),
        ("failed=0", "failed=1e3"),
        ("failed=0", "failed=nan"),
        ("first=1", "first=99999999999999999999"),
        (" pid=4711", ""),
        ("host=web1 pid=4711", "pid=4711 host=web1"),
    ];
    lines.extend(spoilt.map(|(from, to)| good.replace(from, to).into()));
    lines
}

/// Asserts that the record is that of the first run, whose fence is not less than Redis's clock was.
#[track_caller]
fn assert_begun_anew(ledger: &Ledger, result: &str, since: u64) {
    let record = ledger.record();
    assert!(ledger.number("fence") >= since * 1000 && ledger.number("start") >= since, "{record}");
    assert!(ledger.number("first") >= since && !record.contains("last="), "{record}");
    assert_eq!((ledger.field("result"), ledger.number("fence") / 1000 <= now()), (result.to_owned(), true), "{record}");
}

#[test]
fn what_is_no_record_is_not_shown_and_the_next_run_begins_a_new_one() {
    for ledger in Ledger::both() {
        for line in garbage() {
            let (text, since) = (String::from_utf8_lossy(&line).into_owned(), now());
            ledger.forge(&line);
            let facts = ledger.status();
            assert_eq!((facts.code, &*facts.line), (0, &*format!("{NAME} free")), "{text:?}");
            // Neither is it a reason to skip, nor to be overdue.
            let golock = ledger.golock().set("MAX_AGE", "1");
            golock.args(Notes::new().job("exit 7")).run().assert_silent(7);
            assert_begun_anew(&ledger, "7", since);
        }
    }
}

#[test]
fn what_is_put_in_the_place_of_a_record_is_left_there_when_the_job_ends() {
    let ledger = Ledger::redis();
    // Also what is longer than any reply that golock takes.
    for line in garbage().into_iter().chain([vec![b'x'; 70_000]]) {
        let witness = Witness::new();
        let golock = ledger.golock().set("VERBOSE", "yes").args(witness.gated("exit 3")).spawn();
        witness.began();
        ledger.forge(&line);
        witness.open();
        let done = golock.wait();
        let is_told = done.stderr.contains("the end of this run is not recorded: ");
        assert!(done.code == 3 && is_told && done.stderr.contains(": released the lock"), "{done:?}");
        assert!(done.stderr.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\n')), "{done:?}");
        let left: Vec<u8> = ledger.server().query(&["GET", RECORD]);
        assert_eq!((left == line, ledger.server().get(NAME)), (true, None), "{:?}", String::from_utf8_lossy(&line));
    }
}

#[test]
fn a_record_that_is_deleted_while_the_job_runs_is_missed_under_verbose_alone() {
    let ledger = Ledger::redis();
    for verbose in ["no", "yes"] {
        let witness = Witness::new();
        let golock = ledger.golock().set("VERBOSE", verbose).args(witness.gated("exit 3")).spawn();
        witness.began();
        ledger.server().query::<()>(&["DEL", RECORD]);
        assert_eq!(ledger.status().fields(), ["ttl", "by"]);
        witness.open();
        let done = golock.wait();
        let told = done.stderr.matches(": the end of this run is not recorded: ").count();
        assert_eq!((done.code, told), (3, usize::from(verbose == "yes")), "{done:?}");
        assert!(verbose == "yes" || done.stderr.is_empty(), "{done:?}");
        assert_eq!(ledger.status().line, format!("{NAME} free"));
    }
}

#[test]
fn a_redis_that_is_flushed_while_the_job_runs_has_lost_lock_and_record() {
    let (ledger, witness) = (Ledger::redis(), Witness::new());
    let golock = ledger.golock().args(witness.gated("exit 3")).spawn();
    let fence = witness.began()[2];
    let first = ledger.number("first");
    ledger.server().query::<()>(&["FLUSHALL"]);
    assert_eq!(ledger.status().line, format!("{NAME} free"));
    witness.open();
    golock.wait().assert_one_line(3, &[NAME, "was lost before it was released"]);
    assert_eq!(ledger.server().keys(), [""; 0]);
    let next = Witness::new();
    ledger.golock().args(next.job("exit 0")).run().assert_silent(0);
    assert!(next.began()[2] > fence && ledger.number("first") > first, "{}", ledger.record());
}

#[test]
fn with_a_lease_a_flushed_redis_gets_the_lock_back_but_not_the_record() {
    let (ledger, witness) = (Ledger::redis(), Witness::new());
    let golock = ledger.golock().set("LEASE", "3").args(witness.gated("exit 3")).spawn();
    witness.began();
    ledger.server().query::<()>(&["FLUSHALL"]);
    until("the lock is set again", || ledger.server().get(NAME).is_some());
    assert_eq!((ledger.status().get("by").to_owned(), ledger.record()), ("golock".to_owned(), String::new()));
    witness.open();
    golock.wait().assert_silent(3);
    assert_eq!(ledger.server().keys(), [""; 0]);
}

#[test]
fn a_local_record_that_is_spoilt_while_the_job_runs_is_written_whole() {
    let (ledger, witness) = (Ledger::local(), Witness::new());
    let golock = ledger.golock().args(witness.gated("exit 3")).spawn();
    let fence = witness.began()[2];
    ledger.forge(b"no record\x1b[2J");
    assert_eq!(ledger.status().line, format!("{NAME} held by=golock"));
    witness.open();
    golock.wait().assert_silent(3);
    assert_eq!((ledger.number("fence"), ledger.field("result")), (fence, "3".to_owned()));
}

/// Keys that hold no text, where a record should be.
#[test]
fn a_key_of_another_type_is_no_record() {
    let ledger = Ledger::redis();
    for words in [&["LPUSH", RECORD, "x"][..], &["HSET", RECORD, "fence", "1"], &["SADD", RECORD, "x"]] {
        ledger.server().query::<()>(&["DEL", RECORD]);
        ledger.server().query::<()>(words);
        assert_eq!(ledger.status().line, format!("{NAME} free"));
        assert_eq!(ledger.golock().args(["--list"]).run().code, 0);
        let witness = Witness::new();
        let done = ledger.golock().set("VERBOSE", "yes").args(witness.gated("exit 3")).spawn();
        assert!(witness.notes().lines("began", 1)[0].contains(" none "), "a fence that nothing proves");
        let skipped = ledger.golock().set("MAX_AGE", "1").args(["false"]).run();
        skipped.assert_silent(200);
        witness.open();
        let done = done.wait();
        let told = done.stderr.matches(": nothing is recorded of this run: WRONGTYPE ").count();
        assert!(done.code == 3 && told == 1 && done.stderr.contains(": released the lock"), "{done:?}");
        assert_eq!(ledger.server().query::<usize>(&["EXISTS", RECORD]), 1);
    }
}

/// What is a record to the letter, and a lie.
const LIES: [&str; 6] = [
    "fence=1 host=\u{1b}[2J\u{7}\u{202e} pid=$(reboot) program=\u{9b}31m start=1 end= result=\u{1b}]0;x\u{7} ok= failed=9 first=1",
    "fence=1 host=%1B%5B2J%0A%0Agolock:%20all%20is%20well pid=%00 program=%0D%22%5C start=1 end=5 result=%0A ok=1 failed=1 first=1",
    "fence=1 host= pid= program= start=9223372036854775807 end=9223372036854775807 result= ok=9223372036854775807 failed=9223372036854775807 first=9223372036854775807",
    "fence=1 host=a pid=1 program=b start=9999999999999 end=1 result=0 ok=0 failed=0 first=0",
    "fence=1 host=a pid=1 program=b start=1 end= result=0 ok=0 failed=0 first=0 last=\u{1b}[2J@\u{1b}[3J",
    "fence=1 host=a pid=1 program=b start=1 end=1 result=signal:99999999999999999999 ok= failed=1 first=0 last=@ last=x@y more=\u{7}",
];

#[test]
fn what_lies_is_shown_escaped_and_decides_nothing() {
    for ledger in Ledger::both() {
        for lie in LIES {
            ledger.forge(lie.as_bytes());
            // It says that a run is under way, or has been: nobody holds the lock all the same.
            assert_eq!(ledger.status().head(), format!("{NAME} free"), "{lie:?}");
            let clean = |done: &Done, codes: &[i32]| {
                let text = format!("{}{}", done.stdout, done.stderr);
                let is_plain = text.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\n'));
                assert!(codes.contains(&done.code) && is_plain, "{lie:?}: {done:?}");
                done.stdout.lines().filter(|line| !line.starts_with('#')).count()
            };
            assert_eq!(clean(&ledger.golock().args(["--list", "--max-age", "1"]).run(), &[0]), 2, "{lie:?}");
            assert!(clean(&ledger.golock().args(["--metrics"]).run(), &[0]) <= 7, "{lie:?}");

            let holder = Witness::new();
            let running = ledger.golock().set("RECORD", "0").args(holder.gated("exit 0")).spawn();
            holder.notes().lines("began", 1);
            ledger.forge(lie.as_bytes());
            for age in ["0", "1"] {
                let skipped = ledger.golock().set("MAX_AGE", age).set("VERBOSE", "yes").args(["false"]).run();
                clean(&skipped, &[200, 203]);
                assert!(skipped.stderr.lines().all(|line| line.starts_with("golock: ")), "{lie:?}: {skipped:?}");
            }
            holder.open();
            running.wait();

            let (since, next) = (now(), Witness::new());
            ledger.forge(lie.as_bytes());
            ledger.golock().set("MAX_AGE", "100d").args(next.job("exit 0")).run().assert_silent(0);
            assert!(next.began()[2] >= since * 1000, "{lie:?}: {}", ledger.record());
        }
    }
}

#[test]
fn a_fence_in_the_record_that_is_not_from_a_clock_of_today_is_kept_or_given_up() {
    for ledger in Ledger::both() {
        let run = |fence: &str| {
            let witness = Witness::new();
            let line = format!("fence={fence} host=a pid=1 program=b start=1 end=2 result=0 ok=2 failed=0 first=1");
            ledger.forge(line.as_bytes());
            ledger.golock().args(witness.job("exit 0")).run().assert_silent(0);
            witness.began()[2]
        };
        // A clock that was set back, by days or by decades.
        let ahead = (now() + 86_400_000) * 1000;
        assert_eq!(run(&ahead.to_string()), ahead + 1);
        assert_eq!(run("5000000000000123"), 5_000_000_000_000_124);
        // More than a number of Lua's holds to the letter, or an SQL bigint.
        for forged in ["9007199254740993", "9223372036854775807", "18446744073709551615"] {
            let since = now();
            let fence = run(forged);
            assert!((since * 1000..=(now() + 1) * 1000).contains(&fence), "{forged}: {fence}");
        }
    }
}

#[test]
fn without_permission_for_time_nothing_is_recorded_and_all_else_is_as_ever() {
    let server = Server::start(&["--user", "plain", "on", ">secret", "~*", "+@all", "-time"]);
    let golock = Golock::new(server.port()).set("USER", "plain").set("AUTH", "secret").set("KEY", "job");
    let witness = Witness::new();
    let running = golock.clone().set("GRACE", "0").set("VERBOSE", "yes").args(witness.gated("exit 3")).spawn();
    assert!(witness.notes().lines("began", 1)[0].contains(" none "));
    let facts = Facts::of(&golock);
    assert_eq!((facts.head(), facts.get("by")), (format!("{NAME} held"), "golock"));
    golock.clone().set("MAX_AGE", "1").args(["false"]).run().assert_silent(200);
    witness.open();
    let done = running.wait();
    assert_eq!((done.code, done.stderr.matches("recorded").count()), (3, 1), "{done:?}");
    assert_eq!(server.keys(), [""; 0]);

    // What others have recorded is shown, but not for how long a run has been going on.
    let (admin, other) = (Golock::new(server.port()).set("KEY", "job").set("GRACE", "0"), Witness::new());
    let running = admin.args(other.gated("exit 0")).spawn();
    other.began();
    let facts = Facts::of(&golock);
    assert_eq!(facts.fields(), ["ttl", "host", "pid", "program", "start", "failed", "fence"]);
    other.open();
    running.wait().assert_silent(0);
    let facts = Facts::of(&golock);
    assert_eq!(facts.fields(), ["host", "pid", "program", "start", "end", "took", "result", "ok", "failed", "fence"]);
    let list = golock.args(["--list"]).run();
    assert!(list.code == 0 && list.stdout.lines().nth(1).unwrap().contains(" success "), "{list:?}");
}

#[test]
fn a_full_redis_lets_go_of_the_lock_and_takes_the_end_if_that_made_room() {
    for is_lost in [false, true] {
        let (ledger, witness) = (Ledger::redis(), Witness::new());
        let golock = ledger.golock().set("VERBOSE", "yes").args(witness.gated("exit 3")).spawn();
        witness.began();
        ledger.server().query::<()>(&["CONFIG", "SET", "maxmemory", "1"]);
        if is_lost {
            ledger.expire();
        }
        witness.open();
        let done = golock.wait();
        // Redis refuses only the first write of a script.
        let told = done.stderr.matches(": the end of this run is not recorded: ").count();
        let (end, result) = if is_lost { (1, "unrecorded") } else { (0, "3") };
        assert!(done.code == 3 && told == end, "{done:?}");
        assert_eq!((ledger.server().get(NAME), ledger.status().get("result")), (None, result));
    }
}

/// A run that another has begun since counts as served only by what Redis's own clock says, and never in the future.
#[test]
fn a_record_from_the_future_does_not_serve() {
    for ledger in Ledger::both() {
        for (ahead, job) in [(3_600_000, Job::exits(7)), (1_000_000_000_000, Job::exits(7))] {
            let start = now() + ahead;
            let line = format!(
                "fence=1 host=a pid=1 program=b start={start} end={start} result=0 ok={start} failed=0 first=1"
            );
            ledger.forge(line.as_bytes());
            ledger.golock().args(job.command()).run().assert_silent(7);
            assert_eq!(job.runs(), 1);
        }
    }
}
