//! How golock ends, and what it exits with.

use crate::job::{ExecError, ExitReason, StopReason};
use rustix::process::Signal;

/// How golock ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Outcome {
    Printed,
    /// It looked at the lock; whether that is held.
    Looked(bool),
    /// It deleted the lock.
    Reset,
    Ran(ExitReason),
    /// The lock is held by another; the code to exit with then.
    Skipped(u8),
    /// The lock is held by another, and nothing has succeeded for longer than `MAX_AGE`.
    Overdue,
    /// A signal arrived before the command was started.
    Interrupted(Signal),
    CannotExec(ExecError),
    Failed,
}

impl Outcome {
    /// The exit code.
    pub fn exit_code(self) -> u8 {
        let of_signal = |signal: i32| u8::try_from(128 + signal).unwrap_or(u8::MAX);
        match self {
            Self::Printed | Self::Looked(false) => 0,
            Self::Looked(true) | Self::Reset => 200,
            Self::Ran(ExitReason::Code(code)) | Self::Skipped(code) => code,
            Self::Ran(ExitReason::Signal(signal)) => of_signal(signal),
            Self::Ran(ExitReason::Stopped(StopReason::TimedOut)) => 202,
            Self::Interrupted(signal) => of_signal(signal.as_raw()),
            Self::CannotExec(ExecError::NotExecutable) => 126,
            Self::CannotExec(ExecError::NotFound) => 127,
            Self::Ran(ExitReason::Stopped(StopReason::LockLost)) | Self::Failed => 201,
            Self::Overdue => 203,
        }
    }
}
