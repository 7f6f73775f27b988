//! The lock protocol: what is asked of Redis, and what its answers mean.
//!
//! 1. Every exchange MUST have the same outcome when it is repeated; one that cannot (a plain DEL or SET) MUST NOT be
//!    repeated without looking first.
//! 2. Whatever depends on time MUST be computed when the bytes are sent, at each attempt.
//! 3. A lock MUST count as ours only when its value, read back, is our token.
//! 4. A command MUST NOT start unless the lock is confirmed and surely lasts.
//! 5. We MUST NOT believe longer than Redis that the lock is ours: its end counts from before we asked, its grace from
//!    after the answer.
//! 6. Another's lock MUST NOT be changed. Only a predecessor's that is past and has no TTL may be taken over.
//! 7. A lock that we have, or may have, taken MUST be given back when no command runs under it.
//! 8. A release MUST NOT lengthen a lock without a lease, and a renewal MUST NOT reach beyond RELEASE.
//! 9. The record MUST NOT decide who holds the lock, and what fails in it MUST NOT fail the lock.
//!
//! Decisions are pure functions of replies and clocks. The exchanges go through [`Exchange`](crate::exchange::Exchange), which
//! knows nothing of locks, so that anything that answers like Redis can stand behind it. DESIGN.md says where each law is kept.

mod acquire;
mod lease;
mod list;
mod name;
mod plain;
mod record;
mod release;
mod status;
mod token;

pub use acquire::{Acquired, acquire};
pub use lease::{Confirmed, Lease, TOO_LATE};
pub use list::{Entry, LIMIT as LIST_LIMIT, list};
pub use name::{KeyFormat, beside, digest, name};
pub use plain::Released;
pub use record::{End, Record, Run, decoded, encoded, percent_encoded};
pub use release::{Release, release, reset};
pub use status::{Holder, Status, Ttl, overdue_is_ours, status};
pub use token::Token;

use crate::clock::Instant;
use crate::exchange::Unanswered;
use crate::resp::{Reply, Request};
use crate::text::{Escaped, Line};
use crate::words;
use std::time::Duration;

/// What is wanted of a lock.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LockOptions {
    /// The lock's full name.
    pub name: Vec<u8>,
    /// The minimum time that it persists; not longer than `release`.
    pub grace: Duration,
    /// The maximum time that it persists.
    pub release: Duration,
    /// The length of its lease, if it is held by one; not longer than `release`.
    pub lease: Option<Duration>,
    /// The record of its runs, if there is to be one.
    pub record: Option<Recording>,
    /// When golock was started, if a run that began later has served for this one too.
    pub tick: Option<Instant>,
}

/// Where the runs of a lock are recorded, for how long, and what is written of this one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub struct Recording {
    pub key: Vec<u8>,
    pub keep: Duration,
    pub run: Run,
}

impl LockOptions {
    /// How long Redis keeps the lock without hearing from us.
    pub fn ttl(&self) -> Duration {
        self.lease.unwrap_or(self.release)
    }

    /// From when on another run may have served for this one, so that the lock is not used unless a record says that none
    /// has: GRACE after the start, because only the grace of the other keeps us from running once more.
    pub fn late_from(&self) -> Instant {
        self.tick.filter(|_| !self.grace.is_zero()).map_or(Instant::NEVER, |start| start + self.grace)
    }
}

/// Why a question about a lock has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The exchange failed.
    Exchange(Unanswered),
    /// The server refused the command named, in its own words.
    Refused(&'static str, Vec<u8>),
    /// Its reply to the command named makes no sense.
    Unexpected(&'static str),
    /// Something else, in words.
    Failed(&'static str),
}

/// A failure, and whether the lock may have been taken for us all the same.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Unsure {
    pub error: Error,
    pub may_hold: bool,
}

impl Error {
    /// Whether a signal came first.
    pub fn is_interrupted(&self) -> bool {
        matches!(self, Self::Exchange(Unanswered { why: None, .. }))
    }

    /// The words.
    pub fn words(&self) -> Line {
        match self {
            Self::Exchange(Unanswered { why, .. }) => why.clone().unwrap_or("interrupted by a signal".into()),
            Self::Refused(command, words) => words!("redis refused {}: {}", *command, Escaped(words)),
            Self::Unexpected(command) => words!("redis sent an unexpected reply to {}", *command),
            Self::Failed(words) => (*words).into(),
        }
    }

    /// The refusal that `reply` to `command` is, or that the command has no such reply.
    fn of(command: &'static str, reply: Option<Reply>) -> Self {
        if let Some(Reply::Error(words)) = reply { Self::Refused(command, words) } else { Self::Unexpected(command) }
    }
}

impl From<Unanswered> for Error {
    fn from(unanswered: Unanswered) -> Self {
        Self::Exchange(unanswered)
    }
}

/// Appends an EVAL of `script` to `request`.
fn eval(request: &mut Request, script: &str, keys: &[&[u8]], arguments: &[&[u8]]) {
    let count = keys.len().to_string();
    request.push(&[&[b"EVAL", script.as_bytes(), count.as_bytes()], keys, arguments].concat());
}

/// `span` in milliseconds as Redis takes them, rounded up: zero would mean "now".
fn milliseconds(span: Duration) -> String {
    (span.as_secs() * 1000 + u64::from(span.subsec_nanos().div_ceil(1_000_000))).to_string()
}

#[cfg(test)]
mod scripted {
    //! Something that answers like Redis, from a script.

    use super::{Lease, LockOptions, Token};
    use crate::clock::Instant;
    use crate::exchange::{Answer, Build, Exchange, Repeat, Unanswered};
    use crate::resp::{Reply, Request};
    use std::time::Duration;

    /// Answers one exchange after the other, each after a time that passes; `None` is no answer.
    pub(super) struct Scripted {
        replies: Vec<(Duration, Option<Vec<Reply>>)>,
        pub(super) now: Instant,
        pub(super) repeated: bool,
        /// The words of each command that was sent, with `TOKEN` for ours and the scripts left out.
        pub(super) asked: Vec<String>,
    }

    /// The instant of so many milliseconds; a script begins at that of 100,000.
    pub(super) fn at(milliseconds: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(milliseconds)
    }

    /// Answers at once, one command after the other.
    pub(super) fn script(replies: impl IntoIterator<Item = Option<Reply>>) -> Scripted {
        timed(replies.into_iter().map(|reply| (0, reply.map(|reply| vec![reply]))))
    }

    /// Answers each exchange after so many milliseconds.
    pub(super) fn timed(replies: impl IntoIterator<Item = (u64, Option<Vec<Reply>>)>) -> Scripted {
        let replies = replies.into_iter().map(|(after, replies)| (Duration::from_millis(after), replies)).collect();
        Scripted { replies, now: at(100_000), repeated: false, asked: Vec::new() }
    }

    /// A lock named `k` of the token of these tests, that lasts until so many milliseconds.
    pub(super) fn lease(valid_until: u64, release: u64, lease: Option<u64>) -> Lease {
        let (release, lease) = (Duration::from_secs(release), lease.map(Duration::from_secs));
        let options =
            LockOptions { name: b"k".to_vec(), grace: Duration::ZERO, release, lease, record: None, tick: None };
        let held = Lease::new(options, Token::from_number(1));
        Lease { valid_until: at(valid_until), hold_end: at(1_000_000), ..held }
    }

    /// The token of the lock of these tests.
    pub(super) fn own() -> Reply {
        Reply::Bulk(Token::from_number(1).as_bytes().to_vec())
    }

    /// The same, and what follows it.
    pub(super) fn own_and(behind: &str) -> Reply {
        Reply::Bulk([Token::from_number(1).as_bytes(), behind.as_bytes()].concat())
    }

    /// That nothing was answered.
    pub(super) fn silence() -> Unanswered {
        Unanswered { why: Some("silence".into()), may_be_done: true }
    }

    pub(super) fn refusal() -> Reply {
        Reply::Error(b"NOPERM".to_vec())
    }

    impl Exchange for Scripted {
        fn exchange(&mut self, _: Repeat, build: Build<'_>) -> Result<Answer, Unanswered> {
            let (asked, mut request) = (self.now, Request::default());
            build(asked, &mut request);
            if request.commands == 0 {
                return Ok(Answer { replies: Vec::new(), asked, repeated: self.repeated });
            }
            self.asked.push(told(&request.bytes));
            let (after, replies) = self.replies.remove(0);
            self.now = self.now + after;
            let replies = replies.ok_or_else(silence)?;
            Ok(Answer { replies, asked, repeated: self.repeated })
        }

        fn now(&self) -> Instant {
            self.now
        }

        fn unix_second(&self) -> u64 {
            1_700_000_000
        }
    }

    /// The words of a request but for the scripts; `-` for an empty one.
    fn told(request: &[u8]) -> String {
        let text = String::from_utf8_lossy(request).replace(&Token::from_number(1).to_string(), "TOKEN");
        let lines: Vec<&str> = text.split("\r\n").collect();
        let words = lines.windows(2).filter(|pair| pair[0].starts_with('$')).map(|pair| pair[1]);
        let words = words.map(|word| if word.is_empty() { "-" } else { word });
        words.filter(|word| !word.contains("redis.call")).collect::<Vec<_>>().join(" ")
    }
}
