//! Some hosts, one Redis, the network between them, and everything that may happen: one transition at a time.

use std::time::Duration;

use golock::clock::Instant;
use golock::job::State;
use golock::lock::{LockOptions, Record, Recording, Run};

use crate::host::{Host, Phase, instant};
use crate::mutation::Mutation;
use crate::operation::{Operation, Packet, Way};
use crate::proof::Wrong;
use crate::redis::{EPOCH, NAME, RECORD, Redis, Rules};

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

/// What stands in the record at first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum History {
    /// Nothing is recorded.
    Off,
    New,
    /// A run that began so many milliseconds ago and has ended.
    Before(u64),
    /// What is no record of ours.
    Garbage(&'static str),
}

/// What may happen how often.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Budget {
    /// Requests or replies that take their time, of any length.
    pub(crate) delays: u8,
    /// Attempts that fail: no connection, a refusal that passes, a lost request or reply.
    pub(crate) losses: u8,
    /// Requests that their sender has given up, and that arrive all the same.
    pub(crate) strays: u8,
    pub(crate) crashes: u8,
    pub(crate) signals: u8,
    /// The lock is deleted by an operator.
    pub(crate) resets: u8,
    /// Redis loses its data.
    pub(crate) flushes: u8,
    /// Its clock steps back.
    pub(crate) steps: u8,
    /// One exchange is refused, as by an ACL.
    pub(crate) refusals: u8,
    /// EVAL is refused from then on.
    pub(crate) bans: u8,
    /// Redis cannot be reached for a while, or for ever.
    pub(crate) outages: u8,
    /// A job is stopped by Ctrl-Z.
    pub(crate) suspends: u8,
    /// A job reaches TIMEOUT.
    pub(crate) timeouts: u8,
}

/// One world to explore.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    pub(crate) name: &'static str,
    pub(crate) hosts: usize,
    /// Whether cron starts all hosts at once.
    pub(crate) together: bool,
    /// Whether they have the same name and process id, as containers may.
    pub(crate) alike: bool,
    /// In seconds, as the settings of golock with these names.
    pub(crate) release: u64,
    pub(crate) grace: u64,
    pub(crate) lease: Option<u64>,
    /// Whether hosts look for a run that has served for them, as all do without WAIT.
    pub(crate) once: bool,
    pub(crate) history: History,
    /// How often an exchange is sent at most.
    pub(crate) tries: u8,
    pub(crate) rules: Rules,
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

/// How long a record is kept: longer than any of these worlds lasts.
const KEEP: Duration = Duration::from_hours(1);

/// The state of everything.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct World {
    pub(crate) redis: Redis,
    pub(crate) hosts: Vec<Host>,
    /// Requests that are under way without anybody waiting for their answers.
    pub(crate) strays: Vec<Packet>,
    pub(crate) budget: Budget,
    /// Whether Redis cannot be reached.
    pub(crate) dead: bool,
    pub(crate) predecessor_runs: bool,
    pub(crate) predecessor_may_come: bool,
    pub(crate) was_reset: bool,
    pub(crate) was_flushed: bool,
    /// Whether a confirmation has arrived after nobody waited for it.
    pub(crate) was_late: bool,
    /// Until when the lock is to persist after a job.
    pub(crate) grace_end: u64,
    /// The greatest number that was given to a run.
    pub(crate) last_fence: u64,
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

    /// What a host wants of the lock.
    pub(crate) fn options(&self, index: usize, started: u64) -> LockOptions {
        let who = if self.alike { 0 } else { u32::try_from(index).unwrap() };
        let run = Run { host: format!("h{who}").into_bytes(), pid: who, program: b"job".to_vec() };
        let recording = Recording { key: RECORD.to_vec(), keep: KEEP, run };
        LockOptions {
            name: NAME.to_vec(),
            grace: Duration::from_secs(self.grace),
            release: Duration::from_secs(self.release),
            lease: self.lease.map(Duration::from_secs),
            record: (self.history != History::Off).then_some(recording),
            tick: (self.once && !self.has(Mutation::LateUnrecorded)).then(|| instant(started)),
        }
    }

    /// The world as it begins.
    pub(crate) fn begin(&self) -> World {
        let mut redis = Redis::new(self.rules);
        match self.predecessor {
            Predecessor::None => {}
            Predecessor::Abandoned => redis.lock.value = Some(second(-10)),
            Predecessor::Running => {
                (redis.lock.value, redis.lock.expires) = (Some(second(1)), Some(self.release * 1000));
            }
        }
        redis.record.value = match self.history {
            History::Off | History::New => None,
            History::Before(ago) => Some(recorded(redis.milliseconds() - ago)),
            History::Garbage(text) => Some(text.into()),
        };
        let mut world = World {
            redis,
            hosts: (0..self.hosts).map(|index| Host::new(self, index)).collect(),
            strays: Vec::new(),
            budget: self.budget,
            dead: false,
            predecessor_runs: self.predecessor == Predecessor::Running,
            predecessor_may_come: self.predecessor == Predecessor::Abandoned,
            was_reset: false,
            was_flushed: false,
            was_late: false,
            grace_end: 0,
            last_fence: 0,
            wrong: None,
        };
        if self.together {
            (0..self.hosts).for_each(|index| world.begin_host(self, index));
        }
        world
    }

    pub(crate) fn margin(&self) -> Duration {
        Duration::from_millis(if self.mutation == Some(Mutation::ReleaseAtTheLastMoment) { 0 } else { MARGIN })
    }

    pub(crate) fn has(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }
}

/// The record of a run of another host that began at a millisecond of Redis's clock, and has ended.
fn recorded(start: u64) -> Vec<u8> {
    let run = Run { host: b"h9".to_vec(), pid: 9, program: b"job".to_vec() };
    let record = Record::begin(None, &run, start);
    record
        .ended(
            &golock::lock::End { result: b"0".to_vec(), success: true, ran: true, took: std::time::Duration::ZERO },
            start,
        )
        .line()
        .to_vec()
}

impl World {
    pub(crate) fn now(&self) -> u64 {
        self.redis.now
    }

    /// Whether somebody else has taken away what golock relies on.
    pub(crate) fn was_robbed(&self) -> bool {
        self.was_reset || self.was_flushed
    }

    /// Grows with every transition, and cannot grow for ever: so every schedule ends.
    pub(crate) fn progress(&self) -> (u64, u8, Vec<Progress>, usize) {
        let hosts = self.hosts.iter().map(progress_of).collect();
        let predecessor = usize::from(!self.predecessor_may_come) * 2 + usize::from(!self.predecessor_runs);
        let others = predecessor + usize::from(!self.dead) + usize::from(u8::MAX) - self.strays.len();
        (self.now(), u8::MAX - self.budget.total(), hosts, others)
    }
}

/// How far a host has come at this time.
fn progress_of(host: &Host) -> Progress {
    let way = |operation: &Operation| match operation.way {
        Way::Waiting => 1,
        Way::Sent(_) => 2,
        Way::Replied(..) => 3,
    };
    let steps = host
        .operation
        .as_ref()
        .map_or((0, 0, 0), |operation| (operation.heard.len(), operation.failures, way(operation)));
    let phase = match host.phase {
        Phase::Idle => 0,
        Phase::Acquiring => 1,
        Phase::Confirming => 2,
        Phase::Starting => 3,
        Phase::Running => 4,
        Phase::Releasing => 5,
        Phase::GivingBack => 6,
        Phase::Ended(_) => 7,
    };
    let job = match (host.job.state, host.job.resumes) {
        (State::Stopped, false) => 0,
        (State::Stopped, true) => 1,
        (State::Running, _) => 2,
        (State::Stopping, _) => 3,
        (State::Lost, _) => 4,
        (State::Leaderless, _) => 5,
    };
    // A renewal that is heard of is due later, and one that was given up as well.
    let renewed = if host.phase == Phase::Running { host.times.renew_at } else { Instant::ZERO };
    Progress { phase, job, lost: host.job.lost, renewed, steps }
}

/// How far a host has come.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Progress {
    phase: u8,
    job: u8,
    lost: bool,
    renewed: Instant,
    steps: (usize, u8, u8),
}

impl Budget {
    /// What may happen, in words.
    pub(crate) fn short(&self) -> String {
        let all = format!("{self:?}");
        all.split([',', '{', '}'])
            .map(str::trim)
            .filter(|part| part.contains(':') && !part.ends_with(": 0"))
            .collect::<Vec<_>>()
            .join(", ")
    }

    /// How much may still happen.
    fn total(&self) -> u8 {
        let Self { delays, losses, strays, crashes, signals, resets, flushes, .. } = *self;
        let Self { steps, refusals, bans, outages, suspends, timeouts, .. } = *self;
        let often = [delays, losses, strays, crashes, signals, resets];
        let seldom = [flushes, steps, refusals, bans, outages, suspends, timeouts];
        often.iter().chain(&seldom).sum()
    }
}
