//! What golock says about itself, on stderr. Nothing here can fail: under cron, stderr may be closed.

mod jobs;

pub use jobs::{metrics, status, table};

use crate::clock::Instant;
use crate::lock::{Record, Status};
use crate::text;
use crate::text::{Escaped, Line, Log, Span, Text, Utc};
use crate::words;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::ffi::OsStr;
use std::fmt::Display;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

/// How long a line waits for its reader.
const PATIENCE: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// The longest line.
const LIMIT: usize = 399;

/// Writes one line, in one write, so that the lines of many hosts or jobs that share a log stay whole. If its reader is
/// stuck for a second, the line is dropped.
fn write(text: &dyn Display, patience: Timespec) {
    let stderr = io::stderr();
    let mut fds = [PollFd::new(&stderr, PollFlags::OUT)];
    if poll(&mut fds, Some(&patience)).is_ok_and(|count| count > 0) {
        let mut line = format!("golock: {text}");
        if line.len() > LIMIT {
            let end = (0..=LIMIT - 3).rev().find(|&end| line.is_char_boundary(end)).unwrap_or(0);
            line.replace_range(end.., "...");
        }
        line.push('\n');
        let _ = (&stderr).write_all(line.as_bytes());
    }
}

/// Tells of one run: troubles always, everything else with VERBOSE.
pub struct Report {
    /// The command's base name, or what stands for it.
    job: Line,
    /// The lock's name and the beginning, with VERBOSE.
    verbose: Option<(Line, Instant)>,
}

/// The base name of a command.
pub fn base_name(command: &OsStr) -> &[u8] {
    command.as_bytes().rsplit(|&byte| byte == b'/').next().unwrap_or_default()
}

impl Report {
    /// About a job that runs `command`, or about no job.
    pub fn new(command: Option<&OsStr>) -> Self {
        let job = command.map_or("nothing".into(), |command| words!("{}", Escaped(base_name(command))));
        Self { job, verbose: None }
    }

    /// From now on also what only VERBOSE wants to know of the lock `name`.
    pub fn be_verbose(&mut self, name: &[u8], unix_milliseconds: u64) {
        self.verbose = Some((words!("{}", Escaped(name)), Instant::now()));
        self.debug(text!("it is {}", Utc(unix_milliseconds)));
    }

    /// Says something that people must know without having asked.
    pub fn trouble(&self, text: Text<'_>) {
        match &self.verbose {
            Some((name, start)) => write(&prefixed(name, *start, text), PATIENCE),
            None => write(&text, PATIENCE),
        }
    }

    /// Says why the job did not run.
    pub fn did_not_run(&self, why: &Line) {
        self.trouble(text!("{} did not run: {}", self.job, *why));
    }

    /// Says something about the job.
    pub fn about_job(&self, text: Text<'_>) {
        self.trouble(text!("{}: {}", self.job, text));
    }

    /// Says that the job was killed after `time`.
    pub fn killed(&self, time: Duration) {
        self.trouble(text!("killed {} after {} s", self.job, time.as_secs()));
    }

    /// Says that nothing has succeeded for so long, what the last run has come to, and who holds the lock, if anybody does.
    pub fn overdue(&self, waiting: Duration, status: &Status) {
        let last = status.record.as_ref().and_then(Record::last_end);
        let last = last
            .map_or(Line::default(), |(result, host)| words!(" (last: {} on {})", jobs::result(result), Escaped(host)));
        let held = if status.value.is_some() { words!("; {}", status.holder_told()) } else { Line::default() };
        self.trouble(text!("{} has not succeeded for {}{}{}", self.job, Span(waiting), last, held));
    }
}

fn prefixed(name: &Line, start: Instant, text: Text<'_>) -> Line {
    let time = Instant::now().since(start).unwrap_or_default();
    // Milliseconds have three digits, behind a one that is left out.
    let thousandths = (1000 + time.subsec_millis()).to_string();
    words!("{}: {}.{}s: {}", *name, time.as_secs(), Escaped(&thousandths.as_bytes()[1..]), text)
}

impl Log for Report {
    /// A line that nobody waits for is dropped at once if stderr takes none: it must not keep golock from the job.
    fn debug(&self, text: Text<'_>) {
        if let Some((name, start)) = &self.verbose {
            write(&prefixed(name, *start, text), Timespec::default());
        }
    }
}

/// Says the first line of cronlock: which lock is asked for.
pub fn show_key(name: &[u8]) {
    write(&text!("Acquiring lock on {} key", Escaped(name)), PATIENCE);
}
