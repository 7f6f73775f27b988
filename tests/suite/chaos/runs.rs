//! The golocks of a round, each with settings of its own.

use std::fmt::{self, Display, Formatter};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use crate::support::soak::{Court, Dice, Host, pass};
use crate::support::watch::{birth, uptime};
use crate::support::{Action, Direction, Done, Fault, Golock, Proxy};

/// The length of a lease: as short as it may be, so that much happens in a short time.
pub(super) const LEASE: u64 = 3;

/// RELEASE of a lock without a lease: longer than it takes at worst to get it (a try, a second, and one more a second
/// later, of up to a second each) and then to run the longest job, and little longer.
pub(super) const RELEASE: u64 = 6;

/// The variable in the environment of a golock, and of all that it starts, that says to which round it belongs.
const ROUND: &str = "CHAOS_ROUND";

/// The KEY of a lock.
pub(super) fn lock_name(lock: usize) -> String {
    format!("chaos{lock}")
}

/// What a golock is to do, and how.
#[derive(Clone, Debug)]
pub(super) struct Order {
    pub(super) lock: usize,
    pub(super) code: i32,
    pub(super) span: Duration,
    pub(super) leased: bool,
    /// In seconds.
    pub(super) wait: u64,
    /// In seconds.
    pub(super) grace: u64,
    pub(super) attempts: usize,
    /// In seconds.
    pub(super) timeout: u64,
    /// Where its connections break: the index of the connection, and how.
    pub(super) faults: Vec<(usize, Fault)>,
    /// Whether its bytes pass one by one, which makes its connections last.
    pub(super) slow: bool,
    /// Whether nothing excuses that the job did not run.
    pub(super) must: bool,
}

impl Order {
    /// Whatever the dice say.
    pub(super) fn throw(dice: &Dice, locks: usize) -> Self {
        let leased = dice.below(2) == 0;
        let span = match dice.below(8) {
            0 | 1 if leased => dice.span(3200, 4800),
            2..=4 => dice.span(200, 800),
            _ => dice.span(0, 200),
        };
        let rough = dice.below(2) == 0;
        let faulty = (0..8).filter(|_| rough && dice.below(2) == 0);
        Self {
            lock: dice.index(locks),
            code: [0, 0, 1, 7, 99][dice.index(5)],
            span,
            leased,
            wait: 2 * dice.below(2),
            grace: dice.below(2),
            attempts: dice.index(3),
            timeout: 1,
            faults: faulty.map(|index| (index, fault(dice, 3))).collect(),
            slow: rough && dice.below(2) == 0,
            must: false,
        }
    }

    /// One that depends on its lease being renewed, and stopped when it is lost.
    fn long(dice: &Dice, locks: usize) -> Self {
        let (span, attempts, faults) = (dice.span(4000, 6500), 2, Vec::new());
        Self { leased: true, span, wait: 2, attempts, faults, slow: false, ..Self::throw(dice, locks) }
    }

    /// One that must succeed on a Redis that is left in peace.
    pub(super) fn peaceful(lock: usize, dice: &Dice) -> Self {
        let any = Self::throw(dice, 1);
        let span = any.span.min(Duration::from_millis(100));
        let (wait, timeout, attempts, faults) = (30, 30, 3, Vec::new());
        Self { lock, span, wait, grace: 0, attempts, timeout, faults, slow: false, must: true, ..any }
    }

    /// One that must succeed though its connections break, because it may connect as often as that and once more. It
    /// need not wait.
    pub(super) fn persistent(lock: usize, dice: &Dice) -> Self {
        // Without silence on the line: only that takes time, of which a slow machine could need too much.
        let faults = (0..5).filter(|_| dice.below(3) > 0).take(3).map(|index| (index, fault(dice, 2))).collect();
        Self { wait: 0, faults, ..Self::peaceful(lock, dice) }
    }

    /// Whether it goes through a proxy.
    pub(super) fn rough(&self) -> bool {
        self.slow || !self.faults.is_empty()
    }

    /// How long Redis may keep the lock when golock is gone.
    pub(super) fn ttl(&self) -> u64 {
        if self.leased { LEASE } else { RELEASE }
    }

    fn golock(&self, port: u16, court: &Court, round: &str) -> Golock {
        // A lease would be cut short by a RELEASE that is not much longer.
        let (release, lease) = if self.leased { (60, LEASE) } else { (RELEASE, 0) };
        Golock::new(port)
            .set("KEY", lock_name(self.lock))
            .set("RELEASE", release.to_string())
            .set("LEASE", lease.to_string())
            .set("WAIT", self.wait.to_string())
            .set("GRACE", self.grace.to_string())
            .set("RECONNECT_ATTEMPTS", self.attempts.to_string())
            .set("RECONNECT_BACKOFF", if self.attempts > 2 { "0" } else { "1" })
            .set("REDIS_TIMEOUT", self.timeout.to_string())
            .env(ROUND, round)
            .args(court.job(self.span, self.code))
    }

    fn proxy(&self, port: u16) -> Proxy {
        let proxy = self.faults.iter().fold(Proxy::start(port), |proxy, &(index, fault)| proxy.fault(index, fault));
        if self.slow { proxy.pace(16, Duration::from_millis(5)) } else { proxy }
    }
}

/// A break somewhere in the first hundred bytes of a request or in the thirty of a reply.
fn fault(dice: &Dice, actions: usize) -> Fault {
    let direction = [Direction::Request, Direction::Reply][dice.index(2)];
    let at = dice.index(if direction == Direction::Request { 130 } else { 30 });
    Fault { direction, at, action: [Action::Close, Action::Reset, Action::Stall][dice.index(actions)] }
}

/// A golock that has ended.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) order: Order,
    pub(super) golock: i32,
    pub(super) asked: f64,
    pub(super) ended: f64,
    pub(super) done: Done,
    /// How many of its connections were broken.
    pub(super) broken: usize,
    /// Whether its job was still there when it had ended.
    pub(super) outlived: bool,
}

impl Display for Run {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { order, golock, asked, ended, done, broken, .. } = self;
        write!(f, "golock {golock} {asked} to {ended}, {broken} connections broken: {order:?}: {done:?}")
    }
}

/// A signal that was sent to a golock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hit {
    pub(super) golock: i32,
    pub(super) signal: Signal,
}

/// Where the golocks of a round run.
pub(super) struct Site<'s> {
    pub(super) port: u16,
    /// One for each lock.
    pub(super) courts: &'s [Court],
    pub(super) round: &'s str,
}

impl Site<'_> {
    /// What every process of the round has in its environment.
    pub(super) fn mark(&self) -> String {
        format!("{ROUND}={}", self.round)
    }

    /// Runs one golock to its end.
    pub(super) fn run(&self, host: &Host, order: Order) -> Run {
        let (court, proxy) = (&self.courts[order.lock], order.rough().then(|| order.proxy(self.port)));
        let golock = order.golock(proxy.as_ref().map_or(self.port, Proxy::port), court, self.round);
        let asked = uptime();
        let pid = host.start(&golock);
        let (done, ended) = (host.wait(), uptime());
        let broken = proxy.map_or(0, |proxy| proxy.records().iter().filter(|record| record.broken).count());
        Run { outlived: outlived(court, pid), order, golock: pid.as_raw_nonzero().get(), asked, ended, done, broken }
    }

    /// Runs one golock after the other until `end`, and a long job first.
    pub(super) fn keep_running(&self, host: &Host, dice: &Dice, long: bool, end: Instant) -> Vec<Run> {
        let locks = self.courts.len();
        let mut runs: Vec<_> = long.then(|| self.run(host, Order::long(dice, locks))).into_iter().collect();
        while Instant::now() < end {
            let order = Order::throw(dice, locks);
            let span = order.span.min(end.saturating_duration_since(Instant::now()));
            runs.push(self.run(host, Order { span, ..order }));
            pass(dice.span(10, 100), end);
        }
        runs
    }
}

/// Whether a job of this golock, which has ended, is still there, be it as a zombie.
fn outlived(court: &Court, golock: Pid) -> bool {
    let mut jobs = court.starts().into_iter().filter(|start| start.golock == golock.as_raw_nonzero().get());
    jobs.any(|start| birth(start.job) == Some(start.born))
}

/// Sends signals to golocks until `end`.
pub(super) fn hit(hosts: &[Host], dice: &Dice, end: Instant) -> Vec<Hit> {
    let mut hits = Vec::new();
    while Instant::now() < end {
        pass(dice.span(200, 1500), end);
        let signal = [Signal::TERM, Signal::KILL][dice.index(2)];
        if let Some(golock) = hosts[dice.index(hosts.len())].signal(signal, None) {
            hits.push(Hit { golock: golock.as_raw_nonzero().get(), signal });
        }
    }
    hits
}
