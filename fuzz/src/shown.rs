//! What people and scripts are shown: lines of printable text, and nothing that bytes from outside could make of them.

use golock::lock::{Entry, Status};
use golock::report::{metrics, status, table};

/// The fields of `--status`, in their order.
const FIELDS: &str = "ttl by host pid program start end took result ok failed fence";

/// More than any one text has that holds some words from outside.
const LONGEST: usize = 3000;

/// Asserts that `text` is one line of printable ASCII, of a bounded length.
pub(crate) fn assert_line(text: &str) {
    assert!(text.bytes().all(|byte| matches!(byte, b' '..=b'~')), "not one line of text: {text:?}");
    assert!(text.len() <= LONGEST, "{} bytes in one line: {text}", text.len());
}

/// Asserts that all that golock prints of `entry` keeps its form, and returns the line of `--status`.
pub(crate) fn assert_printed(entry: Entry) -> String {
    assert_line(&entry.status.told().to_string());
    assert_line(&entry.status.holder_told().to_string());
    let line = status(&entry.name, &entry.status);
    let told = line.strip_suffix('\n').expect("the end of a line");
    assert_line(told);
    assert_fields(told.strip_prefix(&name(&entry)).expect("the name in front"), &entry.status);
    let entries = [entry];
    assert_metrics(&metrics(&entries));
    assert_table(&table(entries.into(), None), 1);
    line
}

fn name(entry: &Entry) -> String {
    let line = status(&entry.name, &Status::default());
    line.strip_suffix("free\n").expect("the state of a lock that nobody holds").to_owned()
}

/// `STATE field=value …`: of the known fields, each at most once and in their order, none empty or of two words.
fn assert_fields(told: &str, status: &Status) {
    let mut words = told.split(' ');
    let state = words.next().unwrap_or_default();
    assert_eq!(status.value.is_none(), state == "free", "{told}");
    assert!(["free", "running", "grace", "held"].contains(&state), "{told}");
    let mut known = FIELDS.split(' ');
    for word in words {
        let (field, value) = word.split_once('=').unwrap_or_else(|| panic!("not a field: {word:?} in {told}"));
        assert!(known.any(|known| known == field), "{field} is not a field, or not there: {told}");
        assert!(!value.is_empty(), "{field} is empty: {told}");
    }
}

/// A head and `rows` rows.
pub(crate) fn assert_table(table: &str, rows: usize) {
    assert_eq!((table.lines().count(), table.ends_with('\n')), (rows + 1, true), "{table:?}");
    table.lines().for_each(assert_line);
}

/// Prometheus's text: `golock_NAME{lock="…",program="…"} NUMBER`, in which a quote ends a label.
pub(crate) fn assert_metrics(text: &str) {
    for line in text.lines() {
        assert_line(line);
        if line.starts_with("# HELP golock_") || line.starts_with("# TYPE golock_") {
            continue;
        }
        let (_, labels) = line.split_once("{lock=\"").unwrap_or_else(|| panic!("no lock: {line}"));
        let program = label(labels).and_then(|rest| rest.strip_prefix(",program=\"")).and_then(label);
        let number = program.and_then(|rest| rest.strip_prefix("} ")).unwrap_or_else(|| panic!("the labels: {line}"));
        assert!(number.parse::<f64>().is_ok() && !number.starts_with(['+', 'i', 'n']), "no number: {line}");
    }
}

/// What follows the quote that ends a label.
fn label(text: &str) -> Option<&str> {
    let (mut at, bytes) = (0, text.as_bytes());
    loop {
        match bytes.get(at)? {
            b'"' => return Some(&text[at + 1..]),
            b'\\' if matches!(bytes.get(at + 1), Some(b'\\' | b'"' | b'n')) => at += 2,
            b'\\' => return None,
            _ => at += 1,
        }
    }
}
