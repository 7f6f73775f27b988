//! golock: run a command under a lock in Redis.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    golock::run(&args, &std::env::vars_os().collect::<Vec<_>>()).into()
}
