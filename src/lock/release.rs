use super::record::End;
use super::{Error, Lease, Recording, milliseconds};
use crate::clock::Instant;
use crate::exchange::{Answer, Exchange, Repeat};
use crate::resp::Reply;
use std::time::Duration;

/// Gives up the lock `KEYS[1]` if its value is the token `ARGV[1]`: at once, or when `ARGV[2]` milliseconds have passed if
/// that is not 0. Only if `ARGV[3]` is 1, because the lock has a lease, that may be later than it expires anyway. There is
/// no SET in it, so it works on a Redis that is out of memory.
///
/// Result: 1, 0 for a foreign value, -1 if there is none.
///
/// Repeated, it finds the lock gone, or in a grace that is as long as before.
const RELEASE: &str = "local v,c=redis.call('GET',KEYS[1]),1 if not v then c=-1 elseif v~=ARGV[1] then c=0 \
    else local g,p=tonumber(ARGV[2]),redis.call('PTTL',KEYS[1]) if g==0 then redis.call('DEL',KEYS[1]) \
    elseif ARGV[3]=='1' or p<0 or p>g then redis.call('PEXPIRE',KEYS[1],ARGV[2]) end end ";

/// The end of [`RELEASE`] where nothing is recorded.
const PLAIN: &str = "return c";

/// The end of [`RELEASE`] that writes the end of the run with the fence `ARGV[4]` into the record `KEYS[2]`, unless that
/// is another run's or has an end: the result `ARGV[5]`, which is a success if `ARGV[6]` is 1. It is then kept for `ARGV[7]`
/// milliseconds.
///
/// Result: the same, a space, and the record as it stands then, or why nothing was recorded.
///
/// Repeated, it finds the end. Whatever fails in it leaves the lock as it is.
const RECORD: &str = "local t,r=redis.pcall('TIME'),redis.pcall('GET',KEYS[2]) \
    local e=t.err or r and r.err if not e then \
    local f,w,s,d,o,b,i=string.match(r or '',\
    '^fence=(%d+) (host=%S* pid=%d* program=%S*) start=(%d+) end=(%d*) result=%S* ok=(%d*) failed=(%d+) first=(%d+)') \
    if f==ARGV[4] and d=='' then local n=string.format('%.0f',t[1]*1000+math.floor(t[2]/1000)) \
    if ARGV[6]=='1' then o,b=n,0 else b=b+1 end \
    r='fence='..f..' '..w..' start='..s..' end='..n..' result='..ARGV[5]..' ok='..o\
    ..' failed='..string.format('%.0f',b)..' first='..i e=redis.pcall('SET',KEYS[2],r,'PX',ARGV[7]).err end end \
    return c..' '..(e or r or '')";

/// How often the release without EVAL starts again when its last, not repeatable step was not answered.
const ROUNDS: u32 = 3;

/// What became of a lock that was to be released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Released {
    /// It is free.
    Free,
    /// It becomes free by itself after this time at the latest.
    InGrace(Duration),
    /// It was not ours any more, and was left alone.
    Lost,
    /// It may still be ours, but not surely enough to touch it without EVAL. It expires by itself.
    LeftToExpire,
}

/// A release that was heard of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// What became of the lock.
    pub lock: Released,
    /// The record as it stands, or why nothing was recorded; `None` where there is no record.
    pub record: Option<Vec<u8>>,
}

/// Releases the lock of `lease`, which is to persist until its grace is over; `margin` is how long a command may be under
/// way. `end` is written into the record.
///
/// # Errors
/// When Redis could not be asked, refused, or answered nonsense. The lock may have been released all the same.
pub fn release<X: Exchange>(
    redis: &mut X,
    lease: &Lease,
    margin: Duration,
    end: &End,
) -> Result<Release, Error<X::Error>> {
    if lease.eval_refused.is_none() {
        match release_by_eval(redis, lease, end) {
            Err(Error::Refused(..)) => {}
            done => return done,
        }
    }
    release_without_eval(redis, lease, margin).map(|lock| Release { lock, record: None })
}

fn release_by_eval<X: Exchange>(redis: &mut X, lease: &Lease, end: &End) -> Result<Release, Error<X::Error>> {
    let (name, token, grace_end) = (&lease.options.name, lease.token.as_bytes(), lease.grace_end);
    let lengthen: &[u8] = if lease.options.lease.is_some() { b"1" } else { b"0" };
    let record = lease.options.record.as_ref().zip(lease.fence);
    let script = [RELEASE, record.map_or(PLAIN, |_| RECORD)].concat();
    let answer = redis.exchange(Repeat::Always, &|sending, request| {
        let grace = milliseconds(grace_end.since(sending.at).unwrap_or_default());
        let about_lock = [token, grace.as_bytes(), lengthen];
        match record {
            None => request.push(&[&[b"EVAL", script.as_bytes(), b"1", name], &about_lock[..]].concat()),
            Some((Recording { key, keep, .. }, fence)) => {
                let (fence, keep) = (fence.to_string(), milliseconds(*keep));
                let success: &[u8] = if end.success { b"1" } else { b"0" };
                let about_run = [fence.as_bytes(), &end.result, success, keep.as_bytes()];
                request.push(&[&[b"EVAL", script.as_bytes(), b"2", name, key], &about_lock[..], &about_run].concat());
            }
        }
    })?;
    let grace = grace_end.since(answer.asked).unwrap_or_default();
    // Until then a lock that we have released stands there with our token.
    let grace_is_over = grace_end.since(redis.now()).is_none();
    let (was_ours, record) = judge(answer, grace_is_over)?;
    let lock = match was_ours {
        true if grace.is_zero() => Released::Free,
        true => Released::InGrace(grace),
        false => Released::Lost,
    };
    Ok(Release { lock, record })
}

/// Whether it was ours when it was released, and the record. A lock that is gone or another's after a repetition may have
/// been released the first time, if its grace is over.
fn judge<E>(answer: Answer, grace_is_over: bool) -> Result<(bool, Option<Vec<u8>>), Error<E>> {
    let repeated = answer.repeated;
    let was_ours = |code: &[u8]| match code {
        b"1" => Ok(true),
        b"0" | b"-1" => Ok(repeated && grace_is_over),
        _ => Err(Error::Failed("redis sent an unexpected reply to EVAL")),
    };
    match answer.only() {
        Some(Reply::Integer(code)) => was_ours(code.to_string().as_bytes()).map(|ours| (ours, None)),
        Some(Reply::Bulk(text)) => {
            let (code, record) = text.split_at(text.iter().position(|&byte| byte == b' ').unwrap_or(text.len()));
            was_ours(code).map(|ours| (ours, record.get(1..).map(<[u8]>::to_vec)))
        }
        Some(Reply::Error(words)) => Err(Error::Refused("EVAL", words)),
        _ => was_ours(b"").map(|ours| (ours, None)),
    }
}

/// The release where the server refuses EVAL: look, then delete or shorten. Between the two the lock could expire and
/// be taken by another, so it is only touched while our own clock says that it cannot expire within `margin`, and the
/// second step is never repeated without the first.
fn release_without_eval<X: Exchange>(
    redis: &mut X,
    lease: &Lease,
    margin: Duration,
) -> Result<Released, Error<X::Error>> {
    let mut last = None;
    for round in 0..ROUNDS {
        match look(redis, lease)? {
            Look::Ours => {}
            Look::Gone if round > 0 => return Ok(Released::Free),
            Look::Gone | Look::Another => return Ok(Released::Lost),
        }
        // A release lengthens nothing: the grace is cut where the lock ends.
        let end = lease.grace_end.min(lease.valid_until);
        match delete_or_set(redis, lease, margin, &|now| end.since(now).unwrap_or_default()) {
            Err(Error::Exchange(error)) => last = Some(error),
            done => return done,
        }
    }
    last.map_or(Err(Error::Failed("redis did not answer")), |error| Err(Error::Exchange(error)))
}

/// Sets a lock of ours to last for RELEASE from now, where EVAL is refused; false if it is not surely ours any more.
pub(super) fn set_without_eval<X: Exchange>(
    redis: &mut X,
    lease: &mut Lease,
    margin: Duration,
) -> Result<bool, Error<X::Error>> {
    if look(redis, lease)? != Look::Ours {
        return Ok(false);
    }
    let (asked, release) = (redis.now(), lease.options.release);
    let set = delete_or_set(redis, lease, margin, &|_| release)?;
    (lease.valid_until, lease.hold_end) = (asked + release, asked + release);
    Ok(matches!(set, Released::InGrace(_)))
}

/// Whose lock GET finds.
#[derive(PartialEq, Eq)]
enum Look {
    Ours,
    Gone,
    Another,
}

fn look<X: Exchange>(redis: &mut X, lease: &Lease) -> Result<Look, Error<X::Error>> {
    let name = &lease.options.name;
    match redis.exchange(Repeat::Always, &|_, request| request.push(&[b"GET", name]))?.only() {
        Some(Reply::Bulk(value)) if value == lease.token.as_bytes() => Ok(Look::Ours),
        Some(Reply::Bulk(_)) => Ok(Look::Another),
        Some(Reply::Nil) => Ok(Look::Gone),
        Some(Reply::Error(words)) => Err(Error::Refused("GET", words)),
        _ => Err(Error::Failed("redis sent an unexpected reply to GET")),
    }
}

/// Deletes the lock, or sets its end to `rest` from when that is sent; nothing is sent unless the lock surely lasts for
/// longer than `margin` then.
fn delete_or_set<X: Exchange>(
    redis: &mut X,
    lease: &Lease,
    margin: Duration,
    rest: &dyn Fn(Instant) -> Duration,
) -> Result<Released, Error<X::Error>> {
    let (name, token) = (&lease.options.name, lease.token.as_bytes());
    let answer = redis.exchange(Repeat::Never, &|sending, request| {
        let left = lease.valid_until.since(sending.at).unwrap_or_default();
        if left <= margin {
            // It might be another's by the time that this arrives.
            return;
        }
        let rest = rest(sending.at);
        let seconds = rest.as_secs() + u64::from(rest.subsec_nanos() > 0);
        if seconds == 0 {
            request.push(&[b"DEL", name]);
        } else {
            request.push(&[b"SET", name, token, b"XX", b"EX", seconds.to_string().as_bytes()]);
        }
    })?;
    let rest = rest(answer.asked);
    match (answer.only(), rest.is_zero()) {
        (None, _) => Ok(Released::LeftToExpire),
        (Some(Reply::Integer(1)), true) => Ok(Released::Free),
        (Some(Reply::Status(_)), false) => Ok(Released::InGrace(rest)),
        (Some(Reply::Integer(0)), true) | (Some(Reply::Nil), false) => Ok(Released::Lost),
        (Some(Reply::Error(words)), _) => Err(Error::Refused("the release", words)),
        _ => Err(Error::Failed("redis sent an unexpected reply to the release")),
    }
}

/// Deletes the lock `name`, whoever holds it; whether there was one.
///
/// # Errors
/// When Redis could not be asked, refused, or answered nonsense.
pub fn reset<X: Exchange>(redis: &mut X, name: &[u8]) -> Result<bool, Error<X::Error>> {
    match redis.exchange(Repeat::Always, &|_, request| request.push(&[b"DEL", name]))?.only() {
        Some(Reply::Integer(0)) => Ok(false),
        Some(Reply::Integer(1)) => Ok(true),
        Some(Reply::Error(words)) => Err(Error::Refused("DEL", words)),
        _ => Err(Error::Failed("redis sent an unexpected reply to DEL")),
    }
}
