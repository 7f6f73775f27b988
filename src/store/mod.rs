//! Where a lock is kept: in Redis, or on this host alone. The pipeline asks either the same way.

mod folder;
mod local;
mod redis;

pub use local::{Error as LocalError, LocalStore};
pub use redis::RedisStore;

use crate::Error;
use crate::job::Keep;
use crate::lock::Status;

/// One lock and the place where it is kept.
pub trait Store {
    /// Tries once to take the lock; false if another holds it.
    ///
    /// # Errors
    /// When that cannot be said. The lock is then not ours, or given back as far as possible.
    fn acquire(&mut self) -> Result<bool, Error>;

    /// Makes sure, right before the command is started, that the lock can be kept; leaves no connection open.
    ///
    /// # Errors
    /// When it cannot.
    fn settle(&mut self) -> Result<(), Error>;

    /// The value that proves that the lock is ours, for the job to hand on.
    fn token(&self) -> &[u8];

    /// Whether the command must not outlive this process.
    fn binds(&self) -> bool;

    /// What is to be done while the command runs.
    fn keep(&mut self) -> Option<&mut dyn Keep>;

    /// Gives the lock back at once, for the command does not run: another host may run it. That this failed is told
    /// if golock was `stopped`, of which nothing else is said; otherwise it would be a second line, or break the silence
    /// of who skips.
    fn give_back(&mut self, stopped: bool);

    /// Releases the lock when its grace has passed. Whatever comes of it, the command's exit code stands, so a failure
    /// is only told.
    fn release(&mut self);

    /// Says why it was lost. Not before the job is gone, because it may take as long as the reader of stderr pleases.
    fn tell_loss(&mut self) {}

    /// Deletes the lock, whoever holds it.
    ///
    /// # Errors
    /// When it may still be there.
    fn reset(&mut self) -> Result<(), Error>;

    /// Looks at the lock, changing nothing.
    ///
    /// # Errors
    /// When it cannot be seen.
    fn status(&mut self) -> Result<Status, Error>;
}
