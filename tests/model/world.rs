//! Some hosts, one Redis, the network between them, and everything that may happen: one transition at a time.

use std::time::Duration;

use golock::clock::Moment;
use golock::lock::{Lease, Repeat};

use crate::host::{EPOCH, Host, Phase, Step, moment};
use crate::mutation::Mutation;
use crate::redis::{Redis, Request};

/// What a predecessor has to do with the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Predecessor {
    /// There is none.
    None,
    /// A cronlock has crashed and left the lock for ever. Another one may come, and take it as well.
    Abandoned,
    /// A golock (Go) runs under a lock with a TTL, whose value has passed by the clock of some hosts.
    Running,
}

/// What may happen how often.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Budget {
    /// Requests and replies that are lost.
    pub(crate) losses: u8,
    /// Requests that their sender has given up, and that arrive all the same.
    pub(crate) strays: u8,
    pub(crate) crashes: u8,
    pub(crate) signals: u8,
    pub(crate) resets: u8,
}

/// One world to explore.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    pub(crate) name: &'static str,
    pub(crate) hosts: usize,
    /// In seconds, as the settings of golock with these names.
    pub(crate) release: u64,
    pub(crate) grace: u64,
    pub(crate) lease: Option<u64>,
    /// How often an exchange is sent at most.
    pub(crate) tries: u8,
    /// Whether Redis runs scripts.
    pub(crate) scripts: bool,
    pub(crate) predecessor: Predecessor,
    /// By how many seconds the hosts' wall clocks are wrong.
    pub(crate) skews: [i64; 3],
    pub(crate) budget: Budget,
    /// How far time jumps, and where it ends, in milliseconds.
    pub(crate) tick: u64,
    pub(crate) horizon: u64,
    pub(crate) mutation: Option<Mutation>,
}

/// How long an exchange may take (`REDIS_TIMEOUT`), and giving back a lock, in milliseconds.
pub(crate) const MARGIN: u64 = 1000;

/// What must never happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Wrong {
    /// A host has changed the lock of another.
    Touched,
    /// A lock was taken before the grace of the last job was over.
    Grace,
    /// A host skips its run although its own token stands in the lock, or a lock that a crash has left for ever.
    Lost,
    /// The lock of a lease has expired under a running job.
    Outlived,
    /// A transition has led nowhere, so that a schedule need not end.
    Stuck,
}

/// A request that is under way without anybody waiting for its answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Stray {
    pub(crate) host: usize,
    pub(crate) request: Request,
    /// The end of the time in which it can arrive, if it is one that must not be repeated: its connection is reset.
    pub(crate) until: Option<u64>,
}

/// The state of everything.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct World {
    pub(crate) redis: Redis,
    pub(crate) hosts: Vec<Host>,
    pub(crate) strays: Vec<Stray>,
    pub(crate) budget: Budget,
    pub(crate) predecessor_runs: bool,
    pub(crate) predecessor_may_come: bool,
    pub(crate) was_reset: bool,
    /// Until when the lock is to persist after a job.
    pub(crate) grace_end: u64,
    pub(crate) wrong: Option<Wrong>,
}

/// The value of a predecessor's lock that ends so long after the beginning.
pub(crate) fn second(of_clock: i64) -> Vec<u8> {
    EPOCH.checked_add_signed(of_clock).unwrap().to_string().into_bytes()
}

impl Setting {
    pub(crate) fn ttl(&self) -> u64 {
        self.lease.unwrap_or(self.release).min(self.release)
    }

    /// The world as it begins.
    pub(crate) fn begin(&self) -> World {
        let mut redis = Redis::new(self.scripts);
        match self.predecessor {
            Predecessor::None => {}
            Predecessor::Abandoned => redis.value = Some(second(-10)),
            Predecessor::Running => (redis.value, redis.expires) = (Some(second(1)), Some(self.release * 1000)),
        }
        let ttl = Duration::from_secs(self.ttl());
        World {
            redis,
            hosts: (0..self.hosts)
                .map(|index| Host::new(index, ttl, self.skews[index], self.predecessor != Predecessor::None))
                .collect(),
            strays: Vec::new(),
            budget: self.budget,
            predecessor_runs: self.predecessor == Predecessor::Running,
            predecessor_may_come: self.predecessor == Predecessor::Abandoned,
            was_reset: false,
            grace_end: 0,
            wrong: None,
        }
    }

    pub(crate) fn margin(&self) -> Duration {
        Duration::from_millis(if self.mutation == Some(Mutation::ReleaseAtTheLastMoment) { 0 } else { MARGIN })
    }

    pub(crate) fn step(&self, host: &Host) -> Option<Step> {
        host.step(self.margin())
    }

    /// The request that a host waits for, and whether it may be repeated.
    pub(crate) fn asks(&self, host: &Host) -> Option<(Request, Repeat)> {
        match self.step(host)? {
            Step::Asks(request, repeat) => Some((request, self.mutation.map_or(repeat, |fault| fault.repeat(repeat)))),
            _ => None,
        }
    }
}

impl World {
    pub(crate) fn now(&self) -> u64 {
        self.redis.now
    }

    /// Whether two jobs run at the same time, none of which has outlived its lock, and without an operator's doing.
    pub(crate) fn overlaps(&self) -> bool {
        let running = self.hosts.iter().filter(|host| host.job_runs());
        let excused = self.was_reset || running.clone().any(|host| host.outlived);
        running.count() + usize::from(self.predecessor_runs) > 1 && !excused
    }

    /// Whether a lock of golock's might stay for longer than it was taken for.
    pub(crate) fn lasts_too_long(&self, setting: &Setting) -> bool {
        let longest = self.now() + setting.ttl().max(setting.grace) * 1000;
        let golocks = self.redis.value.as_ref().is_some_and(|value| value.len() > 12);
        golocks && self.redis.expires.is_none_or(|end| end > longest)
    }

    /// Whether nothing can happen any more although a host has not ended.
    pub(crate) fn is_stuck(&self, setting: &Setting) -> bool {
        let ended = |host: &Host| matches!(host.phase, Phase::Ended(_));
        !self.hosts.iter().all(ended) && self.events(setting).is_empty()
    }

    /// Grows with every transition, and cannot grow for ever: so every schedule ends.
    pub(crate) fn progress(&self) -> (u64, u8, Vec<(u8, usize, u8)>, usize) {
        let Budget { losses, strays, crashes, signals, resets } = self.budget;
        let spent = u8::MAX - (losses + strays + crashes + signals + resets);
        let hosts = self.hosts.iter().map(|host| (self.rank(host), host.heard.len(), host.failures));
        let others = usize::from(!self.predecessor_may_come) * 2 + usize::from(!self.predecessor_runs);
        (self.now(), spent, hosts.collect(), others + usize::from(u8::MAX) - self.strays.len())
    }

    /// How far a host has come at this time.
    fn rank(&self, host: &Host) -> u8 {
        let has_come = |moment_of: fn(&Lease) -> Moment| {
            host.lease.as_ref().is_some_and(|lease| moment_of(lease) <= moment(self.now()))
        };
        match host.phase {
            Phase::Idle => 0,
            Phase::Acquiring => 1,
            Phase::Settling => 2 + host.rounds,
            Phase::Renewing if host.began < self.now() => 10,
            Phase::Running if has_come(Lease::stop_by) => 14,
            Phase::Running if has_come(Lease::due) => 11,
            Phase::Renewing => 12,
            Phase::Running => 13,
            Phase::Stopping => 15,
            Phase::Releasing => 16,
            Phase::GivingBack => 17,
            Phase::Ended(_) => 18,
        }
    }
}
