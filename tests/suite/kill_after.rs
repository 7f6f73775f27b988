//! TIMEOUT with `KILL_AFTER`: the job's group is told to end, has its time for that, and is killed if it needs more.

use std::time::Duration;

use rustix::process::{Pid, Signal, getpgid};

use crate::support::job_tools::{EVER, Notes, WHILE_NOTED, graceless};
use crate::support::tenant::{NAME, OBEDIENT, STEADY, STUBBORN, Tenant, job, leasing};
use crate::support::wait::holds_within;
use crate::support::watch::{children, is_alive};
use crate::support::{Golock, Job, Server, each, until};

/// golock with these limits.
fn limited(server: &Server, timeout: &str, kill_after: &str) -> Golock {
    graceless(server.port()).set("KEY", "leased").set("TIMEOUT", timeout).set("KILL_AFTER", kill_after)
}

#[test]
fn a_job_that_obeys_is_told_to_end_and_one_that_does_not_is_killed() {
    each(&[(OBEDIENT, EVER, "TERM\n"), (STUBBORN, "1", "TERM\n"), (STEADY, EVER, "")], |&(character, span, log)| {
        let server = Server::start(&[]);
        let tenant = Tenant::start(&limited(&server, "2", span), character);
        tenant.golock.wait().assert_one_line(202, &["sh", "2 s"]);
        assert_eq!(tenant.notes.read("log"), log);
        assert!(!is_alive(tenant.job));
        assert_eq!(server.locks(), [""; 0]);
    });
}

#[test]
fn a_job_that_ends_before_its_timeout_is_not_told_anything() {
    let server = Server::start(&[]);
    Tenant::start(&limited(&server, EVER, EVER), OBEDIENT).finish();
}

#[test]
fn without_anything_that_stops_the_job_kill_after_is_refused() {
    let server = Server::start(&[]);
    let job = Job::exits(7);
    let golock = graceless(server.port()).set("KILL_AFTER", "1").args(job.command());
    golock.run().assert_one_line(201, &["sh did not run", "CRONLOCK_KILL_AFTER", "CRONLOCK_TIMEOUT"]);
    assert_eq!((job.runs(), server.connections_received()), (0, 0));
    golock.set("TIMEOUT", EVER).run().assert_silent(7);
}

/// A job that dies of SIGTERM, and its child, which does this instead, and whose process id is in the note `child`.
fn family(does: &str) -> String {
    format!(r#"sh -c 'exec 2>>"$0/err"; {does}; echo $$ >"$0/child"; {WHILE_NOTED}; echo done >"$0/done"' "$0" &"#)
}

/// The job of a family, whose first process has died at its TIMEOUT, while the child goes on.
struct Orphaned {
    tenant: Tenant,
    child: Pid,
}

impl Orphaned {
    #[track_caller]
    fn new(golock: &Golock, child_does: &str) -> Self {
        let tenant = Tenant::start(golock, &family(child_does));
        let child = tenant.notes.pid("child");
        until("the first process has died", || !tenant.lives());
        Self { tenant, child }
    }
}

#[test]
fn a_child_that_cleans_up_when_its_parent_has_died_gets_its_time() {
    each(&["0", "60"], |lease| {
        let server = Server::start(&[]);
        let golock = limited(&server, "2", EVER).set("LEASE", lease);
        let Orphaned { mut tenant, child } = Orphaned::new(&golock, r#"trap "echo TERM >>$0/log" TERM"#);
        until("the child is told", || tenant.is_told());
        assert!(is_alive(child) && !tenant.golock.has_ended() && server.get(NAME).is_some());
        tenant.notes.write("open", "");
        // With the child the group ends, and golock does not wait for the rest of KILL_AFTER.
        tenant.golock.wait().assert_one_line(202, &["sh"]);
        assert_eq!(tenant.notes.read("done"), "done\n");
        assert_eq!(server.locks(), [""; 0]);
    });
}

#[test]
fn a_child_that_ignores_everything_is_killed_with_the_group() {
    let server = Server::start(&[]);
    let Orphaned { tenant, child } = Orphaned::new(&limited(&server, "2", "1"), r#"trap "" HUP INT QUIT TERM"#);
    tenant.golock.wait().assert_one_line(202, &["sh"]);
    until("the child is gone", || !is_alive(child));
    assert!(!tenant.notes.path("done").exists());
}

#[test]
fn a_signal_reaches_what_is_left_of_the_group() {
    let server = Server::start(&[]);
    let child = r#"trap "" TERM; trap "exit" USR1"#;
    let Orphaned { tenant, child } = Orphaned::new(&limited(&server, "2", EVER), child);
    tenant.golock.signal(Signal::USR1);
    tenant.golock.wait().assert_one_line(202, &["sh"]);
    assert!(!is_alive(child));
}

#[test]
fn a_daemon_that_has_left_the_group_lives_on_and_does_not_hold_golock_up() {
    each(&["0", "60"], |lease| {
        let server = Server::start(&[]);
        let daemon = format!(r#"setsid sh -c 'echo $$ >"$0/daemon"; {WHILE_NOTED}' "$0" &"#);
        let golock = limited(&server, "2", EVER).set("LEASE", lease);
        let tenant = Tenant::start(&golock, &daemon);
        let daemon = tenant.notes.pid("daemon");
        assert_ne!(getpgid(Some(daemon)).unwrap(), tenant.job);
        tenant.golock.wait().assert_one_line(202, &["sh"]);
        assert!(is_alive(daemon));
        tenant.notes.write("open", "");
        until("the daemon ends", || !is_alive(daemon));
    });
}

#[test]
fn orphans_are_reaped_while_the_job_runs() {
    let server = Server::start(&[]);
    let golocks = [limited(&server, EVER, EVER), leasing(server.port(), "60").set("KEY", "other")];
    for golock in golocks {
        let orphans = r#"for i in 1 2 3 4 5 6 7 8 9; do (sleep 0 & echo "$!" >>"$0/orphans"); done"#;
        let tenant = Tenant::start(&golock, orphans);
        assert_eq!(tenant.notes.lines("orphans", 9).len(), 9);
        until("golock has no other child", || children(tenant.golock.pid()) == [tenant.job]);
        assert!(!holds_within(Duration::from_millis(100), || children(tenant.golock.pid()) != [tenant.job]));
        tenant.finish();
    }
}

#[test]
fn a_job_that_ends_by_itself_is_not_waited_for_beyond_that() {
    let server = Server::start(&[]);
    for golock in [limited(&server, EVER, EVER), leasing(server.port(), "60")] {
        let tenant = Tenant::start(&golock, &family(":").replace("/open", "/later"));
        let child = tenant.notes.pid("child");
        let notes = tenant.notes.path("later");
        // Its notes stay until the child has ended, too.
        tenant.notes.write("open", "");
        tenant.golock.wait().assert_silent(7);
        assert!(is_alive(child));
        std::fs::write(notes, "").unwrap();
        until("the child ends", || !is_alive(child));
    }
}

#[test]
fn the_lock_is_held_while_the_job_has_its_time() {
    let server = Server::start(&[]);
    let notes = Notes::new();
    let golock = limited(&server, "1", EVER).args(job(&notes, STUBBORN)).spawn();
    notes.wait_for("log", |log| log == "TERM\n");
    graceless(server.port()).set("KEY", "leased").args(["true"]).run().assert_silent(200);
    notes.write("open", "");
    golock.wait().assert_one_line(202, &["sh"]);
    assert_eq!(server.locks(), [""; 0]);
}
