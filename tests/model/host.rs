//! A host: which part of golock's lock code it is in, and what that code has heard so far.
//!
//! The code of `golock::lock` is run as it is. It blocks in `Exchange::exchange`; to stop it there and go on in every
//! possible way, it is run again from the start of the operation with all answers that it has had, up to the request that
//! has none yet. It decides by answers and clocks alone, so it comes to the same point each time.

use std::time::Duration;

use golock::clock::Moment;
use golock::lock::{
    Acquired, Answer, Command, Error, Exchange, Lease, Lock, Released, Repeat, Token, acquire, release,
};

use crate::redis::Request;

/// The lock's name.
pub(crate) const NAME: &[u8] = b"lock";

/// The Unix second at which the explorer's clock begins.
pub(crate) const EPOCH: u64 = 1_700_000_000;

/// Why an exchange failed: the client has given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Silence;

/// What became of an exchange, and when.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Heard {
    pub(crate) at: u64,
    pub(crate) answer: Option<Answer>,
}

/// Where a host is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Phase {
    /// Cron has not started it yet.
    Idle,
    Acquiring,
    /// The first renewal of a lease, before the job is started.
    Settling,
    Running,
    /// The job runs, and the lease is being renewed.
    Renewing,
    /// The lease is lost, and the job was told to stop.
    Stopping,
    Releasing,
    GivingBack,
    Ended(End),
}

/// How a host ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum End {
    Ran,
    Skipped,
    Failed,
    /// It was told to stop, or does not know whether it has the lock.
    GaveBack,
    LeaseLost,
    Crashed,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Host {
    pub(crate) phase: Phase,
    pub(crate) lock: Lock,
    pub(crate) lease: Option<Lease>,
    pub(crate) grace_end: u64,
    /// When the operation began.
    pub(crate) began: u64,
    /// What it has heard since.
    pub(crate) heard: Vec<Heard>,
    /// How often the present exchange has failed, and whether it may have been carried out.
    pub(crate) failures: u8,
    pub(crate) sent: bool,
    /// How often the lease was renewed before the job started.
    pub(crate) rounds: u8,
    /// Whether the lock has expired under the running job.
    pub(crate) outlived: bool,
    /// By how many seconds its wall clock is wrong.
    skew: i64,
    /// Whether it matters at what time it learns of a lock: only of a predecessor's.
    looks_at_clock: bool,
}

/// What the lock code wants next, or what it has come to.
pub(crate) enum Step {
    Asks(Request, Repeat),
    Acquired(Result<Acquired, Error<Silence>>),
    Renewed(Result<bool, Error<Silence>>, Lease),
    Released(Result<Released, Error<Silence>>),
}

/// The moment of a millisecond of the explorer's clock.
pub(crate) fn moment(millisecond: u64) -> Moment {
    Moment::ZERO + Duration::from_millis(millisecond)
}

impl Host {
    pub(crate) fn new(index: usize, ttl: Duration, skew: i64, looks_at_clock: bool) -> Self {
        let token = Token::from_number(u64::try_from(index).unwrap() + 1);
        Self {
            phase: Phase::Idle,
            lock: Lock { name: NAME.to_vec(), token, ttl, surely_until: Moment::ZERO },
            lease: None,
            grace_end: 0,
            began: 0,
            heard: Vec::new(),
            failures: 0,
            sent: false,
            rounds: 0,
            outlived: false,
            skew,
            looks_at_clock,
        }
    }

    pub(crate) fn token(&self) -> &[u8] {
        self.lock.token.as_bytes()
    }

    /// Whether its job may be at work.
    pub(crate) fn job_runs(&self) -> bool {
        matches!(self.phase, Phase::Running | Phase::Renewing | Phase::Stopping)
    }

    /// Whether they differ only in their tokens, before they have begun.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        self.skew == other.skew
    }

    pub(crate) fn enter(&mut self, phase: Phase, now: u64) {
        (self.phase, self.began, self.failures, self.sent) = (phase, now, 0, false);
        self.heard.clear();
        match phase {
            Phase::Acquiring => self.lock.surely_until = moment(now) + self.lock.ttl,
            // What does not matter any more is forgotten, so that states that differ only in it become one.
            Phase::Ended(_) => {
                (self.lease, self.grace_end, self.began, self.rounds, self.outlived) = (None, 0, 0, 0, false);
                self.lock.surely_until = Moment::ZERO;
            }
            Phase::Running | Phase::Stopping => self.began = 0,
            _ => {}
        }
    }

    /// The time since when the present exchange has been under way.
    pub(crate) fn asked(&self) -> u64 {
        self.heard.last().map_or(self.began, |heard| heard.at)
    }

    /// The Unix second by its clock.
    pub(crate) fn unix_second(&self, now: u64) -> u64 {
        (EPOCH + now / 1000).checked_add_signed(self.skew).unwrap()
    }

    /// Ends the present exchange.
    pub(crate) fn hear(&mut self, now: u64, answer: Option<Answer>) {
        let at = if self.phase == Phase::Acquiring && !self.looks_at_clock { self.began } else { now };
        self.heard.push(Heard { at, answer });
        (self.failures, self.sent) = (0, false);
    }

    /// Runs the lock code of this phase as far as it comes; `margin` is that of a release.
    pub(crate) fn step(&self, margin: Duration) -> Option<Step> {
        let mut replay = Replay { host: self, next: 0, now: self.began, asks: None };
        let grace_end = if self.phase == Phase::Releasing { self.grace_end } else { self.began };
        let came_to = match self.phase {
            Phase::Acquiring => Step::Acquired(acquire(&mut replay, &self.lock)),
            Phase::Settling | Phase::Renewing => {
                let mut lease = self.lease.clone()?;
                Step::Renewed(lease.renew(&mut replay), lease)
            }
            Phase::Releasing | Phase::GivingBack => {
                Step::Released(release(&mut replay, &self.lock, moment(grace_end), margin))
            }
            Phase::Idle | Phase::Running | Phase::Stopping | Phase::Ended(_) => return None,
        };
        Some(replay.asks.map_or(came_to, |(request, repeat)| Step::Asks(request, repeat)))
    }
}

/// Gives the answers that were heard, and stops at the first request that has none.
struct Replay<'h> {
    host: &'h Host,
    next: usize,
    now: u64,
    asks: Option<(Request, Repeat)>,
}

impl Exchange for Replay<'_> {
    type Error = Silence;

    fn exchange(&mut self, commands: &[Command<'_>], repeat: Repeat) -> Result<Answer, Silence> {
        if let Some(heard) = self.host.heard.get(self.next) {
            (self.next, self.now) = (self.next + 1, heard.at);
            return heard.answer.clone().ok_or(Silence);
        }
        let request = || commands.iter().map(|command| command.iter().map(|word| word.to_vec()).collect()).collect();
        self.asks.get_or_insert_with(|| (request(), repeat));
        Err(Silence)
    }

    fn now(&self) -> Moment {
        moment(self.now)
    }

    fn unix_second(&self) -> u64 {
        self.host.unix_second(self.now)
    }
}
