use super::record::{number, word};
use super::{Error, Record, Token, eval};
use crate::clock;
use crate::exchange::{Exchange, Repeat};
use crate::resp::Reply;
use crate::text::{Escaped, Line, Span, Utc};
use crate::words;
use std::time::Duration;

/// All that is known of the lock `KEYS[1]` and of its record `KEYS[2]`, if there is one; changes nothing. Without keys, of
/// `ARGV[1]` and `ARGV[2]`: keys that are declared to EVAL need the right to write them.
///
/// Result: the seconds until the lock expires (-1: never; -2: there is none), the milliseconds of Redis's clock (0 if that
/// cannot be asked), the length of the lock's value, each with a space behind it, the value, and the record. A value or a
/// record that is too long to be one of ours is cut.
pub(super) const STATUS: &str = "local k=KEYS[1] and KEYS or ARGV \
    local v,t,r=redis.call('GET',k[1]) or '',redis.pcall('TIME'),k[2] and redis.pcall('GET',k[2]) \
    v=string.sub(v,1,99) r=type(r)=='string' and string.sub(r,1,999) or '' \
    return redis.call('TTL',k[1])..' '..(t.err and 0 or string.format('%.0f',t[1]*1000+math.floor(t[2]/1000)))\
    ..' '..#v..' '..v..r";

/// The most that [`STATUS`] leaves of a value.
const VALUE_LIMIT: usize = 99;

/// The most digits of a predecessor's value, a Unix second. Golock's own tokens have 19.
const SECOND_DIGITS: usize = 12;

/// How many seconds the other hosts of a fleet keep silent after one has said that a job is overdue.
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
    /// Whether its run is over, even if no end was recorded: for a local lock, the kernel knows.
    pub is_over: bool,
}

/// When a held lock expires; without EVAL golock cannot know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Ttl {
    Seconds(u64),
    Never,
    #[default]
    Unknown,
}

/// Who holds a lock: nobody, a run of golock's that has not ended, one that has but whose grace is not over, a golock
/// about which nothing else is known, a cronlock or golock (Go), or somebody unknown, because the key is not a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Holder {
    Nobody,
    Running,
    Grace,
    Golock,
    Predecessor,
    Unknown,
}

impl Status {
    /// A lock that is held, with this value.
    pub fn held(value: Vec<u8>) -> Self {
        Self { value: Some(value), ..Self::default() }
    }

    /// The record, unless it is of another run than the one whose token is the lock's value.
    fn record_of_holder(&self) -> Option<&Record> {
        let value = self.value.as_deref().unwrap_or_default();
        self.record.as_ref().filter(|record| [&b""[..], value].contains(&record.text("by")))
    }

    /// Who holds it, by the form of its value and what the record says.
    pub fn holder(&self) -> Holder {
        let Some(value) = &self.value else { return Holder::Nobody };
        match self.record_of_holder() {
            _ if is_second(value) => Holder::Predecessor,
            _ if value.len() != Token::DIGITS || !value.iter().all(u8::is_ascii_digit) => Holder::Unknown,
            _ if self.is_over => Holder::Grace,
            None => Holder::Golock,
            Some(record) if record.number("end").is_none() => Holder::Running,
            Some(_) => Holder::Grace,
        }
    }

    /// Whether the last run is over, and its end was not recorded.
    pub fn has_died(&self) -> bool {
        self.holder() != Holder::Running && self.record.as_ref().is_some_and(|record| record.number("end").is_none())
    }

    /// How many runs have failed since the last success, one without an end included.
    pub fn failures(&self) -> Option<u64> {
        let counted = self.record.as_ref()?.number("failed")?;
        Some(counted.saturating_add(self.has_died().into()))
    }

    /// For how long nothing has succeeded, if that is longer than `most` at the milliseconds `now`.
    pub fn overdue(&self, most: Duration, now: u64) -> Option<Duration> {
        // A time that is far ahead was written when a clock was.
        let latest = now.saturating_add(clock::milliseconds(most));
        let record = self.record.as_ref()?;
        let since =
            ["ok", "first"].into_iter().find_map(|field| record.number(field).filter(|time| *time <= latest))?;
        Some(Duration::from_millis(now.saturating_sub(since))).filter(|waiting| *waiting > most)
    }

    /// Who holds it, for people.
    pub fn holder_told(&self) -> Line {
        match (self.holder(), self.record_of_holder()) {
            (Holder::Running, Some(record)) => {
                let (host, pid) = (record.shown("host"), record.shown("pid"));
                words!("held by {}, process {}, since {}", host, pid, Utc(record.number("start").unwrap_or(0)))
            }
            (Holder::Grace, Some(record)) => {
                let ended = record.number("end").map_or(Line::default(), |end| words!(" that ended {}", Utc(end)));
                words!("held for the grace of the run on {}{}", record.shown("host"), ended)
            }
            (Holder::Grace, None) => "held for the grace of a run that has ended".into(),
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
        let holder = self.holder();
        let began = self.record.as_ref().filter(|_| holder == Holder::Running).and_then(Record::began);
        let since = match self.now.zip(began).and_then(|(now, began)| now.checked_sub(began)) {
            Some(span) => words!(" ({})", Span(Duration::from_millis(span))),
            None => Line::default(),
        };
        let free = match self.ttl {
            Ttl::Seconds(left) => words!(", free in {} at the latest", Span(Duration::from_secs(left))),
            Ttl::Never => ", and never expires".into(),
            Ttl::Unknown => Line::default(),
        };
        let token = match &self.value {
            Some(token) if holder != Holder::Unknown => words!(", token {}", Escaped(token)),
            _ => Line::default(),
        };
        words!("{}{}{}{}", self.holder_told(), since, free, token)
    }

    /// Applies `hide` to each of its texts: a server may repeat the password.
    pub fn redact(&mut self, hide: &dyn Fn(&[u8]) -> Vec<u8>) {
        if let (Holder::Unknown, Some(value)) = (self.holder(), &mut self.value) {
            *value = hide(value);
        }
        self.record = self.record.as_ref().map(|record| record.redacted(hide));
    }
}

/// Whether `value` is a number as the predecessors write it.
pub(super) fn is_second(value: &[u8]) -> bool {
    (1..=SECOND_DIGITS).contains(&value.len()) && value.iter().all(u8::is_ascii_digit)
}

/// `status` with the record that `reply` holds, if it is one.
pub(super) fn with_record(status: Status, reply: Option<Reply>) -> Status {
    let record = if let Some(Reply::Bulk(line)) = reply { Record::parse(&line) } else { None };
    Status { record, ..status }
}

/// Looks at the lock `name`, and at its record in the key `record`, changing nothing.
pub fn status(redis: &mut dyn Exchange, name: &[u8], record: Option<&[u8]>) -> Result<Status, Error> {
    let keys = [name, record.unwrap_or_default()];
    let keys = &keys[..=usize::from(record.is_some())];
    match redis.exchange(Repeat::Always, &|_, request| eval(request, STATUS, keys, &[]))?.only() {
        Some(Reply::Bulk(text)) => return read(&text).map(|(status, _)| status).ok_or(Error::Unexpected("EVAL")),
        // Without EVAL: by plain commands.
        Some(Reply::Error(_)) => {}
        _ => return Err(Error::Unexpected("EVAL")),
    }
    let answer = redis.exchange(Repeat::Always, &|_, request| {
        for key in keys {
            request.push(&[b"GET", key]);
        }
        request.informs = request.commands - 1;
    })?;
    let mut replies = answer.replies.into_iter();
    let status = match replies.next() {
        Some(Reply::Nil) => Status::default(),
        Some(Reply::Bulk(value)) => Status::held(value),
        other => return Err(Error::of("GET", other)),
    };
    Ok(with_record(status, replies.next()))
}

/// What the result of [`STATUS`] says, and the record's own text.
pub(super) fn read(mut text: &[u8]) -> Option<(Status, &[u8])> {
    let (left, now, length) = (word(&mut text)?, number(word(&mut text)?)?, number(word(&mut text)?)?);
    // The script has cut both.
    let (value, record) = text.split_at_checked(usize::try_from(length).ok()?)?;
    if value.len() > VALUE_LIMIT || record.len() > Record::LIMIT {
        return None;
    }
    let (value, ttl) = match left {
        b"-2" => (None, Ttl::Unknown),
        b"-1" => (Some(value.to_vec()), Ttl::Never),
        seconds => (Some(value.to_vec()), Ttl::Seconds(number(seconds)?)),
    };
    let now = Some(now).filter(|now| *now > 0);
    Some((Status { value, ttl, now, record: Record::parse(record), ..Status::default() }, record))
}

/// Whether we are the host that says, for an hour, that a job is overdue: the one that gets to set `key`. In doubt we are:
/// better twice than not at all.
pub fn overdue_is_ours(redis: &mut dyn Exchange, key: &[u8]) -> Result<bool, Error> {
    let answer = redis
        .exchange(Repeat::Never, &|_, request| request.push(&[b"SET", key, b"1", b"NX", b"EX", TOLD.as_bytes()]))?;
    Ok(answer.only() != Some(Reply::Nil))
}

#[cfg(test)]
mod tests {
    use super::super::scripted::{refusal, script, silence, timed};
    use super::super::{End, Run};
    use super::*;

    fn record(host: &str, end: Option<u64>) -> Record {
        let run = Run { host: host.into(), pid: 7, program: b"job".to_vec() };
        let begun = Record::begin(None, &run, 1_000_000);
        end.map_or(begun.clone(), |end| {
            begun.ended(&End { result: b"0".to_vec(), success: true, ran: true, took: Duration::ZERO }, end)
        })
    }

    fn bulk(text: &str) -> Reply {
        Reply::Bulk(text.into())
    }

    fn seen(replies: &[Reply]) -> Result<Status, Error> {
        status(&mut script(replies.iter().cloned().map(Some)), b"k", None)
    }

    #[test]
    fn a_lock_is_seen_with_eval_and_without() {
        let held = |ttl, now| Status { ttl, now, ..Status::held(b"1700000000".to_vec()) };
        assert_eq!(seen(&[bulk("-2 5 0 ")]), Ok(Status { now: Some(5), ..Status::default() }));
        assert_eq!(seen(&[bulk("40 0 10 1700000000")]), Ok(held(Ttl::Seconds(40), None)));
        assert_eq!(seen(&[bulk("-1 7 10 1700000000")]), Ok(held(Ttl::Never, Some(7))));
        let odd = || Err(Error::Unexpected("EVAL"));
        for nonsense in ["nonsense", "", "5", "x 1 0 ", "-3 1 0 ", "1 -1 0 ", "1 1 3 ab", "1 1 -1 "] {
            assert_eq!(seen(&[bulk(nonsense)]), odd(), "{nonsense}");
        }
        assert_eq!(seen(&[Reply::Integer(1)]), odd());
        assert_eq!(seen(&[refusal(), Reply::Nil]), Ok(Status::default()));
        assert_eq!(seen(&[refusal(), bulk("1700000000")]), Ok(held(Ttl::Unknown, None)));
        assert_eq!(seen(&[refusal(), refusal()]), Err(Error::Refused("GET", b"NOPERM".to_vec())));
        let odd = Err(Error::Unexpected("GET"));
        assert_eq!(seen(&[refusal(), Reply::Integer(1)]), odd);
    }

    #[test]
    fn the_record_is_seen_too() {
        let line = String::from_utf8(record("web", None).line().to_vec()).unwrap();
        let expected = Status { now: Some(5), record: Some(record("web", None)), ..Status::default() };
        let mut redis = script([Some(bulk(&format!("-2 5 0 {line}")))]);
        assert_eq!((status(&mut redis, b"k", Some(b"r")), redis.asked), (Ok(expected), vec!["EVAL 2 k r".to_owned()]));
        let replies = [(0, Some(vec![refusal()])), (0, Some(vec![Reply::Nil, bulk(&line)]))];
        let mut redis = timed(replies);
        let expected = Status { record: Some(record("web", None)), ..Status::default() };
        assert_eq!(status(&mut redis, b"k", Some(b"r")), Ok(expected));
        assert_eq!(redis.asked[1], "GET k GET r");
    }

    #[test]
    fn the_holder_is_told_by_value_and_record() {
        let token = || Token::random().as_bytes().to_vec();
        for (value, record, holder) in [
            (None, Some(record("web", None)), Holder::Nobody),
            (Some(token()), None, Holder::Golock),
            (Some(token()), Some(record("web", None)), Holder::Running),
            (Some(token()), Some(record("web", Some(2))), Holder::Grace),
            (Some(b"1700000000".to_vec()), Some(record("web", None)), Holder::Predecessor),
            (Some(b"x".repeat(19)), None, Holder::Unknown),
            (Some(b"1".repeat(18)), None, Holder::Unknown),
            (Some(Vec::new()), None, Holder::Unknown),
        ] {
            assert_eq!(Status { value, record, ..Status::default() }.holder(), holder);
        }
    }

    #[test]
    fn a_run_without_an_end_has_died_once_nobody_runs_it() {
        let running = Status { record: Some(record("web", None)), ..Status::held(Token::random().as_bytes().to_vec()) };
        let over = Status { is_over: true, ..running.clone() };
        let taken = Status { value: Some(b"1700000000".to_vec()), ..running.clone() };
        let free = Status { value: None, ..running.clone() };
        for (status, has_died) in [(&running, false), (&over, true), (&taken, true), (&free, true)] {
            assert_eq!((status.has_died(), status.failures()), (has_died, Some(has_died.into())));
        }
        assert_eq!(
            (over.holder(), over.told().to_string().contains("the grace of the run on web, token ")),
            (Holder::Grace, true)
        );
        let ended = Status { record: Some(record("web", Some(5))), ..free };
        assert_eq!((ended.has_died(), ended.failures(), Status::default().failures()), (false, Some(0), None));
    }

    #[test]
    fn a_lock_is_overdue_when_nothing_has_succeeded_for_longer() {
        let day = Duration::from_hours(24);
        let overdue = |record, now| Status { record, ..Status::default() }.overdue(day, now);
        assert_eq!(overdue(None, u64::MAX), None);
        assert_eq!(overdue(Some(record("web", None)), 1_000_000 + 86_400_000), None);
        assert_eq!(overdue(Some(record("web", None)), 1_000_001 + 86_400_000), Some(day + Duration::from_millis(1)));
        let ok = record("web", Some(2_000_000));
        assert_eq!(overdue(Some(ok.clone()), 1_000_001 + 86_400_000), None);
        assert_eq!(overdue(Some(ok.clone()), 5), None);
        // By a clock that was far ahead: then the first record counts.
        let hour = |record, now| Status { record, ..Status::default() }.overdue(day / 24, now);
        let ahead = Some(record("web", Some(90_000_000)));
        assert_eq!(hour(ahead, 5_000_000), Some(Duration::from_secs(4000)));
    }

    #[test]
    fn who_holds_it_is_told_in_words() {
        let token = Token::from_number(1).as_bytes().to_vec();
        let status = |record, ttl| Status { ttl, now: Some(12_520_000), record, ..Status::held(token.clone()) };
        let running = record("web 3", None);
        assert_eq!(
            status(Some(running), Ttl::Seconds(74_820)).told().to_string(),
            "held by web 3, process 7, since 1970-01-01T00:16:40Z (3 h 12 min), free in 20 h 47 min at the latest, \
             token 1000000000000000001"
        );
        assert_eq!(
            status(Some(record("web", Some(2_000_000))), Ttl::Unknown).told().to_string(),
            "held for the grace of the run on web that ended 1970-01-01T00:33:20Z, token 1000000000000000001"
        );
        let over = Status { is_over: true, ..status(None, Ttl::Seconds(40)) };
        assert!(over.told().to_string().starts_with("held for the grace of a run that has ended, free in 40 s"));
        let told = |value: &[u8]| Status { value: Some(value.to_vec()), ttl: Ttl::Never, ..Status::default() }.told();
        assert_eq!(told(&token).to_string(), "held by another, and never expires, token 1000000000000000001");
        assert_eq!(
            told(b"1700000000").to_string(),
            "held by cronlock or golock (Go), and never expires, token 1700000000"
        );
        assert_eq!(
            told(b"x\n").to_string(),
            "the key is not a lock, its value is x\\n; golock --reset deletes it, and never expires"
        );
    }

    #[test]
    fn what_a_server_repeats_is_hidden_but_not_in_a_token() {
        let hide = |text: &[u8]| String::from_utf8_lossy(text).replace("web", "***").into_bytes();
        let mut status = Status { record: Some(record("web", None)), ..Status::held(b"my web".to_vec()) };
        status.redact(&hide);
        assert_eq!((status.value, status.record.unwrap().text("host")), (Some(b"my ***".to_vec()), &b"***"[..]));
    }

    #[test]
    fn whoever_is_not_told_that_another_tells_does() {
        let ours = |reply| overdue_is_ours(&mut script([reply]), b"late");
        assert_eq!(ours(Some(Reply::Status(b"OK".to_vec()))), Ok(true));
        assert_eq!((ours(Some(Reply::Nil)), ours(Some(refusal()))), (Ok(false), Ok(true)));
        assert_eq!(ours(None), Err(Error::Exchange(silence())));
    }
}
