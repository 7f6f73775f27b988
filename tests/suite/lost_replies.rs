//! Connections of which every one may break but the last, and lines that are slow; `cuts` has every single byte.

use std::io::Write;
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use crate::support::{Action, Direction, Fault, Job, Scene, Server, until};

/// The length of the replies to SET and GET.
const TAKEN: usize = "+OK\r\n$19\r\n1234567890123456789\r\n".len();

#[test]
fn every_reconnect_may_fail_but_the_last() {
    let server = Server::start(&[]);
    let lost = |at| Fault { direction: Direction::Reply, at, action: Action::Reset };
    let mut scene = Scene::new(&server, Job::exits(7));
    // Acquired on the fourth connection, confirmed on the third after that, released on the fourth after that.
    for (index, at) in [(0, 0), (1, 0), (2, 0), (3, TAKEN), (4, 0), (5, 0), (7, 0), (8, 0), (9, 0)] {
        scene = scene.fault(index, lost(at));
    }
    scene.golock().set("RECONNECT_ATTEMPTS", "3").run().assert_silent(7);
    assert_eq!(scene.proxy.connections(), 11);
    scene.assert_released();
}

#[test]
fn without_any_reply_the_job_does_not_run_and_the_lock_is_given_back() {
    let server = Server::start(&[]);
    let mut scene = Scene::new(&server, Job::exits(7));
    for index in 0..3 {
        scene = scene.fault(index, Fault { direction: Direction::Reply, at: 0, action: Action::Close });
    }
    let done = scene.golock().set("RECONNECT_ATTEMPTS", "2").run();
    done.assert_one_line(201, &[&scene.name(), &format!("127.0.0.1:{}", scene.proxy.port())]);
    assert_eq!(scene.proxy.connections(), 4);
    scene.assert_not_run();
    assert_eq!(server.keys(), [""; 0]);
}

#[test]
fn a_line_that_passes_single_bytes_changes_nothing() {
    let server = Server::start(&[]);
    let mut scene = Scene::new(&server, Job::exits(7));
    scene.proxy = scene.proxy.pace(1, Duration::from_millis(1));
    scene.golock().run().assert_silent(7);
    assert_eq!(scene.proxy.connections(), 2);
    scene.assert_released();
}

/// No golock can call back what has left its host. What it can do is bound for how long that takes the lock for nobody.
#[test]
fn a_request_that_arrives_after_the_release_takes_the_lock_until_its_ttl_ends() {
    let server = Server::start(&[]);
    let scene = Scene::new(&server, Job::exits(7));
    // With a record, the confirmation in it would find that the run has ended, and give the lock back.
    scene.golock().set("RELEASE", "60").set("RECORD", "0").run().assert_silent(7);
    scene.assert_released();
    let request = scene.proxy.records().swap_remove(0).request;
    let mut line = TcpStream::connect((Ipv4Addr::LOCALHOST, server.port())).unwrap();
    line.write_all(&request).unwrap();
    until("the request has arrived", || server.pttl(&scene.name()) > 0);
    scene.assert_released_within(60);
    scene.golock().run().assert_silent(200);
}
