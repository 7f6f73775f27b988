//! The command: found before the lock is asked for, started under it, and supervised until it has ended.

mod find;
mod launch;
mod state;
mod supervise;
mod terminal;

pub use find::{ExecError, base_name, find};
pub use launch::{Binding, Failure, Started, become_job, launch};
pub use state::{Action, Event, State};
pub use supervise::{Over, Supervisor, adopt_orphans};
pub use terminal::{Terminal, end_interrupted};

use crate::clock::Instant;
use std::time::Duration;

/// What ends a job that does not end by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How long it may run.
    pub timeout: Option<Duration>,
    /// How long it may take to end after SIGTERM; without, SIGKILL comes at once.
    pub kill_after: Option<Duration>,
}

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitReason {
    /// With this exit code.
    Code(u8),
    /// Of this signal.
    Signal(i32),
    /// We stopped it.
    Stopped(StopReason),
}

/// Why we stop a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// Its time was up.
    TimedOut,
    /// Its lock was lost.
    LockLost,
}

/// When a lock needs attention while its job runs.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// When it is to be renewed.
    pub renew_at: Instant,
    /// When the job is to be stopped, if no renewal has helped.
    pub stop_at: Instant,
    /// When it is killed then, at the latest.
    pub kill_at: Instant,
    /// When the lock is over.
    pub hold_end: Instant,
}

/// Whether a lock is still ours after a renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewed {
    /// As far as we know. What failed is tried again.
    Kept,
    /// It is another's.
    Lost,
}

/// A lock that needs attention while its job runs.
pub trait Renewal {
    /// When.
    fn schedule(&self) -> Schedule;

    /// Renews it, or lets it go, until `until` or until a signal concerns the job.
    fn renew(&mut self, until: Instant) -> Renewed;
}
