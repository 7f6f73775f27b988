//! What golock says about itself, on stderr. Nothing here can fail: under cron, stderr may be closed.

mod jobs;

pub use jobs::{metrics, status, table};

use crate::clock::{Instant, unix_milliseconds};
use crate::config::Config;
use crate::job::base_name;
use crate::lock::{Record, Status, decoded};
use crate::text::{Escaped, Line, Log, Seconds, Span, Utc};
use crate::words;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::ffi::OsStr;
use std::io::{self, Write};
use std::time::Duration;

/// How long a line waits for its reader.
const PATIENCE: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// The longest line, and how much of the end stays of a longer one: it says what follows.
const LIMIT: usize = 399;
const TAIL: usize = 151;

/// Writes one line, in one write, so that the lines of many hosts or jobs that share a log stay whole. If its reader is
/// stuck for longer than `patience`, the line is dropped.
fn write(text: &Line, patience: Timespec) {
    let stderr = io::stderr();
    let mut fds = [PollFd::new(&stderr, PollFlags::OUT)];
    if poll(&mut fds, Some(&patience)).is_ok_and(|count| count > 0) {
        let mut line = format!("golock: {text}\n");
        if line.len() > LIMIT {
            let (head, tail) = (line.floor_char_boundary(LIMIT - 3 - TAIL), line.ceil_char_boundary(line.len() - TAIL));
            line = [&line[..head], "...", &line[tail..]].concat();
        }
        let _ = (&stderr).write_all(line.as_bytes());
    }
}

/// Reports on one run: trouble always, everything else with VERBOSE.
pub struct Report {
    /// The command's base name; empty if there is none.
    pub job: Line,
    /// The lock's name and the beginning, with VERBOSE.
    verbose: Option<(Line, Instant)>,
}

impl Report {
    /// About a job that runs `command`, or about none.
    pub fn new(command: Option<&OsStr>) -> Self {
        let job = command.map_or(Line::default(), |command| words!("{}", Escaped(base_name(command))));
        Self { job, verbose: None }
    }

    /// The same, with what the settings have to say.
    pub fn begin(config: &Config, command: Option<&OsStr>) -> Self {
        let (mut report, name) = (Self::new(command), words!("{}", Escaped(&config.name)));
        if config.show_key {
            // As cronlock says it.
            write(&words!("Acquiring lock on {} key", name), PATIENCE);
        }
        if config.verbose {
            report.verbose = Some((name, Instant::now()));
            report.debug(words!("it is {}", Utc(unix_milliseconds())));
            config.notes.iter().for_each(|note| report.debug(note.clone()));
        }
        report
    }

    /// Says something that people must know without having asked.
    pub fn trouble(&self, line: Line) {
        self.say(line, PATIENCE);
    }

    /// Says why the job did not run.
    pub fn did_not_run(&self, why: Line) {
        self.trouble(if self.job.is_empty() { why } else { words!("{} did not run: {}", self.job, why) });
    }

    /// Says something about the job.
    pub fn about_job(&self, line: &Line) {
        self.trouble(words!("{}: {}", self.job, *line));
    }

    /// Says for how long nothing has succeeded, how the last run ended, and who holds the lock, if anybody does.
    pub fn overdue(&self, waiting: Duration, status: &Status) {
        let last = status.record.as_ref().and_then(Record::last_end);
        let last = last.map(|(result, host)| words!(" (last: {} on {})", jobs::result(result), decoded(host)));
        let last = last.unwrap_or_default();
        let held = if status.value.is_some() { words!("; {}", status.holder_told()) } else { Line::default() };
        self.trouble(words!("{} has not succeeded for {}{}{}", self.job, Span(waiting), last, held));
    }

    fn say(&self, mut line: Line, patience: Timespec) {
        if let Some((name, start)) = &self.verbose {
            let time = Instant::now().since(*start).unwrap_or_default();
            line = words!("{}: {}s: {}", *name, Seconds(time), line);
        }
        write(&line, patience);
    }
}

impl Log for Report {
    /// A line that nobody waits for is dropped at once if stderr takes none: it must not keep golock from the job.
    fn debug(&self, line: Line) {
        if self.verbose.is_some() {
            self.say(line, Timespec::default());
        }
    }
}
