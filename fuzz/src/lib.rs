//! The checks behind the fuzz targets: functions of any bytes that panic where golock breaks a promise. libFuzzer calls
//! them from `fuzz_targets`, and `tests/replay.rs`, which needs no nightly compiler, with the inputs that are committed.
#![forbid(unsafe_code)]

mod config;
mod conversation;
mod given;
mod layers;
mod message;
mod parse_reply;
#[cfg(feature = "tls")]
mod pem;
mod proof;
mod record;
mod request;
mod round_trip;
mod server;
mod session;
mod shown;
mod text_file;
mod values;

pub use config::config;
pub use parse_reply::parse_reply;
#[cfg(feature = "tls")]
pub use pem::pem;
pub use record::record;
pub use round_trip::round_trip;
pub use session::session;

/// A check.
pub type Check = fn(&[u8]);

/// All checks by the names of their targets.
pub const CHECKS: &[(&str, Check)] = &[
    ("parse_reply", parse_reply),
    ("round_trip", round_trip),
    ("config", config),
    ("session", session),
    ("record", record),
    #[cfg(feature = "tls")]
    ("pem", pem),
];
