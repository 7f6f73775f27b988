//! A part of golock's lock code that has begun, and waits for Redis.
//!
//! The code of `golock::lock` is run as it is. It blocks in `Exchange::exchange`; to stop it there and go on in every
//! possible way, it is run again from the start of the operation with all that it has heard, up to the exchange that is
//! under way. It decides by answers and clocks alone, so it comes to the same point each time.

use golock::clock::Instant;
use golock::exchange::{Answer, Build, Exchange, Repeat, Unanswered};
use golock::lock::{Acquired, Confirmed, End, Error, Release, Unsure, acquire, release};
use golock::resp::Request;

use crate::host::{Host, Phase, Times, instant};
use crate::redis::{Command, EPOCH};
use crate::world::Setting;

/// A part of the lock code that has begun, and waits for Redis.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Operation {
    pub(crate) began: u64,
    /// What it has heard since.
    pub(crate) heard: Vec<Heard>,
    /// When its budget ends.
    pub(crate) until: Option<u64>,
    /// How often an exchange of it is sent at most.
    pub(crate) tries: u8,
    pub(crate) repeat: Repeat,
    /// How often the present exchange has failed, and whether it may have been carried out.
    pub(crate) failures: u8,
    pub(crate) again: bool,
    /// Whether its last exchange was tried as often and as long as its budget allows.
    pub(crate) spent: bool,
    /// When its present exchange was sent first; only where a mutation wants to know.
    pub(crate) first: Option<u64>,
    pub(crate) way: Way,
}

/// How far the present attempt has come.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Way {
    Waiting,
    /// Its request is under way.
    Sent(Packet),
    /// Its reply is under way, since this millisecond.
    Replied(Answer, u64),
}

/// A request under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Packet {
    pub(crate) host: usize,
    pub(crate) phase: Phase,
    pub(crate) commands: Vec<Command>,
    pub(crate) sent: u64,
    /// When the grace or the hold is over that it is to keep.
    pub(crate) ends: u64,
    /// The end of the time in which it can arrive, if it is one that must not be repeated: its connection is reset.
    pub(crate) until: Option<u64>,
}

/// What became of an exchange, and when.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Heard {
    pub(crate) at: u64,
    pub(crate) outcome: Result<Answer, Silence>,
}

/// That an exchange came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Silence {
    pub(crate) interrupted: bool,
    pub(crate) may_be_done: bool,
}

/// What the lock code wants next, or what it has come to.
pub(crate) enum Step {
    Asks(Repeat),
    Acquired(Result<Acquired, Unsure>, Times),
    Confirmed(Result<Confirmed, Error>, Times),
    Renewed(Result<bool, Error>, Times),
    Released(Result<Release, Error>),
}

impl Host {
    /// How its job ends, for the record.
    fn result(&self) -> End {
        let result: &[u8] = match self.phase {
            Phase::Releasing if self.job.lost => b"lost",
            Phase::Releasing => b"1",
            _ => b"201",
        };
        End {
            result: result.to_vec(),
            success: false,
            ran: self.phase == Phase::Releasing,
            took: std::time::Duration::ZERO,
        }
    }

    /// Whether the code of this phase looks at the clock before it has heard anything.
    pub(crate) fn looks_at_clock_first(&self) -> bool {
        matches!(self.phase, Phase::Acquiring | Phase::Running)
    }

    /// Runs the lock code of this phase as far as it comes; gives back the commands that it would send at `sending` as well.
    pub(crate) fn step(&self, setting: &Setting, sending: Option<Instant>) -> Option<(Step, Request)> {
        let operation = self.operation.as_ref()?;
        let now = Some(operation.began).filter(|_| self.looks_at_clock_first());
        let mut replay = Replay { setting, host: self, operation, next: 0, now, sending, asks: None };
        let (mut lease, margin) = (self.lease(setting), setting.margin());
        let came_to = match self.phase {
            Phase::Acquiring => {
                let result = acquire(&mut replay, &mut lease, false);
                Step::Acquired(result, Times::of(&lease))
            }
            Phase::Confirming => {
                let result = lease.confirm(&mut replay, self.stale.as_deref(), margin);
                Step::Confirmed(result, Times::of(&lease))
            }
            Phase::Running => {
                let result = lease.renew(&mut replay);
                Step::Renewed(result, Times::of(&lease))
            }
            Phase::Releasing | Phase::GivingBack => {
                Step::Released(release(&mut replay, &lease, margin, &self.result()))
            }
            Phase::Idle | Phase::Starting | Phase::Ended(_) => return None,
        };
        Some(match replay.asks {
            Some((repeat, request)) => (Step::Asks(repeat), request),
            None => (came_to, Request::default()),
        })
    }
}

/// Gives the answers that were heard, and stops at the first exchange that has none.
struct Replay<'h> {
    setting: &'h Setting,
    host: &'h Host,
    operation: &'h Operation,
    next: usize,
    /// `None` before the first answer, where the code does not look at the clock before.
    now: Option<u64>,
    sending: Option<Instant>,
    asks: Option<(Repeat, Request)>,
}

impl Exchange for Replay<'_> {
    fn exchange(&mut self, repeat: Repeat, build: Build<'_>) -> Result<Answer, Unanswered> {
        let silence = |silence: Silence| Unanswered {
            why: (!silence.interrupted).then(|| "silence".into()),
            may_be_done: silence.may_be_done,
        };
        if let Some(heard) = self.operation.heard.get(self.next) {
            (self.next, self.now) = (self.next + 1, Some(heard.at));
            return heard.outcome.clone().map_err(silence);
        }
        if self.asks.is_none() {
            let mut request = Request::default();
            if let Some(now) = self.sending {
                build(now, &mut request);
            }
            self.asks = Some((repeat, request));
        }
        Err(silence(Silence { interrupted: false, may_be_done: true }))
    }

    fn now(&self) -> Instant {
        // A panic here says that the code has begun to look, and that the model has to remember when it began.
        instant(self.now.unwrap())
    }

    fn unix_second(&self) -> u64 {
        (EPOCH + self.now.unwrap() / 1000).checked_add_signed(self.setting.skews[self.host.index]).unwrap()
    }
}

impl Packet {
    /// Whether nothing can carry it out any more.
    pub(crate) fn is_over(&self, now: u64) -> bool {
        self.until.is_some_and(|end| end <= now)
    }
}

impl Operation {
    pub(crate) fn new(began: u64, tries: u8, until: Option<u64>) -> Self {
        let (heard, repeat, failures, again, first) = (Vec::new(), Repeat::Always, 0, false, None);
        let spent = false;
        Self { began, heard, until, tries, repeat, failures, again, spent, first, way: Way::Waiting }
    }

    /// Whether its budget is spent.
    pub(crate) fn is_over(&self, now: u64) -> bool {
        self.until.is_some_and(|end| end <= now) || self.late_at(now)
    }

    /// Whether the request under way may not be carried out any more: its connection is about to be reset.
    fn late_at(&self, now: u64) -> bool {
        matches!(&self.way, Way::Sent(packet) if packet.is_over(now))
    }
}
