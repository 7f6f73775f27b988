//! `MAX_AGE`: who skips a job that has not succeeded for too long exits 203, and one of the fleet says so, once an hour.

use std::fs;

use crate::support::forward::forward;
use crate::support::golock::Golock;
use crate::support::job_tools::Notes;
use crate::support::ledger::{Ledger, NAME, Witness, host, now};
use crate::support::scripted::{read_commands, send};
use crate::support::{Action, Direction, Fault, Proxy, Scripted, Server, abreast, each, until};

/// 3 days, 2 hours and a half.
const LONG: u64 = ((3 * 24 + 2) * 60 + 30) * 60_000;

const LATE: &str = "cronlock.late.{cronlock.job}";

/// The record of a run on web2 that goes on since a moment in November 2026, with these fields behind `start`.
fn running(rest: &str) -> String {
    format!("fence=7 host=web2 pid=4711 program=backup.sh start=1795672931000 {rest}")
}

/// The same of a job that has last succeeded so long ago, and of whose run before that is said.
fn overdue(last: &str) -> String {
    running(&format!("end= result= ok={} failed=1 first=1{last}", now() - LONG))
}

const HELD: &str = "held by web2, process 4711, since 2026-11-26T06:02:11Z";

/// A lock that is held by a run of which this is recorded.
struct Held {
    ledger: Ledger,
    witness: Witness,
    holder: Option<crate::support::Running>,
}

impl Held {
    #[track_caller]
    fn new(ledger: Ledger) -> Self {
        let witness = Witness::new();
        let holder = ledger.golock().set("RECORD", "0").args(witness.gated("exit 0")).spawn();
        witness.notes().lines("began", 1);
        Self { ledger, witness, holder: Some(holder) }
    }

    /// One of each.
    fn both() -> [Self; 2] {
        Ledger::both().map(Self::new)
    }

    /// Somebody who skips, and looks at the age of the last success.
    fn skipper(&self) -> Golock {
        self.ledger.golock().set("MAX_AGE", "26h").args(["/bin/sh", "-c", "exit 7"])
    }

    /// What RELEASE, or an hour, does to what has been told.
    fn forget_told(&self) {
        if self.ledger.is_local() {
            let file = self.ledger.locks().join(format!(".late.{NAME}"));
            let text = fs::read_to_string(&file).unwrap();
            let until: u64 = text.split_whitespace().last().unwrap().parse().unwrap();
            assert!((1..=3_600_000).contains(&(until - now())), "{text:?}");
            fs::write(file, text.replace(&until.to_string(), &(now() - 1).to_string())).unwrap();
        } else {
            let left = self.ledger.server().pttl(LATE);
            assert!((1..=3_600_000).contains(&left), "{left}");
            self.ledger.server().query::<()>(&["DEL", LATE]);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.witness.open();
        if let Some(holder) = self.holder.take() {
            holder.wait();
        }
    }
}

#[test]
fn the_line_is_told_to_the_letter() {
    for held in Held::both() {
        for (last, told) in [
            ("", ""),
            (" last=1@web3", " (last: exit 1 on web3)"),
            (" last=signal:9@web3", " (last: signal 9 on web3)"),
            (" last=timeout@web3", " (last: killed at TIMEOUT on web3)"),
            (" last=lost@web3", " (last: lock lost on web3)"),
            (" last=?@web3", " (last: no end was recorded on web3)"),
        ] {
            held.ledger.forge(overdue(last).as_bytes());
            let done = held.skipper().run();
            let line = format!("golock: sh has not succeeded for 3 d 2 h{told}; {HELD}\n");
            assert_eq!((done.code, &*done.stdout, &*done.stderr), (203, "", &*line), "{:?}", held.ledger);
            held.forget_told();
        }
        // Without a success it counts from the first record.
        let never = running(&format!("end= result= ok= failed=9 first={} last=1@web3", now() - LONG));
        held.ledger.forge(never.as_bytes());
        held.skipper()
            .run()
            .assert_one_line(203, &["golock: sh has not succeeded for 3 d 2 h (last: exit 1 on web3); "]);
    }
}

#[test]
fn one_of_the_fleet_tells_once_an_hour() {
    for held in Held::both() {
        held.ledger.forge(overdue(" last=1@web3").as_bytes());
        for _ in 0..2 {
            let hosts: Vec<_> = (0..10).map(|_| held.skipper().spawn()).collect();
            let ends: Vec<_> = hosts.into_iter().map(crate::support::Running::wait).collect();
            let told = ends.iter().filter(|done| !done.stderr.is_empty()).count();
            assert!(told == 1 && ends.iter().all(|done| done.code == 203), "{:?}: {ends:?}", held.ledger);
            held.skipper().run().assert_silent(203);
            held.forget_told();
        }
        if !held.ledger.is_local() {
            assert_eq!(held.ledger.server().locks(), [format!("0:{NAME}")]);
        }
    }
}

#[test]
fn where_it_cannot_be_noted_everybody_tells() {
    let held = Held::new(Ledger::local());
    held.ledger.forge(overdue("").as_bytes());
    fs::create_dir(held.ledger.locks().join(format!(".late.{NAME}"))).unwrap();
    for _ in 0..2 {
        held.skipper().run().assert_one_line(203, &["sh has not succeeded for 3 d 2 h; "]);
    }
}

#[test]
fn who_skips_a_job_that_is_in_order_or_of_which_nothing_is_known_exits_as_ever() {
    for held in Held::both() {
        let skips = |golock: Golock| golock.run().assert_silent(200);
        // Nothing is recorded.
        skips(held.skipper());
        // Also by a clock that is a little ahead of ours.
        for (ok, age) in [(now() - LONG, "3d3h"), (now() - 60_000, "26h"), (now() + 60_000, "26h"), (now() - LONG, "0")]
        {
            held.ledger.forge(running(&format!("end= result= ok={ok} failed=0 first=1")).as_bytes());
            skips(held.skipper().set("MAX_AGE", age));
        }
        held.ledger.forge(overdue("").as_bytes());
        skips(held.skipper().unset("MAX_AGE"));
        if held.ledger.is_local() {
            // It is in the file that is read anyway.
            continue;
        }
        skips(held.skipper().set("RECORD", "0"));
        assert_eq!(held.ledger.server().query::<usize>(&["EXISTS", LATE]), 0);
    }
}

/// The token tells that the run which is on record is not the one that has the lock.
#[test]
fn a_run_without_a_record_is_not_told_as_the_last_one_and_leaves_its_record() {
    each(&Ledger::both(), |ledger| {
        ledger.golock().args(["false"]).run().assert_silent(1);
        let (record, witness) = (ledger.record(), Witness::new());
        let holder = ledger.golock().set("RECORD", "0").args(witness.gated("exit 0")).spawn();
        assert!(witness.notes().lines("began", 1)[0].contains(" none "), "a fence without a record");
        assert!(ledger.status().line.starts_with(&format!("{NAME} held ")), "{:?}", ledger.status().line);
        let skipped = ledger.golock().set("VERBOSE", "yes").args(["true"]).run();
        assert!(skipped.code == 200 && skipped.stderr.contains("held by another"), "{skipped:?}");
        witness.open();
        holder.wait().assert_silent(0);
        assert_eq!(ledger.record(), record);
    });
}

#[test]
fn overdue_is_more_than_skipped() {
    for held in Held::both() {
        held.ledger.forge(overdue("").as_bytes());
        held.skipper().set("SKIP_EXIT", "0").run().assert_one_line(203, &["has not succeeded"]);
        held.skipper().set("WAIT", "1").run().assert_silent(203);
        let done = held.skipper().set("VERBOSE", "yes").run();
        assert!(done.code == 203 && done.stderr.contains(&format!(": {HELD} (")), "{done:?}");
        assert!(done.stderr.lines().all(|line| line.starts_with("golock: cronlock.job: ")), "{done:?}");
    }
}

#[test]
fn the_grace_of_a_run_that_has_failed_is_told_as_that() {
    for ledger in Ledger::both() {
        ledger.golock().set("GRACE", "1000").args(Notes::new().job("exit 4")).run().assert_silent(4);
        let aged =
            ledger.record().replace(&format!(" first={}", ledger.field("first")), &format!(" first={}", now() - LONG));
        ledger.forge(aged.as_bytes());
        let end = ledger.status().get("end").to_owned();
        let done = ledger.golock().set("MAX_AGE", "26h").args(["true"]).run();
        let (host, line) = (host(), "golock: true has not succeeded for 3 d 2 h (last: exit 4 on ");
        let told = format!("{line}{host}); held for the grace of the run on {host} that ended {end}\n");
        assert_eq!((done.code, &*done.stderr), (203, &*told));
    }
}

#[test]
fn a_failing_run_that_is_overdue_does_not_show_a_password_in_its_record() {
    // The server repeats it: it is the name of this host.
    let server = Server::start(&["--requirepass", &host()]);
    let golock = Golock::new(server.port()).set("AUTH", host()).set("KEY", "job").set("MAX_AGE", "1");
    let done = golock.args(Notes::new().job("sleep 2; exit 1")).run();
    assert_eq!(done.code, 1);
    let end = done.stderr.split_once("(last: exit 1 on ").map(|(_, end)| end);
    assert!(end.is_some_and(|end| end.starts_with("***") && !end.contains(&host())), "{done:?}");
}

#[test]
fn a_lock_that_is_not_golock_s_is_overdue_as_well() {
    let ledger = Ledger::redis();
    for (value, held) in [
        ("4000000000", "held by cronlock or golock (Go)"),
        ("\u{1b}[2J", "the key is not a lock, its value is \\x1b[2J; golock --reset deletes it"),
    ] {
        ledger.server().query::<()>(&["SET", NAME, value, "EX", "1000"]);
        ledger.forge(overdue(" last=1@web3").as_bytes());
        let done = ledger.golock().set("MAX_AGE", "26h").args(["true"]).run();
        let told = format!("golock: true has not succeeded for 3 d 2 h (last: exit 1 on web3); {held}\n");
        assert_eq!((done.code, &*done.stderr), (203, &*told));
        ledger.server().query::<()>(&["DEL", LATE]);
    }
}

#[test]
fn a_run_that_fails_while_its_job_is_overdue_says_so_and_keeps_its_code() {
    each(&Ledger::both(), |ledger| {
        let ends = [
            ("exit 3", 3, "", "exit 3"),
            ("kill -9 $$", 137, "", "signal 9"),
            ("exec sleep 1000", 202, "golock: killed sh after 1 s\n", "killed at TIMEOUT"),
        ];
        for (script, code, before, result) in ends {
            // As often as it fails: cron mails of it anyway.
            for _ in 0..2 {
                ledger.forge(ended_long_ago().as_bytes());
                let timeout = if code == 202 { "1" } else { "0" };
                let golock = ledger.golock().set("MAX_AGE", "26h").set("TIMEOUT", timeout);
                let done = golock.args(Notes::new().job(&format!("exec 2>/dev/null; {script}"))).run();
                let line = format!("{before}golock: sh has not succeeded for 3 d 2 h (last: {result} on {})\n", host());
                assert_eq!((done.code, &*done.stderr), (code, &*line));
            }
        }
        ledger.forge(ended_long_ago().as_bytes());
        ledger.golock().set("MAX_AGE", "26h").args(["true"]).run().assert_silent(0);
        ledger.golock().set("MAX_AGE", "26h").args(["false"]).run().assert_silent(1);
    });
}

/// The record of a job that succeeded, and then not for long.
fn ended_long_ago() -> String {
    let ok = now() - LONG;
    format!("fence=7 host=web2 pid=4711 program=backup.sh start={ok} end={ok} result=0 ok={ok} failed=0 first=1")
}

#[test]
fn a_first_run_that_fails_is_not_overdue_yet() {
    for ledger in Ledger::both() {
        ledger.golock().set("MAX_AGE", "26h").args(["false"]).run().assert_silent(1);
        let done = ledger.golock().set("MAX_AGE", "26h").set("RECORD", "0").args(["false"]).run();
        done.assert_silent(1);
    }
}

/// Redis's clock was, when it wrote that: else nobody would hear of the job until then.
#[test]
fn a_success_that_is_far_ahead_is_none() {
    for held in Held::both() {
        let first = now() - LONG;
        held.ledger.forge(running(&format!("end= result= ok={} failed=0 first={first}", now() + LONG)).as_bytes());
        held.skipper().run().assert_one_line(203, &["sh has not succeeded for 3 d 2 h"]);
    }
}

/// Nor is the first record: a run that begins dates both anew, or a job that fails would be in order until then.
#[test]
fn what_is_far_ahead_counts_from_the_next_run_on() {
    let ahead = now() + 400 * 86_400_000;
    for (ledger, ok) in Ledger::both().into_iter().zip([String::new(), ahead.to_string()]) {
        let before = format!("start={ahead} end={ahead} result=1 ok={ok} failed=0 first={ahead}");
        ledger.forge(format!("fence=7 host=web2 pid=4711 program=backup.sh {before}").as_bytes());
        ledger.golock().args(["false"]).run().assert_silent(1);
        assert!(ledger.number("first") <= now(), "{}", ledger.record());
        assert!(ledger.field("ok").is_empty() == ok.is_empty() && (ok.is_empty() || ledger.number("ok") <= now()));
        until("it is a second ago", || ledger.number("first") + 1001 < now());
        let done = ledger.golock().set("MAX_AGE", "1").args(["false"]).run();
        done.assert_one_line(1, &["false has not succeeded for "]);
    }
}

/// Only the confirmation tells that a lock with a number in the past, but with an end, is held.
#[test]
fn a_lock_that_only_looks_abandoned_is_overdue_as_well() {
    let ledger = Ledger::redis();
    ledger.forge(ended_long_ago().as_bytes());
    ledger.server().query::<()>(&["SET", NAME, "1500000000", "EX", "1000"]);
    let golock = ledger.golock().set("MAX_AGE", "26h").args(["true"]);
    golock.run().assert_one_line(203, &["true has not succeeded for 3 d 2 h"]);
}

/// The clock was, too, when that was noted.
#[test]
fn what_was_told_far_ahead_is_told_again() {
    let held = Held::new(Ledger::local());
    held.ledger.forge(overdue("").as_bytes());
    let until = now() + LONG;
    fs::write(held.ledger.locks().join(format!(".late.{NAME}")), format!("0 0  {until}\n\n")).unwrap();
    held.skipper().run().assert_one_line(203, &["sh has not succeeded for 3 d 2 h; "]);
    held.skipper().run().assert_silent(203);
}

/// The host of that run has a space in its name.
#[test]
fn hosts_are_told_without_their_encoding() {
    for held in Held::both() {
        held.ledger.forge(overdue(" last=1@web%203").as_bytes());
        held.skipper().run().assert_one_line(203, &[" (last: exit 1 on web 3); "]);
    }
}

#[test]
fn who_does_not_hear_whether_another_tells_does_so() {
    let held = Held::new(Ledger::redis());
    held.ledger.forge(overdue("").as_bytes());
    let server = held.ledger.server();
    // Behind the replies to SET and to both GETs.
    let (token, record) = ("$19\r\n1234567890123456789\r\n", held.ledger.record());
    let at = ["$-1\r\n", token, &format!("${}\r\n{record}\r\n", record.len())].concat().len();
    abreast(1, &[Action::Close, Action::Reset], |&action| {
        let proxy = Proxy::start(server.port()).fault(0, Fault { direction: Direction::Reply, at, action });
        let skipper = held.skipper().set("PORT", proxy.port().to_string());
        skipper.run().assert_one_line(203, &["has not succeeded"]);
        server.query::<()>(&["DEL", LATE]);
    });
}

/// What stands in the place of the record must not keep the job from running.
#[test]
fn a_record_that_is_too_long_for_a_reply_decides_nothing() {
    let ledger = Ledger::redis();
    let long = "x".repeat(70_000);
    for age in ["0", "1d"] {
        ledger.forge(long.as_bytes());
        let golock = ledger.golock().set("MAX_AGE", age).set("RECONNECT_ATTEMPTS", "1").set("RECONNECT_BACKOFF", "0");
        golock.args(["/bin/sh", "-c", "exit 7"]).run().assert_silent(7);
    }
}

#[test]
fn a_run_that_was_lost_to_another_does_not_tell_for_it() {
    each(&Ledger::both(), |ledger| {
        let witness = Witness::new();
        ledger.forge(ended_long_ago().as_bytes());
        let running = ledger.golock().set("MAX_AGE", "26h").args(witness.gated("exit 3")).spawn();
        witness.began();
        ledger.golock().args(["--reset"]).run().assert_silent(200);
        ledger.golock().args(["true"]).run().assert_silent(0);
        witness.open();
        running.wait().assert_one_line(3, &[NAME, "lost"]);
    });
}

/// That is seen on another connection than the one on which the record was asked for.
#[test]
fn trouble_that_passes_does_not_hide_that_a_job_is_overdue() {
    let held = Held::new(Ledger::redis());
    held.ledger.forge(overdue("").as_bytes());
    let port = held.ledger.server().port();
    let moved = format!("MOVED 1 127.0.0.1:{port}");
    abreast(1, &["LOADING Redis is loading the dataset in memory", &moved], |error| {
        let reply = format!("-{error}\r\n");
        let line = Scripted::start(move |index, client| {
            if index > 0 {
                return forward(client, port);
            }
            for _ in read_commands(client, 1) {
                send(client, &reply);
            }
        });
        let skipper = held.skipper().set("PORT", line.port().to_string()).set("RECONNECT_BACKOFF", "0");
        skipper.run().assert_one_line(203, &["has not succeeded"]);
        held.ledger.server().query::<()>(&["DEL", LATE]);
    });
}
