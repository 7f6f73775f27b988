//! What stays of a local lock, and when it goes: its file is deleted once neither its grace nor its record is needed.

use std::fs;
use std::os::unix::fs::symlink;

use rustix::process::Signal;

use crate::support::ledger::{Ledger, NAME, Witness, now};
use crate::support::until;

#[test]
fn a_file_that_nothing_needs_any_more_goes_with_its_run() {
    let ledger = Ledger::local();
    let run = |grace: &str, record: &str| {
        ledger.golock().set("GRACE", grace).set("RECORD", record).args(["true"]).run().assert_silent(0);
        ledger.files()
    };
    assert_eq!(run("0", "0"), [""; 0]);
    assert_eq!(run("1000", "0"), [NAME]);
    let ledger = Ledger::local();
    let run = |record: &str| {
        ledger.golock().set("RECORD", record).args(["true"]).run().assert_silent(0);
        ledger.record()
    };
    let record = run("1");
    // A run that records nothing leaves what is on record, as long as that is kept.
    assert_eq!((run("0"), ledger.files()), (record, vec![NAME.to_owned()]));
    until("RECORD is over", || run("0").is_empty());
    assert_eq!(ledger.files(), [""; 0]);
}

#[test]
fn a_list_deletes_what_is_past_and_nothing_else() {
    let ledger = Ledger::local();
    let golock = |key: &str, grace: &str, record: &str| {
        ledger.anonymous().set("KEY", key).set("GRACE", grace).set("RECORD", record)
    };
    let witness = Witness::new();
    let held = golock("held", "0", "1").args(witness.gated("exit 0")).spawn();
    witness.began();
    for (key, grace, record) in [("recorded", "0", "1h"), ("graced", "1h", "1"), ("past", "0", "1"), ("over", "1", "0")]
    {
        golock(key, grace, record).args(["true"]).run().assert_silent(0);
    }
    for (name, text) in [("foreign", "not a lock\n"), ("cronlock.foreign", "{}"), (".hidden", "x")] {
        fs::write(ledger.locks().join(name), text).unwrap();
    }
    fs::create_dir(ledger.locks().join("folder")).unwrap();
    symlink("/does/not/exist", ledger.locks().join("link")).unwrap();
    let list = || ledger.golock().args(["--list"]).run().stdout;
    until("what is past is gone", || {
        list();
        !["past", "over"].iter().any(|key| ledger.files().contains(&format!("cronlock.{key}")))
    });
    let left = [
        ".hidden",
        "cronlock.foreign",
        "cronlock.graced",
        "cronlock.held",
        "cronlock.recorded",
        "folder",
        "foreign",
        "link",
    ];
    assert_eq!(ledger.files(), left);
    // The record of a lock in its grace is kept as long as the grace.
    let listed = list();
    assert!(["graced", "held", "recorded"].iter().all(|key| listed.contains(&format!("cronlock.{key}\n"))), "{listed}");
    assert_eq!(listed.lines().count(), 4);
    witness.open();
    held.wait().assert_silent(0);
}

#[test]
fn runs_delete_at_times_what_is_past() {
    let ledger = Ledger::local();
    let past = ["a", "b", "c"].map(|key| format!("cronlock.{key}"));
    for name in &past {
        let key = name.strip_prefix("cronlock.").unwrap();
        ledger.anonymous().set("KEY", key).set("RECORD", "1").args(["true"]).run().assert_silent(0);
    }
    // Also that of a job whose host has died.
    fs::write(ledger.locks().join("cronlock.died"), "1000 1000 1234567890123456789 1000\n").unwrap();
    until("the files of other jobs are gone", || {
        ledger.golock().set("RECORD", "1h").args(["true"]).run().assert_silent(0);
        ledger.files() == [NAME]
    });
}

/// A golock that is killed cannot write until when the record is kept: it has done so when the run began.
#[test]
fn the_record_of_a_run_without_an_end_is_kept_for_release() {
    let (ledger, witness) = (Ledger::local(), Witness::new());
    let golock = ledger.golock().set("RECORD", "1").args(witness.gated("exit 0")).spawn();
    let began = witness.began()[3];
    golock.signal(Signal::KILL);
    golock.wait();
    witness.open();
    until("the job has ended", || ledger.status().code == 0);
    until("RECORD is over", || now() > began + 1000);
    assert_eq!(ledger.golock().args(["--list"]).run().stdout.lines().count(), 2);
    assert_eq!(ledger.status().get("result"), "unrecorded");
}

#[test]
fn what_is_told_once_an_hour_is_forgotten_after_it() {
    let ledger = Ledger::local();
    fs::create_dir_all(ledger.locks()).unwrap();
    fs::write(ledger.locks().join(".late.cronlock.a"), "0 0 1234567890123456789 1000\n\n").unwrap();
    fs::write(ledger.locks().join(".late.cronlock.b"), "0 0 1234567890123456789 9999999999999\n\n").unwrap();
    ledger.golock().args(["--list"]).run();
    assert_eq!(ledger.files(), [".late.cronlock.b"]);
}

#[test]
fn a_run_sweeps_from_any_file_on() {
    let ledger = Ledger::local();
    ledger.golock().args(["true"]).run().assert_silent(0);
    for number in 0..310 {
        let until = if number < 300 { "9999999999999" } else { "1000" };
        let text = format!("0 0 1234567890123456789 {until}\n\n");
        fs::write(ledger.locks().join(format!("cronlock.{number}")), text).unwrap();
    }
    until("what is past is gone", || {
        ledger.golock().args(["true"]).run().assert_silent(0);
        ledger.files().len() == 301
    });
}
