//! WAIT: a golock that finds the lock held asks again, not too often, until it is free or its time is over.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::Signal;

use crate::support::job_tools::{EVER, Notes, graceless, pristine};
use crate::support::successor::{SUCCESSOR, take_over};
use crate::support::tenant::{NAME, STEADY, Tenant, job, leasing};
use crate::support::wait::holds_within;
use crate::support::watch::children;
use crate::support::{Golock, STALE, Server, each, until};

/// golock that waits so long for the lock that the tenants have.
fn waiting(server: &Server, seconds: &str) -> Golock {
    graceless(server.port()).set("KEY", "leased").set("WAIT", seconds)
}

/// How often a lock was asked for.
fn asked(server: &Server) -> u64 {
    server.command_count("set")
}

#[test]
fn the_lock_is_taken_when_it_is_released() {
    each(&["0", "60"], |lease| {
        let server = Server::start(&[]);
        let first = Tenant::start(&leasing(server.port(), lease), STEADY);
        let notes = Notes::new();
        let second = waiting(&server, EVER).set("LEASE", lease).args(job(&notes, STEADY)).spawn();
        until("it has asked twice", || asked(&server) > 2);
        assert!(!notes.path("pid").exists());
        first.finish();
        notes.pid("pid");
        notes.write("open", "");
        second.wait().assert_silent(7);
        assert_eq!(server.locks(), [""; 0]);
    });
}

#[test]
fn a_lock_that_expires_is_taken_too() {
    let server = Server::start(&[]);
    server.query::<()>(&["SET", NAME, SUCCESSOR, "PX", "1500"]);
    waiting(&server, EVER).args(["sh", "-c", "exit 7"]).run().assert_silent(7);
    assert_eq!(server.locks(), [""; 0]);
}

#[test]
fn without_a_wait_the_lock_is_asked_for_once() {
    each(&[("0", "200"), ("", "17")], |&(wait, code)| {
        let server = Server::start(&[]);
        take_over(&server, NAME);
        let before = asked(&server);
        waiting(&server, wait).set("SKIP_EXIT", code).args(["true"]).run().assert_silent(code.parse().unwrap());
        assert_eq!(asked(&server) - before, 1);
    });
}

#[test]
fn a_wait_ends_in_time_with_the_code_for_skipping() {
    each(&[("200", "2"), ("0", "2"), ("17", "3")], |&(code, wait)| {
        let server = Server::start(&[]);
        take_over(&server, NAME);
        let before = asked(&server);
        let notes = Notes::new();
        let golock = waiting(&server, wait).set("SKIP_EXIT", code).args(job(&notes, STEADY));
        golock.run().assert_silent(code.parse().unwrap());
        assert!(asked(&server) - before > 1);
        assert!(!notes.path("pid").exists());
        assert_eq!(server.get(NAME).as_deref(), Some(SUCCESSOR));
    });
}

#[test]
fn a_waiter_asks_about_once_a_second_on_one_connection() {
    const SPAN: Duration = Duration::from_secs(4);
    let server = Server::start(&[]);
    take_over(&server, NAME);
    let before = asked(&server);
    let waiter = waiting(&server, EVER).args(["true"]).spawn();
    until("it has come to its longest pause", || asked(&server) - before >= 6);
    let before = asked(&server);
    holds_within(SPAN, || false);
    // Up to a fifth of the second between two questions is left out at random; a slow machine makes it longer.
    let count = asked(&server) - before;
    assert!((1..=SPAN.as_secs() * 5 / 4 + 1).contains(&count), "{count} times in {SPAN:?}");
    assert_eq!(server.connections_received(), 1);
    waiter.signal(Signal::TERM);
    waiter.wait().assert_silent(143);
}

#[test]
fn a_signal_ends_the_wait_at_once() {
    each(&[Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM, Signal::USR1, Signal::USR2], |&signal| {
        let server = Server::start(&[]);
        take_over(&server, NAME);
        let before = asked(&server);
        let waiter = waiting(&server, EVER).prelude(&pristine()).args(["true"]).spawn();
        until("it has asked twice", || asked(&server) - before > 1);
        waiter.signal(signal);
        waiter.wait().assert_silent(128 + signal.as_raw());
        assert_eq!(server.get(NAME).as_deref(), Some(SUCCESSOR));
    });
}

#[test]
fn waiters_run_one_after_the_other() {
    let server = Server::start(&[]);
    let first = Tenant::start(&leasing(server.port(), "60"), STEADY);
    let notes = Notes::new();
    // A folder is made by one process only: whoever finds it there overlaps.
    let script =
        r#"mkdir "$0/inside" || echo overlap >>"$0/overlap"; sleep 0.1; rmdir "$0/inside"; echo >>"$0/ran"; exit 7"#;
    let waiters: Vec<_> = (0..5).map(|_| waiting(&server, EVER).args(notes.job(script)).spawn()).collect();
    until("all of them wait", || asked(&server) > 10);
    first.finish();
    for waiter in waiters {
        waiter.wait().assert_silent(7);
    }
    assert_eq!((notes.lines("ran", 5).len(), notes.read("overlap")), (5, String::new()));
}

#[test]
fn a_predecessors_lock_is_taken_over_as_soon_as_its_time_has_passed() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    each(&[STALE.to_owned(), (now + 2).to_string()], |value| {
        let server = Server::start(&[]);
        server.set(NAME, value);
        waiting(&server, EVER).set("LEASE", "60").args(["sh", "-c", "exit 7"]).run().assert_silent(7);
        assert_eq!(server.locks(), [""; 0]);
    });
}

#[test]
fn the_time_of_a_lock_counts_from_when_it_is_taken() {
    let server = Server::start(&[]);
    let before = asked(&server);
    // The other keeps it for as long as the waiter, once it has it, may keep it at most.
    server.query::<()>(&["SET", NAME, SUCCESSOR, "PX", "3000"]);
    let notes = Notes::new();
    let golock = waiting(&server, EVER).set("LEASE", "3").set("RELEASE", "3").set("GRACE", "3");
    let running = golock.args(job(&notes, STEADY)).spawn();
    until("it waits", || asked(&server) - before > 1);
    let pid = notes.pid("pid");
    assert_eq!(children(running.pid()), [pid]);
    let renewals = server.command_count("eval");
    until("the lease is renewed", || server.command_count("eval") > renewals);
    notes.write("open", "");
    running.wait().assert_silent(7);
    assert!(server.pttl(NAME) > 0, "the grace is over");
}

#[test]
fn a_signal_that_ends_the_wait_for_an_answer_gives_back_what_it_may_have_got() {
    let server = Server::start(&[]);
    server.set(NAME, SUCCESSOR);
    let before = asked(&server);
    let waiter = waiting(&server, EVER).args(["true"]).spawn();
    until("it waits", || asked(&server) - before > 1);
    server.query::<()>(&["PEXPIRE", NAME, "1000"]);
    server.stop();
    // Its next question is under way by then, and the answer will be that it has the lock.
    holds_within(Duration::from_millis(1500), || false);
    waiter.signal(Signal::TERM);
    server.cont();
    assert_eq!(waiter.wait().code, 143);
    until("the lock is gone", || server.get(NAME).is_none());
}
