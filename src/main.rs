//! golock: run a command under a lock in Redis.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().collect();
    golock::run(args.get(1..).unwrap_or_default(), std::env::vars_os()).into()
}
