//! A lock of ours where the server refuses EVAL: look at it, then delete it or set its end. Between the two it could expire
//! and be taken by another, so it is only touched while our own clock says that it cannot.

use super::{Error, Token};
use crate::clock::Instant;
use crate::exchange::{Exchange, Repeat};
use crate::resp::Reply;
use std::time::Duration;

/// What became of a lock that was to be released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Released {
    /// It is free.
    Free,
    /// It becomes free by itself, after this time or sooner.
    InGrace(Duration),
    /// It was no longer ours, and was left alone.
    Lost,
    /// It may still be ours, but not surely enough to touch it without EVAL. It expires by itself.
    LeftToExpire,
}

/// Whose lock GET finds; another's with its value.
pub(super) enum Whose {
    Ours,
    Gone,
    Another(Vec<u8>),
}

pub(super) fn look(redis: &mut dyn Exchange, name: &[u8], token: &Token) -> Result<Whose, Error> {
    match redis.exchange(Repeat::Always, &|_, request| request.push(&[b"GET", name]))?.only() {
        Some(Reply::Bulk(value)) if value == token.as_bytes() => Ok(Whose::Ours),
        Some(Reply::Bulk(value)) => Ok(Whose::Another(value)),
        Some(Reply::Nil) => Ok(Whose::Gone),
        other => Err(Error::of("GET", other)),
    }
}

/// Deletes the lock, or sets its end to `rest` from when that is sent. Nothing is sent unless it then surely lasts,
/// until `valid_until`, for longer than `margin`: the time that a command may be under way.
pub(super) fn delete_or_set(
    redis: &mut dyn Exchange,
    (name, token): (&[u8], &Token),
    (valid_until, margin): (Instant, Duration),
    rest: &dyn Fn(Instant) -> Duration,
) -> Result<Released, Error> {
    let answer = redis.exchange(Repeat::Never, &|now, request| {
        if valid_until.since(now).unwrap_or_default() <= margin {
            // It might be another's by the time that this arrives.
            return;
        }
        let rest = rest(now);
        match rest.as_secs() + u64::from(rest.subsec_nanos() > 0) {
            0 => request.push(&[b"DEL", name]),
            seconds => request.push(&[b"SET", name, token.as_bytes(), b"XX", b"EX", seconds.to_string().as_bytes()]),
        }
    })?;
    let rest = rest(answer.asked);
    match (answer.only(), rest.is_zero()) {
        (None, _) => Ok(Released::LeftToExpire),
        (Some(Reply::Integer(1)), true) => Ok(Released::Free),
        (Some(Reply::Status(_)), false) => Ok(Released::InGrace(rest)),
        (Some(Reply::Integer(0)), true) | (Some(Reply::Nil), false) => Ok(Released::Lost),
        (other, _) => Err(Error::of("the release", other)),
    }
}
