//! What is known of jobs: as the line of `--status`, as a table, and for Prometheus.

use crate::lock::{Entry, Holder, Record, Status, Ttl};
use crate::text::{Escaped, Line, Span, Utc};
use crate::words;
use std::fmt::Write;
use std::time::Duration;

/// The line of `--status`: the lock's name, its state, and what is known, as `field=value`.
pub fn status(name: &[u8], status: &Status) -> String {
    let mut line = format!("{} {}", Escaped(name), state(status.holder()));
    let mut field = |name: &str, value: &str| line += &[" ", name, "=", value].concat();
    match (&status.value, status.ttl) {
        (Some(_), Ttl::Seconds(seconds)) => field("ttl", &seconds.to_string()),
        (Some(_), Ttl::Never) => field("ttl", "none"),
        _ => {}
    }
    match status.holder() {
        Holder::Golock => field("by", "golock"),
        Holder::Predecessor => field("by", "predecessor"),
        Holder::Unknown => field("by", "unknown"),
        Holder::Nobody | Holder::Running | Holder::Grace => {}
    }
    if let Some(record) = &status.record {
        for name in ["host", "pid", "program", "start", "end", "took", "result", "ok", "failed", "fence"] {
            let text = record.text(name);
            match (name, record.number(name)) {
                ("start", Some(0)) => {}
                ("start" | "end" | "ok", Some(time)) => field(name, &Utc(time).to_string()),
                ("took", _) => took(status).iter().for_each(|took| field(name, &seconds(*took))),
                ("result", _) if status.has_died() => field(name, "unrecorded"),
                ("failed", _) => status.failures().iter().for_each(|failed| field(name, &failed.to_string())),
                _ if text.is_empty() => {}
                _ => field(name, &Escaped(text).to_string()),
            }
        }
    }
    line + "\n"
}

fn state(holder: Holder) -> &'static str {
    match holder {
        Holder::Nobody => "free",
        Holder::Running => "running",
        Holder::Grace => "grace",
        Holder::Golock | Holder::Predecessor | Holder::Unknown => "held",
    }
}

/// How long the last run took, or has taken so far; `None` for one whose end nobody knows.
fn took(status: &Status) -> Option<Duration> {
    let record = status.record.as_ref()?;
    let end = record.number("end").or(status.now.filter(|_| !status.has_died()))?;
    Some(Duration::from_millis(end.saturating_sub(record.began()?)))
}

/// A span in seconds, to the millisecond.
fn seconds(span: Duration) -> String {
    format!("{}.{:03}", span.as_secs(), span.subsec_millis())
}

/// The result of a run for people.
pub(super) fn result(result: &[u8]) -> Line {
    match result {
        b"0" => "success".into(),
        b"timeout" => "killed at TIMEOUT".into(),
        b"lost" => "lock lost".into(),
        b"?" | b"" => "no end was recorded".into(),
        _ => match result.strip_prefix(b"signal:") {
            Some(signal) => words!("signal {}", Escaped(signal)),
            None => words!("exit {}", Escaped(result)),
        },
    }
}

/// Whether people should look at a job first: its last run has failed or never ended, or it is overdue.
fn is_in_trouble(status: &Status, max_age: Option<Duration>) -> bool {
    let is_overdue = max_age.zip(status.now).is_some_and(|(most, now)| status.overdue(most, now).is_some());
    status.failures() != Some(0) || is_overdue
}

/// A table of jobs, those in trouble first, with a `!` in front.
pub fn table(mut entries: Vec<Entry>, max_age: Option<Duration>) -> String {
    entries.sort_by_cached_key(|entry| (!is_in_trouble(&entry.status, max_age), entry.name.clone()));
    let head = ["", "JOB", "STATE", "HOST", "SINCE", "TOOK", "RESULT", "LAST SUCCESS", "LOCK"].map(str::to_owned);
    let rows = || std::iter::once(head.clone()).chain(entries.iter().map(|entry| row(entry, max_age)));
    let mut widths = [0; 9];
    for row in rows() {
        widths.iter_mut().zip(&row).for_each(|(width, cell)| *width = (*width).max(cell.len()));
    }
    let mut table = String::new();
    for row in rows() {
        let start = table.len();
        for (cell, width) in row.iter().zip(widths) {
            // Writing to a string cannot fail.
            let _ = write!(table, "{cell:<width$} ");
        }
        table.truncate(start + table[start..].trim_end().len());
        table.push('\n');
    }
    table
}

fn row(Entry { name, status }: &Entry, max_age: Option<Duration>) -> [String; 9] {
    let mut row = [const { String::new() }; 9];
    if is_in_trouble(status, max_age) {
        row[0].push('!');
    }
    (row[2], row[8]) = (state(status.holder()).into(), Escaped(name).to_string());
    let Some(record) = &status.record else {
        row[6] = "not a record".into();
        return row;
    };
    let since = record.number("end").or(record.number("start")).unwrap_or(0);
    (row[1], row[3], row[4]) =
        (record.shown("program").to_string(), record.shown("host").to_string(), Utc(since).to_string());
    row[5] = took(status).map_or("?".into(), |took| Span(took).to_string());
    row[6] = match status.failures() {
        _ if status.holder() == Holder::Running => "-".into(),
        Some(times @ 2..) => format!("{}, {times} times", result(record.text("result"))),
        _ => result(record.text("result")).to_string(),
    };
    row[7] = match (record.number("ok"), status.now) {
        (None, _) => "never".into(),
        (Some(ok), Some(now)) => format!("{} ago", Span(Duration::from_millis(now.saturating_sub(ok)))),
        (Some(ok), None) => Utc(ok).to_string(),
    };
    row
}

const METRICS: [(&str, &str); 7] = [
    ("last_start_timestamp_seconds", "When the last run began."),
    ("last_end_timestamp_seconds", "When the last run ended."),
    ("last_duration_seconds", "How long the last run took, or has taken so far."),
    ("last_exit_code", "What golock exited with at the end of the last run."),
    ("last_success_timestamp_seconds", "When the last success ended."),
    ("failures_in_a_row", "How many runs have failed since the last success."),
    ("held", "Whether the lock is held."),
];

/// The jobs in the text format of Prometheus
/// (<https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format>).
pub fn metrics(entries: &[Entry]) -> String {
    let mut text = String::new();
    for (name, help) in METRICS {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "# HELP golock_{name} {help}\n# TYPE golock_{name} gauge");
        for Entry { name: lock, status } in entries {
            if let Some((record, value)) =
                status.record.as_ref().and_then(|record| Some((record, metric(name, status, record)?)))
            {
                let (lock, program) = (label(lock), label(record.text("program")));
                let _ = writeln!(text, "golock_{name}{{lock=\"{lock}\",program=\"{program}\"}} {value}");
            }
        }
    }
    text
}

/// The value of a metric, if the job has one.
fn metric(name: &str, status: &Status, record: &Record) -> Option<String> {
    let time = |field| record.number(field).filter(|time| *time > 0);
    let time = |field| time(field).map(|time| seconds(Duration::from_millis(time)));
    match name {
        "last_start_timestamp_seconds" => time("start"),
        "last_end_timestamp_seconds" => time("end"),
        "last_duration_seconds" => took(status).map(seconds),
        "last_exit_code" => exit_code(record.text("result")),
        "last_success_timestamp_seconds" => time("ok"),
        "failures_in_a_row" => status.failures().map(|failed| failed.to_string()),
        _ => Some(u8::from(status.value.is_some()).to_string()),
    }
}

/// The exit code that a result stands for.
fn exit_code(result: &[u8]) -> Option<String> {
    let (number, start) = match result {
        b"timeout" => (&b"202"[..], 0),
        b"lost" => (&b"201"[..], 0),
        _ => result.strip_prefix(b"signal:").map_or((result, 0), |signal| (signal, 128)),
    };
    let number = std::str::from_utf8(number).ok()?.parse::<u32>().ok().filter(|number| *number < 256)?;
    Some((start + number).to_string())
}

/// The value of a label, whole, because it tells jobs apart: a quote or a backslash in it is escaped.
fn label(value: &[u8]) -> String {
    let pieces = value.chunks(50).map(|piece| Escaped(piece).to_string());
    pieces.collect::<String>().replace('\\', "\\\\").replace('"', "\\\"")
}
