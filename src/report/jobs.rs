//! What is known of jobs: as the line of `--status`, as a table, and for Prometheus.

use crate::lock::{Entry, Holder, Record, Status, Ttl};
use crate::text::{Escaped, Line, Seconds, Span, Utc};
use crate::words;
use std::fmt::Write;
use std::time::Duration;

/// The line of `--status`: the lock's name, its state, and what is known, as `field=value`.
pub fn status(name: &[u8], status: &Status) -> String {
    let (state, by) = state(status.holder());
    // Scripts take the second word for the state.
    let mut line = format!("{} {state}", Escaped(name).to_string().split(' ').collect::<Vec<_>>().join("%20"));
    let mut field = |name: &str, value: &str| line += &[" ", name, "=", value].concat();
    match (&status.value, status.ttl) {
        (Some(_), Ttl::Seconds(seconds)) => field("ttl", &seconds.to_string()),
        (Some(_), Ttl::Never) => field("ttl", "none"),
        _ => {}
    }
    if !by.is_empty() {
        field("by", by);
    }
    if let Some(record) = &status.record {
        for name in ["host", "pid", "program", "start", "end", "took", "result", "ok", "failed", "fence"] {
            let text = record.text(name);
            match (name, record.number(name)) {
                ("start", Some(0)) => {}
                ("start" | "end" | "ok", Some(time)) => field(name, &Utc(time).to_string()),
                ("took", _) => took(status).iter().for_each(|took| field(name, &Seconds(*took).to_string())),
                ("result", _) if status.has_died() => field(name, "unrecorded"),
                ("failed", _) => status.failures().iter().for_each(|failed| field(name, &failed.to_string())),
                _ if text.is_empty() => {}
                _ => field(name, &Escaped(text).to_string()),
            }
        }
    }
    line + "\n"
}

/// The state of a lock, and who holds one that has no record of ours.
fn state(holder: Holder) -> (&'static str, &'static str) {
    match holder {
        Holder::Nobody => ("free", ""),
        Holder::Running => ("running", ""),
        Holder::Grace => ("grace", ""),
        Holder::Golock => ("held", "golock"),
        Holder::Predecessor => ("held", "predecessor"),
        Holder::Unknown => ("held", "unknown"),
    }
}

/// How long the last run took, or has taken so far; `None` for one whose end nobody knows.
fn took(status: &Status) -> Option<Duration> {
    let record = status.record.as_ref()?;
    let end = record.number("end").or(status.now.filter(|_| !status.has_died()))?;
    Some(Duration::from_millis(end.saturating_sub(record.began()?)))
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
    entries.sort_unstable_by(|one, other| one.name.cmp(&other.name));
    let mut rows = vec![["", "JOB", "STATE", "HOST", "SINCE", "TOOK", "RESULT", "LAST SUCCESS", "LOCK"].join("\t")];
    for in_trouble in [true, false] {
        let those = entries.iter().filter(|entry| is_in_trouble(&entry.status, max_age) == in_trouble);
        rows.extend(those.map(|entry| row(entry, if in_trouble { "!" } else { "" })));
    }
    let mut widths = [0; 9];
    for row in &rows {
        row.split('\t').zip(&mut widths).for_each(|(cell, width)| *width = cell.len().max(*width));
    }
    let mut table = String::new();
    for row in &rows {
        for (cell, width) in row.split('\t').zip(widths) {
            // Writing to a string cannot fail.
            let _ = write!(table, "{cell:<width$} ");
        }
        table.truncate(table.trim_end_matches(' ').len());
        table.push('\n');
    }
    table
}

/// The cells of a row, between tabs.
fn row(Entry { name, status }: &Entry, mark: &str) -> String {
    let (name, (state, _)) = (Escaped(name), state(status.holder()));
    let Some(record) = &status.record else { return format!("{mark}\t\t{state}\t\t\t\tnot a record\t\t{name}") };
    let (program, host) = (record.shown("program"), record.shown("host"));
    let since = Utc(record.number("end").or(record.number("start")).unwrap_or(0));
    let took = took(status).map_or("?".into(), |took| words!("{}", Span(took)));
    let result = match status.failures() {
        _ if status.holder() == Holder::Running => "-".into(),
        Some(times @ 2..) => words!("{}, {} times", result(record.text("result")), times),
        _ => result(record.text("result")),
    };
    let ok = match (record.number("ok"), status.now) {
        (None, _) => "never".into(),
        (Some(ok), Some(now)) => words!("{} ago", Span(Duration::from_millis(now.saturating_sub(ok)))),
        (Some(ok), None) => words!("{}", Utc(ok)),
    };
    format!("{mark}\t{program}\t{state}\t{host}\t{since}\t{took}\t{result}\t{ok}\t{name}")
}

/// A metric of a job: its name, what it says, and its value, if the job has one.
type Metric = (&'static str, &'static str, fn(&Status, &Record) -> Option<String>);

const METRICS: [Metric; 7] = [
    ("last_start_timestamp_seconds", "When the last run began.", |_, record| time(record, "start")),
    ("last_end_timestamp_seconds", "When the last run ended.", |_, record| time(record, "end")),
    ("last_duration_seconds", "How long the last run took, or has taken so far.", |status, _| {
        took(status).map(|took| Seconds(took).to_string())
    }),
    ("last_exit_code", "What golock exited with at the end of the last run.", |_, record| {
        exit_code(record.text("result"))
    }),
    ("last_success_timestamp_seconds", "When the last success ended.", |_, record| time(record, "ok")),
    ("failures_in_a_row", "How many runs have failed since the last success.", |status, _| {
        status.failures().map(|failed| failed.to_string())
    }),
    ("held", "Whether the lock is held.", |status, _| Some(u8::from(status.value.is_some()).to_string())),
];

/// The jobs in the text format of Prometheus
/// (<https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format>).
pub fn metrics(entries: &[Entry]) -> String {
    let mut text = String::new();
    for (name, help, value) in METRICS {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "# HELP golock_{name} {help}\n# TYPE golock_{name} gauge");
        for Entry { name: lock, status } in entries {
            if let Some(record) = &status.record
                && let Some(value) = value(status, record)
            {
                let (lock, program) = (label(lock), label(record.text("program")));
                let _ = writeln!(text, "golock_{name}{{lock=\"{lock}\",program=\"{program}\"}} {value}");
            }
        }
    }
    text
}

/// A time of the record in seconds; 0 is none.
fn time(record: &Record, field: &str) -> Option<String> {
    let time = record.number(field).filter(|time| *time > 0)?;
    Some(Seconds(Duration::from_millis(time)).to_string())
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

/// The value of a label, whole, and another for any other value, because it tells jobs apart: what is not printable is
/// escaped, and so is a backslash; and once more what a label escapes.
fn label(value: &[u8]) -> String {
    let mut label = String::new();
    for letter in value.iter().flat_map(|&byte| byte.escape_ascii().skip(usize::from(b"\"'".contains(&byte)))) {
        if b"\\\"".contains(&letter) {
            label.push('\\');
        }
        label.push(char::from(letter));
    }
    label
}
