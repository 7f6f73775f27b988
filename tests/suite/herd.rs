//! Many hosts at the same second, and the locks that a predecessor left behind.

use crate::support::{Action, Direction, Fault, Golock, Job, Running, STALE, Scene, Server, each, until};

/// The winner's job lasts until all others have given up, so that none of them can come after it.
fn one_of_the_herd_runs(scene: &Scene<'_>, golock: &Golock, size: usize) {
    let mut herd: Vec<Running> = (0..size).map(|_| golock.spawn()).collect();
    until("all but one have ended", || herd.iter_mut().map(Running::has_ended).filter(|ended| !ended).count() <= 1);
    scene.job.open_gate();
    let (winners, others): (Vec<_>, Vec<_>) = herd.into_iter().map(Running::wait).partition(|done| done.code == 7);
    assert_eq!((winners.len(), others.len()), (1, size - 1));
    winners[0].assert_silent(7);
    for done in others {
        done.assert_silent(200);
    }
    scene.assert_released();
}

/// What a predecessor left in the lock's place.
fn leave(scene: &Scene<'_>, value: Option<&str>) {
    if let Some(value) = value {
        scene.server.set(&scene.name(), value);
    }
}

/// Two hundred straight at the server.
fn one_of_two_hundred(stale: Option<&str>) {
    let server = Server::start(&[]);
    let scene = Scene::new(&server, Job::gated(7));
    leave(&scene, stale);
    one_of_the_herd_runs(&scene, &scene.golock().set("PORT", server.port().to_string()), 200);
}

/// Every other of the first connections breaks, each at another place.
fn one_of_many_behind_a_bad_line(stale: Option<&str>) {
    const SIZE: usize = 60;
    let server = Server::start(&[]);
    let mut scene = Scene::new(&server, Job::gated(7));
    leave(&scene, stale);
    for index in (0..SIZE).step_by(2) {
        let at = index * 7 % 37;
        scene = scene.fault(index, Fault { direction: Direction::Reply, at, action: Action::Reset });
    }
    one_of_the_herd_runs(&scene, &scene.golock().set("RECONNECT_ATTEMPTS", "100"), SIZE);
}

#[test]
fn one_of_two_hundred_runs() {
    one_of_two_hundred(None);
}

#[test]
fn one_of_two_hundred_takes_over_a_predecessors_lock() {
    one_of_two_hundred(Some(STALE));
}

#[test]
fn one_of_many_runs_when_replies_are_lost() {
    each(&[None, Some(STALE)], |stale| one_of_many_behind_a_bad_line(*stale));
}

#[test]
fn an_expired_lock_of_a_predecessor_is_taken_over() {
    let server = Server::start(&[]);
    each(&["0", "1", STALE, "999999999", "0000000000"], |value| {
        let scene = Scene::new(&server, Job::exits(7));
        server.set(&scene.name(), value);
        scene.golock().set("GRACE", "40").run().assert_silent(7);
        scene.assert_released_within(40);
        assert_eq!(server.get(&scene.name()).map(|token| token.len()), Some(19));
    });
}

#[test]
fn a_taken_over_lock_expires_with_release() {
    let server = Server::start(&[]);
    let scene = Scene::new(&server, Job::gated(7));
    server.set(&scene.name(), STALE);
    let running = scene.golock().set("RELEASE", "1000").spawn();
    scene.job.wait_running();
    assert!((1..=1_000_000).contains(&server.pttl(&scene.name())));
    scene.job.open_gate();
    running.wait().assert_silent(7);
    scene.assert_released();
}

#[test]
fn any_other_value_is_held() {
    let future = "9999999999";
    let values =
        [future, "1500000000000", "0000000000001", "150000000012345678", "1500000000123456789", "99999999999999999999"];
    let words = ["", "no number", "1500000000x", "0x10", "1e9", "1500000000.5", "-", "2017-07-14"];
    let server = Server::start(&[]);
    each(&[&values[..], &words[..]].concat(), |value| {
        let scene = Scene::new(&server, Job::exits(7));
        server.set(&scene.name(), value);
        scene.golock().run().assert_silent(200);
        scene.assert_not_run();
        assert_eq!((server.get(&scene.name()).as_deref(), server.pttl(&scene.name())), (Some(*value), -1));
    });
}

#[test]
fn an_expired_value_with_a_ttl_is_held() {
    let server = Server::start(&[]);
    let scene = Scene::new(&server, Job::exits(7));
    server.query::<()>(&["SET", &scene.name(), STALE, "EX", "1000"]);
    scene.golock().run().assert_silent(200);
    scene.assert_not_run();
    assert_eq!(server.get(&scene.name()).as_deref(), Some(STALE));
    assert!(server.pttl(&scene.name()) > 0);
}
