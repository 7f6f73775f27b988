use super::Terminal;
use crate::interrupt::tell_not_started;
use crate::process::{CStrings, SELF, Spawn, is_no_self, unblock_stops};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, getpid, getppid, set_parent_process_death_signal};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

/// The first argument of a golock that is about to become a job. No option may look like this.
const MARK: &str = "--stage-of";

/// Its second one, in place of the process id of the golock that it is bound to, if it is not bound.
const FREE: &str = "nobody";

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

/// A process that was started.
pub struct Started {
    /// The job.
    pub job: Pid,
    /// Whether it is golock at first, which tells us if it cannot become the command.
    pub is_stage: bool,
}

/// Starts `program` as `command` says, in a process group of its own, so that all of it can be signalled.
///
/// Until it has that group it is in ours, and gets what the keyboard sends: where there is one, as with a binding, it is
/// golock at first, which nothing stops before it has its own group.
pub fn launch(
    program: &Path,
    command: &[OsString],
    environment: &CStrings,
    binding: Binding<'_>,
    terminal: &Terminal,
) -> io::Result<Started> {
    let gets = if let Binding::InheritFd(fd) = binding { Some((fd, fd.as_raw_fd())) } else { None };
    let spawn = |program: &Path, words: &CStrings| Spawn { program, words, environment, gets, leads: true }.start();
    let parent = if let Binding::DieWithParent = binding { getpid().as_raw_nonzero().to_string() } else { FREE.into() };
    if parent != FREE || terminal.is_there() {
        let stage = [SELF.as_bytes(), MARK.as_bytes(), parent.as_bytes(), program.as_os_str().as_bytes()];
        let words = CStrings::words(stage.into_iter().chain(command.iter().map(|word| word.as_bytes())));
        match spawn(Path::new(SELF), &words) {
            Err(error) if is_no_self(&error) => {}
            done => return done.map(|job| Started { job, is_stage: true }),
        }
    }
    with_shell(program, command, spawn).map(|job| Started { job, is_stage: false })
}

/// Does `run` with `program`, called as `command` says; with the shell and `program` if it is a script without `#!`.
fn with_shell<T>(
    program: &Path,
    command: &[OsString],
    run: impl Fn(&Path, &CStrings) -> io::Result<T>,
) -> io::Result<T> {
    let words = command.iter().map(|word| word.as_bytes());
    match run(program, &CStrings::words(words.clone())) {
        Err(error) if Errno::from_io_error(&error) == Some(Errno::NOEXEC) => {
            let shell = [SHELL.as_bytes(), program.as_os_str().as_bytes()];
            run(Path::new(SHELL), &CStrings::words(shell.into_iter().chain(words.skip(1))))
        }
        done => done,
    }
}

/// If `args` are those of a golock that is to become a job, becomes the command that they name: between fork and exec only
/// unsafe code could do what it does. It returns only if that failed.
pub fn become_job(args: &[OsString]) -> Option<Failure<'_>> {
    let [mark, parent, program, command @ ..] = args else { return None };
    if mark != MARK {
        return None;
    }
    // std ignores SIGPIPE. A signal that is caught instead has its default effect after execve(2); for this one it
    // never fails.
    let _ = signal_hook::flag::register(Signal::PIPE.as_raw(), Arc::default());
    let bound = if parent == FREE { Ok(()) } else { bind(parent) };
    let error = bound.and_then(|()| {
        unblock_stops();
        with_shell(Path::new(program), command, |program, words| Err::<(), _>(words.exec(program)))
    });
    let error = error.err()?;
    let code = error.raw_os_error().and_then(|code| u8::try_from(code).ok());
    Some(code.filter(|_| tell_not_started()).map_or(Failure::Untold(program, error), Failure::Told))
}

/// How a golock ends that could not become the job.
pub enum Failure<'a> {
    /// With this exit code, which is the error's: the golock that has started it says the rest.
    Told(u8),
    /// It has to say itself why this program was not started.
    Untold(&'a OsStr, io::Error),
}

/// From here on the kernel kills the process when its parent dies (`PR_SET_PDEATHSIG`, prctl(2)), until it changes its
/// user or becomes a setuid program; and not the processes that it starts.
fn bind(parent: &OsStr) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let parent = parent.to_str().and_then(|pid| pid.parse().ok()).and_then(Pid::from_raw);
    // A parent that died before the kernel was told will not be reported. In a PID namespace of its own (unshare -p) the
    // process cannot see its parent, nor who has taken its place.
    if getppid().is_some() && getppid() != parent { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(()) }
}
