//! A lease that is lost: the job is told to end, and gone before another host can have the lock.

use std::fs::File;
use std::io::{Read, Write};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags, open};
use rustix::process::Signal;

use crate::support::job_tools::{EVER, Notes, WHILE_NOTED, quoted};
use crate::support::successor::{assert_untouched, take_over};
use crate::support::tenant::{NAME, OBEDIENT, STEADY, STUBBORN, Tenant, leasing};
use crate::support::watch::is_alive;
use crate::support::{Action, Direction, Fault, Golock, Proxy, Server, each, until};

#[test]
fn redis_frozen_for_longer_than_the_lease_ends_the_job_before_it() {
    each(&[OBEDIENT, STUBBORN], |character| {
        let server = Server::start(&[]);
        let tenant = Tenant::start(&leasing(server.port(), "6"), character);
        server.stop();
        let frozen = Instant::now();
        // It was renewed before the freeze at the latest, so it ends no later than this.
        until("the lease ends", || frozen.elapsed() > Duration::from_secs(6));
        assert!(!tenant.lives(), "the job has outlived its lease");
        assert!(tenant.is_told());
        server.cont();
        tenant.golock.wait().assert_one_line(201, &[NAME, &format!("127.0.0.1:{}", server.port())]);
        // Renewals that were under way may hold it for one more lease, but not for longer.
        until("the lock is gone", || server.get(NAME).is_none());
    });
}

#[test]
fn a_redis_that_is_dead_for_longer_than_the_lease_ends_the_job() {
    let server = Server::start(&[]);
    let tenant = Tenant::start(&leasing(server.port(), "3"), STEADY);
    server.kill();
    let job = tenant.job;
    tenant.golock.wait().assert_one_line(201, &[NAME, "refused"]);
    assert!(!is_alive(job));
}

/// A job whose lock has gone to another, and which has been told to end.
fn evicted(server: &Server, golock: &Golock, character: &str) -> Tenant {
    let tenant = Tenant::start(golock, character);
    take_over(server, NAME);
    until("the job is told to end", || tenant.is_told());
    tenant
}

#[test]
fn a_job_that_does_not_end_is_killed_after_kill_after() {
    let attempt = || {
        let (usual, short) = (Server::start(&[]), Server::start(&[]));
        let mut usual = (evicted(&usual, &leasing(usual.port(), "3"), STUBBORN), usual);
        let golock = leasing(short.port(), "3").set("KILL_AFTER", "1");
        let mut short = (evicted(&short, &golock, STUBBORN), short);
        // One second instead of the five that the other has, which was told earlier.
        until("the first is killed", || short.0.golock.has_ended() || usual.0.golock.has_ended());
        let is_first = short.0.golock.has_ended();
        for (tenant, server) in [short, usual] {
            tenant.golock.wait().assert_one_line(201, &[NAME, "lost"]);
            assert!(!is_alive(tenant.job));
            assert_untouched(&server, NAME);
        }
        is_first
    };
    // A slow machine may take four seconds to tell the second.
    assert!((0..5).any(|_| attempt()));
}

/// A job that is evicted.
#[derive(Debug)]
struct Eviction {
    character: &'static str,
    setting: (&'static str, &'static str),
}

#[test]
fn a_lock_that_another_has_taken_ends_the_job_and_is_left_alone() {
    let evictions = [
        Eviction { character: OBEDIENT, setting: ("GRACE", "0") },
        Eviction { character: OBEDIENT, setting: ("GRACE", "40") },
        Eviction { character: STUBBORN, setting: ("GRACE", "0") },
        Eviction { character: STUBBORN, setting: ("TIMEOUT", "5") },
    ];
    each(&evictions, |&Eviction { character, setting: (name, value) }| {
        let server = Server::start(&[]);
        let golock = leasing(server.port(), "3").set("KILL_AFTER", EVER).set(name, value);
        let tenant = evicted(&server, &golock, character);
        // A job that has not obeyed may still end by itself. Its code does not count: it was stopped.
        tenant.notes.write("open", "");
        tenant.golock.wait().assert_one_line(201, &[NAME, "lost"]);
        assert!(!is_alive(tenant.job));
        assert_untouched(&server, NAME);
    });
}

#[test]
fn a_job_whose_lock_is_anothers_is_told_once_and_gone_soon_whatever_is_set() {
    // The other's job is already running, so neither a long KILL_AFTER nor a TIMEOUT in between counts.
    each(&["0", "4"], |timeout| {
        let server = Server::start(&[]);
        let golock = leasing(server.port(), "3").set("KILL_AFTER", EVER).set("TIMEOUT", timeout);
        let tenant = evicted(&server, &golock, STUBBORN);
        tenant.golock.wait().assert_one_line(201, &[NAME, "lost"]);
        assert!(!is_alive(tenant.job));
        assert_eq!(tenant.notes.read("log"), "TERM\n");
        assert_untouched(&server, NAME);
    });
}

#[test]
fn what_the_job_leaves_behind_is_told_once_that_the_lock_is_lost() {
    let server = Server::start(&[]);
    let traps = r#"trap "" USR1; trap "echo TERM >>\"$0/log\"" TERM"#;
    let child = format!(r#"sh -c '{traps}; echo $$ >"$0/child"; {WHILE_NOTED}' "$0" &"#);
    let mut tenant = Tenant::start(&leasing(server.port(), "3"), &child);
    let child = tenant.notes.pid("child");
    take_over(&server, NAME);
    until("the first process has died", || !tenant.lives());
    // Whenever golock wakes up, it does not look at the lock again.
    until("the rest is killed", || {
        tenant.golock.has_ended() || {
            tenant.golock.signal(Signal::USR1);
            false
        }
    });
    tenant.golock.wait().assert_one_line(201, &[NAME, "lost"]);
    assert!(!is_alive(child));
    assert_eq!(tenant.notes.read("log"), "TERM\n");
    assert_untouched(&server, NAME);
}

#[test]
fn golock_that_was_stopped_past_its_lease_ends_the_job_and_says_why() {
    let server = Server::start(&[]);
    let tenant = Tenant::start(&leasing(server.port(), "3"), STUBBORN);
    tenant.golock.signal(Signal::STOP);
    until("the lock is gone", || server.get(NAME).is_none());
    tenant.golock.signal(Signal::CONT);
    let (job, done) = (tenant.job, tenant.golock.wait());
    done.assert_one_line(201, &[NAME]);
    assert!(!done.stderr.contains("RELEASE"), "RELEASE is a day: {done:?}");
    assert!(!is_alive(job));
}

#[test]
fn a_failure_that_was_mended_is_not_why_a_lock_is_lost() {
    let server = Server::start(&[]);
    let broken = Fault { direction: Direction::Reply, at: 0, action: Action::Close };
    let proxy = Proxy::start(server.port()).fault(1, broken);
    let tenant = Tenant::start(&leasing(proxy.port(), "6"), STEADY);
    until("a renewal has failed, and the next has not", || proxy.connections() > 2 && proxy.open() == 0);
    tenant.golock.signal(Signal::STOP);
    until("the lock is gone", || server.get(NAME).is_none());
    tenant.golock.signal(Signal::CONT);
    tenant.golock.wait().assert_one_line(201, &[NAME, "stood still for too long"]);
}

/// A pipe with a name that nobody reads.
struct StuckPipe(File);

impl StuckPipe {
    fn new(notes: &Notes, note: &str) -> Self {
        let path = notes.path(note);
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        Self(open(&path, flags, Mode::empty()).unwrap().into())
    }

    /// From now on whoever writes to it has to wait.
    fn fill(&mut self) {
        for size in [4096, 1] {
            while self.0.write(&vec![b'.'; size]).is_ok() {}
        }
    }

    fn drain(&mut self) {
        while self.0.read(&mut [0; 4096]).is_ok() {}
    }
}

#[test]
fn a_reader_of_stderr_that_is_stuck_does_not_save_the_job() {
    each(&["no", "yes"], |verbose| {
        let server = Server::start(&[]);
        let notes = Notes::new();
        let mut pipe = StuckPipe::new(&notes, "pipe");
        let stuck = format!("exec 2>{}", quoted(&notes.path("pipe")));
        let tenant = Tenant::start(&leasing(server.port(), "3").set("VERBOSE", verbose).prelude(&stuck), OBEDIENT);
        pipe.fill();
        take_over(&server, NAME);
        until("the job is gone", || !tenant.lives());
        pipe.drain();
        assert_eq!(tenant.golock.wait().code, 201);
    });
}
