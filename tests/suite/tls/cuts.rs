//! TLS connections that break anywhere, in all ways, in the handshake and behind it: what comes of it is among what the
//! bytes that have passed allow.

use std::io::{self, Write};
use std::ops::RangeInclusive;
use std::thread;

use crate::support::outcome::{Outcome, with_time};
use crate::support::tls::{Secured, VERSIONS};
use crate::support::{Action, Direction, Done, Fault, Golock, Job, Record, Scene, abreast, each, until};

/// The distance of the bytes that are hit; no divisor of a record's parts, so that it meets all of them.
const STEP: usize = 59;

/// The numbers in a signature of an elliptic curve are at times written with a few bytes less.
const VARIANCE: usize = 8;

/// How many runs wait for their deadline at the same time, and how many others run beside them.
const WAITING: usize = 24;
const RUNNING: usize = 2;

/// The type of a record with encrypted words (RFC 8446, section 5.1).
const APPLICATION_DATA: u8 = 23;

/// More than the longest word of a handshake that golock sends in such a record (Finished), and less than its commands.
const FINISHED: usize = 100;

/// The connection that acquires; the other one, which resumes its session, releases.
const ACQUIRE: usize = 0;

#[derive(Clone, Copy, Debug)]
struct Case {
    connection: usize,
    fault: Fault,
    /// Whether golock does not reconnect.
    alone: bool,
}

/// Where the records end that hold golock's commands, as far as they were sent: those that acquire and the one that
/// confirms, or the one that releases.
fn ends_of_commands(request: &[u8]) -> Vec<usize> {
    let (mut start, mut ends) = (0, Vec::new());
    while let Some([kind, _, _, high, low]) = request.get(start..start + 5) {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        start += 5 + length;
        if *kind == APPLICATION_DATA && length > FINISHED {
            ends.push(start);
        }
    }
    ends
}

impl Case {
    /// All that is tried on a connection on which this passes when nothing breaks.
    fn all(connection: usize, record: &Record) -> Vec<Self> {
        let ways = [(Direction::Request, record.request.len()), (Direction::Reply, record.reply.len())];
        let places = ways.into_iter().flat_map(|(direction, length)| {
            let places = (0..length - VARIANCE).step_by(STEP).chain([length - VARIANCE]);
            places.map(move |at| (direction, at))
        });
        let faults = places.flat_map(|(direction, at)| {
            [Action::Close, Action::Reset, Action::Stall].map(|action| Fault { direction, at, action })
        });
        faults.flat_map(|fault| [false, true].map(|alone| Self { connection, fault, alone })).collect()
    }

    fn waits(&self) -> bool {
        self.fault.action == Action::Stall
    }

    fn check(&self, secured: &Secured) {
        let told = with_time(self.waits(), |run| self.tells(secured, run));
        assert!(told, "the fault did not happen, or something else broke");
    }

    /// Runs it, and asserts what comes of it; false if it went another way than it was meant to.
    fn tells(&self, secured: &Secured, run: &dyn Fn(Golock) -> Done) -> bool {
        let mut scene = Scene::new(&secured.server, Job::exits(7)).fault(self.connection, self.fault);
        scene.proxy = scene.proxy.in_turn();
        let golock = secured.golock(&scene);
        let limited = if self.alone { golock.clone().set("RECONNECT_ATTEMPTS", "0") } else { golock.clone() };
        let done = run(limited);
        until("all has reached the server", || scene.proxy.open() == 0);
        let Some(record) = scene.proxy.records().into_iter().nth(self.connection) else { return false };
        let (allowed, connections) = self.allowed(&record);
        if !record.broken || !connections.contains(&scene.proxy.connections()) {
            return false;
        }
        let outcome = Outcome::of(&scene, &done, 0);
        assert!(allowed.contains(&outcome), "{outcome:?} is not among {allowed:?}: {done:?}");
        outcome.assert_recorded(&scene);
        outcome.assert_next(&scene, golock, 0);
        true
    }

    /// What may come of it, and how many connections golock makes.
    fn allowed(&self, record: &Record) -> (&'static [Outcome], RangeInclusive<usize>) {
        use Outcome::{Done, Kept, NotTaken, Unheard};
        let (ends, acquires) = (ends_of_commands(&record.request), self.connection == ACQUIRE);
        let is_all = ends.len() == if acquires { 2 } else { 1 };
        match (self.fault.direction, ends.last()) {
            // What is hit is the goodbye.
            (Direction::Request, Some(end)) if is_all && self.fault.at >= *end => (&[Done], 2..=2),
            _ if !self.alone => (&[Done], 3..=3),
            // The commands did not reach the proxy, or a byte of their record is missing: nothing is carried out. Golock
            // may have written them before it noticed, and then gives the lock back.
            (_, None) if acquires => (&[NotTaken], 1..=2),
            // Some reached the server before the break, and the lock is given back.
            (_, Some(_)) if acquires => (&[NotTaken], 2..=2),
            (Direction::Request, _) | (Direction::Reply, None) => (&[Kept], 2..=2),
            (Direction::Reply, Some(_)) => (&[Kept, Unheard], 2..=2),
        }
    }
}

#[test]
fn a_cut_anywhere_comes_to_what_the_bytes_allow() {
    each(&VERSIONS, |version| {
        let secured = Secured::start(&["--tls-protocols", version]);
        let scene = Scene::new(&secured.server, Job::exits(7));
        secured.golock(&scene).run().assert_silent(7);
        let cases = scene.proxy.records().into_iter().enumerate().flat_map(|(index, record)| Case::all(index, &record));
        let (waiting, running): (Vec<Case>, Vec<Case>) = cases.partition(Case::waits);
        let check = |case: &Case| case.check(&secured);
        thread::scope(|scope| {
            scope.spawn(|| abreast(WAITING, &waiting, check));
            abreast(RUNNING, &running, check);
        });
        writeln!(io::stderr(), "cuts: {} cases with {version}", waiting.len() + running.len()).unwrap();
    });
}
