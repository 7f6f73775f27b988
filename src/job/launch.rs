use crate::process::{CStrings, ENOEXEC, SELF, Spawn, is_no_self};
use rustix::process::{Pid, Signal, getpid, getppid, set_parent_process_death_signal};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

/// The first argument of a golock that is about to become a job. No option may look like this.
const MARK: &str = "--stage-of";

/// What execvp(3) runs a script with that has no `#!` line, and so what shells, timeout(1) and flock(1) do.
const SHELL: &str = "/bin/sh";

/// What ties a job to golock.
#[derive(Clone, Copy, Debug)]
pub enum Binding<'a> {
    /// Nothing.
    None,
    /// The kernel kills it when golock dies.
    DieWithParent,
    /// It inherits this descriptor, on which the lock is: the lock lasts as long as it, whatever becomes of golock.
    InheritFd(BorrowedFd<'a>),
}

/// Starts `program` as `command` says, in a process group of its own, so that all of it can be signalled.
pub fn launch(program: &Path, command: &[OsString], environment: &CStrings, binding: Binding<'_>) -> io::Result<Pid> {
    let inherited = if let Binding::InheritFd(fd) = binding { Some(fd) } else { None };
    let spawn = |program: &Path, words: &CStrings| {
        Spawn { program, words, environment, stdout: None, inherited, leads: true }.start()
    };
    if let Binding::DieWithParent = binding {
        let parent = getpid().as_raw_nonzero().to_string();
        let stage = [SELF.as_bytes(), MARK.as_bytes(), parent.as_bytes(), program.as_os_str().as_bytes()];
        let words = CStrings::words(stage.into_iter().chain(command.iter().map(|word| word.as_bytes())));
        match spawn(Path::new(SELF), &words) {
            Err(error) if is_no_self(&error) => {}
            done => return done,
        }
    }
    with_shell(program, command, spawn)
}

/// Does `run` with `program`, called as `command` says; with the shell and `program` if it is a script without `#!`.
fn with_shell<T>(
    program: &Path,
    command: &[OsString],
    run: impl Fn(&Path, &CStrings) -> io::Result<T>,
) -> io::Result<T> {
    let words = command.iter().map(|word| word.as_bytes());
    match run(program, &CStrings::words(words.clone())) {
        Err(error) if error.raw_os_error() == Some(ENOEXEC) => {
            let shell = [SHELL.as_bytes(), program.as_os_str().as_bytes()];
            run(Path::new(SHELL), &CStrings::words(shell.into_iter().chain(words.skip(1))))
        }
        done => done,
    }
}

/// If `args` are those of a golock that is to become a job, becomes the command that they name: between fork and exec only
/// unsafe code could bind it. It returns only if that failed: with the program and the reason.
///
/// From here on the kernel kills the process when its parent dies (`PR_SET_PDEATHSIG`, prctl(2)), until it changes its
/// user or becomes a setuid program; and not the processes that it starts.
pub fn become_job(args: &[OsString]) -> Option<(&OsStr, io::Error)> {
    let [mark, parent, program, command @ ..] = args else { return None };
    if mark != MARK {
        return None;
    }
    let parent = parent.to_str().and_then(|pid| pid.parse().ok()).and_then(Pid::from_raw);
    // std ignores SIGPIPE. What is caught instead has its default effect after execve(2); this never fails for it.
    let _ = signal_hook::flag::register(Signal::PIPE.as_raw(), Arc::default());
    let error = match set_parent_process_death_signal(Some(Signal::KILL)) {
        // A parent that died before the kernel was told will not be reported. In a PID namespace of its own (unshare -p) the
        // process cannot see its parent, nor who has taken its place.
        Ok(()) if getppid().is_some() && getppid() != parent => io::ErrorKind::BrokenPipe.into(),
        Ok(()) => with_shell(Path::new(program), command, |program, words| Err::<(), _>(words.exec(program))).err()?,
        Err(errno) => errno.into(),
    };
    Some((program, error))
}
