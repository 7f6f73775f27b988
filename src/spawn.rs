//! Starting another program, by posix_spawn(3). `std::process::Command` does the same, with a tenth of the size of golock
//! for what golock has no use for.

use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd;
use rustix::process::Pid;
use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

/// This program, even if its file was replaced meanwhile.
pub const OURSELVES: &CStr = c"/proc/self/exe";

/// `ENOEXEC` of execve(2): not in a format that the kernel runs.
pub const ENOEXEC: i32 = 8;

/// `ENOENT` of execve(2): no such file.
const ENOENT: i32 = 2;

/// Whether `error` is that of a system where golock cannot start itself: without a /proc, or in an emulator that the
/// kernel does not know.
pub fn is_without_self(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(ENOENT | ENOEXEC))
}

/// Starts `program`, which is called as `words` say. It has the descriptors 0, 1 and 2 of ours, or `stdout` as 1. What
/// golock catches, and SIGPIPE, which std ignores, has its default effect, and no signal is blocked. If it `leads`, it
/// gets a process group of its own.
///
/// # Errors
/// When the system refuses; nothing runs then.
pub fn spawn(
    program: &CStr,
    words: &[CString],
    environment: &[CString],
    stdout: Option<BorrowedFd<'_>>,
    leads: bool,
) -> io::Result<Pid> {
    let mut files = PosixSpawnFileActions::init()?;
    if let Some(stdout) = stdout {
        files.add_dup2(stdout.as_raw_fd(), 1)?;
    }
    let mut attributes = PosixSpawnAttr::init()?;
    attributes.set_sigdefault(&SigSet::from(Signal::SIGPIPE))?;
    attributes.set_sigmask(&SigSet::empty())?;
    attributes.set_pgroup(unistd::Pid::from_raw(0))?;
    let signals = PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF | PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK;
    attributes.set_flags(if leads { signals | PosixSpawnFlags::POSIX_SPAWN_SETPGROUP } else { signals })?;
    let child = posix_spawn(program, &files, &attributes, words, environment)?;
    Pid::from_raw(child.as_raw()).ok_or_else(|| io::ErrorKind::Other.into())
}

/// `word` as the system takes it.
///
/// # Errors
/// When it holds a NUL, as no argument and no variable can.
pub fn terminated(word: &OsStr) -> io::Result<CString> {
    Ok(CString::new(word.as_bytes())?)
}

/// Our environment, with the variables `added`, in the place of those of the same name.
///
/// # Errors
/// When one of them holds a NUL.
pub fn environment(added: &[(&str, &[u8])]) -> io::Result<Vec<CString>> {
    let mut all = Vec::new();
    for (name, value) in std::env::vars_os() {
        if added.iter().all(|(known, _)| name != *known) {
            all.push(CString::new([name.as_bytes(), b"=", value.as_bytes()].concat())?);
        }
    }
    for (name, value) in added {
        all.push(CString::new([name.as_bytes(), b"=", value].concat())?);
    }
    Ok(all)
}
