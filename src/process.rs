//! Starting other programs, by `posix_spawn(3)`, which needs no unsafe code. `std::process::Command` does the same, but
//! would add a tenth to golock for what golock does not use.

use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd;
use rustix::io::Errno;
use rustix::process::Pid;
use std::ffi::{CStr, CString, OsStr, OsString};
use std::fmt::Display;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// This program, even if its file was replaced meanwhile.
pub const SELF: &str = "/proc/self/exe";

/// Whether `error` is that of a system where golock cannot start itself: without a /proc, or in an emulator that the
/// kernel does not know.
pub fn is_no_self(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOENT | Errno::NOEXEC))
}

/// What `/proc/PID/status` (proc(5)) says behind `name`; nothing without a /proc.
pub fn of_status(pid: impl Display, name: &str) -> Option<String> {
    let status = fs::read(format!("/proc/{pid}/status")).ok()?;
    let value = status.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(name.as_bytes()))?;
    Some(std::str::from_utf8(value).ok()?.trim().to_owned())
}

/// The signals of job control that a program can block.
const STOPS: [Signal; 3] = [Signal::SIGTSTP, Signal::SIGTTIN, Signal::SIGTTOU];

/// In a golock that golock has started: lets through the signals that were blocked for its birth.
pub fn unblock_stops() {
    let _ = SigSet::from_iter(STOPS).thread_unblock();
}

/// A list of strings as execve(2) takes it, in one allocation.
#[derive(Default)]
pub struct CStrings {
    bytes: Vec<u8>,
    count: usize,
}

impl CStrings {
    /// The words of a command line.
    pub fn words<'a>(words: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut list = Self::default();
        words.into_iter().for_each(|word| list.push(&[word]));
        list
    }

    /// None yet, with room for so many bytes.
    fn with_room(bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), count: 0 }
    }

    fn push(&mut self, parts: &[&[u8]]) {
        for part in parts {
            self.bytes.extend_from_slice(part);
        }
        self.bytes.push(0);
        self.count += 1;
    }

    /// The strings. A NUL inside of one is an error, because it would make two of it.
    fn list(&self) -> io::Result<Vec<&CStr>> {
        let mut list = Vec::with_capacity(self.count);
        let each = self.bytes.split_inclusive(|&byte| byte == 0);
        list.extend(each.filter_map(|string| CStr::from_bytes_with_nul(string).ok()));
        if list.len() == self.count { Ok(list) } else { Err(io::ErrorKind::InvalidInput.into()) }
    }

    /// Becomes `program`, with this command line and our environment. Returns only when that failed.
    pub fn exec(&self, program: &Path) -> io::Error {
        let file = CString::new(program.as_os_str().as_bytes());
        let done = file.map_err(io::Error::from).and_then(|file| Ok(unistd::execv(&file, &self.list()?)?));
        done.map_or_else(|error| error, |never| match never {})
    }
}

/// The variables of an environment, as `NAME=value` each, in one allocation.
#[derive(Default)]
pub struct Variables(CStrings);

impl Variables {
    /// Of what `std::env::vars_os` gives.
    pub fn new(given: impl Iterator<Item = (OsString, OsString)>) -> Self {
        let given: Vec<_> = given.collect();
        let mut list = CStrings::with_room(given.iter().map(|(name, value)| name.len() + value.len() + 2).sum());
        for (name, value) in given {
            list.push(&[name.as_bytes(), b"=", value.as_bytes()]);
        }
        Self(list)
    }

    /// Names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let strings = self.0.bytes.split(|&byte| byte == 0);
        strings.filter_map(|string| {
            // A name may begin with an equals sign.
            let end = string.iter().skip(1).position(|&byte| byte == b'=')? + 1;
            Some((&string[..end], &string[end + 1..]))
        })
    }

    /// The value of a variable.
    pub fn get(&self, name: &str) -> Option<&OsStr> {
        self.iter().find(|(known, _)| *known == name.as_bytes()).map(|(_, value)| OsStr::from_bytes(value))
    }

    /// All, for a process to be started.
    pub fn strings(&self) -> &CStrings {
        &self.0
    }

    /// The same, with those of `changed` in place of others of the same name; one whose value is empty is left out.
    pub fn with(&self, changed: &[(&str, &[u8])]) -> CStrings {
        let room = changed.iter().map(|(name, value)| name.len() + value.len() + 2).sum::<usize>();
        let mut list = CStrings::with_room(self.0.bytes.len() + room);
        let kept = self.iter().filter(|(name, _)| changed.iter().all(|(other, _)| *name != other.as_bytes()));
        let added =
            changed.iter().map(|(name, value)| (name.as_bytes(), *value)).filter(|(_, value)| !value.is_empty());
        for (name, value) in kept.chain(added) {
            list.push(&[name, b"=", value]);
        }
        list
    }
}

/// A process to be started.
pub struct Spawn<'a> {
    /// Its file.
    pub program: &'a Path,
    /// Its command line, the program's name included.
    pub words: &'a CStrings,
    /// Its environment.
    pub environment: &'a CStrings,
    /// A descriptor that it gets as this number, besides those that golock itself inherited.
    pub gets: Option<(BorrowedFd<'a>, RawFd)>,
    /// Whether it leads a process group of its own.
    pub leads: bool,
}

impl Spawn<'_> {
    /// Starts it. No signal is blocked in it, and SIGPIPE, which std ignores, has its default effect; what golock
    /// inherited as ignored stays ignored, but for SIGCHLD. If the system refuses, nothing runs.
    ///
    /// Until execve(2) the child has our memory and this waits for it (vfork). A Ctrl-Z at that moment would stop it, and
    /// with it golock, which could not even be continued: a golock starts with these signals blocked.
    pub fn start(&self) -> io::Result<Pid> {
        let mut files = PosixSpawnFileActions::init()?;
        // Duplicated onto itself, a descriptor loses close-on-exec, in the child alone.
        if let Some((fd, number)) = self.gets {
            files.add_dup2(fd.as_raw_fd(), number)?;
        }
        let mut attributes = PosixSpawnAttr::init()?;
        attributes.set_sigdefault(&SigSet::from(Signal::SIGPIPE))?;
        let is_golock = self.program == Path::new(SELF);
        attributes.set_sigmask(&if is_golock { SigSet::from_iter(STOPS) } else { SigSet::empty() })?;
        attributes.set_pgroup(unistd::Pid::from_raw(0))?;
        let flags = PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF | PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK;
        let group = PosixSpawnFlags::POSIX_SPAWN_SETPGROUP;
        attributes.set_flags(if self.leads { flags | group } else { flags })?;
        let (words, environment) = (self.words.list()?, self.environment.list()?);
        let child = posix_spawn(self.program, &files, &attributes, &words, &environment)?;
        Pid::from_raw(child.as_raw()).ok_or_else(|| io::ErrorKind::Other.into())
    }
}
