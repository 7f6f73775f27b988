//! Connections that break at every stage of an exchange: the job runs once, its exit code comes back, and the lock ends
//! released.

use std::time::Duration;

use crate::support::{Action, Direction, Fault, Golock, Job, STALE, Scene, Server, each};

/// The connections of a golock that nothing disturbs.
const ACQUIRE: usize = 0;
const RELEASE: usize = 1;

/// What makes a run take another way through the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Plain,
    Login,
    Takeover,
    WithoutEval,
}

/// Where a sweep breaks the run.
#[derive(Clone, Copy, Debug)]
struct Place {
    way: Way,
    connection: usize,
    direction: Direction,
}

#[derive(Debug)]
struct Case {
    place: Place,
    at: usize,
    action: Action,
    grace: i64,
}

impl Way {
    fn server(self) -> Server {
        let server = Server::start(&[]);
        match self {
            Way::Login => server.query(&["CONFIG", "SET", "requirepass", "secret"]),
            Way::WithoutEval => server.query(&["ACL", "SETUSER", "default", "-eval"]),
            Way::Plain | Way::Takeover => {}
        }
        server
    }

    fn scene(self, server: &Server) -> Scene<'_> {
        let scene = Scene::new(server, Job::exits(7));
        if self == Way::Takeover {
            server.set(&scene.name(), STALE);
        }
        scene
    }

    fn golock(self, scene: &Scene<'_>) -> Golock {
        let golock = scene.golock();
        if self == Way::Login { golock.set("AUTH", "secret") } else { golock }
    }
}

impl Place {
    /// How many bytes pass here when nothing breaks.
    fn length(self, server: &Server) -> usize {
        let scene = self.way.scene(server);
        self.way.golock(&scene).run().assert_silent(7);
        let record = scene.proxy.records().swap_remove(self.connection);
        match self.direction {
            Direction::Request => record.request.len(),
            Direction::Reply => record.reply.len(),
        }
    }

    /// About ten places over the whole length, the first and the last byte among them.
    fn cases(self, server: &Server) -> Vec<Case> {
        let length = self.length(server);
        let places = (0..length - 1).step_by(length / 10 + 1).chain([length - 1]);
        let breaks = places.flat_map(|at| [Action::Close, Action::Reset, Action::Stall].map(|action| (at, action)));
        breaks.flat_map(|(at, action)| [0, 40].map(|grace| Case { place: self, at, action, grace })).collect()
    }
}

impl Case {
    /// However the connection breaks, the run ends as if it had not.
    fn check(&self, server: &Server) {
        let Place { way, connection, direction } = self.place;
        let scene = way.scene(server).fault(connection, Fault { direction, at: self.at, action: self.action });
        // Only a stall is to be cut short by the deadline. A slow machine shall not meet it elsewhere: a SET that the
        // proxy passes on after golock has given up its connection could take the lock again after the release.
        let timeout = if self.action == Action::Stall { "2" } else { "30" };
        let golock = way.golock(&scene).set("GRACE", self.grace.to_string());
        golock.set("REDIS_TIMEOUT", timeout).run().assert_silent(7);
        assert!(scene.proxy.connections() > 2, "nothing broke");
        scene.assert_released_within(self.grace);
    }
}

/// Breaks a connection of the run in all ways at many places, in both directions.
fn sweep(way: Way, connection: usize) {
    let server = way.server();
    let cases = [Direction::Request, Direction::Reply]
        .into_iter()
        .flat_map(|direction| Place { way, connection, direction }.cases(&server))
        .collect::<Vec<_>>();
    each(&cases, |case| case.check(&server));
}

#[test]
fn an_acquiring_connection_that_breaks_costs_no_run() {
    sweep(Way::Plain, ACQUIRE);
}

#[test]
fn a_login_that_breaks_costs_no_run() {
    sweep(Way::Login, ACQUIRE);
}

#[test]
fn a_takeover_that_breaks_costs_no_run() {
    sweep(Way::Takeover, ACQUIRE);
}

#[test]
fn a_releasing_connection_that_breaks_is_no_failure() {
    sweep(Way::Plain, RELEASE);
}

#[test]
fn a_release_without_eval_that_breaks_is_no_failure() {
    sweep(Way::WithoutEval, RELEASE);
}

#[test]
fn every_reconnect_may_fail_but_the_last() {
    let server = Server::start(&[]);
    let lost = Fault { direction: Direction::Reply, at: 0, action: Action::Reset };
    let mut scene = Scene::new(&server, Job::exits(7));
    for index in [0, 1, 2, 4, 5, 6] {
        scene = scene.fault(index, lost);
    }
    scene.golock().set("RECONNECT_ATTEMPTS", "3").run().assert_silent(7);
    assert_eq!(scene.proxy.connections(), 8);
    scene.assert_released();
}

#[test]
fn without_any_reply_the_job_does_not_run() {
    let server = Server::start(&[]);
    let mut scene = Scene::new(&server, Job::exits(7));
    for index in 0..3 {
        scene = scene.fault(index, Fault { direction: Direction::Reply, at: 0, action: Action::Close });
    }
    let done = scene.golock().set("RECONNECT_ATTEMPTS", "2").run();
    done.assert_one_line(201, &[&scene.name(), &format!("127.0.0.1:{}", scene.proxy.port())]);
    assert_eq!(scene.proxy.connections(), 3);
    scene.assert_not_run();
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
