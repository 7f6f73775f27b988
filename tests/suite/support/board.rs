//! The table that `--list` prints, read back into cells.

use super::golock::Golock;

/// A row of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) is_in_trouble: bool,
    pub(crate) job: String,
    pub(crate) state: String,
    pub(crate) host: String,
    pub(crate) since: String,
    pub(crate) took: String,
    pub(crate) result: String,
    pub(crate) success: String,
    pub(crate) lock: String,
}

/// The heads of its columns.
const HEADS: [&str; 8] = ["JOB", "STATE", "HOST", "SINCE", "TOOK", "RESULT", "LAST SUCCESS", "LOCK"];

/// The rows that this golock lists.
#[track_caller]
pub(crate) fn list(golock: &Golock) -> Vec<Row> {
    let done = golock.clone().args(["--list"]).run();
    assert_eq!((done.code, &*done.stderr), (0, ""));
    rows(&done.stdout)
}

/// The rows of this table.
#[track_caller]
pub(crate) fn rows(table: &str) -> Vec<Row> {
    assert!(table.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\n')), "{table:?}");
    let mut lines = table.lines();
    let head = lines.next().unwrap();
    let columns = HEADS.map(|name| head.find(name).unwrap_or_else(|| panic!("no {name} in {head:?}")));
    let row = |line: &str| {
        let end = |column: usize| columns.get(column + 1).copied().unwrap_or(usize::MAX).min(line.len());
        let cell = |column: usize| line.get(columns[column]..end(column)).unwrap_or_default().trim_end().to_owned();
        let [job, state, host, since, took, result, success, lock] = [0, 1, 2, 3, 4, 5, 6, 7].map(cell);
        let is_in_trouble = line.starts_with('!');
        Row { is_in_trouble, job, state, host, since, took, result, success, lock }
    };
    lines.map(row).collect()
}

/// The seconds of a span as it is shown.
#[track_caller]
pub(crate) fn seconds(span: &str) -> u64 {
    let words: Vec<&str> = span.split(' ').collect();
    let unit = |unit: &str| match unit {
        "s" => 1,
        "min" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => panic!("{span:?}"),
    };
    words.chunks(2).map(|pair| pair[0].parse::<u64>().unwrap() * unit(pair[1])).sum()
}
