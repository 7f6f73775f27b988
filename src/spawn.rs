//! Starting another program, by `posix_spawn(3)`. `std::process::Command` does the same, but a tenth of golock would be
//! what golock has no use for.

use crate::signals::Signals;
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd;
use rustix::process::Pid;
use std::ffi::{CStr, OsString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// This program, even if its file was replaced meanwhile.
pub const OURSELVES: &str = "/proc/self/exe";

/// `ENOEXEC` of execve(2): not in a format that the kernel runs.
pub const ENOEXEC: i32 = 8;

/// `ENOENT` of execve(2): no such file.
const ENOENT: i32 = 2;

/// Whether `error` is that of a system where golock cannot start itself: without a /proc, or in an emulator that the
/// kernel does not know.
pub fn is_without_self(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(ENOENT | ENOEXEC))
}

/// Enough room for the variables that golock adds to the environment.
const ADDED: usize = 512;

/// Words as execve(2) takes them, each with a NUL at its end. None can hold one.
#[derive(Clone, Default)]
pub struct Words(Vec<u8>);

impl Words {
    /// Appends one word, made of `parts`.
    pub fn push(&mut self, parts: &[&[u8]]) {
        for part in parts {
            self.0.extend_from_slice(part);
        }
        self.0.push(0);
    }

    /// Appends `words`.
    pub fn extend(&mut self, words: &[OsString]) {
        for word in words {
            self.push(&[word.as_bytes()]);
        }
    }

    /// The words one by one.
    pub fn list(&self) -> Vec<&CStr> {
        let each = self.0.split_inclusive(|&byte| byte == 0);
        each.filter_map(|word| CStr::from_bytes_with_nul(word).ok()).collect()
    }

    /// Our environment, with the variables `added`, in the place of those of the same name.
    pub fn environment(added: &[(&str, &[u8])]) -> Self {
        // A buffer that grows would ask the kernel for a new one at nearly each step.
        let variables: Vec<_> = std::env::vars_os().collect();
        let length = |(name, value): &(OsString, OsString)| name.len() + value.len() + 2;
        let mut all = Self(Vec::with_capacity(variables.iter().map(length).sum::<usize>() + ADDED));
        for (name, value) in variables {
            if added.iter().all(|(known, _)| name != *known) {
                all.push(&[name.as_bytes(), b"=", value.as_bytes()]);
            }
        }
        for (name, value) in added {
            all.push(&[name.as_bytes(), b"=", value]);
        }
        all
    }
}

/// Starts `program`, which is called as `words` say. It has the descriptors 0, 1 and 2 of ours, or `stdout` as 1. What
/// golock catches, and SIGPIPE, which std ignores, has its default effect, and no signal is blocked. If it `leads`, it
/// gets a process group of its own.
///
/// # Errors
/// When the system refuses; nothing runs then.
pub fn spawn(
    program: &Path,
    words: &Words,
    environment: &Words,
    signals: &Signals,
    stdout: Option<BorrowedFd<'_>>,
    leads: bool,
) -> io::Result<Pid> {
    let mut files = PosixSpawnFileActions::init()?;
    if let Some(stdout) = stdout {
        files.add_dup2(stdout.as_raw_fd(), 1)?;
    }
    let mut attributes = PosixSpawnAttr::init()?;
    // The system would find out by itself which are caught, but by asking for each.
    let caught = signals.caught().filter_map(|number| Signal::try_from(number).ok());
    attributes.set_sigdefault(&caught.chain([Signal::SIGPIPE]).collect())?;
    attributes.set_sigmask(&SigSet::empty())?;
    attributes.set_pgroup(unistd::Pid::from_raw(0))?;
    let flags = PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF | PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK;
    attributes.set_flags(if leads { flags | PosixSpawnFlags::POSIX_SPAWN_SETPGROUP } else { flags })?;
    let child = posix_spawn(program, &files, &attributes, &words.list(), &environment.list())?;
    Pid::from_raw(child.as_raw()).ok_or_else(|| io::ErrorKind::Other.into())
}
