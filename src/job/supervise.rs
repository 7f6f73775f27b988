use super::state::{Action, Event, State};
use super::{ExitReason, Limits, Renewal, Renewed, Schedule, Started, StopReason, Terminal};
use crate::clock::{Instant, Timer};
use crate::interrupt::{Interrupts, WakeOn, Whom};
use crate::text::Log;
use crate::words;
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, WaitOptions, WaitStatus, getpid, kill_process, kill_process_group, set_child_subreaper, wait, waitpgid,
};
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

/// How long a job has to end after a lost lock if `KILL_AFTER` is not set, and at most if the lock is another's.
const LOST_KILL_AFTER: Duration = Duration::from_secs(5);

/// How long we wait for a group that was killed: a process of another user's may be beyond our reach.
const GONE_AFTER: Duration = Duration::from_secs(2);

/// A job under supervision.
pub struct Supervisor<'a> {
    job: Pid,
    is_stage: bool,
    terminal: Terminal,
    limits: Limits,
    interrupts: &'a Interrupts,
    log: &'a dyn Log,
    state: State,
    status: Option<WaitStatus>,
    /// Why we stop it, if we do.
    why: Option<StopReason>,
    /// When its time is up.
    timeout: Option<Instant>,
    /// When we kill it.
    kill_at: Option<Instant>,
    /// When we stop waiting for its group, which was killed.
    gone_by: Option<Instant>,
    /// The signal that the last event is about.
    signal: Signal,
    /// Whether we were told to stop, and not only the job.
    suspended: bool,
    /// Whether it had to end, and we were not allowed to signal it.
    is_out_of_reach: bool,
}

/// A job that is over.
pub struct Over {
    /// How it ended; an error if it did not even begin.
    pub exit: io::Result<ExitReason>,
    /// Whether it had to end, and no signal of ours reached it: it has become another user's.
    pub was_out_of_reach: bool,
    /// The terminal, which is ours again.
    pub terminal: Terminal,
}

/// Makes orphans of the job our children, if they are to be waited for when it is stopped.
pub fn adopt_orphans(limits: Limits, leased: bool) {
    if leased || limits.timeout.is_some() {
        // Without it (Linux before 3.4) a stopped job is over as soon as its first process is.
        let _ = set_child_subreaper(Some(getpid()));
    }
}

impl<'a> Supervisor<'a> {
    /// Of `job`, which has just been started and gets the terminal, if we have it for ourselves.
    pub fn new(
        Started { job, is_stage }: Started,
        mut terminal: Terminal,
        limits: Limits,
        interrupts: &'a Interrupts,
        log: &'a dyn Log,
    ) -> Self {
        interrupts.watch(job);
        terminal.offer(job);
        Self {
            job,
            is_stage,
            terminal,
            limits,
            interrupts,
            log,
            state: State::Running,
            status: None,
            why: None,
            timeout: limits.timeout.map(Instant::after),
            kill_at: None,
            gone_by: None,
            signal: Signal::TERM,
            suspended: false,
            is_out_of_reach: false,
        }
    }

    /// Forwards signals, hands the terminal around, keeps the time and the lock, until the job has ended. If the job
    /// has to end, what it has started and left behind in its group counts as the job.
    pub fn supervise(mut self, lock: &mut dyn Renewal) -> io::Result<Over> {
        let timer = if self.wakes_at(lock) < Instant::NEVER { Timer::new() } else { None };
        loop {
            while let Some(event) = self.next(lock)? {
                if self.handle(event, lock) {
                    let (exit, was_out_of_reach) = (self.exit(), self.is_out_of_reach);
                    self.terminal.finish(self.interrupts, !matches!(exit, Ok(ExitReason::Code(_))));
                    return Ok(Over { exit, was_out_of_reach, terminal: self.terminal });
                }
            }
            let next = self.wakes_at(lock);
            let timer = timer.as_ref().filter(|timer| next < Instant::NEVER && timer.set(next));
            // Whatever ended the wait, the loop looks for itself.
            let _ = self.interrupts.wait(timer.map(|timer| (timer.as_fd(), PollFlags::IN)), next, WakeOn::AnySignal);
        }
    }

    fn exit(&self) -> io::Result<ExitReason> {
        let exit = self.status.map_or(ExitReason::Code(0), ExitReason::of);
        match exit {
            ExitReason::Code(code) if self.is_stage && self.interrupts.could_not_start(self.job) => {
                Err(io::Error::from_raw_os_error(code.into()))
            }
            _ => Ok(self.why.map_or(exit, ExitReason::Stopped)),
        }
    }

    /// What has happened, if anything has: children first, then signals, times, and the lock.
    fn next(&mut self, lock: &dyn Renewal) -> io::Result<Option<Event>> {
        if let Some(event) = self.reap()? {
            return Ok(Some(event));
        }
        if let Some(signal) = self.interrupts.next() {
            self.signal = signal;
            return Ok(Some(self.event_of(signal)));
        }
        if self.timeout.take_if(|at| at.has_passed()).is_some() {
            return Ok(Some(Event::Timeout));
        }
        if self.kill_at.take_if(|at| at.has_passed()).is_some() {
            return Ok(Some(Event::KillDue));
        }
        let schedule = lock.schedule();
        Ok(match self.why {
            Some(StopReason::LockLost) => None,
            _ if schedule.stop_at.has_passed() => Some(Event::LeaseOver),
            _ => schedule.renew_at.has_passed().then_some(Event::RenewalDue),
        })
    }

    /// When there is something to do, if nothing happens before.
    fn wakes_at(&self, lock: &dyn Renewal) -> Instant {
        // As long as the job itself has not ended, no time is up.
        let gone_by = self.gone_by.filter(|_| self.status.is_some());
        let times = [self.timeout, self.kill_at, gone_by].into_iter().flatten();
        let schedule = lock.schedule();
        let lock =
            if self.why == Some(StopReason::LockLost) { None } else { Some(schedule.renew_at.min(schedule.stop_at)) };
        times.chain(lock).min().unwrap_or(Instant::NEVER)
    }

    fn event_of(&self, signal: Signal) -> Event {
        match signal {
            Signal::CONT => Event::Continued,
            Signal::TTIN | Signal::TTOU if self.terminal.is_ours() => Event::Share,
            Signal::TSTP | Signal::TTIN | Signal::TTOU => Event::Suspend,
            Signal::USR1 | Signal::USR2 => Event::UserSignal,
            _ => Event::Signal,
        }
    }

    /// Waits for whatever child has ended or stopped, and says what it means for the job. SIGCHLD is forgotten here, where
    /// the children are looked at.
    fn reap(&mut self) -> io::Result<Option<Event>> {
        self.interrupts.take(Signal::CHILD);
        loop {
            match wait(WaitOptions::NOHANG | WaitOptions::UNTRACED) {
                Ok(Some((pid, status))) if pid == self.job => match status.stopping_signal() {
                    Some(signal) => return Ok(Some(self.stopped_by(signal))),
                    None => self.status = Some(status),
                },
                Ok(Some(_)) | Err(Errno::INTR) => {}
                Ok(None) => break,
                Err(Errno::CHILD) if self.status.is_some() => break,
                Err(error) => return Err(error.into()),
            }
        }
        if self.status.is_none() {
            return Ok(None);
        }
        if self.why.is_none() || self.gone_by.is_some_and(Instant::has_passed) || !self.leaves_others() {
            return Ok(Some(Event::JobEnded));
        }
        Ok((self.state != State::Leaderless).then_some(Event::LeaderEnded))
    }

    fn stopped_by(&mut self, signal: i32) -> Event {
        self.signal = Signal::from_named_raw(signal).unwrap_or(Signal::STOP);
        if self.wants_terminal() && self.terminal.is_ours() {
            Event::JobWantsTerminal
        } else if self.terminal.is_there() || self.suspended {
            Event::JobStopped
        } else {
            Event::JobHalted
        }
    }

    /// Whether the last signal is one that stops a process which wants the terminal in its background.
    fn wants_terminal(&self) -> bool {
        matches!(self.signal, Signal::TTIN | Signal::TTOU)
    }

    /// Whether a child of ours still runs in the job's group. As long as one does, the group's number is not another's.
    fn leaves_others(&self) -> bool {
        loop {
            match waitpgid(self.job, WaitOptions::NOHANG) {
                // It has just ended, and might have been the last.
                Ok(Some(_)) | Err(Errno::INTR) => {}
                found => return found.is_ok(),
            }
        }
    }

    /// Does what follows from `event`, and from what that brings about. True if the job is over.
    fn handle(&mut self, event: Event, lock: &mut dyn Renewal) -> bool {
        let mut next = Some(event);
        while let Some(event) = next {
            self.suspended = event == Event::Suspend || (self.suspended && event != Event::Continued);
            let (state, action) = self.state.on(event);
            self.state = state;
            if action == Action::Finish {
                return true;
            }
            next = self.act(action, event, lock);
        }
        false
    }

    /// Does it, and returns the event that this brings about, if any.
    fn act(&mut self, action: Action, event: Event, lock: &mut dyn Renewal) -> Option<Event> {
        match action {
            Action::Nothing | Action::Gather | Action::Finish => {}
            Action::Forward => self.forward(),
            Action::ForwardAndWake => {
                self.forward();
                self.send(Signal::CONT);
            }
            Action::StopJob => {
                self.send(Signal::TSTP);
            }
            Action::StopOurselves => return self.stop_ourselves(),
            Action::StopBoth => {
                self.send(Signal::TSTP);
                return self.stop_ourselves();
            }
            Action::Share => self.terminal.share(self.interrupts),
            Action::Give => {
                self.terminal.give(self.job);
                self.send(Signal::CONT);
            }
            Action::Offer => self.offer(),
            Action::HangUp => {
                self.send(Signal::HUP);
                self.send(Signal::CONT);
            }
            Action::Look => return Some(Self::look(lock)),
            Action::Wake => self.wake(),
            Action::Terminate => {
                self.terminate(StopReason::TimedOut, self.limits.kill_after.unwrap_or_default(), Instant::NEVER);
            }
            Action::Lose => self.lose(event, lock),
            Action::Kill => self.kill(),
            Action::Renew => return self.renew(lock),
        }
        None
    }

    fn forward(&mut self) {
        self.log.debug(words!("forwarding signal {}", self.signal.as_raw()));
        if self.signal == Signal::INT {
            self.terminal.interrupted();
        }
        self.send(self.signal);
    }

    fn offer(&mut self) {
        self.terminal.offer(self.job);
        self.send(Signal::CONT);
    }

    /// Takes the terminal back and stops ourselves as the job was stopped, so that the shell sees it. Whoever told us
    /// to stop chose whom else to tell; but our group does not know yet that the job was stopped.
    fn stop_ourselves(&mut self) -> Option<Event> {
        self.terminal.take();
        let whom = if self.suspended { Whom::Ourselves } else { Whom::Group };
        // SIGSTOP would stop us also where nobody can continue us.
        let signal = if self.wants_terminal() { self.signal } else { Signal::TSTP };
        let is_needless = || self.wants_terminal() && self.terminal.is_ours();
        if self.interrupts.stop(signal, whom, is_needless) {
            return Some(Event::Continued);
        }
        // What the kernel does not stop, because nobody could continue it, must not be stopped by us either, and waits
        // for a terminal that nobody will give it.
        match self.signal {
            Signal::TSTP => Some(Event::Continued),
            Signal::TTIN | Signal::TTOU => Some(Event::TerminalDenied),
            _ => None,
        }
    }

    /// Looks whether the lock is still ours, so that the job may continue.
    fn look(lock: &mut dyn Renewal) -> Event {
        let is_over = |Schedule { hold_end, stop_at, .. }: Schedule| hold_end.has_passed() || stop_at.has_passed();
        let schedule = lock.schedule();
        let is_lost = is_over(schedule)
            || (schedule.renew_at.has_passed() && lock.renew(schedule.stop_at) == Renewed::Lost)
            // The renewal may have taken long.
            || is_over(lock.schedule());
        if is_lost { Event::LockOver } else { Event::LockHolds }
    }

    /// Wakes a job that is to end; not one that would only ask for the terminal again.
    fn wake(&mut self) {
        if !self.wants_terminal() {
            self.offer();
        }
    }

    fn lose(&mut self, event: Event, lock: &dyn Renewal) {
        let kill_after = self.limits.kill_after.unwrap_or(LOST_KILL_AFTER);
        match event {
            Event::LeaseOver => self.terminate(StopReason::LockLost, kill_after, lock.schedule().kill_at),
            // It is stopped, and does not run another instruction of its own.
            Event::LockOver => {
                self.why = Some(StopReason::LockLost);
                self.kill();
            }
            // The other's job is already running.
            _ => self.terminate(StopReason::LockLost, kill_after.min(LOST_KILL_AFTER), Instant::NEVER),
        }
    }

    /// Ends the job: SIGTERM now and SIGKILL after `kill_after`, but not after `latest`; or SIGKILL at once.
    fn terminate(&mut self, why: StopReason, kill_after: Duration, latest: Instant) {
        // A lost lock stays the reason even when the job's time is up as well.
        if self.why != Some(StopReason::LockLost) {
            self.why = Some(why);
        }
        let kill_at = Instant::after(kill_after).min(latest);
        self.kill_at = Some(self.kill_at.map_or(kill_at, |earlier| earlier.min(kill_at)));
        if !kill_at.has_passed() {
            let reached = self.send(Signal::TERM);
            self.is_out_of_reach = !reached && self.status.is_none();
            self.send(Signal::CONT);
        }
    }

    /// Kills the whole group, and the job also if it has left the group.
    fn kill(&mut self) {
        self.send(Signal::KILL);
        if self.status.is_none() {
            self.is_out_of_reach = kill_process(self.job, Signal::KILL).is_err();
        }
        (self.kill_at, self.gone_by) = (None, Some(Instant::after(GONE_AFTER)));
    }

    fn renew(&mut self, lock: &mut dyn Renewal) -> Option<Event> {
        let times = [self.timeout, self.kill_at].into_iter().flatten();
        let until = times.fold(lock.schedule().stop_at, Instant::min);
        (lock.renew(until) == Renewed::Lost).then_some(Event::RenewalFailed)
    }

    /// Signals the job's group, or the job alone if it has left it. False if we may not: it has changed its user, and nobody
    /// but root may. Neither number can be another's: the job, or a child of ours in its group, has not been waited for.
    fn send(&self, signal: Signal) -> bool {
        kill_process_group(self.job, signal).is_ok()
            || (self.status.is_none() && kill_process(self.job, signal).is_ok())
    }
}

impl ExitReason {
    fn of(status: WaitStatus) -> Self {
        match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Self::Code(u8::try_from(code).unwrap_or(u8::MAX)),
            (None, signal) => Self::Signal(signal.unwrap_or_default()),
        }
    }
}
