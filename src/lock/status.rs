use super::acquire::is_second;
use super::{Error, LockOptions, Look, Record, Token};
use crate::exchange::{Exchange, Repeat};
use crate::resp::{Reply, Request};
use crate::text::{Escaped, Line, Span, Utc, percent_decoded};
use crate::words;
use std::time::Duration;

/// All that is known of the lock `KEYS[1]` and of its record `KEYS[2]`, if there is one; changes nothing.
///
/// Result: the seconds until the lock expires (-1: never; -2: there is none), the milliseconds of Redis's clock (0 if that
/// cannot be asked), the length of the lock's value, each with a space behind it, the value, and the record. A value or a
/// record that is too long to be one of ours is cut.
const STATUS: &str = "local v,t,r=redis.call('GET',KEYS[1]) or '',redis.pcall('TIME'),KEYS[2] and redis.pcall('GET',KEYS[2]) \
    v=string.sub(v,1,99) r=type(r)=='string' and string.sub(r,1,999) or '' \
    return redis.call('TTL',KEYS[1])..' '..(t.err and 0 or string.format('%.0f',t[1]*1000+math.floor(t[2]/1000)))\
    ..' '..#v..' '..v..r";

/// How long one host of a fleet has told that a lock's runs do not succeed, before another may.
const TOLD: &str = "3600";

/// What is known of a lock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Its value, if it is held.
    pub value: Option<Vec<u8>>,
    /// When it expires.
    pub ttl: Ttl,
    /// The milliseconds since 1970 by the clock that the record was written by, if they are known.
    pub now: Option<u64>,
    /// The record of its runs, if there is one.
    pub record: Option<Record>,
}

/// When a held lock expires.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ttl {
    /// In so many seconds.
    Seconds(u64),
    /// Never.
    Never,
    /// That was not asked, or the server refuses EVAL, without which golock cannot know.
    #[default]
    Unknown,
}

/// What a lock is to whoever asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// Nobody holds it.
    Nobody,
    /// A run of golock's that has not ended.
    Running,
    /// A run of golock's that has ended, and whose grace is not over.
    Grace,
    /// A golock, of which nothing else is known.
    Golock,
    /// A cronlock or golock (Go).
    Predecessor,
    /// Nobody: the key is not a lock.
    Unknown,
}

impl Status {
    /// A lock that is held, with this value.
    pub fn held(value: Vec<u8>) -> Self {
        Self { value: Some(value), ..Self::default() }
    }

    /// Who holds it, by the form of its value and what the record says.
    pub fn holder(&self) -> Holder {
        match (&self.value, &self.record) {
            (None, _) => Holder::Nobody,
            (Some(value), _) if is_second(value) => Holder::Predecessor,
            (Some(value), _) if value.len() != Token::DIGITS || !value.iter().all(u8::is_ascii_digit) => Holder::Unknown,
            (_, None) => Holder::Golock,
            (_, Some(Record { end: None, .. })) => Holder::Running,
            (_, Some(_)) => Holder::Grace,
        }
    }

    /// How long nothing has succeeded, if that is longer than `most` at the milliseconds `now`.
    pub fn overdue(&self, most: Duration, now: u64) -> Option<Duration> {
        let waiting = now.checked_sub(self.record.as_ref()?.waiting_since()).map(Duration::from_millis);
        waiting.filter(|waiting| *waiting > most)
    }

    /// Who holds it, for people.
    pub fn holder_told(&self) -> Line {
        match (self.holder(), &self.record) {
            (Holder::Running, Some(record)) => {
                let (host, pid) = (record.shown_host(), Escaped(&record.pid));
                words!("held by {}, process {}, since {}", host, pid, Utc(record.start))
            }
            (Holder::Grace, Some(record)) => {
                let ended = Utc(record.end.unwrap_or_default());
                words!("held for the grace of the run on {} that ended {}", record.shown_host(), ended)
            }
            (Holder::Unknown, _) => {
                let value = self.value.as_deref().unwrap_or_default();
                words!("the key is not a lock, its value is {}; golock --reset deletes it", Escaped(value))
            }
            (Holder::Predecessor, _) => "held by cronlock or golock (Go)".into(),
            _ => "held by another".into(),
        }
    }

    /// The same, with for how long, until when, and by which token.
    pub fn told(&self) -> Line {
        let since = self.record.as_ref().filter(|_| self.holder() == Holder::Running).map(|record| record.start);
        let since = self.now.zip(since).and_then(|(now, since)| now.checked_sub(since)).map(Duration::from_millis);
        let since = since.map_or(Line::default(), |since| words!(" ({})", Span(since)));
        let token = match (self.holder(), &self.value) {
            (Holder::Golock | Holder::Running | Holder::Grace | Holder::Predecessor, Some(token)) => {
                words!(", token {}", Escaped(token))
            }
            _ => Line::default(),
        };
        words!("{}{}{}{}", self.holder_told(), since, self.free_in(), token)
    }

    fn free_in(&self) -> Line {
        match self.ttl {
            Ttl::Seconds(left) => words!(", free in {} at the latest", Span(Duration::from_secs(left))),
            Ttl::Never => ", and never expires".into(),
            Ttl::Unknown => Line::default(),
        }
    }
}

impl Status {
    /// Hides in every text of it what `hide` hides: a server may repeat the password.
    pub fn redact(&mut self, hide: &dyn Fn(&[u8]) -> Vec<u8>) {
        if let (Holder::Unknown, Some(value)) = (self.holder(), &mut self.value) {
            *value = hide(value);
        }
        if let Some(record) = &mut self.record {
            for text in [&mut record.host, &mut record.pid, &mut record.program, &mut record.result, &mut record.last] {
                *text = hide(text);
            }
        }
    }
}

impl Record {
    /// The host's name for people.
    pub fn shown_host(&self) -> Line {
        let host = percent_decoded(&self.host).unwrap_or_else(|| self.host.clone());
        words!("{}", Escaped(&host))
    }
}

/// Appends to `request` what a [`Look`] asks besides the lock. Its reply only informs.
pub(super) fn push_status(request: &mut Request, options: &LockOptions, look: Look) {
    match (&options.record, look) {
        (_, Look::No) | (None, Look::Record) => return,
        (Some(record), Look::Record) => request.push(&[b"GET", &record.key]),
        (record, Look::Everything) => ask(request, &options.name, record.as_ref().map(|record| &record.key[..])),
    }
    request.informs = 1;
}

fn ask(request: &mut Request, name: &[u8], record: Option<&[u8]>) {
    let command: [&[u8]; 5] = [b"EVAL", STATUS.as_bytes(), if record.is_some() { b"2" } else { b"1" }, name, record.unwrap_or_default()];
    request.push(&command[..if record.is_some() { 5 } else { 4 }]);
}

/// `status` with what the reply to [`push_status`] adds.
pub(super) fn of_reply(reply: Option<Reply>, status: Status) -> Status {
    let Some(Reply::Bulk(text)) = reply else { return status };
    if let Some(record) = Record::parse(&text) {
        return Status { record: Some(record), ..status };
    }
    // The lock may have gone since, which changes nothing for who skips.
    read(&text).map_or(status.clone(), |seen| Status { value: status.value, ..seen })
}

/// Looks at the lock `name`, and at its record in the key `record`, changing nothing.
///
/// # Errors
/// When Redis could not be asked, refused, or answered nonsense.
pub fn status<X: Exchange>(redis: &mut X, name: &[u8], record: Option<&[u8]>) -> Result<Status, Error<X::Error>> {
    match redis.exchange(Repeat::Always, &|_, request| ask(request, name, record))?.only() {
        Some(Reply::Bulk(text)) => read(&text).ok_or(Error::Failed("redis sent an unexpected reply to EVAL")),
        Some(Reply::Error(_)) => status_without_eval(redis, name, record),
        _ => Err(Error::Failed("redis sent an unexpected reply to EVAL")),
    }
}

/// The answer where EVAL is refused.
fn status_without_eval<X: Exchange>(
    redis: &mut X,
    name: &[u8],
    record: Option<&[u8]>,
) -> Result<Status, Error<X::Error>> {
    let answer = redis.exchange(Repeat::Always, &|_, request| {
        request.push(&[b"GET", name]);
        if let Some(record) = record {
            request.push(&[b"GET", record]);
            request.informs = 1;
        }
    })?;
    let mut replies = answer.replies.into_iter();
    let status = match replies.next() {
        Some(Reply::Nil) => Status::default(),
        Some(Reply::Bulk(value)) => Status::held(value),
        Some(Reply::Error(words)) => return Err(Error::Refused("GET", words)),
        _ => return Err(Error::Failed("redis sent an unexpected reply to GET")),
    };
    Ok(of_reply(replies.next(), status))
}

fn read(text: &[u8]) -> Option<Status> {
    let mut parts = text.splitn(4, |&byte| byte == b' ');
    let mut number = || std::str::from_utf8(parts.next()?).ok()?.parse::<i64>().ok();
    let (ttl, now, length) = (number()?, u64::try_from(number()?).ok()?, usize::try_from(number()?).ok()?);
    let (value, record) = parts.next()?.split_at_checked(length)?;
    let (value, ttl) = match ttl {
        -2 => (None, Ttl::Unknown),
        -1 => (Some(value.to_vec()), Ttl::Never),
        seconds => (Some(value.to_vec()), Ttl::Seconds(u64::try_from(seconds).ok()?)),
    };
    Some(Status { value, ttl, now: Some(now).filter(|now| *now > 0), record: Record::parse(record) })
}

/// Whether we are the one host that tells, for an hour, that a lock is overdue: who gets to set `key`.
///
/// # Errors
/// When Redis could not be asked. It is not repeated, because a second answer would be another's.
pub fn overdue_is_ours<X: Exchange>(redis: &mut X, key: &[u8]) -> Result<bool, Error<X::Error>> {
    let answer = redis.exchange(Repeat::Never, &|_, request| request.push(&[b"SET", key, b"1", b"NX", b"EX", TOLD.as_bytes()]))?;
    Ok(matches!(answer.only(), Some(Reply::Status(_))))
}
