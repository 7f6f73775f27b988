//! golock as its users meet it: the built binary against a private Redis, through a fault proxy, and against hostile
//! servers. Every test owns what it starts and ends only that.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod herd;
mod hostile;
mod lost_locks;
mod lost_replies;
mod outage;
mod refusals;
mod replies;
mod secrets;
mod support;
mod wire;
