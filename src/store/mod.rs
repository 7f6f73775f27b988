//! Where a lock is kept: in Redis, or on this host alone. A lock that is not held, and one that is, are values: acquiring
//! gives the one for the other, and only what is held can be confirmed, renewed, released or given back.

mod folder;
mod local;
mod lockfile;
mod redis;

pub use local::LocalStore;
pub use redis::RedisStore;

use crate::job::{Binding, ExitReason, Renewal, StopReason};
use crate::lock::{End, Entry, Record, Status};
use crate::text::Line;
use rustix::process::Signal;
use std::time::Duration;

/// A lock that is not held.
pub trait LockStore<'a> {
    /// Tries once to take it: asks for it and, if it is free, makes sure right before the command starts that it is ours
    /// and lasts, and records that the run begins.
    fn acquire(self: Box<Self>) -> Result<Attempt<'a>, Error>;

    /// Looks at it, changing nothing.
    fn status(&mut self) -> Result<Status, Error>;

    /// Lists all jobs that are recorded beside it.
    fn list(&mut self) -> Result<Listing, Error>;

    /// Deletes it, whoever holds it; whether there was one.
    fn reset(&mut self) -> Result<bool, Error>;

    /// Whether we are the one of all hosts that tells for an hour that it is overdue.
    fn tells_overdue(&mut self) -> bool;
}

/// What came of trying to take a lock.
#[expect(clippy::large_enum_variant, reason = "there is one at a time")]
pub enum Attempt<'a> {
    /// It is ours.
    Acquired(Box<dyn Held + 'a>),
    /// Another holds it; the store is handed back.
    Busy(Box<dyn LockStore<'a> + 'a>, Status),
    /// It was free, but another run has served for this one.
    Served,
}

/// A lock that is ours.
pub trait Held: Renewal {
    /// Whether a command may start under it now.
    fn lasts(&self) -> bool;

    /// What it gives the job.
    fn grant(&self) -> Grant<'_>;

    /// Why it was lost.
    fn loss(&self) -> Line;

    /// Releases it when its grace has passed; `exit` is how the job ended.
    fn release(self: Box<Self>, exit: ExitReason) -> Ending;

    /// Gives it back at once, because no command ran under it: another host may run it. `end` is what the record says.
    fn abandon(self: Box<Self>, end: &str) -> Result<(), Line>;
}

/// What the job gets from the lock.
pub struct Grant<'g> {
    /// The value that proves that it is ours.
    pub token: &'g [u8],
    /// The number of this run.
    pub fence: Option<u64>,
    /// What ties the job to golock.
    pub binding: Binding<'g>,
}

/// What became of a lock at the end of its job. The command's exit code stands whatever that is.
pub struct Ending {
    /// What to tell people without being asked.
    pub trouble: Option<Line>,
    /// What else there is to say.
    pub note: Line,
    /// The record as it stands, if one was written.
    pub record: Option<Record>,
}

/// All recorded jobs that were found.
pub struct Listing {
    /// The jobs.
    pub entries: Vec<Entry>,
    /// What to say of where they are.
    pub note: Option<&'static str>,
}

/// Why nothing came of a question about a lock.
#[derive(Debug)]
pub struct Error {
    /// What failed.
    pub why: Why,
    /// That the lock may stay, if it could not be given back.
    pub left: Option<Line>,
}

/// What failed.
#[derive(Debug)]
pub enum Why {
    /// A signal that ends golock came first.
    Interrupted(Signal),
    /// The words say it.
    Failed(Line),
}

impl From<Line> for Error {
    fn from(words: Line) -> Self {
        Self { why: Why::Failed(words), left: None }
    }
}

/// How a run ended, for its record.
fn end_of(exit: ExitReason) -> End {
    let result = match exit {
        ExitReason::Code(code) => code.to_string(),
        ExitReason::Signal(signal) => format!("signal:{signal}"),
        ExitReason::Stopped(StopReason::TimedOut) => "timeout".to_owned(),
        ExitReason::Stopped(StopReason::LockLost) => "lost".to_owned(),
    };
    End { result: result.into_bytes(), success: exit == ExitReason::Code(0) }
}

/// That a lock which could not be released may stay locked for `span`.
fn may_stay(span: Duration) -> Line {
    crate::words!("it may stay locked for up to {} s", span.as_secs())
}
