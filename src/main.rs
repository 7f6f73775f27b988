//! golock: run a command under a lock in Redis.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    golock::run(std::env::args_os().skip(1), std::env::vars_os()).into()
}
