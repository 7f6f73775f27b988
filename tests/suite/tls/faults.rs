//! TLS connections that break at any byte of the handshake, or stand still there: the job runs once, its exit code comes
//! back, and the lock ends released.

use std::iter;
use std::time::Duration;

use crate::support::scripted::drain;
use crate::support::tls::certificates::Authority;
use crate::support::tls::trickle::trickle;
use crate::support::tls::{Secured, VERSIONS};
use crate::support::{Action, Direction, Fault, Golock, Job, Scene, Scripted, abreast, each};

/// How many of the first bytes are all tried: headers, versions, the random of the server.
const CLOSE: usize = 64;

/// The distance of the places behind them. It is odd and no divisor of a record's parts, so that it meets all of them.
const STEP: usize = 7;

/// The numbers in a signature of an elliptic curve are at times written with a few bytes less.
const VARIANCE: usize = 8;

/// How many cases run at the same time: more would only wait for the processor.
const ABREAST: usize = 16;

/// golock with as many tries as a slow machine may need, where each has but a second.
fn patient(secured: &Secured, scene: &Scene<'_>) -> Golock {
    secured.at_one_address(scene).set("RECONNECT_ATTEMPTS", "20")
}

/// How many bytes of replies always pass on the connection of this index when nothing breaks.
fn length(secured: &Secured, index: usize) -> usize {
    let scene = Scene::new(&secured.server, Job::exits(7));
    secured.at_one_address(&scene).run().assert_silent(7);
    scene.proxy.records().swap_remove(index).reply.len() - VARIANCE
}

/// Breaks the first connection at each of `places` in the replies; the next one then serves.
fn break_at(secured: &Secured, places: &[(usize, Action)]) {
    abreast(ABREAST, places, |&(at, action)| {
        let scene =
            Scene::new(&secured.server, Job::exits(7)).fault(0, Fault { direction: Direction::Reply, at, action });
        patient(secured, &scene).set("REDIS_TIMEOUT", "30").run().assert_silent(7);
        assert!(scene.proxy.records()[0].broken, "the fault did not happen");
        scene.assert_released();
    });
}

/// Every place among the first bytes, and many behind them, for each of the `actions`.
fn many(length: usize, actions: &[Action]) -> Vec<(usize, Action)> {
    let places = (0..length).filter(|at| *at < CLOSE || at % STEP == 0);
    places.flat_map(|at| actions.iter().map(move |action| (at, *action))).collect()
}

/// About `count` places over the whole length.
fn few(length: usize, count: usize, action: Action) -> Vec<(usize, Action)> {
    (0..length).step_by(length / count + 1).map(|at| (at, action)).collect()
}

#[test]
fn a_handshake_that_is_cut_at_any_byte_is_begun_again() {
    each(&VERSIONS, |version| {
        let secured = Secured::start(&["--tls-protocols", version]);
        let places = many(length(&secured, 0), &[Action::Close, Action::Reset]);
        break_at(&secured, &places);
    });
}

#[test]
fn a_mutual_handshake_that_breaks_is_begun_again() {
    each(&VERSIONS, |version| {
        let secured = Secured::start(&["--tls-protocols", version, "--tls-auth-clients", "yes"]);
        let papers = secured.authority.issue(&["client"]);
        // Beyond this the reply to the commands is under way, which is the same with papers and without.
        each(&few(1400, ABREAST - 1, Action::Close), |&(at, action)| {
            let fault = Fault { direction: Direction::Reply, at, action };
            let scene = Scene::new(&secured.server, Job::exits(7)).fault(0, fault);
            patient(&secured, &scene).identity(&papers).run().assert_silent(7);
            scene.assert_released();
        });
    });
}

#[test]
fn a_line_that_passes_single_bytes_changes_nothing() {
    let secured = Secured::start(&[]);
    let mut scene = Scene::new(&secured.server, Job::exits(7));
    scene.proxy = scene.proxy.pace(1, Duration::from_micros(100));
    secured.at_one_address(&scene).run().assert_silent(7);
    assert_eq!(scene.proxy.connections(), 2);
    scene.assert_released();
}

/// golock with three tries of a second each, and nobody to trust.
fn in_a_hurry(authority: &Authority, port: u16, job: &Job) -> Golock {
    Golock::new(port)
        .set("HOST", "127.0.0.1")
        .set("TLS", "yes")
        .set("TLS_CA", authority.file())
        .set("KEY", "stalled")
        .set("REDIS_TIMEOUT", "1")
        .set("RECONNECT_ATTEMPTS", "2")
        .set("RECONNECT_BACKOFF", "0")
        .args(job.command())
}

#[test]
fn a_server_that_never_greets_is_given_up() {
    let authority = Authority::new();
    let (server, job) = (Scripted::start(|_, stream| drain(stream)), Job::exits(7));
    let done = in_a_hurry(&authority, server.port(), &job).run();
    done.assert_one_line(201, &["cronlock.stalled", "127.0.0.1", "no answer in time", "TLS"]);
    assert_eq!((job.runs(), server.connections()), (0, 3));
}

#[test]
fn a_handshake_that_never_gets_far_is_given_up() {
    each(&VERSIONS, |version| {
        let secured = Secured::start(&["--tls-protocols", version]);
        // What got further could be resumed, and is shorter then.
        let length = length(&secured, 1);
        each(&few(length, ABREAST / 2, Action::Stall), |&(at, action)| {
            let mut scene = Scene::new(&secured.server, Job::exits(7));
            for index in 0..3 {
                scene = scene.fault(index, Fault { direction: Direction::Reply, at, action });
            }
            let golock = secured.at_one_address(&scene).set("RECONNECT_ATTEMPTS", "2");
            let done = golock.set("REDIS_TIMEOUT", "1").run();
            done.assert_one_line(201, &[&scene.name(), "127.0.0.1", "3 tries"]);
            scene.assert_not_run();
            assert_eq!(scene.proxy.connections(), 3);
        });
    });
}

#[test]
fn a_handshake_that_trickles_does_not_stay_alive() {
    // The head of a record of 16 KiB, and of the greeting of a server in it.
    let head = [0x16, 3, 3, 0x40, 0, 2, 0, 0x3f, 0xf0, 3, 3];
    let authority = Authority::new();
    let server = Scripted::start(move |_, stream| trickle(stream, head.into_iter().chain(iter::repeat(0))));
    let job = Job::exits(7);
    in_a_hurry(&authority, server.port(), &job).run().assert_one_line(201, &["cronlock.stalled", "in time"]);
    assert_eq!((job.runs(), server.connections()), (0, 3));
}

#[test]
fn a_server_that_hangs_up_in_the_middle_of_our_words_is_understood() {
    // Without the proxy: Redis closes at the first record that it does not like, while others are still to be written.
    let secured = Secured::start(&["--tls-auth-clients", "yes", "--tls-protocols", "TLSv1.2"]);
    let port = secured.server.port().to_string();
    // One after another: on a busy machine both sides hardly ever speak at the same time.
    for _ in 0..20 {
        let scene = Scene::new(&secured.server, Job::exits(7));
        let golock = secured.at_one_address(&scene).set("PORT", &port).set("RECONNECT_ATTEMPTS", "0");
        golock.run().assert_one_line(201, &[&scene.name(), &port, "alert"]);
    }
}
