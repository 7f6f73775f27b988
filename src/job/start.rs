use super::stage;
use crate::signals::Signals;
use crate::spawn::{ENOEXEC, OURSELVES, Words, is_without_self, spawn};
use rustix::process::{Pid, getpid};
use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// What execvp(3) runs a script with that has no `#!` line, and so what shells, timeout(1) and flock(1) do.
const SHELL: &str = "/bin/sh";

/// A command that was started.
#[derive(Clone, Copy, Debug)]
pub struct Started {
    /// Its process id.
    pub pid: Pid,
    /// Whether it leads a process group of its own.
    pub leads: bool,
}

/// Starts `program` as `command` says, with two variables added to the environment: the lock's
/// name and token.
///
/// It gets a process group of its own, so that all of it can be signalled; not on a terminal, from which it could then
/// not read (as with `timeout --foreground`). If it is `bound`, it dies with golock.
///
/// # Errors
/// When the system refuses; nothing runs then.
pub fn start(
    program: &Path,
    command: &[OsString],
    (name, token): (&[u8], &[u8]),
    bound: bool,
    signals: &Signals,
) -> io::Result<Started> {
    let leads = !io::stdin().is_terminal();
    let environment = Words::environment(&[("GOLOCK_KEY", name), ("GOLOCK_TOKEN", token)]);
    let run = |program: &Path, words: &Words| {
        spawn(program, words, &environment, signals, None, leads).map(|pid| Started { pid, leads })
    };
    if bound {
        let mut words = Words::default();
        let parent = getpid().as_raw_nonzero().to_string();
        for word in [OURSELVES.as_bytes(), stage::MARK.as_bytes(), parent.as_bytes(), program.as_os_str().as_bytes()] {
            words.push(&[word]);
        }
        words.extend(command);
        match run(Path::new(OURSELVES), &words) {
            Err(error) if is_without_self(&error) => {}
            done => return done,
        }
    }
    run_as(program, command, run)
}

/// Does `run` with `program`, called as `command` says; with the shell and `program` if it is a script without `#!`.
pub(super) fn run_as<T>(
    program: &Path,
    command: &[OsString],
    run: impl Fn(&Path, &Words) -> io::Result<T>,
) -> io::Result<T> {
    let mut words = Words::default();
    words.extend(command);
    match run(program, &words) {
        Err(error) if error.raw_os_error() == Some(ENOEXEC) => {
            let mut words = Words::default();
            words.push(&[SHELL.as_bytes()]);
            words.push(&[program.as_os_str().as_bytes()]);
            words.extend(command.get(1..).unwrap_or_default());
            run(Path::new(SHELL), &words)
        }
        done => done,
    }
}
