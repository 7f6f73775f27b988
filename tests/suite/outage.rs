//! Redis goes away, and perhaps comes back, while a job runs or before it starts.

use rustix::process::Signal;

use crate::support::outcome::with_time;
use crate::support::{Data, Done, Golock, Job, Scene, Server, each, until};

/// A budget of two tries that is spent in about two seconds.
fn in_a_hurry(golock: &Golock) -> Golock {
    golock.clone().set("REDIS_TIMEOUT", "1").set("RECONNECT_ATTEMPTS", "1")
}

/// A budget that outlasts any restart.
fn patient(golock: &Golock) -> Golock {
    golock.clone().set("RECONNECT_ATTEMPTS", "10").set("RECONNECT_BACKOFF", "1")
}

/// Does `meanwhile` while the job runs, lets it end, and returns how golock did.
fn run_while(scene: &Scene<'_>, golock: &Golock, meanwhile: impl FnOnce()) -> Done {
    let running = golock.spawn();
    scene.job.wait_running();
    meanwhile();
    scene.job.open_gate();
    let done = running.wait();
    assert_eq!(scene.job.runs(), 1);
    done
}

#[test]
fn clients_killed_during_the_job_are_not_missed() {
    each(&[0, 40], |&grace| {
        let server = Server::start(&[]);
        let scene = Scene::new(&server, Job::gated(7));
        let golock = scene.golock().set("GRACE", grace.to_string());
        run_while(&scene, &golock, || server.query(&["CLIENT", "KILL", "TYPE", "normal"])).assert_silent(7);
        scene.assert_released_within(grace);
    });
}

#[test]
fn a_restart_with_data_during_the_job_is_not_noticed() {
    let server = Server::start(&[]);
    let scene = Scene::new(&server, Job::gated(7));
    run_while(&scene, &scene.golock(), || server.restart(Data::Kept)).assert_silent(7);
    scene.assert_released();
}

#[test]
fn a_restart_with_data_during_the_job_keeps_the_grace() {
    let server = Server::start(&[]);
    let scene = Scene::new(&server, Job::gated(7));
    run_while(&scene, &scene.golock().set("GRACE", "40"), || server.restart(Data::Kept)).assert_silent(7);
    scene.assert_released_within(40);
}

#[test]
fn a_restart_without_data_during_the_job_loses_the_lock() {
    let server = Server::start(&[]);
    let scene = Scene::new(&server, Job::gated(7));
    run_while(&scene, &scene.golock(), || server.restart(Data::Lost)).assert_one_line(7, &[&scene.name(), "lost"]);
    scene.assert_released();
}

#[test]
fn a_redis_that_is_dead_at_the_release_does_not_hide_the_exit_code() {
    let server = Server::start(&[]);
    let scene = Scene::new(&server, Job::gated(7));
    let golock = in_a_hurry(&scene.golock()).set("PORT", server.port().to_string());
    let done = run_while(&scene, &golock, || server.kill());
    done.assert_one_line(7, &[&scene.name(), &format!("127.0.0.1:{}", server.port()), "refused"]);
}

#[test]
fn a_redis_that_is_frozen_at_the_release_does_not_hide_the_exit_code() {
    let server = Server::start(&[]);
    let scene = Scene::new(&server, Job::gated(7));
    let done = run_while(&scene, &in_a_hurry(&scene.golock()), || server.stop());
    done.assert_one_line(7, &[&scene.name(), &format!("127.0.0.1:{}", scene.proxy.port())]);
    assert_eq!(scene.proxy.connections(), 3);
}

#[test]
fn a_redis_that_is_dead_at_the_start_lets_nothing_run() {
    let server = Server::start(&[]);
    let scene = Scene::new(&server, Job::exits(7));
    server.kill();
    let done = in_a_hurry(&scene.golock()).set("PORT", server.port().to_string()).run();
    done.assert_one_line(201, &[&scene.name(), &format!("127.0.0.1:{}", server.port()), "refused"]);
    scene.assert_not_run();
}

#[test]
fn a_signal_leaves_five_seconds_to_a_release_that_is_not_answered() {
    let server = Server::start(&[]);
    let scene = Scene::new(&server, Job::gated(7));
    let running = scene.golock().set("REDIS_TIMEOUT", "100000").spawn();
    scene.job.wait_running();
    server.stop();
    scene.job.open_gate();
    until("golock releases", || scene.proxy.connections() == 2);
    running.signal(Signal::TERM);
    running.wait().assert_one_line(7, &["cannot release", &scene.name()]);
}

#[test]
fn a_redis_that_is_frozen_at_the_start_lets_nothing_run() {
    let server = Server::start(&[]);
    server.stop();
    let told = with_time(true, |run| {
        let scene = Scene::new(&server, Job::exits(7));
        let done = run(in_a_hurry(&scene.golock()));
        done.assert_one_line(201, &[&scene.name(), &format!("127.0.0.1:{}", scene.proxy.port())]);
        scene.assert_not_run();
        // The last one is to give back what the others may get when it thaws, if they had time to ask.
        scene.proxy.connections() == 3
    });
    assert!(told, "golock did not make three connections");
}

/// Waits until golock has met a dead server at least once after `before` connections, then brings the server back.
fn bring_back(scene: &Scene<'_>, before: usize) {
    until("golock tries in vain", || scene.proxy.connections() > before);
    scene.server.restart(Data::Kept);
}

#[test]
fn a_redis_that_comes_back_at_the_release_is_found_again() {
    let server = Server::start(&[]);
    let scene = Scene::new(&server, Job::gated(7));
    let running = patient(&scene.golock()).spawn();
    scene.job.wait_running();
    server.save();
    server.kill();
    scene.job.open_gate();
    bring_back(&scene, 1);
    running.wait().assert_silent(7);
    scene.assert_released();
}

#[test]
fn a_redis_that_comes_back_at_the_start_is_found_again() {
    let server = Server::start(&[]);
    let scene = Scene::new(&server, Job::exits(7));
    server.kill();
    let running = patient(&scene.golock()).spawn();
    bring_back(&scene, 0);
    running.wait().assert_silent(7);
    scene.assert_released();
}

#[test]
fn a_redis_that_thaws_is_found_again() {
    let server = Server::start(&[]);
    let scene = Scene::new(&server, Job::exits(7));
    server.stop();
    let running = patient(&scene.golock()).set("REDIS_TIMEOUT", "1").spawn();
    until("golock has given up one connection", || scene.proxy.connections() > 1);
    server.cont();
    running.wait().assert_silent(7);
    scene.assert_released();
}

#[test]
fn a_redis_that_has_room_again_is_found_again() {
    let server = Server::start(&[]);
    let mut connection = server.connection();
    let mut admit = |clients: &str| {
        redis::cmd("CONFIG").arg(&["SET", "maxclients", clients]).query::<()>(&mut connection).unwrap();
    };
    let scene = Scene::new(&server, Job::exits(7));
    admit("1");
    let running = patient(&scene.golock()).spawn();
    until("golock was turned away", || scene.proxy.connections() > 1);
    admit("1000");
    running.wait().assert_silent(7);
    scene.assert_released();
}

#[test]
fn a_signal_ends_the_wait_for_a_dead_redis() {
    let server = Server::start(&[]);
    let scene = Scene::new(&server, Job::exits(7));
    server.kill();
    let running = scene.golock().set("RECONNECT_BACKOFF", "1000").spawn();
    // The first reconnect is at once; the next would come after a quarter of an hour.
    until("golock has reconnected", || scene.proxy.connections() > 1);
    running.signal(Signal::TERM);
    assert_eq!(running.wait().code, 128 + Signal::TERM.as_raw());
    scene.assert_not_run();
}
