//! Connections that break at every single byte, in every way: what comes of it is known for each, and is never a second
//! run, a lost exit code, or a lock without an end.

use std::io::{self, Write};
use std::ops::RangeInclusive;
use std::thread;
use std::time::Instant;

use crate::support::outcome::{GRACE, Outcome, with_time};
use crate::support::resp::{commands, count_replies};
use crate::support::{Action, Direction, Done, Fault, Golock, Job, Record, STALE, Scene, Server, abreast, until};

/// The connections of a golock that nothing disturbs.
const ACQUIRE: usize = 0;
const RELEASE: usize = 1;

/// The distance of the bytes that stand for those between them, where not every byte is hit: odd, so that it meets names,
/// lengths and line ends.
const SAMPLE: usize = 7;

/// The same for long scripts, of which other sweeps hit shorter ones at every byte.
const SPARSE: usize = 31;

/// How many digits a process id may have, which is in the record.
const PID_DIGITS: usize = 7;

/// What ends a connection.
const CUTS: [Action; 3] = [Action::Close, Action::Reset, Action::Stall];

/// How many runs wait for their deadline at the same time, and how many others run beside them.
const WAITING: usize = 80;
const RUNNING: usize = 4;

/// What makes a run take another way through the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Plain,
    /// Nothing is recorded.
    Unrecorded,
    Login,
    Takeover,
    WithoutEval,
}

/// What golock has against the fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Regime {
    /// Other connections, which are good.
    Reconnects,
    /// No other connection (`RECONNECT_ATTEMPTS=0`).
    Alone,
    /// One more connection, which breaks at the same byte.
    Lasting,
}

/// The bytes that a sweep hits.
#[derive(Clone, Copy, Debug)]
struct Sweep {
    way: Way,
    connection: usize,
    direction: Direction,
    grace: i64,
    /// The distance of the bytes that are hit; the first and the last of each command are hit in any case.
    step: usize,
}

const fn sweep(way: Way, connection: usize, direction: Direction, grace: i64, step: usize) -> Sweep {
    Sweep { way, connection, direction, grace, step }
}

const SWEEPS: [Sweep; 22] = [
    sweep(Way::Plain, ACQUIRE, Direction::Request, 0, SPARSE),
    sweep(Way::Plain, ACQUIRE, Direction::Reply, 0, 1),
    sweep(Way::Plain, RELEASE, Direction::Request, 0, SPARSE),
    sweep(Way::Plain, RELEASE, Direction::Reply, 0, 1),
    sweep(Way::Plain, RELEASE, Direction::Reply, GRACE, SAMPLE),
    sweep(Way::Unrecorded, ACQUIRE, Direction::Request, 0, 1),
    sweep(Way::Unrecorded, ACQUIRE, Direction::Reply, 0, 1),
    sweep(Way::Unrecorded, RELEASE, Direction::Request, 0, 1),
    sweep(Way::Unrecorded, RELEASE, Direction::Reply, 0, 1),
    sweep(Way::Unrecorded, RELEASE, Direction::Reply, GRACE, 1),
    sweep(Way::Login, ACQUIRE, Direction::Request, 0, SPARSE),
    sweep(Way::Login, ACQUIRE, Direction::Reply, 0, 1),
    sweep(Way::Login, RELEASE, Direction::Request, 0, SPARSE),
    sweep(Way::Login, RELEASE, Direction::Reply, 0, SAMPLE),
    sweep(Way::Takeover, ACQUIRE, Direction::Request, 0, SPARSE),
    sweep(Way::Takeover, ACQUIRE, Direction::Reply, 0, 1),
    sweep(Way::WithoutEval, ACQUIRE, Direction::Request, 0, SPARSE),
    sweep(Way::WithoutEval, ACQUIRE, Direction::Reply, 0, SAMPLE),
    sweep(Way::WithoutEval, RELEASE, Direction::Request, 0, 1),
    sweep(Way::WithoutEval, RELEASE, Direction::Request, GRACE, SAMPLE),
    sweep(Way::WithoutEval, RELEASE, Direction::Reply, 0, 1),
    sweep(Way::WithoutEval, RELEASE, Direction::Reply, GRACE, 1),
];

/// What comes of a cut that golock can do nothing against, by the command that it hits, or whose reply it hits.
#[allow(clippy::match_same_arms, reason = "each line says why")]
fn table(way: Way, connection: usize, direction: Direction, command: &str) -> Outcome {
    use Direction::{Reply, Request};
    use Outcome::{Done, Kept, NotTaken, Orphaned, Unheard};
    match (connection, way, direction, command) {
        // Nothing else is sent before the login is granted.
        (ACQUIRE, _, _, "AUTH") => NotTaken,
        // A predecessor's lock stands in the way of SET.
        (ACQUIRE, Way::Takeover, _, "SET" | "GET") | (ACQUIRE, Way::Takeover, Request, "EVAL") => NotTaken,
        // A command of which a byte is missing is not carried out...
        (ACQUIRE, _, Request, "SET") => NotTaken,
        // ...and one of which the reply is lost, or the proof that only GET gives, is. Nor does a lock that stands lead to a
        // run, if nobody said that it is confirmed.
        (ACQUIRE, ..) => Orphaned,
        // DEL (with grace: SET) is begun again with GET, on a further connection, which is good.
        (RELEASE, Way::WithoutEval, _, "DEL" | "SET") => Done,
        // GET changes nothing.
        (RELEASE, Way::WithoutEval, ..) => Kept,
        (RELEASE, _, Reply, "EVAL") => Unheard,
        (RELEASE, ..) => Kept,
        other => panic!("not in the table: {other:?}"),
    }
}

/// What comes of giving back what may have been taken, when every connection breaks at offset `at`: first comes a login,
/// then EVAL with its reply. The outcome, and how many connections that takes at most.
fn given_back(way: Way, direction: Direction, at: usize, hopeless: Outcome) -> (Outcome, usize) {
    let login = if way == Way::Login { "+OK\r\n".len() } else { 0 };
    // There is no record yet.
    let reply = if way == Way::Unrecorded { ":1\r\n" } else { "$2\r\n1 \r\n" };
    match (direction, hopeless) {
        // EVAL is longer than SET and GET. Golock cannot know that there is nothing to give back.
        (Direction::Request, Outcome::NotTaken) => (Outcome::GivenBackUnheard, 2),
        (Direction::Request, _) => (hopeless, 2),
        (Direction::Reply, _) if at < login + reply.len() => (Outcome::GivenBackUnheard, 2),
        (Direction::Reply, _) => (Outcome::NotTaken, 1),
    }
}

#[derive(Debug)]
struct Case {
    sweep: Sweep,
    regime: Regime,
    at: usize,
    action: Action,
    outcome: Outcome,
    /// How many connections golock makes.
    connections: RangeInclusive<usize>,
}

impl Way {
    fn server(self) -> Server {
        let server = Server::start(&[]);
        match self {
            Way::Login => server.query(&["CONFIG", "SET", "requirepass", "secret"]),
            Way::WithoutEval => server.query(&["ACL", "SETUSER", "default", "-eval"]),
            Way::Plain | Way::Unrecorded | Way::Takeover => {}
        }
        server
    }

    fn scene(self, server: &Server) -> Scene<'_> {
        let mut scene = Scene::new(server, Job::exits(7));
        scene.proxy = scene.proxy.in_turn();
        if self == Way::Takeover {
            server.set(&scene.name(), STALE);
        }
        scene
    }

    fn golock(self, scene: &Scene<'_>, grace: i64) -> Golock {
        let golock = scene.golock().set("GRACE", grace.to_string());
        match self {
            Way::Login => golock.set("AUTH", "secret"),
            Way::Unrecorded => golock.set("RECORD", "0"),
            Way::Plain | Way::Takeover | Way::WithoutEval => golock,
        }
    }
}

impl Sweep {
    /// All that passes on the connection when nothing breaks.
    fn record(&self, server: &Server) -> Record {
        let scene = self.way.scene(server);
        self.way.golock(&scene, self.grace).run().assert_silent(7);
        scene.proxy.records().swap_remove(self.connection)
    }

    /// The command at each byte of the requests, or of the replies.
    fn bytes(&self, server: &Server) -> Vec<String> {
        let record = self.record(server);
        let count = |at| match self.direction {
            Direction::Request => commands(&record.request[..at]).len(),
            Direction::Reply => count_replies(&record.reply[..at]),
        };
        let length = if self.direction == Direction::Request { record.request.len() } else { record.reply.len() };
        (0..length).map(|at| record.commands()[count(at)][0].clone()).collect()
    }

    /// What is done to it, in which regime, and how far apart.
    fn trials(self) -> Vec<(Regime, usize, &'static [Action])> {
        let mut trials: Vec<(_, _, &'static [Action])> = vec![
            (Regime::Reconnects, self.step, &CUTS),
            (Regime::Alone, self.step, &CUTS),
            (Regime::Reconnects, self.step.max(2 * SAMPLE), &[Action::Late]),
            (Regime::Alone, self.step.max(2 * SAMPLE), &[Action::Late, Action::DELAY, Action::SPLIT]),
        ];
        // On the other ways a further connection begins in the middle, and the same offset is another place.
        if matches!(self.way, Way::Plain | Way::Unrecorded | Way::Login) {
            trials.push((Regime::Lasting, self.step.max(SAMPLE), &CUTS));
        }
        trials
    }

    fn cases(self, server: &Server) -> Vec<Case> {
        let bytes = self.bytes(server);
        let is_edge = |at: usize| at == 0 || bytes[at] != bytes[at - 1] || bytes.get(at + 1) != Some(&bytes[at]);
        let mut cases = Vec::new();
        for (regime, step, actions) in self.trials() {
            for at in (0..bytes.len()).filter(|at| at % step == 0 || is_edge(*at)) {
                // A connection that confirms again begins with that.
                if regime == Regime::Lasting && self.connection == ACQUIRE && bytes[at] == "EVAL" {
                    continue;
                }
                cases.extend(actions.iter().map(|action| self.case(at, *action, regime, &bytes[at])));
            }
        }
        cases
    }

    fn case(self, at: usize, action: Action, regime: Regime, command: &str) -> Case {
        // What is late is carried out all the same: as if only its reply were lost.
        let direction = if action == Action::Late { Direction::Reply } else { self.direction };
        let hopeless = table(self.way, self.connection, direction, command);
        let tries = if regime == Regime::Lasting { 2 } else { 1 };
        let (outcome, connections) = match (action, regime, hopeless) {
            (Action::Slow { .. }, ..) => (Outcome::Done, 2..=2),
            (_, Regime::Reconnects, _) => (Outcome::Done, 3..=3),
            (_, _, Outcome::Done) => (Outcome::Done, self.connection + 2..=self.connection + 2),
            _ if self.connection == RELEASE || command == "AUTH" => {
                (hopeless, self.connection + tries..=self.connection + tries)
            }
            // Who may have taken the lock gives it back, which only a lasting cut can hinder.
            (_, Regime::Lasting, _) => {
                let (outcome, connections) = given_back(self.way, direction, at, hopeless);
                // Five seconds end it: then it may have had time for one connection only.
                let least = if action == Action::Stall { 1 } else { connections };
                (outcome, tries + least..=tries + connections)
            }
            _ => (Outcome::NotTaken, tries + 1..=tries + 1),
        };
        // A DEL that was cut short might be under way.
        let is_cut = direction == Direction::Request && !matches!(action, Action::Slow { .. });
        let lingers = is_cut && self.way == Way::WithoutEval && self.connection == RELEASE && command == "DEL";
        let outcome = if lingers { Outcome::Lingers } else { outcome };
        Case { sweep: self, regime, at, action, outcome, connections }
    }
}

impl Case {
    fn waits(&self) -> bool {
        matches!(self.action, Action::Stall | Action::Late)
    }

    fn check(&self, server: &Server) {
        // The last byte comes sooner where the process id that is recorded has fewer digits.
        let mut places = (0..PID_DIGITS).filter_map(|fewer| self.at.checked_sub(fewer));
        let told = places.any(|at| with_time(self.waits(), |run| self.tells(server, at, run)));
        assert!(told, "the fault did not happen, or golock did not make {:?} connections", self.connections);
    }

    /// Runs it, and asserts what comes of it; false if it went another way than it was meant to.
    fn tells(&self, server: &Server, at: usize, run: &dyn Fn(Golock) -> Done) -> bool {
        let Sweep { way, connection, direction, grace, .. } = self.sweep;
        let mut scene = way.scene(server);
        let fault = Fault { direction, at, action: self.action };
        scene.proxy = match self.regime {
            Regime::Lasting => scene.proxy.fault_from(connection, fault),
            Regime::Reconnects | Regime::Alone => scene.proxy.fault(connection, fault),
        };
        let golock = way.golock(&scene, grace);
        let done = run(self.regime.limit(golock.clone()));
        until("all has reached the server", || scene.proxy.open() == 0);
        let broken = scene.proxy.records().get(connection).is_some_and(|record| record.broken);
        if !broken || !self.connections.contains(&scene.proxy.connections()) {
            return false;
        }
        self.judge(&scene, &done, golock);
        true
    }

    fn judge(&self, scene: &Scene<'_>, done: &Done, golock: Golock) {
        let outcome = Outcome::of(scene, done, self.sweep.grace);
        assert_eq!(outcome, self.outcome, "{done:?}");
        if !matches!(self.sweep.way, Way::Unrecorded | Way::WithoutEval) {
            outcome.assert_recorded(scene);
        }
        if !matches!(outcome, Outcome::Done | Outcome::Lingers) {
            done.assert_one_line(done.code, &[self.words(), &format!("127.0.0.1:{}", scene.proxy.port())]);
            outcome.assert_next(scene, golock, self.sweep.grace);
        }
    }

    /// What golock says of the fault.
    fn words(&self) -> &'static str {
        match self.action {
            Action::Close => "connection closed without an answer",
            Action::Reset => "connection lost",
            _ => "no answer in time",
        }
    }
}

impl Regime {
    fn limit(self, golock: Golock) -> Golock {
        match self {
            Self::Reconnects => golock,
            Self::Alone => golock.set("RECONNECT_ATTEMPTS", "0"),
            Self::Lasting => golock.set("RECONNECT_ATTEMPTS", "1"),
        }
    }
}

#[test]
fn a_cut_at_any_byte_comes_to_what_the_table_says() {
    let start = Instant::now();
    let servers =
        [Way::Plain, Way::Unrecorded, Way::Login, Way::Takeover, Way::WithoutEval].map(|way| (way, way.server()));
    let server = |sweep: &Sweep| &servers.iter().find(|(way, _)| *way == sweep.way).unwrap().1;
    let cases = SWEEPS.into_iter().flat_map(|sweep| sweep.cases(server(&sweep)));
    let (waiting, running): (Vec<Case>, Vec<Case>) = cases.partition(Case::waits);
    let check = |case: &Case| case.check(server(&case.sweep));
    thread::scope(|scope| {
        scope.spawn(|| abreast(WAITING, &waiting, check));
        abreast(RUNNING, &running, check);
    });
    let (count, time) = (waiting.len() + running.len(), start.elapsed().as_secs());
    // Past the harness, which keeps the words of a test that passes to itself.
    writeln!(io::stderr(), "cuts: {count} cases in {time} s").unwrap();
}
