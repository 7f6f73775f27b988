//! While the job runs golock is as good as not there: one thread that sleeps, nothing open towards Redis, and no
//! descriptor of its own in the job.

use std::fs;
use std::process::Command;
use std::time::Duration;

use crate::support::job_tools::{EVER, Notes, graceless};
use crate::support::wait::holds_within;
use crate::support::watch::{is_asleep, wake_ups};
use crate::support::{Job, Scene, Server, each, until};

/// How long golock is watched.
const SPAN: Duration = Duration::from_millis(500);

#[test]
fn golock_sleeps_while_the_job_runs() {
    let server = Server::start(&[]);
    // One of the names of this host is looked up, by a process; the other is not.
    each(&[("127.0.0.1", "0"), ("127.1", EVER)], |&(host, timeout)| {
        let scene = Scene::new(&server, Job::gated(7));
        let golock = scene.golock().set("HOST", host).set("TIMEOUT", timeout).spawn();
        scene.job.wait_running();
        until("golock sleeps", || is_asleep(golock.pid()));
        let before = wake_ups(golock.pid());
        assert!(!holds_within(SPAN, || wake_ups(golock.pid()) != before), "golock woke up");
        assert_eq!(fs::read_dir(format!("/proc/{}/task", golock.pid())).unwrap().count(), 1);
        assert_eq!((scene.proxy.connections(), scene.proxy.open()), (1, 0));
        scene.job.open_gate();
        golock.wait().assert_silent(7);
        scene.assert_released();
    });
}

#[test]
fn redis_has_no_client_while_the_job_runs() {
    let server = Server::start(&[]);
    let job = Job::gated(7);
    let golock = graceless(server.port()).args(job.command()).spawn();
    job.wait_running();
    until("the test is the only client", || server.query::<String>(&["CLIENT", "LIST"]).lines().count() == 1);
    assert_eq!(server.connections_received(), 1);
    job.open_gate();
    golock.wait().assert_silent(7);
    assert_eq!(server.connections_received(), 2);
}

/// Lists the descriptors of a process that does nothing else. The test's own parent may have left some open.
const LIST: &str = r#"ls /proc/self/fd >"$0/list""#;

#[test]
fn the_job_has_no_descriptor_of_golocks() {
    let server = Server::start(&[]);
    let plain = Notes::new();
    assert!(Command::new("sh").args(&plain.job(LIST)[1..]).status().unwrap().success());
    each(&["", "exec <&-", "exec >&-", "exec 2>&-", "exec <&- >&- 2>&-"], |prelude| {
        let notes = Notes::new();
        let mut golock = graceless(server.port()).args(notes.job(LIST));
        if !prelude.is_empty() {
            golock = golock.prelude(prelude);
        }
        golock.run().assert_silent(0);
        assert_eq!(notes.read("list"), plain.read("list"));
    });
}

#[test]
fn a_descriptor_that_is_meant_for_the_job_comes_through() {
    let server = Server::start(&[]);
    let notes = Notes::new();
    let golock = graceless(server.port()).prelude(&notes.stderr_into("given").replace("2>", "9>"));
    golock.args(["sh", "-c", "echo through >&9"]).run().assert_silent(0);
    assert_eq!(notes.read("given"), "through\n");
}
