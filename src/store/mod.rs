//! Where a lock is kept: in Redis, or on this host alone. A lock that is not held, and one that is, are values:
//! acquiring turns the one into the other, and only what is held can be renewed, released or given back.

mod folder;
mod local;
mod lockfile;
mod redis;

pub use local::LocalStore;
pub use redis::RedisStore;

use crate::job::{Binding, ExitReason, Renewal, StopReason};
use crate::lock::{End, Entry, Record, Released, Status};
use crate::text::{Escaped, Line, Span};
use crate::words;
use rustix::process::Signal;
use std::time::Duration;

/// A lock that is not held.
pub trait LockStore<'a> {
    /// Tries once to take it: asks for it and, if it is free, makes sure right before the command starts that it is ours
    /// and lasts, and records that the run begins. If that fails, it is given back as far as possible.
    fn acquire(self: Box<Self>) -> Result<Attempt<'a>, Error>;

    /// Looks at it, changing nothing.
    fn status(&mut self) -> Result<Status, Error>;

    /// All jobs that have a record, and a remark if these are not all.
    fn list(&mut self) -> Result<(Vec<Entry>, Option<&'static str>), Error>;

    /// Deletes it, whoever holds it; whether there was one.
    fn reset(&mut self) -> Result<bool, Error>;

    /// Whether we are the host that says, for an hour, that it is overdue.
    fn tells_overdue(&mut self) -> bool;
}

/// What came of trying to take a lock.
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

    /// What the job gets: the value that proves that it is ours, the number of this run, and what ties the job to golock.
    fn grant(&self) -> (&[u8], Option<u64>, Binding<'_>);

    /// Releases it, but for the rest of its grace. `exit` is how the job ended: its exit code stands, whatever comes of
    /// this.
    fn release(self: Box<Self>, exit: ExitReason) -> Ending;

    /// Gives it back at once, because no command ran under it: another host may run it. The record gets the exit code
    /// `code`. If the lock may stay, the words say for how long.
    fn abandon(self: Box<Self>, code: u8) -> Result<(), Line>;
}

/// What became of a lock at the end of its job: what to say of it (`Ok`: under VERBOSE; `Err`: in any case), and the
/// record as it stands, if one was written.
#[allow(missing_docs)]
pub struct Ending {
    pub told: Result<Line, Line>,
    pub record: Option<Record>,
}

/// Why an operation on a lock failed.
#[derive(Debug)]
pub enum Error {
    /// A signal that ends golock came first. The words say that the lock may stay, if it could not be given back.
    Interrupted(Signal, Option<Line>),
    /// Why, in words.
    Failed(Line),
}

impl From<Line> for Error {
    fn from(words: Line) -> Self {
        Self::Failed(words)
    }
}

/// What to say of the lock `name` at the end of its job.
fn told(name: &[u8], released: Released) -> Result<Line, Line> {
    match released {
        Released::Free => Ok("released the lock".into()),
        Released::InGrace(left) => Ok(words!("released the lock, with {} of grace left", Span(left))),
        Released::Lost => Err(words!("the lock {} was lost before it was released", Escaped(name))),
        Released::LeftToExpire => Ok("left the lock to expire: it cannot be released safely without EVAL".into()),
    }
}

/// The end of a run in which no command ran, for its record.
fn not_begun(code: u8) -> End {
    End { result: code.to_string().into_bytes(), ..End::default() }
}

/// The end of a run whose command ended so, and took so long, for its record.
fn end_of(exit: ExitReason, took: Duration) -> End {
    let result = match exit {
        ExitReason::Code(code) => code.to_string(),
        ExitReason::Signal(signal) => format!("signal:{signal}"),
        ExitReason::Stopped(StopReason::TimedOut) => "timeout".to_owned(),
        ExitReason::Stopped(StopReason::LockLost) => "lost".to_owned(),
    };
    End { result: result.into_bytes(), success: exit == ExitReason::Code(0), ran: true, took }
}
