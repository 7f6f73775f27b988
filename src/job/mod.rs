//! The command: found before the lock is asked for, started under it, and supervised until it has ended.

mod find;
mod stage;
mod start;
mod supervise;

pub use find::{Unfit, find};
pub use stage::enter;
pub use start::{Started, start};
pub use supervise::{Ended, Keep, Limits, supervise};
