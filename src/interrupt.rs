//! Signals, and the one place where golock waits.
//!
//! The signals that golock handles are blocked and read from a signalfd(2), so one `poll(2)` waits for a signal, a
//! descriptor and a deadline at once. Nothing is lost between the look and the sleep, and no wait goes on without looking
//! at its deadline again.

use crate::clock::Instant;
use nix::sys::signal::SigSet;
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, open};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, waitid};
use std::cell::{Cell, OnceCell};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

/// The signals that golock forwards to the job, or ends on before there is a job.
const TERMINATION: [Signal; 6] = [Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM, Signal::USR1, Signal::USR2];

/// Those of job control, which golock handles as long as there is a job.
const JOB_CONTROL: [Signal; 4] = [Signal::CONT, Signal::TSTP, Signal::TTIN, Signal::TTOU];

/// How long an exchange waits without looking at its deadline: poll's clock stands still while a host is suspended.
const SLICE: Duration = Duration::from_secs(1);

/// The most that is read of `/proc/self/status`: its list of groups may hold 65,536 entries.
const STATUS_LIMIT: usize = 1 << 20;

/// Which pending signals wake a sleeper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WakeOn {
    /// None: the wait ends by its event or its deadline.
    Nothing,
    /// Those that would end golock: all that are forwarded to a job.
    Termination,
    /// All that concern the job: its end too, but not that of its orphans.
    JobExit,
    /// Also the end of any child.
    AnySignal,
}

/// Why a wait ended without its event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitError {
    /// The deadline has passed.
    TimedOut,
    /// A signal is pending that wakes the sleeper.
    Interrupted,
}

/// A set of signals: signal N is bit N.
type Set = u64;

fn bit(signal: i32) -> Set {
    u32::try_from(signal).ok().and_then(|number| 1_u64.checked_shl(number)).unwrap_or(0)
}

fn set(signals: &[Signal]) -> Set {
    signals.iter().fold(0, |set, signal| set | bit(signal.as_raw()))
}

/// `signals` as the system calls of nix take them.
fn sig_set(signals: &[Signal]) -> SigSet {
    signals.iter().filter_map(|signal| nix::sys::signal::Signal::try_from(signal.as_raw()).ok()).collect()
}

/// The signals that golock handles, from the moment this exists until it exits.
pub struct Interrupts {
    fd: SignalFd,
    pending: Cell<Set>,
    ignored: OnceCell<Set>,
    job: Cell<Option<Pid>>,
}

impl Interrupts {
    /// Starts to collect the signals that would end golock, and SIGCHLD.
    ///
    /// # Errors
    /// When the system has no descriptor left.
    pub fn catch() -> io::Result<Self> {
        // Where SIGCHLD was inherited as ignored, the kernel would reap the job itself, and nobody would know its exit code.
        signal_hook::flag::register(Signal::CHILD.as_raw(), Arc::default())?;
        let mask = sig_set(&TERMINATION) | sig_set(&[Signal::CHILD]);
        mask.thread_block()?;
        let fd = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        let (pending, ignored, job) = Default::default();
        Ok(Self { fd, pending, ignored, job })
    }

    /// Collects the signals of job control as well. Until then, Ctrl-Z stops golock as any program.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn control_job(&self) -> io::Result<()> {
        let mask = sig_set(&TERMINATION) | sig_set(&JOB_CONTROL) | sig_set(&[Signal::CHILD]);
        mask.thread_block()?;
        Ok(self.fd.set_mask(&mask)?)
    }

    /// Stops our process group by `signal`, as its default effect is, and returns when it was continued. False if nothing
    /// has stopped us: the group is orphaned (setpgid(2)), so that nobody would continue it, or ignores the signal.
    pub fn stop(&self, signal: Signal) -> bool {
        self.forget(Signal::CONT);
        let mask = sig_set(&[signal]);
        let _ = rustix::process::kill_current_process_group(signal);
        // It is pending, and takes effect here.
        let _ = mask.thread_unblock();
        let _ = mask.thread_block();
        self.collect();
        self.forget(signal);
        self.take(Signal::CONT)
    }

    /// Sends `signal` to our process group, and dies of it, unless it was inherited as ignored.
    pub fn die(&self, signal: Signal) {
        let _ = rustix::process::kill_current_process_group(signal);
        let _ = sig_set(&[signal]).thread_unblock();
    }

    /// Waits until `event` is ready, a signal is pending that wakes the sleeper, or the deadline has passed; the last two
    /// are errors. Until [`Instant::NEVER`] it may wait for ever.
    ///
    /// # Errors
    /// The reason for which the wait ended.
    pub fn wait(
        &self,
        event: Option<(BorrowedFd<'_>, PollFlags)>,
        until: Instant,
        wake: WakeOn,
    ) -> Result<(), WaitError> {
        loop {
            let left = self.left(until, wake)?;
            if self.poll(event, left) {
                return Ok(());
            }
        }
    }

    /// The time that is left to wait; `None` is for ever.
    fn left(&self, until: Instant, wake: WakeOn) -> Result<Option<Duration>, WaitError> {
        if self.is_pending(wake) {
            return Err(WaitError::Interrupted);
        }
        if until == Instant::NEVER { Ok(None) } else { until.remaining().ok_or(WaitError::TimedOut).map(Some) }
    }

    /// One `poll(2)`; true if the event is there. An interruption counts as a wake-up.
    fn poll(&self, event: Option<(BorrowedFd<'_>, PollFlags)>, left: Option<Duration>) -> bool {
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        let signals = self.fd.as_fd();
        let (fd, flags) = event.unwrap_or((signals, PollFlags::empty()));
        let mut fds = [PollFd::from_borrowed_fd(signals, PollFlags::IN), PollFd::from_borrowed_fd(fd, flags)];
        let woken = poll(&mut fds, timeout.as_ref()).is_ok_and(|count| count > 0);
        if woken && !fds[0].revents().is_empty() {
            self.collect();
        }
        woken && !fds[1].revents().is_empty()
    }

    /// Takes one pending signal out; SIGCHLD is not among them. That golock was continued comes first: a job must not
    /// hear of anything else before its lock was looked at.
    pub fn next(&self) -> Option<Signal> {
        self.collect();
        JOB_CONTROL.into_iter().chain(TERMINATION).find(|&signal| self.take(signal))
    }

    /// Takes out the first pending signal that would end golock.
    pub fn termination(&self) -> Option<Signal> {
        self.collect();
        TERMINATION.into_iter().find(|&signal| self.take(signal))
    }

    /// Makes this child the one whose end is that of the job.
    pub fn watch(&self, job: Pid) {
        self.job.set(Some(job));
    }

    /// Whether the job has ended; it may not have been waited for yet.
    fn job_has_ended(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        self.job.get().is_none_or(|job| !matches!(waitid(WaitId::Pid(job), options), Ok(None)))
    }

    /// Forgets a pending `signal`.
    pub fn forget(&self, signal: Signal) {
        self.take(signal);
    }

    /// Forgets what is pending.
    pub fn forget_all(&self) {
        self.collect();
        self.pending.set(0);
    }

    /// Takes `signal` out; whether it was pending.
    fn take(&self, signal: Signal) -> bool {
        let (pending, signal) = (self.pending.get(), bit(signal.as_raw()));
        self.pending.set(pending & !signal);
        pending & signal != 0
    }

    /// Reads what has arrived. A blocked signal arrives even if it was inherited as ignored (nohup); it is then left alone,
    /// here as in the job.
    fn collect(&self) {
        while let Ok(Some(info)) = self.fd.read_signal() {
            let signal = info.ssi_signo.try_into().map_or(0, bit);
            let ignored =
                if signal == set(&[Signal::CHILD]) { 0 } else { *self.ignored.get_or_init(inherited_ignores) };
            self.pending.set(self.pending.get() | (signal & !ignored));
        }
    }

    /// Whether a signal is pending that `wake` means.
    pub fn is_pending(&self, wake: WakeOn) -> bool {
        let pending = self.pending.get();
        match wake {
            WakeOn::Nothing => false,
            WakeOn::Termination => pending & set(&TERMINATION) != 0,
            WakeOn::JobExit => pending & !set(&[Signal::CHILD]) != 0 || (pending != 0 && self.job_has_ended()),
            WakeOn::AnySignal => pending != 0,
        }
    }
}

/// The deadline of one exchange, and the signals that end it early.
#[derive(Clone, Copy)]
pub struct Deadline<'a> {
    /// Where signals arrive.
    pub interrupts: &'a Interrupts,
    /// Which of them end the wait.
    pub wake: WakeOn,
    /// When the wait ends in any case.
    pub at: Instant,
}

impl Deadline<'_> {
    /// This deadline, or `at` if that is earlier.
    pub fn min(self, at: Instant) -> Self {
        Self { at: self.at.min(at), ..self }
    }

    /// Waits for `fd` to become ready as `flags` say.
    ///
    /// # Errors
    /// [`Interrupts::wait`] says when, as an I/O error: `TimedOut` for the deadline, `ConnectionAborted` for a signal
    /// (`Interrupted` and `WouldBlock` have meanings of their own to readers and to rustls).
    pub fn wait(&self, fd: &impl AsFd, flags: PollFlags) -> io::Result<()> {
        let event = Some((fd.as_fd(), flags));
        loop {
            match self.interrupts.wait(event, self.at.min(Instant::after(SLICE)), self.wake) {
                Err(WaitError::TimedOut) if !self.at.has_passed() => {}
                done => return Ok(done?),
            }
        }
    }

    /// Whether there is any time left.
    ///
    /// # Errors
    /// As for [`Deadline::wait`].
    pub fn check(&self) -> io::Result<()> {
        self.interrupts.left(self.at, self.wake).map(|_| ()).map_err(io::Error::from)
    }
}

impl From<WaitError> for io::Error {
    fn from(error: WaitError) -> Self {
        match error {
            WaitError::TimedOut => io::ErrorKind::TimedOut.into(),
            WaitError::Interrupted => io::ErrorKind::ConnectionAborted.into(),
        }
    }
}

/// What stands behind `name` in `status`, in a line of its own.
fn line<'a>(status: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    status.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(name))
}

/// The signals that golock's parent let it ignore. To ask the kernel itself (sigaction) would take unsafe code; where there
/// is no `/proc`, none counts as ignored.
fn inherited_ignores() -> Set {
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
    ignore_mask(&text)
}

/// proc(5): `SigIgn` is a mask in hex, in which signal N is bit N - 1.
fn ignore_mask(status: &[u8]) -> Set {
    let text = line(status, b"SigIgn:").and_then(|hex| std::str::from_utf8(hex).ok()).map_or("", str::trim);
    u64::from_str_radix(text, 16).unwrap_or(0) << 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_of_proc_status_is_read() {
        assert!(ignore_mask(b"Name:\tx\nSigIgn:\t0000000000001001\nSigCgt:\t1\n") == bit(1) | bit(13));
        assert_eq!(ignore_mask(b"SigIgn:\tnonsense\n"), 0);
    }
}
