//! golock as its users meet it: the built binary against a private Redis, through a fault proxy, and against hostile
//! servers. Every test owns what it starts and ends only that.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[cfg(target_os = "linux")]
mod boards;
#[cfg(target_os = "linux")]
mod bound;
#[cfg(target_os = "linux")]
mod chaos;
mod cluster;
mod cronlock;
mod cuts;
#[cfg(target_os = "linux")]
mod dispositions;
mod docs;
#[cfg(target_os = "linux")]
mod ends;
mod examples;
mod failover;
#[cfg(target_os = "linux")]
mod fences;
mod find;
mod fleet;
mod given_back;
mod herd;
mod hostile;
#[cfg(target_os = "linux")]
mod idle;
mod job;
#[cfg(target_os = "linux")]
mod job_control;
#[cfg(target_os = "linux")]
mod kill_after;
#[cfg(target_os = "linux")]
mod late_answers;
#[cfg(target_os = "linux")]
mod lease;
#[cfg(target_os = "linux")]
mod lease_lost;
mod local;
mod local_hostile;
#[cfg(target_os = "linux")]
mod local_races;
#[cfg(target_os = "linux")]
mod lookup;
mod lost_locks;
mod lost_replies;
mod messages;
mod mistakes;
#[cfg(target_os = "linux")]
mod moments;
#[cfg(not(feature = "tls"))]
mod no_tls;
mod outage;
#[cfg(target_os = "linux")]
mod overdue;
#[cfg(target_os = "linux")]
mod overlap;
mod passing;
mod passing_refusals;
mod passwords;
#[cfg(target_os = "linux")]
mod pipelines;
mod proxies;
#[cfg(target_os = "linux")]
mod quiet;
mod record;
mod refusals;
#[cfg(target_os = "linux")]
mod renewal_signals;
mod replies;
#[cfg(target_os = "linux")]
mod rotated;
#[cfg(target_os = "linux")]
mod route;
mod schedules;
mod secrets;
mod settings;
mod shown;
mod signals;
mod slips;
mod sources;
#[cfg(target_os = "linux")]
mod stops;
mod stuck_stderr;
mod support;
mod sweeps;
#[cfg(target_os = "linux")]
mod terminal;
#[cfg(target_os = "linux")]
mod testimony;
#[cfg(feature = "tls")]
mod tls;
mod troubles;
mod users;
#[cfg(target_os = "linux")]
mod waiting;
mod wire;
mod words;
