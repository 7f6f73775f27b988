//! A host: where its golock is, and what it holds.

use std::time::Duration;

use golock::clock::Instant;
use golock::job::State;
use golock::lock::{Lease, Token};

use crate::mutation::Mutation;
use crate::operation::{Operation, Way};
use crate::world::Setting;

/// How long the hosts have been up when the explorer's clock begins.
const UPTIME: u64 = 1_000_000_000;

/// Where a host is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Phase {
    /// Cron has not started it yet.
    Idle,
    Acquiring,
    Confirming,
    /// The lock is confirmed, and the command is about to start.
    Starting,
    /// The job runs, or is stopped, or is told to end; its lease may be under renewal.
    Running,
    Releasing,
    GivingBack,
    Ended(End),
}

/// How a host ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum End {
    Ran,
    /// The lock is another's.
    Skipped,
    /// Another run has served for this one.
    Served,
    /// Nothing that could have taken the lock was sent.
    Failed,
    /// No command was started, and the lock may have been ours.
    GaveBack,
    Crashed,
}

/// What its lease holds besides what never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Times {
    pub(crate) asked_at: Instant,
    pub(crate) valid_until: Instant,
    pub(crate) hold_end: Instant,
    pub(crate) grace_end: Instant,
    pub(crate) renew_at: Instant,
    pub(crate) is_final: bool,
    pub(crate) fence: Option<u64>,
    pub(crate) eval_refused: bool,
}

/// A job, as the supervisor sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Job {
    pub(crate) state: State,
    pub(crate) kill_at: Option<u64>,
    pub(crate) lost: bool,
    /// It was continued, and waits until its lease was seen to.
    pub(crate) resumes: bool,
}

/// What the code does not know, but the proof.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Traces {
    /// Whether the SET that got the lock was sent within GRACE of the start, and carried out after.
    pub(crate) underway: bool,
    /// When its confirmation was carried out that it has heard of, or may hear of.
    pub(crate) confirmed: u64,
    /// When its beginning was recorded last, and whether the lock was given back since.
    pub(crate) recorded: Option<u64>,
    pub(crate) given_back: bool,
    /// The number that its run was given last, and as how many runs it was recorded.
    pub(crate) number: u64,
    pub(crate) runs: u8,
    /// When the confirmation was carried out under which its job started.
    pub(crate) began: Option<u64>,
    /// Whether a request of its own that nobody waits for has taken the lock for it.
    pub(crate) raced: bool,
    /// Whether the lock has expired under the running job.
    pub(crate) outlived: bool,
    /// Whether its token stood in the lock when its last exchange was carried out.
    pub(crate) owned: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Host {
    pub(crate) phase: Phase,
    pub(crate) index: usize,
    /// When cron started it.
    pub(crate) started: u64,
    /// The value of a predecessor's lock that is to be taken over.
    pub(crate) stale: Option<Vec<u8>>,
    pub(crate) times: Times,
    pub(crate) job: Job,
    pub(crate) operation: Option<Operation>,
    pub(crate) traces: Traces,
}

/// The instant of a millisecond of the explorer's clock.
pub(crate) fn instant(millisecond: u64) -> Instant {
    Instant::ZERO + Duration::from_millis(UPTIME + millisecond)
}

/// The millisecond of an instant; 0 for one that was before.
pub(crate) fn millisecond(instant_: Instant) -> u64 {
    instant_.since(instant(0)).map_or(0, golock::clock::milliseconds)
}

impl Times {
    pub(crate) fn of(lease: &Lease) -> Self {
        let Lease { asked_at, valid_until, hold_end, grace_end, renew_at, is_final, fence, eval_refused, .. } = *lease;
        Self { asked_at, valid_until, hold_end, grace_end, renew_at, is_final, fence, eval_refused }
    }
}

impl Host {
    pub(crate) fn new(setting: &Setting, index: usize) -> Self {
        let times = Times::of(&Lease::new(setting.options(index, 0), Token::from_number(0)));
        let job = Job { state: State::Running, kill_at: None, lost: false, resumes: false };
        let (stale, operation, traces) = (None, None, Traces::default());
        Self { phase: Phase::Idle, index, started: 0, stale, times, job, operation, traces }
    }

    pub(crate) fn token(&self) -> Token {
        Token::from_number(u64::try_from(self.index).unwrap() + 1)
    }

    /// The lease as the lock code has it.
    pub(crate) fn lease(&self, setting: &Setting) -> Lease {
        let Times { asked_at, valid_until, mut hold_end, grace_end, renew_at, is_final, fence, eval_refused } =
            self.times;
        if setting.has(Mutation::RenewalBeyondRelease) && self.phase == Phase::Running {
            hold_end = Instant::NEVER;
        }
        let (options, token) = (setting.options(self.index, self.started), self.token());
        Lease { options, token, asked_at, valid_until, hold_end, grace_end, renew_at, is_final, fence, eval_refused }
    }

    /// Whether its job may be at work.
    pub(crate) fn job_runs(&self) -> bool {
        self.phase == Phase::Running && self.job.state != State::Stopped
    }

    /// Whether it has not done anything yet.
    pub(crate) fn is_untouched(&self) -> bool {
        let untouched = |operation: &Operation| {
            operation.heard.is_empty() && operation.failures == 0 && operation.way == Way::Waiting
        };
        self.phase == Phase::Idle || (self.phase == Phase::Acquiring && self.operation.as_ref().is_some_and(untouched))
    }

    /// What does not matter any more is forgotten, so that states that differ only in it become one.
    pub(crate) fn end(&mut self, setting: &Setting, end: End) {
        let Traces { recorded, given_back, number, runs, began, .. } = self.traces;
        let (started, index) = (self.started, self.index);
        *self = Self::new(setting, index);
        (self.phase, self.started) = (Phase::Ended(end), started);
        self.traces = Traces { recorded, given_back, number, runs, began, ..Traces::default() };
    }
}
