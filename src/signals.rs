//! Signals, and the one place where golock waits.
//!
//! Every signal that golock handles ends up as a byte in a pipe (a socket pair, because signal-hook writes with
//! `send(2)`), so one `poll(2)` waits for a signal, a descriptor and a deadline at once. Nothing is lost between the
//! check and the sleep, and no wait goes on without looking at its deadline again.

use crate::clock::Moment;
use nix::sys::signal::SigSet;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, open};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, waitid};
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::SignalOnly;
use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// The signals that golock forwards to the job, or ends on before there is a job.
const FORWARDED: [Signal; 6] = [Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM, Signal::USR1, Signal::USR2];

/// How long an exchange waits without looking at its deadline: poll's clock stands still while a host is suspended.
const SLICE: Duration = Duration::from_secs(1);

/// The most that is read of `/proc/self/status`: its list of groups may hold 65,536 entries.
const STATUS_LIMIT: usize = 1 << 20;

/// Which pending signals cut a wait short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heed {
    /// None: the wait ends by its event or its deadline.
    Nothing,
    /// Those that would end golock: all that are forwarded to a job.
    Stops,
    /// Also the end of the job, but not that of its orphans.
    Job,
    /// Also the end of any child.
    Everything,
}

/// Why a wait ended without its event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The deadline has passed.
    Deadline,
    /// A signal that the waiter heeds is pending.
    Signal,
}

/// A signal's bit in a set of signals.
fn bit(signal: i32) -> u64 {
    u32::try_from(signal).ok().and_then(|number| 1_u64.checked_shl(number)).unwrap_or(0)
}

/// The bits of the forwarded signals.
fn forwarded() -> u64 {
    FORWARDED.iter().fold(0, |set, signal| set | bit(signal.as_raw()))
}

/// The numbers of the signals in `set`.
fn numbers(set: u64) -> impl Iterator<Item = i32> {
    (1..64).filter(move |&number| set & bit(number) != 0)
}

/// The signals that golock handles, from the moment this exists until it exits.
pub struct Signals {
    delivery: RefCell<SignalDelivery<UnixStream, SignalOnly>>,
    /// Sets of signals.
    caught: u64,
    pending: Cell<u64>,
    job: Cell<Option<Pid>>,
}

impl Signals {
    /// Starts to collect the forwarded signals and SIGCHLD. A signal that golock inherited as ignored (nohup) stays
    /// ignored, here and in the job.
    ///
    /// # Errors
    /// When the system has no descriptor left for the pipe.
    pub fn install() -> io::Result<&'static Self> {
        let caught = (forwarded() & !inherited_as_ignored()) | bit(Signal::CHILD.as_raw());
        let (read, write) = UnixStream::pair()?;
        let delivery = SignalDelivery::with_pipe(read, write, SignalOnly, numbers(caught))?;
        // Blocked, as golock may have inherited it, it would not announce the end of the job.
        SigSet::from(nix::sys::signal::Signal::SIGCHLD).thread_unblock()?;
        let (pending, job) = Default::default();
        // They are caught until golock exits.
        Ok(Box::leak(Box::new(Self { delivery: RefCell::new(delivery), caught, pending, job })))
    }

    /// The numbers of the signals that are caught.
    pub fn caught(&self) -> impl Iterator<Item = i32> + use<> {
        numbers(self.caught)
    }

    /// Waits until `event` is ready, a heeded signal is pending, or the deadline has passed; the last two are errors.
    /// Without a deadline it may wait for ever.
    ///
    /// # Errors
    /// The reason for which the wait was cut short.
    pub fn wait(
        &self,
        event: Option<(BorrowedFd<'_>, PollFlags)>,
        until: Option<Moment>,
        heed: Heed,
    ) -> Result<(), Cut> {
        loop {
            let left = self.left(until, heed)?;
            if self.poll(event, left) {
                return Ok(());
            }
        }
    }

    /// The time that is left to wait, if there is a limit.
    fn left(&self, until: Option<Moment>, heed: Heed) -> Result<Option<Duration>, Cut> {
        if self.heeded(heed) {
            return Err(Cut::Signal);
        }
        until.map(|moment| moment.remaining().ok_or(Cut::Deadline)).transpose()
    }

    /// One `poll(2)`; true if the event is there. An interruption counts as a wake-up.
    fn poll(&self, event: Option<(BorrowedFd<'_>, PollFlags)>, left: Option<Duration>) -> bool {
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        let (signalled, ready) = {
            let delivery = self.delivery.borrow();
            let pipe = PollFd::new(delivery.get_read(), PollFlags::IN);
            let (fd, flags) = event.unwrap_or((delivery.get_read().as_fd(), PollFlags::empty()));
            let mut fds = [pipe, PollFd::from_borrowed_fd(fd, flags)];
            let woken = poll(&mut fds, timeout.as_ref()).is_ok_and(|count| count > 0);
            (woken && !fds[0].revents().is_empty(), woken && !fds[1].revents().is_empty())
        };
        if signalled {
            self.collect();
        }
        ready
    }

    /// Takes one pending signal out, a forwarded one; SIGCHLD is not among them.
    pub fn take(&self) -> Option<Signal> {
        self.collect();
        let found = FORWARDED.into_iter().find(|signal| self.pending.get() & bit(signal.as_raw()) != 0)?;
        self.pending.set(self.pending.get() & !bit(found.as_raw()));
        Some(found)
    }

    /// Forgets what is pending, SIGCHLD included.
    pub fn forget(&self) {
        self.collect();
        self.pending.take();
    }

    /// Makes this child the one whose end is that of the job.
    pub fn watch(&self, job: Pid) {
        self.job.set(Some(job));
    }

    /// Whether the job has ended, which it may have without having been waited for.
    fn job_has_ended(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        self.job.get().is_none_or(|job| !matches!(waitid(WaitId::Pid(job), options), Ok(None)))
    }

    /// Forgets a pending SIGCHLD only: the job is about to be looked at.
    pub fn forget_child(&self) {
        self.pending.set(self.pending.get() & !bit(Signal::CHILD.as_raw()));
    }

    fn collect(&self) {
        self.delivery.borrow_mut().pending().for_each(|signal| self.note(signal));
    }

    fn note(&self, signal: i32) {
        self.pending.set(self.pending.get() | bit(signal));
    }

    /// Whether a signal is pending that `heed` means.
    pub fn heeded(&self, heed: Heed) -> bool {
        let pending = self.pending.get();
        match heed {
            Heed::Nothing => false,
            Heed::Stops => pending & forwarded() != 0,
            Heed::Job => pending & forwarded() != 0 || (pending != 0 && self.job_has_ended()),
            Heed::Everything => pending != 0,
        }
    }
}

/// How long to wait at most, and for whom to break off: goes with every wait of one exchange with Redis.
#[derive(Clone, Copy)]
pub struct Patience<'a> {
    /// Where signals arrive.
    pub signals: &'a Signals,
    /// Which of them end the wait.
    pub heed: Heed,
    /// When the wait ends in any case.
    pub deadline: Moment,
}

impl Patience<'_> {
    /// Waits for `fd` to become ready as `flags` say.
    ///
    /// # Errors
    /// [`Signals::wait`] says when, as an I/O error: `TimedOut` for the deadline, `ConnectionAborted` for a signal
    /// (`Interrupted` and `WouldBlock` have meanings of their own to readers and to rustls).
    pub fn wait(&self, fd: &impl AsFd, flags: PollFlags) -> io::Result<()> {
        let event = Some((fd.as_fd(), flags));
        loop {
            let slice = self.deadline.min(Moment::after(SLICE));
            match self.signals.wait(event, Some(slice), self.heed) {
                Err(Cut::Deadline) if !self.deadline.has_come() => {}
                done => return Ok(done?),
            }
        }
    }

    /// Whether there is any patience left.
    ///
    /// # Errors
    /// As for [`Patience::wait`].
    pub fn check(&self) -> io::Result<()> {
        self.signals.left(Some(self.deadline), self.heed).map(|_| ()).map_err(io::Error::from)
    }
}

impl From<Cut> for io::Error {
    fn from(cut: Cut) -> Self {
        match cut {
            Cut::Deadline => io::ErrorKind::TimedOut.into(),
            Cut::Signal => io::ErrorKind::ConnectionAborted.into(),
        }
    }
}

/// What stands behind `name` in `status`, in a line of its own.
fn line<'a>(status: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    status.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(name))
}

/// The signals that golock's parent let it ignore. To ask the kernel itself (sigaction) would take unsafe code; where there
/// is no `/proc`, none counts as ignored.
fn inherited_as_ignored() -> u64 {
    let mut text = Vec::new();
    let Ok(status) = open("/proc/self/status", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) else { return 0 };
    let mut part = [0; 2048];
    // What is wanted stands before the signals that are caught; its beginning may be long.
    while line(&text, b"SigCgt:").is_none() && text.len() < STATUS_LIMIT {
        match rustix::io::read(&status, &mut part) {
            Ok(0) | Err(_) => break,
            Ok(count) => text.extend_from_slice(&part[..count]),
        }
    }
    ignored(&text)
}

/// proc(5): `SigIgn` is a mask in hex, in which signal N is bit N - 1.
fn ignored(status: &[u8]) -> u64 {
    let text = line(status, b"SigIgn:").and_then(|hex| std::str::from_utf8(hex).ok()).map_or("", str::trim);
    u64::from_str_radix(text, 16).unwrap_or(0) << 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_of_proc_status_is_read() {
        assert!(ignored(b"Name:\tx\nSigIgn:\t0000000000001001\nSigCgt:\t1\n") == bit(1) | bit(13));
        assert_eq!(ignored(b"SigIgn:\tnonsense\n"), 0);
    }
}
