//! Something that answers like Redis, as it was told.

use super::{Lease, LockOptions, Token};
use crate::clock::Instant;
use crate::exchange::{Answer, Build, Exchange, Repeat, Sending, Unanswered};
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
    let options = LockOptions { name: b"k".to_vec(), grace: Duration::ZERO, release, lease, record: None, tick: None };
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
        build(Sending { at: asked, again: self.repeated }, &mut request);
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
