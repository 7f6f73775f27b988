//! golock: run a command under a lock in Redis.

#![forbid(unsafe_code)]

use golock::process::Variables;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    golock::run(&args, &Variables::new(std::env::vars_os())).into()
}
