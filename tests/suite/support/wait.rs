//! Waiting for what another process does: for a condition, never for a length of time.

use std::thread;
use std::time::{Duration, Instant};

/// Long enough that only something stuck exceeds it, however slow the machine.
pub(crate) const WATCHDOG: Duration = Duration::from_mins(1);

const INTERVAL: Duration = Duration::from_millis(10);

/// Returns once `condition` holds; panics naming `what` when it never does.
#[track_caller]
pub(crate) fn until(what: &str, condition: impl FnMut() -> bool) {
    assert!(holds_within(WATCHDOG, condition), "waited {WATCHDOG:?} in vain until {what}");
}

/// Whether `condition` comes to hold before `limit` has passed.
pub(crate) fn holds_within(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while !condition() {
        if start.elapsed() > limit {
            return false;
        }
        thread::sleep(INTERVAL);
    }
    true
}
