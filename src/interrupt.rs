//! Signals, and the one place where golock waits.
//!
//! The signals that golock handles are blocked and read from a signalfd(2), so one `poll(2)` waits for a signal, a
//! descriptor and a deadline at once. Nothing is lost between the look and the sleep, and no wait goes on without looking
//! at its deadline again.

use crate::clock::Instant;
use crate::process::of_status;
use nix::sys::signal::{SigSet, Signal as Named};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, getpid, getppid, kill_current_process_group, kill_process, waitid,
};
use std::cell::{Cell, OnceCell};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

/// The signals that golock forwards to the job, or ends on before there is a job.
const TERMINATION: [Signal; 6] = [Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM, Signal::USR1, Signal::USR2];

/// Those of job control, which golock handles as long as there is a job.
const JOB_CONTROL: [Signal; 4] = [Signal::CONT, Signal::TSTP, Signal::TTIN, Signal::TTOU];

/// By which a golock that was to become the job says that it could not. Nobody else sends it to golock.
const NOT_STARTED: Signal = Signal::URG;

/// How long an exchange waits without looking at its deadline: poll's clock stands still while a host is suspended.
const SLICE: Duration = Duration::from_secs(1);

/// The time that is left to whoever heeds no signal, once one says that somebody waits for golock to end.
const HURRY: Duration = Duration::from_secs(5);

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

/// Whom a signal that we send is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whom {
    /// Us alone.
    Ourselves,
    /// Our process group.
    Group,
}

impl Whom {
    fn send(self, signal: Signal) {
        // To ourselves it does not fail.
        let _ = match self {
            Self::Ourselves => kill_process(getpid(), signal),
            Self::Group => kill_current_process_group(signal),
        };
    }
}

/// A set of signals: signal N is bit N.
type Set = u64;

fn set(signals: &[Signal]) -> Set {
    signals.iter().fold(0, |set, signal| set | 1 << signal.as_raw())
}

/// The same, as the system calls of nix take it.
fn mask(signals: &[Signal]) -> SigSet {
    signals.iter().filter_map(|signal| Named::try_from(signal.as_raw()).ok()).collect()
}

/// The signals that golock handles, from the moment this exists until it exits.
pub struct Interrupts {
    fd: SignalFd,
    pending: Cell<Set>,
    /// When the first of those that would end golock arrived.
    asked_to_end: Cell<Option<Instant>>,
    /// Those that golock inherited as ignored, once one has arrived.
    ignored: OnceCell<Set>,
    job: Cell<Option<Pid>>,
    /// Who has said that it could not become the job.
    not_started: Cell<Option<Pid>>,
}

impl Interrupts {
    /// Starts collecting the signals that would end golock, and SIGCHLD.
    pub fn catch() -> io::Result<Self> {
        // Where SIGCHLD was inherited as ignored, the kernel would reap the job itself, and nobody would know its exit code.
        signal_hook::flag::register(Signal::CHILD.as_raw(), Arc::default())?;
        let signals = mask(&TERMINATION) | Named::SIGCHLD;
        // A file that may not grow any more (ulimit -f) is an error, and not our end.
        (signals | Named::SIGXFSZ).thread_block()?;
        let fd = SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        let (pending, asked_to_end, ignored, job, not_started) = Default::default();
        Ok(Self { fd, pending, asked_to_end, ignored, job, not_started })
    }

    /// Collects the signals of job control as well. Until then, Ctrl-Z stops golock like any program.
    pub fn control_job(&self) -> io::Result<()> {
        let signals = mask(&TERMINATION) | mask(&JOB_CONTROL) | mask(&[Signal::CHILD, NOT_STARTED]);
        signals.thread_block()?;
        Ok(self.fd.set_mask(&signals)?)
    }

    /// Lets through again what would end golock, because from now on nobody waits for signals here. Returns one that has
    /// arrived before.
    pub fn let_through(&self) -> Option<Signal> {
        let arrived = self.termination();
        let _ = mask(&TERMINATION).thread_unblock();
        arrived
    }

    /// Makes this child the one whose end is that of the job.
    pub fn watch(&self, job: Pid) {
        self.job.set(Some(job));
    }

    /// Whether `child`, which has ended, was a golock that could not become the job.
    pub fn could_not_start(&self, child: Pid) -> bool {
        self.collect();
        self.not_started.get() == Some(child)
    }

    /// Stops `whom` by `signal`, as its default effect is, and returns when we have been continued. False if nothing
    /// has stopped us: the group is orphaned (setpgid(2)), so that nobody would continue it, or ignores the signal.
    ///
    /// A SIGCONT that comes before we are stopped is meant for this stop. A shell sends it after it has put us into the
    /// foreground; so whether the stop is needless is checked when the signal is pending, and from then on SIGCONT
    /// takes it back.
    pub fn stop(&self, signal: Signal, whom: Whom, is_needless: impl Fn() -> bool) -> bool {
        self.collect();
        if self.take(Signal::CONT) {
            return true;
        }
        // Blocked, it is pending, and takes effect when it is let through.
        whom.send(signal);
        if is_needless() {
            self.forget(signal);
            self.continue_group();
            return true;
        }
        let _ = mask(&[signal]).thread_unblock();
        let _ = mask(&[signal]).thread_block();
        self.forget(signal);
        self.take(Signal::CONT)
    }

    /// Sends `signal` to `whom`, and lets it through here. Returns if that has not ended us.
    pub fn raise(signal: Signal, whom: Whom) {
        whom.send(signal);
        let _ = mask(&[signal]).thread_unblock();
    }

    /// Continues our process group. The SIGCONT that reaches us by this does not count.
    pub fn continue_group(&self) {
        Whom::Group.send(Signal::CONT);
        self.forget(Signal::CONT);
    }

    /// Takes `signal` out if it has arrived by now; whether it had.
    pub fn forget(&self, signal: Signal) -> bool {
        self.collect();
        self.take(signal)
    }

    /// Whether `signal` was inherited as ignored.
    pub fn ignores(&self, signal: Signal) -> bool {
        *self.ignored.get_or_init(inherited_ignores) & set(&[signal]) != 0
    }

    /// Waits until `event` is ready, a signal is pending that wakes the sleeper, or the deadline has passed; the last two
    /// are errors. Until [`Instant::NEVER`] it may wait for ever.
    pub fn wait(
        &self,
        event: Option<(BorrowedFd<'_>, PollFlags)>,
        until: Instant,
        wake: WakeOn,
    ) -> Result<(), WaitError> {
        while !self.poll(event, self.left(until, wake)?) {}
        Ok(())
    }

    /// Waits until `until`, or until a signal would end golock, and takes that out.
    pub fn sleep(&self, until: Instant) -> Option<Signal> {
        let _ = self.wait(None, until, WakeOn::Termination);
        self.termination()
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

    /// Takes out a pending signal that would end golock.
    pub fn termination(&self) -> Option<Signal> {
        self.collect();
        TERMINATION.into_iter().find(|&signal| self.take(signal))
    }

    /// Takes `signal` out; whether it was pending.
    pub fn take(&self, signal: Signal) -> bool {
        let (pending, signal) = (self.pending.get(), set(&[signal]));
        self.pending.set(pending & !signal);
        pending & signal != 0
    }

    /// Forgets what has arrived.
    pub fn forget_all(&self) {
        self.collect();
        self.pending.set(0);
        self.asked_to_end.set(None);
    }

    /// When whoever heeds no signal has to end nevertheless: somebody waits for golock since the first of them.
    pub fn hurries_until(&self) -> Instant {
        self.asked_to_end.get().map_or(Instant::NEVER, |at| at + HURRY)
    }

    /// Reads what has arrived. A blocked signal arrives even if it was inherited as ignored (nohup); it is then left alone,
    /// here as in the job.
    fn collect(&self) {
        while let Ok(Some(info)) = self.fd.read_signal() {
            let arrived = 1 << info.ssi_signo;
            if arrived == set(&[NOT_STARTED]) {
                self.not_started.set(info.ssi_pid.try_into().ok().and_then(Pid::from_raw));
                continue;
            }
            let is_child = arrived == set(&[Signal::CHILD]);
            let ignored = if is_child { 0 } else { *self.ignored.get_or_init(inherited_ignores) };
            let heard = arrived & !ignored;
            // As the kernel has it, SIGCONT takes back the stops that came before it.
            let undone = if arrived == set(&[Signal::CONT]) { set(&JOB_CONTROL) } else { 0 };
            self.pending.set(self.pending.get() & !undone | heard);
            if heard & set(&TERMINATION) != 0 && self.asked_to_end.get().is_none() {
                self.asked_to_end.set(Some(Instant::now()));
            }
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

    /// Whether the job has ended and was not waited for yet.
    fn job_has_ended(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        self.job.get().is_some_and(|job| matches!(waitid(WaitId::Pid(job), options), Ok(Some(_))))
    }
}

/// Tells the golock that has started this one, to become the job, that it could not. False if there is nobody to tell: in a
/// PID namespace of its own (unshare -p) a process does not see its parent.
pub fn tell_not_started() -> bool {
    getppid().is_some_and(|parent| kill_process(parent, NOT_STARTED).is_ok())
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
    fn end(&self) -> Instant {
        if self.wake == WakeOn::Nothing { self.at.min(self.interrupts.hurries_until()) } else { self.at }
    }

    /// This deadline, or `at` if that is earlier.
    pub fn min(self, at: Instant) -> Self {
        Self { at: self.at.min(at), ..self }
    }

    /// Waits for `fd` to become ready as `flags` say. [`Interrupts::wait`] says why it may not, as an I/O error: `TimedOut`
    /// for the deadline, `ConnectionAborted` for a signal (`Interrupted` and `WouldBlock` have meanings of their own to
    /// readers and to rustls).
    pub fn wait(&self, fd: &impl AsFd, flags: PollFlags) -> io::Result<()> {
        loop {
            let slice = self.end().min(Instant::after(SLICE));
            match self.interrupts.wait(Some((fd.as_fd(), flags)), slice, self.wake) {
                Err(WaitError::TimedOut) if !self.end().has_passed() => {}
                done => return Ok(done?),
            }
        }
    }

    /// Whether there is any time left; fails as [`Deadline::wait`].
    pub fn check(&self) -> io::Result<()> {
        Ok(self.interrupts.left(self.end(), self.wake).map(|_| ())?)
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

/// The signals that golock's parent made it ignore. To ask the kernel itself (sigaction) would take unsafe code; where there
/// is no `/proc`, none counts as ignored.
fn inherited_ignores() -> Set {
    // proc(5): a mask in hex, in which signal N is bit N - 1.
    of_status("self", "SigIgn:").and_then(|hex| u64::from_str_radix(&hex, 16).ok()).unwrap_or(0) << 1
}
