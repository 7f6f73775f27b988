//! The command: found before the lock is asked for, started under it, and supervised until it has ended.

mod find;
mod supervise;

pub use find::{Unfit, find};
pub use supervise::{Ended, Job};
