//! golock runs a command under a lock held in Redis, so that a job scheduled on many hosts runs on one of them and never
//! overlaps itself. README.md says what it promises, DESIGN.md how; [`run`] is the whole program.

#![forbid(unsafe_code)]

pub mod clock;
pub mod config;
pub mod exchange;
pub mod files;
pub mod interrupt;
pub mod job;
pub mod lock;
pub mod net;
pub mod outcome;
pub mod process;
pub mod report;
pub mod resp;
mod run;
pub mod store;
pub mod text;

pub use run::run;
