//! A Redis that really refuses, and then does not any more: a refusal ends nothing unless it is known to last.

use crate::support::proxy::Record;
use crate::support::{Golock, Job, Scene, Server, until};

/// golock with a budget that outlasts any trouble.
fn patient(scene: &Scene<'_>) -> Golock {
    scene.golock().set("RECONNECT_ATTEMPTS", "50").set("RECONNECT_BACKOFF", "1")
}

/// How many connections have had an answer that holds these words.
fn told(scene: &Scene<'_>, words: &str) -> usize {
    let holds = |record: &&Record| String::from_utf8_lossy(&record.reply).contains(words);
    scene.proxy.records().iter().filter(holds).count()
}

/// What a server does for a while.
struct Trouble {
    begin: fn(&Server),
    end: fn(&Server),
    words: &'static str,
}

const CANNOT_SAVE: Trouble = Trouble { begin: Server::break_saves, end: Server::mend_saves, words: "MISCONF" };

/// It refuses what may need memory, SET above all. EVAL is refused only where it sets something.
const FULL: Trouble = Trouble {
    begin: |server| server.query(&["CONFIG", "SET", "maxmemory", "1"]),
    end: |server| server.query(&["CONFIG", "SET", "maxmemory", "0"]),
    words: "OOM",
};

/// Nobody may log in for a while, because the password is just being changed everywhere.
const LOCKED: Trouble = Trouble {
    begin: |server| server.query(&["CONFIG", "SET", "requirepass", "secret"]),
    end: |server| server.query(&["CONFIG", "SET", "requirepass", ""]),
    // NOAUTH, or that so many arguments need authentication.
    words: "uthenticat",
};

fn at_the_start(trouble: &Trouble) {
    let server = Server::start(&[]);
    let scene = Scene::new(&server, Job::exits(7));
    (trouble.begin)(&server);
    let running = patient(&scene).spawn();
    until("golock has been refused again", || told(&scene, trouble.words) > 1);
    scene.assert_not_run();
    (trouble.end)(&server);
    running.wait().assert_silent(7);
    scene.assert_released();
}

fn at_the_release(trouble: &Trouble) {
    let server = Server::start(&[]);
    let scene = Scene::new(&server, Job::gated(7));
    let running = patient(&scene).spawn();
    scene.job.wait_running();
    (trouble.begin)(&server);
    scene.job.open_gate();
    until("golock has been refused again", || told(&scene, trouble.words) > 1);
    (trouble.end)(&server);
    running.wait().assert_silent(7);
    scene.assert_released();
}

fn at_a_renewal(trouble: &Trouble) {
    let server = Server::start(&[]);
    let scene = Scene::new(&server, Job::gated(7));
    let running = patient(&scene).set("LEASE", "60").spawn();
    scene.job.wait_running();
    (trouble.begin)(&server);
    // After twenty seconds; the lease has forty more.
    until("golock has been refused", || told(&scene, trouble.words) > 0);
    let known = scene.proxy.connections();
    (trouble.end)(&server);
    until("the lease is renewed", || {
        let renewed = |record: &Record| record.reply.starts_with(b"$19\r\n");
        scene.proxy.records().iter().skip(known).any(renewed)
    });
    scene.job.open_gate();
    running.wait().assert_silent(7);
    scene.assert_released();
}

#[test]
fn a_redis_that_cannot_save_is_asked_again_for_the_lock() {
    at_the_start(&CANNOT_SAVE);
}

#[test]
fn a_redis_that_is_full_is_asked_again_for_the_lock() {
    at_the_start(&FULL);
}

#[test]
fn a_redis_that_cannot_save_when_the_job_ends_releases_when_it_can() {
    at_the_release(&CANNOT_SAVE);
}

#[test]
fn a_redis_that_lets_nobody_in_when_the_job_ends_releases_when_it_does() {
    at_the_release(&LOCKED);
}

#[test]
fn a_redis_that_cannot_save_does_not_end_a_leased_job() {
    at_a_renewal(&CANNOT_SAVE);
}
