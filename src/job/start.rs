use super::stage;
use rustix::process::{Pid, getpid};
use std::ffi::{OsStr, OsString};
use std::io::{self, IsTerminal};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// What execvp(3) runs a script with that has no `#!` line, and so what shells, timeout(1) and flock(1) do.
const SHELL: &str = "/bin/sh";

/// `ENOEXEC` of execve(2): not in a format that the kernel runs.
const ENOEXEC: i32 = 8;

/// `ENOENT` of execve(2): no such file.
const ENOENT: i32 = 2;

/// This program, even if its file was replaced meanwhile.
const OURSELVES: &str = "/proc/self/exe";

/// A command that was started.
#[derive(Clone, Copy, Debug)]
pub struct Started {
    /// Its process id.
    pub pid: Pid,
    /// Whether it leads a process group of its own.
    pub leads: bool,
}

/// Starts `program` as `command` says, with two variables added to the environment: the lock's `name` and `token`.
///
/// It gets a process group of its own, so that all of it can be signalled; not on a terminal, from which it could then
/// not read (as with `timeout --foreground`). If it is `bound`, it dies with golock.
///
/// # Errors
/// When the system refuses; nothing runs then.
pub fn start(program: &Path, command: &[OsString], name: &[u8], token: &[u8], bound: bool) -> io::Result<Started> {
    let leads = !io::stdin().is_terminal();
    let spawn = |prepared: &mut Command| {
        prepared.env("GOLOCK_KEY", OsStr::from_bytes(name)).env("GOLOCK_TOKEN", OsStr::from_bytes(token));
        let prepared = if leads { prepared.process_group(0) } else { prepared };
        prepared.spawn().map(|child| Started { pid: Pid::from_child(&child), leads })
    };
    if !bound {
        return run_as(program, command, spawn);
    }
    let mut first = Command::new(OURSELVES);
    first.arg(stage::MARK).arg(getpid().as_raw_nonzero().to_string()).arg(program).args(command);
    match spawn(&mut first) {
        // Without a /proc, or in an emulator that the kernel does not know, there is no way to bind it.
        Err(error) if matches!(error.raw_os_error(), Some(ENOENT | ENOEXEC)) => run_as(program, command, spawn),
        done => done,
    }
}

/// Does `run` with `program`, called as `command` says; with the shell and `program` if it is a script without `#!`.
pub(super) fn run_as<T>(
    program: &Path,
    command: &[OsString],
    mut run: impl FnMut(&mut Command) -> io::Result<T>,
) -> io::Result<T> {
    let arguments = command.get(1..).unwrap_or_default();
    let called = command.first().map_or(program.as_os_str(), OsString::as_os_str);
    match run(Command::new(program).arg0(called).args(arguments)) {
        Err(error) if error.raw_os_error() == Some(ENOEXEC) => run(Command::new(SHELL).arg(program).args(arguments)),
        done => done,
    }
}
