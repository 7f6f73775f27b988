//! The host that has taken a lock from its holder.

use super::redis::Server;

/// The value of its lock, and the milliseconds for which it was set.
pub(crate) const SUCCESSOR: &str = "1999999999123456789";
const PERIOD: &str = "5000000";

/// Gives it the lock `name`.
pub(crate) fn take_over(server: &Server, name: &str) {
    server.query::<()>(&["SET", name, SUCCESSOR, "PX", PERIOD]);
}

/// Asserts that its lock is as it was.
#[track_caller]
pub(crate) fn assert_untouched(server: &Server, name: &str) {
    assert_eq!(server.get(name).as_deref(), Some(SUCCESSOR));
    assert!(server.pttl(name) > 4_000_000, "the successor's lock was shortened");
}
