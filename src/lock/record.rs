use crate::text::{Escaped, Line, percent_decoded};
use crate::words;
use std::fmt::Write;
use std::time::Duration;

/// The fields of a record, in their order; those that hold a number are marked by `#`, or `?` where they may be empty. Behind
/// them a run that has not ended yet may tell of the one before it (`last=RESULT@HOST`, `?` for an end nobody recorded), and
/// stands the token of the run (`by=TOKEN`).
#[rustfmt::skip]
const FIELDS: [(&[u8], u8); 10] = [
    (b"fence=", b'#'), (b"host=", b'*'), (b"pid=", b'*'), (b"program=", b'*'), (b"start=", b'#'), (b"end=", b'?'),
    (b"result=", b'*'), (b"ok=", b'?'), (b"failed=", b'#'), (b"first=", b'#'),
];

/// The most that is written of a program. The name of a host has 64 bytes at most, and may stand there twice.
const PROGRAM_LIMIT: usize = 300;

/// The greatest fence, and the most digits of a number, that are believed: those that Lua calculates with exactly (until the year
/// 2255).
const LAST_FENCE: u64 = 9_000_000_000_000_000;
const DIGITS: usize = 19;

/// What a run of our own writes about itself: where it is, the process id of golock, and the base name of the command,
/// never an argument.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub struct Run {
    pub host: Vec<u8>,
    pub pid: u32,
    pub program: Vec<u8>,
}

/// How a run ended: a code, `signal:9`, `timeout` or `lost`; whether that is a success; whether a command ran at all; and how
/// long that took by our own clock, from when Redis has dated its start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub struct End {
    pub result: Vec<u8>,
    pub success: bool,
    pub ran: bool,
    pub took: Duration,
}

/// What is known of the runs of a lock: one line of text beside it, `fence=… host=… pid=… program=… start=… end=… result=…
/// ok=… failed=… first=…`. Times are milliseconds since 1970 by Redis's clock, for a local lock by the host's; `ok` is the
/// end of the last success, `failed` how many runs have failed since, `first` when the first record was made. `start` is 0
/// where no command ran, so that it has not served for another host. It is for people and
/// for the fence; nothing in it decides who holds the lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record(Vec<u8>);

impl Run {
    /// Its fields in a record. The program is cut, where all would be too long to be believed.
    pub fn identity(&self) -> Vec<u8> {
        let (pid, mut length) = (self.pid.to_string(), self.program.len());
        while encoded(&self.program[..length]).len() > PROGRAM_LIMIT {
            length -= 1;
        }
        let program = encoded(&self.program[..length]);
        [b"host=", &encoded(&self.host)[..], b" pid=", pid.as_bytes(), b" program=", &program].concat()
    }
}

/// `value` percent-encoded but for letters, digits and `-._:@/+,`, so that it is one word of plain text.
pub fn encoded(value: &[u8]) -> Vec<u8> {
    percent_encoded(value, b"-._:@/+,").into_bytes()
}

/// `value` percent-encoded but for letters, digits and what is in `plain`.
pub fn percent_encoded(value: &[u8], plain: &[u8]) -> String {
    let mut text = String::with_capacity(value.len());
    for &byte in value {
        if byte.is_ascii_alphanumeric() || plain.contains(&byte) {
            text.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

/// A value of a record for people: without percent-encoding.
pub fn decoded(value: &[u8]) -> Line {
    words!("{}", Escaped(percent_decoded(value).as_deref().unwrap_or(value)))
}

pub(super) fn number(digits: &[u8]) -> Option<u64> {
    let is_plain = digits.len() <= DIGITS && !digits.starts_with(b"+");
    std::str::from_utf8(digits).ok()?.parse().ok().filter(|_| is_plain)
}

/// Takes the first word off `text`, and the space behind it.
pub(super) fn word<'t>(text: &mut &'t [u8]) -> Option<&'t [u8]> {
    let (word, rest) = text.split_at(text.iter().position(|&byte| byte == b' ')?);
    *text = &rest[1..];
    Some(word)
}

impl Record {
    /// The longest record that is believed. Ours have some 200 bytes.
    pub(super) const LIMIT: usize = 999;

    /// Reads a record; `None` if it is not one.
    pub fn parse(line: &[u8]) -> Option<Self> {
        let mut words = line.split(|&byte| byte == b' ').filter(|_| line.len() <= Self::LIMIT);
        for (name, kind) in FIELDS {
            let value = words.next()?.strip_prefix(name)?;
            if kind == b'#' || (kind == b'?' && !value.is_empty()) {
                number(value)?;
            }
        }
        Some(Self(line.to_vec())).filter(|record| record.number("fence").is_some_and(|fence| fence <= LAST_FENCE))
    }

    /// All of it.
    pub fn line(&self) -> &[u8] {
        &self.0
    }

    /// The value of a field; an empty one is none.
    pub fn text(&self, field: &str) -> &[u8] {
        let mut words = self.0.split(|&byte| byte == b' ');
        words.find_map(|word| word.strip_prefix(field.as_bytes())?.strip_prefix(b"=")).unwrap_or_default()
    }

    /// The value of a field for people: without percent-encoding.
    pub fn shown(&self, field: &str) -> Line {
        decoded(self.text(field))
    }

    /// The number in a field, if it is not empty.
    pub fn number(&self, field: &str) -> Option<u64> {
        number(self.text(field))
    }

    /// The record of a run that begins `now` (milliseconds), after the one that `before` tells of.
    pub fn begin(before: Option<&Self>, run: &Run, now: u64) -> Self {
        let [fence, mut failed] = ["fence", "failed"].map(|field| before.and_then(|before| before.number(field)));
        let fence = fence.map_or(0, |fence| fence.saturating_add(1)).max(now * 1000);
        // What is ahead of now was written when the clock was, and would hide for long that nothing succeeds.
        let [ok, first] = ["ok", "first"].map(|field| Some(before?.number(field)?.min(now)));
        let ok = ok.map_or(String::new(), |ok| ok.to_string());
        let mut last = Vec::new();
        if let Some(before) = before {
            let end = before.text("end");
            failed = failed.map(|failed| failed.saturating_add(end.is_empty().into()));
            let result = if end.is_empty() { b"?" } else { before.text("result") };
            last = [b" last=", result, b"@", before.text("host")].concat();
        }
        let start = [format!("fence={fence} ").as_bytes(), &run.identity()].concat();
        let (failed, first) = (failed.unwrap_or(0), first.unwrap_or(now));
        let times = format!(" start={now} end= result= ok={ok} failed={failed} first={first}");
        Self([&start[..], times.as_bytes(), &last].concat())
    }

    /// The same, with the token of its run.
    #[must_use]
    pub fn by(&self, token: &[u8]) -> Self {
        Self([&self.0[..], b" by=", token].concat())
    }

    /// The same, when the run has ended `now`.
    #[must_use]
    pub fn ended(&self, end: &End, now: u64) -> Self {
        let (now, failed) = (now.to_string(), self.number("failed").unwrap_or(0).saturating_add(1));
        let failed = if end.success { 0 } else { failed }.to_string();
        let ok = if end.success { now.as_bytes() } else { self.text("ok") };
        let head = self.0.windows(7).position(|part| part == b" start=").unwrap_or(self.0.len());
        let start = if end.ran { self.text("start") } else { b"0" };
        let times = [b" start=", start, b" end=", now.as_bytes(), b" result=", &end.result, b" ok=", ok];
        let rest = [b" failed=", failed.as_bytes(), b" first=", self.text("first")];
        let ended = Self([&self.0[..head], &times.concat(), &rest.concat()].concat());
        let token = self.text("by");
        if token.is_empty() { ended } else { ended.by(token) }
    }

    /// The same, with `hide` applied to each of its texts: a server may repeat the password.
    #[must_use]
    pub fn redacted(&self, hide: &dyn Fn(&[u8]) -> Vec<u8>) -> Self {
        let texts: [&[u8]; 5] = [b"host=", b"pid=", b"program=", b"result=", b"last="];
        let hidden = |value: &[u8]| {
            let value = hide(value);
            // As people will read it.
            let plain = percent_decoded(&value).filter(|_| value.contains(&b'%')).unwrap_or_default();
            let safe = hide(&plain);
            if safe == plain { value } else { percent_encoded(&safe, b"-._:@/+,?*").into_bytes() }
        };
        let redact = |word: &[u8]| match texts.iter().find(|name| word.starts_with(name)) {
            Some(name) => [name, &hidden(&word[name.len()..])[..]].concat(),
            None => word.to_vec(),
        };
        Self(self.0.split(|&byte| byte == b' ').map(redact).collect::<Vec<_>>().join(&b' '))
    }

    /// When it began, if a command ran.
    pub fn began(&self) -> Option<u64> {
        self.number("start").filter(|start| *start > 0)
    }

    /// How the last run that is over ended, and on which host, if there was one.
    pub fn last_end(&self) -> Option<(&[u8], &[u8])> {
        if self.number("end").is_some() {
            return Some((self.text("result"), self.text("host")));
        }
        let last = self.text("last");
        last.iter().position(|&byte| byte == b'@').map(|at| (&last[..at], &last[at + 1..]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(host: &str) -> Run {
        Run { host: host.into(), pid: 4711, program: b"backup.sh".to_vec() }
    }

    fn text(record: &Record) -> String {
        String::from_utf8(record.line().to_vec()).unwrap()
    }

    fn end(result: &str) -> End {
        End { result: result.into(), success: result == "0", ran: true, took: Duration::ZERO }
    }

    #[test]
    fn a_run_is_told_from_its_beginning_to_its_end() {
        let record = Record::begin(None, &run("web 1"), 1000);
        let begun =
            "fence=1000000 host=web%201 pid=4711 program=backup.sh start=1000 end= result= ok= failed=0 first=1000";
        assert_eq!((text(&record), record.last_end()), (begun.to_owned(), None));
        let record = record.ended(&end("3"), 1500);
        assert_eq!(
            text(&record),
            "fence=1000000 host=web%201 pid=4711 program=backup.sh start=1000 end=1500 result=3 ok= failed=1 first=1000"
        );
        let next = Record::begin(Some(&record), &run("web2"), 2000);
        let begun =
            "fence=2000000 host=web2 pid=4711 program=backup.sh start=2000 end= result= ok= failed=1 first=1000";
        assert_eq!(text(&next), format!("{begun} last=3@web%201"));
        assert_eq!((next.last_end(), record.last_end()), (Some((&b"3"[..], &b"web%201"[..])), next.last_end()));
        let next = next.ended(&end("0"), 2500);
        assert!(text(&next).ends_with(" end=2500 result=0 ok=2500 failed=0 first=1000"), "{}", text(&next));
        assert_eq!((next.number("ok"), record.number("ok"), next.text("ok")), (Some(2500), None, &b"2500"[..]));
    }

    #[test]
    fn a_run_that_did_not_end_has_failed_and_no_fence_falls() {
        let died = Record::begin(None, &run("a"), 9_000_000);
        let next = Record::begin(Some(&died), &run("b"), 500);
        assert_eq!((next.number("fence"), next.number("failed")), (Some(9_000_000_001), Some(1)));
        assert_eq!(next.text("last"), b"?@a");
    }

    #[test]
    fn what_is_written_is_read_and_garbage_is_not() {
        let record = Record::begin(Some(&Record::begin(None, &run("a"), 1)), &run("b"), 2);
        assert_eq!(Record::parse(record.line()), Some(record.clone()));
        let ended = record.ended(&end("signal:9"), 3);
        assert_eq!(Record::parse(ended.line()), Some(ended.clone()));
        let line = text(&ended);
        for garbage in [
            String::new(),
            "x".into(),
            line.replace("fence=", "fence"),
            line.replace("start=2", "start="),
            line.replace("start=2", "start=-1"),
            line.replace("end=3", "end=x"),
            line.replace("failed=2", "failed=00000000000000000002"),
            line.replace("fence=2000", "fence=9000000000000001"),
            line.replace(" pid=4711", ""),
            line.replace("host=b", &format!("host={}", "b".repeat(1000))),
        ] {
            assert_eq!(Record::parse(garbage.as_bytes()), None, "{garbage}");
        }
    }

    #[test]
    fn what_a_server_repeats_is_hidden_but_not_in_a_number() {
        let record = Record::begin(None, &run("s3cret 1"), 1000).ended(&end("1"), 1111);
        let hide = |text: &[u8]| String::from_utf8_lossy(text).replace("s3cret", "***").replace('1', "*").into_bytes();
        let hidden = text(&record.redacted(&hide));
        assert!(hidden.contains(" host=***%20* pid=47** ") && hidden.ends_with(" result=* ok= failed=1 first=1000"));
        assert!(hidden.contains(" start=1000 end=1111 "), "{hidden}");
    }

    #[test]
    fn a_run_in_which_no_command_ran_has_no_beginning() {
        let began = |start: &str| Record(format!("fence=1 start={start} end=5").into_bytes()).began();
        assert_eq!(["0", "1", ""].map(began), [None, Some(1), None]);
    }

    #[test]
    fn a_value_is_one_plain_word() {
        assert_eq!(encoded(b"a.b-c_d:e@f/g+h,i=j k%\n\xff"), b"a.b-c_d:e@f/g+h,i%3Dj%20k%25%0A%FF");
    }
}
