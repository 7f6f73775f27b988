//! What is known of jobs: as the line of `--status`, as a table, and for Prometheus.

use crate::lock::{Entry, Holder, Record, Status, Ttl};
use crate::text::{Escaped, Line, Span, Utc, percent_decoded};
use crate::words;
use std::fmt::{Display, Write};
use std::time::Duration;

/// The line of `--status`: the lock's name, its state, and what is known, as `field=value`.
pub fn status(name: &[u8], status: &Status) -> String {
    let mut line = format!("{} {}", Escaped(name), state(status.holder()));
    let mut field = |name: &str, value: &dyn Display| {
        // Writing to a string cannot fail.
        let _ = write!(line, " {name}={value}");
    };
    match (status.value.is_some(), status.ttl) {
        (true, Ttl::Seconds(seconds)) => field("ttl", &seconds),
        (true, Ttl::Never) => field("ttl", &"none"),
        _ => {}
    }
    match status.holder() {
        Holder::Golock => field("by", &"golock"),
        Holder::Predecessor => field("by", &"predecessor"),
        Holder::Unknown => field("by", &"unknown"),
        Holder::Nobody | Holder::Running | Holder::Grace => {}
    }
    if let Some(record) = &status.record {
        let shown = |value: &[u8]| if value.is_empty() { None } else { Some(Escaped(value).to_string()) };
        let time = |time: Option<u64>| time.map(|time| Utc(time).to_string());
        let unrecorded = (record.end.is_none() && status.value.is_none()).then(|| "unrecorded".to_owned());
        let fields = [
            ("host", shown(&record.host)),
            ("pid", shown(&record.pid)),
            ("program", shown(&record.program)),
            ("start", time(Some(record.start))),
            ("end", time(record.end)),
            ("took", took(status).map(seconds)),
            ("result", shown(&record.result).or(unrecorded)),
            ("ok", time(record.ok)),
            ("failed", Some(record.failed.to_string())),
            ("fence", Some(record.fence.to_string())),
        ];
        for (name, value) in fields {
            if let Some(value) = value {
                field(name, &value);
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
    let end = record.end.or(status.now.filter(|_| status.value.is_some()))?;
    Some(Duration::from_millis(end.saturating_sub(record.start)))
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
    let record = status.record.as_ref();
    let died = record.is_some_and(|record| record.end.is_none()) && status.value.is_none();
    let failed = record.is_none_or(|record| record.failed > 0);
    let overdue = max_age.zip(status.now).is_some_and(|(most, now)| status.overdue(most, now).is_some());
    died || failed || overdue
}

/// A table of jobs, those in trouble first. A row begins with `!` for those.
pub fn table(mut entries: Vec<Entry>, max_age: Option<Duration>) -> String {
    entries.sort_by_cached_key(|entry| (!is_in_trouble(&entry.status, max_age), entry.name.clone()));
    let head = ["", "JOB", "STATE", "HOST", "SINCE", "TOOK", "RESULT", "LAST SUCCESS", "LOCK"].map(str::to_owned);
    let mut widths = head.each_ref().map(String::len);
    let rows = || entries.iter().map(|entry| row(entry, max_age));
    for row in rows() {
        widths.iter_mut().zip(&row).for_each(|(width, cell)| *width = (*width).max(cell.len()));
    }
    let mut table = String::new();
    for row in std::iter::once(head).chain(rows()) {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        table += cells.collect::<Vec<_>>().join(" ").trim_end();
        table.push('\n');
    }
    table
}

fn row(Entry { name, status }: &Entry, max_age: Option<Duration>) -> [String; 9] {
    let mark = if is_in_trouble(status, max_age) { "!" } else { "" };
    let name = Escaped(name).to_string();
    let Some(record) = &status.record else {
        let unknown = || "?".to_owned();
        let state = state(status.holder()).into();
        return [
            mark.into(),
            unknown(),
            state,
            unknown(),
            unknown(),
            unknown(),
            "not a record".into(),
            unknown(),
            name,
        ];
    };
    let ago = |time: u64| status.now.and_then(|now| now.checked_sub(time)).map(|ago| Span(Duration::from_millis(ago)));
    let running = record.end.is_none() && status.value.is_some();
    let ended = match record.failed {
        _ if running => "-".to_owned(),
        0 | 1 => result(&record.result).to_string(),
        times => format!("{}, {times} times", result(&record.result)),
    };
    [
        mark.into(),
        Escaped(&percent_decoded(&record.program).unwrap_or_default()).to_string(),
        state(status.holder()).into(),
        record.shown_host().to_string(),
        Utc(record.end.unwrap_or(record.start)).to_string(),
        took(status).map_or("?".to_owned(), |took| Span(took).to_string()),
        ended,
        record.ok.map_or("never".to_owned(), |ok| ago(ok).map_or("?".to_owned(), |ago| format!("{ago} ago"))),
        name,
    ]
}

/// The metrics: name, help, and what a job's value is, if it has one.
type Metric = (&'static str, &'static str, fn(&Status, &Record) -> Option<String>);

const METRICS: [Metric; 7] = [
    ("last_start_timestamp_seconds", "When the last run began.", |_, record| Some(unix(record.start))),
    ("last_end_timestamp_seconds", "When the last run ended.", |_, record| record.end.map(unix)),
    ("last_duration_seconds", "How long the last run took, or has taken so far.", |status, _| {
        took(status).map(seconds)
    }),
    ("last_exit_code", "What golock exited with at the end of the last run.", |_, record| exit_code(&record.result)),
    ("last_success_timestamp_seconds", "When the last success ended.", |_, record| record.ok.map(unix)),
    ("failures_in_a_row", "How many runs have failed since the last success.", |_, record| {
        Some(record.failed.to_string())
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
            let Some(record) = &status.record else { continue };
            if let Some(value) = value(status, record) {
                let (lock, program) = (label(lock), label(&record.program));
                let _ = writeln!(text, "golock_{name}{{lock=\"{lock}\",program=\"{program}\"}} {value}");
            }
        }
    }
    text
}

/// Milliseconds since 1970 in seconds.
fn unix(milliseconds: u64) -> String {
    seconds(Duration::from_millis(milliseconds))
}

/// The exit code that a result stands for.
fn exit_code(result: &[u8]) -> Option<String> {
    let code = match result {
        b"timeout" => 202,
        b"lost" => 201,
        _ => {
            let (number, start) = result.strip_prefix(b"signal:").map_or((result, 0), |signal| (signal, 128));
            start + std::str::from_utf8(number).ok()?.parse::<u32>().ok().filter(|number| *number < 256)?
        }
    };
    Some(code.to_string())
}

/// The value of a label: a quote or a backslash in it is escaped.
fn label(value: &[u8]) -> String {
    Escaped(value).to_string().replace('\\', "\\\\").replace('"', "\\\"")
}
