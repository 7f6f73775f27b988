//! golock: run a command under a lock in Redis.

#![forbid(unsafe_code)]

use dlmalloc::GlobalDlmalloc;
use golock::process::Variables;
use std::process::ExitCode;

/// Musl's own maps a page for each size of what is allocated, and unmaps it again.
#[global_allocator]
static ALLOCATOR: GlobalDlmalloc = GlobalDlmalloc;

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    golock::run(&args, &Variables::new(std::env::vars_os())).into()
}
