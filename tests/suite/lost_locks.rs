//! A lock that is no longer ours when the job ends: whatever is there now is left alone, and one line says so.

use crate::support::successor::{assert_untouched, take_over};
use crate::support::{Action, Direction, Fault, Job, Scene, Server, each, until};

/// Runs a job, does `meanwhile` to its lock, expects the report of its loss, and returns the lock's name.
fn lose(server: &Server, setting: (&str, &str), meanwhile: impl Fn(&str)) -> String {
    let scene = Scene::new(server, Job::gated(7));
    let running = scene.golock().set(setting.0, setting.1).spawn();
    scene.job.wait_running();
    meanwhile(&scene.name());
    scene.job.open_gate();
    running.wait().assert_one_line(7, &[&scene.name(), "lost"]);
    scene.name()
}

#[test]
fn a_lock_that_expired_and_was_taken_by_another_is_left_alone() {
    let server = Server::start(&[]);
    let name = lose(&server, ("RELEASE", "1"), |name| {
        until("the lock expires", || server.get(name).is_none());
        take_over(&server, name);
    });
    assert_untouched(&server, &name);
}

#[test]
fn a_lock_that_another_has_seized_is_left_alone_and_gets_no_grace() {
    let server = Server::start(&[]);
    each(&["0", "40"], |grace| {
        let name = lose(&server, ("GRACE", grace), |name| take_over(&server, name));
        assert_untouched(&server, &name);
    });
}

#[test]
fn a_lock_that_vanished_is_not_made_again() {
    let server = Server::start(&[]);
    each(&["0", "40"], |grace| {
        lose(&server, ("GRACE", grace), |name| server.query(&["DEL", name]));
    });
    assert_eq!(server.locks(), [""; 0]);
}

#[test]
fn without_eval_a_foreign_lock_is_left_alone_too() {
    let server = Server::start(&[]);
    server.query::<()>(&["ACL", "SETUSER", "default", "-eval"]);
    each(&["0", "40"], |grace| {
        let name = lose(&server, ("GRACE", grace), |name| take_over(&server, name));
        assert_untouched(&server, &name);
    });
}

#[test]
fn a_successor_between_two_tries_of_the_release_is_left_alone() {
    let server = Server::start(&[]);
    // The first release deletes the lock, but its reply never comes.
    let stall = Fault { direction: Direction::Reply, at: 0, action: Action::Stall };
    each(&["0", "40"], |grace| {
        let scene = Scene::new(&server, Job::gated(7)).fault(1, stall);
        let running = scene.golock().set("REDIS_TIMEOUT", "1").set("GRACE", grace).spawn();
        scene.job.wait_running();
        scene.job.open_gate();
        until("the release has reached the server", || {
            scene.proxy.records().get(1).is_some_and(|record| record.broken)
        });
        take_over(&server, &scene.name());
        assert_eq!(running.wait().code, 7);
        assert_untouched(&server, &scene.name());
    });
}
