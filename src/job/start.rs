use super::stage;
use crate::spawn::{ENOEXEC, OURSELVES, environment, is_without_self, spawn, terminated};
use rustix::process::{Pid, getpid};
use std::ffi::{CStr, CString, OsString};
use std::io::{self, IsTerminal};
use std::path::Path;

/// What execvp(3) runs a script with that has no `#!` line, and so what shells, timeout(1) and flock(1) do.
const SHELL: &CStr = c"/bin/sh";

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
    let variables = environment(&[("GOLOCK_KEY", name), ("GOLOCK_TOKEN", token)])?;
    let run = |program: &CStr, words: &[CString]| {
        spawn(program, words, &variables, None, leads).map(|pid| Started { pid, leads })
    };
    if bound {
        let parent = getpid().as_raw_nonzero().to_string();
        let first = [OURSELVES.to_owned(), CString::new(stage::MARK)?, CString::new(parent)?];
        let words = [&first[..], &[terminated(program.as_os_str())?], &all_terminated(command)?].concat();
        match run(OURSELVES, &words) {
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
    run: impl Fn(&CStr, &[CString]) -> io::Result<T>,
) -> io::Result<T> {
    let (program, words) = (terminated(program.as_os_str())?, all_terminated(command)?);
    match run(&program, &words) {
        Err(error) if error.raw_os_error() == Some(ENOEXEC) => {
            let arguments = words.get(1..).unwrap_or_default();
            run(SHELL, &[&[SHELL.to_owned(), program], arguments].concat())
        }
        done => done,
    }
}

fn all_terminated(words: &[OsString]) -> io::Result<Vec<CString>> {
    words.iter().map(|word| terminated(word)).collect()
}
