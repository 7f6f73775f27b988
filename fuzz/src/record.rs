//! `[host]\n[program]\n[result]\n[milliseconds]\n[what stands in the place of a record]`: what is made of a record that
//! anybody may have written, and of the run that follows.

use super::shown::assert_printed;
use golock::lock::{End, Entry, Record, Run, Status, Ttl, encoded};
use golock::text::percent_decoded;

/// The longest line that is a record.
const LONGEST: usize = 999;

/// The longest text of a program in it.
const LONGEST_PROGRAM: usize = 300;

/// The greatest fence: Lua counts on from it without a fault.
const LAST_FENCE: u64 = 9_000_000_000_000_000;

/// Values that a lock may have: none, a golock's, a predecessor's, and one that is not a lock's.
const VALUES: [Option<&[u8]>; 4] = [None, Some(b"1234567890123456789"), Some(b"1700000000"), Some(b"x\n\"\\ y")];

/// Reads a record, shows it, and writes that of the next run.
pub fn record(input: &[u8]) {
    let mut parts = input.splitn(5, |&byte| byte == b'\n');
    let mut part = || parts.next().unwrap_or_default();
    let (host, program, result, now, line) = (part(), part(), part(), part(), part());
    let now =
        str::from_utf8(now).ok().and_then(|now| now.parse().ok()).unwrap_or(1_700_000_000_000_u64) & (u64::MAX >> 21);
    let before = Record::parse(line);
    let fields = expected(line);
    assert_eq!(before.is_some(), fields.is_some(), "the oracle disagrees");
    for (record, (name, value)) in
        before.iter().flat_map(|record| fields.iter().flatten().map(move |field| (record, field)))
    {
        assert_eq!(record.text(name), *value, "{name}");
        assert_eq!(record.number(name), number(value), "{name}");
    }
    for value in VALUES {
        let (value, now) = (value.map(<[u8]>::to_vec), Some(now));
        let status =
            Status { value, ttl: Ttl::Seconds(now.unwrap_or(1)), now, record: before.clone(), ..Status::default() };
        assert_printed(Entry { name: b"cronlock.\"name\"\\".to_vec(), status });
    }
    let run = Run { host: host.to_vec(), pid: u32::MAX, program: program.to_vec() };
    assert_next(before.as_ref(), &run, result, now);
}

/// The record of a run that follows, at its beginning and at its end.
fn assert_next(before: Option<&Record>, run: &Run, result: &[u8], now: u64) {
    let next = Record::begin(before, run, now);
    let count = |record: Option<&Record>, name: &str| record.and_then(|record| record.number(name)).unwrap_or_default();
    let fence = count(Some(&next), "fence");
    assert!(fence >= now * 1000 && (before.is_none() || fence > count(before, "fence")));
    let [host, program] = ["host", "program"].map(|field| percent_decoded(next.text(field)).expect("what is encoded"));
    assert_eq!(host, run.host);
    // As much of it as there is room for.
    let behind = run.program.strip_prefix(&program[..]).expect("its beginning");
    let more = behind.first().map_or(usize::MAX, |byte| encoded(&[*byte]).len());
    let length = next.text("program").len();
    assert!(length <= LONGEST_PROGRAM && length.saturating_add(more) > LONGEST_PROGRAM, "{length} bytes");
    let is_unended = before.is_some_and(|before| before.text("end").is_empty());
    let failed = count(before, "failed").saturating_add(is_unended.into());
    // What is ahead of now counts as of now.
    let [ok, first] = ["ok", "first"].map(|field| Some(before?.number(field)?.min(now)));
    let ok = ok.map_or(String::new(), |ok| ok.to_string());
    let (ok, first) = (ok.as_bytes(), first.unwrap_or(now));
    assert_fields(&next, [now.to_string().as_bytes(), b"", b"", ok], failed, first);
    let (is_success, result) = (result == b"0", encoded(result));
    let ended = next
        .ended(&End { result: result.clone(), success: is_success, ran: true, took: std::time::Duration::ZERO }, now);
    let (now, failed) = (now.to_string(), if is_success { 0 } else { failed.saturating_add(1) });
    let ok = if is_success { now.as_bytes() } else { ok };
    assert_fields(&ended, [now.as_bytes(), now.as_bytes(), &result, ok], failed, first);
    assert_eq!((ended.number("fence"), ended.text("host")), (Some(fence), next.text("host")));
    assert_eq!(ended.last_end(), Some((&result[..], next.text("host"))));
}

/// They are read as they were written, unless the line is too long to be believed.
fn assert_fields(record: &Record, texts: [&[u8]; 4], failed: u64, first: u64) {
    assert_eq!(["start", "end", "result", "ok"].map(|field| record.text(field)), texts);
    assert_eq!((record.number("failed"), record.number("first")), (Some(failed), Some(first)));
    let line = record.line();
    assert_eq!(Record::parse(line).as_ref(), Some(record).filter(|_| line.len() <= LONGEST), "{}", line.escape_ascii());
}

/// The fields of a record, by the README: ten in their order, and perhaps one that tells of the run before.
fn expected(line: &[u8]) -> Option<Vec<(&'static str, &[u8])>> {
    const FIELDS: &str = "fence host pid program start end result ok failed first";
    let words: Vec<_> = line.split(|&byte| byte == b' ').collect();
    let value = |word: &'_ [u8], name: &str| Some(word.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?.len());
    let mut fields = Vec::new();
    for (at, name) in FIELDS.split(' ').enumerate() {
        let word = words.get(at)?;
        let value = &word[word.len() - value(word, name)?..];
        let is_fit = match name {
            "fence" | "start" | "failed" | "first" => number(value).is_some(),
            "end" | "ok" => value.is_empty() || number(value).is_some(),
            _ => true,
        };
        fields.push((name, Some(value).filter(|_| is_fit)?));
    }
    let is_known = number(fields[0].1).is_some_and(|fence| fence <= LAST_FENCE);
    (is_known && line.len() <= LONGEST).then_some(fields)
}

fn number(digits: &[u8]) -> Option<u64> {
    let is_plain = digits.len() < 20 && digits.iter().all(u8::is_ascii_digit);
    str::from_utf8(digits).ok().filter(|_| is_plain)?.parse().ok()
}
