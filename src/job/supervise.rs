use super::start::Started;
use crate::clock::{Alarm, Moment};
use crate::report::{Event, Story};
use crate::signals::{Heed, Signals};
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::process::{
    Signal, WaitOptions, WaitStatus, getpid, kill_process, kill_process_group, set_child_subreaper, wait, waitpgid,
};
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

/// How long a job has to end after a lost lease, where `KILL_AFTER` does not say.
const LEASE_KILL_AFTER: Duration = Duration::from_secs(5);

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// With this exit code.
    Code(u8),
    /// Of this signal.
    Signal(i32),
    /// We stopped it when its time was up.
    TimedOut,
    /// We stopped it because its lease was lost.
    LeaseLost,
}

/// What ends a job that does not end by itself.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How long it may run.
    pub timeout: Option<Duration>,
    /// How long it may take to end after SIGTERM; without, SIGKILL comes at once.
    pub kill_after: Option<Duration>,
}

/// A lock that has to be seen to while the job runs: a lease that is renewed.
pub trait Keep {
    /// When something is to be done for it.
    fn due(&self) -> Moment;
    /// When the job is to be stopped, if nothing that was done helped.
    fn stop_by(&self) -> Moment;
    /// When the job must be gone then.
    fn gone_by(&self) -> Moment;
    /// Tries to do it, until `until` or until any signal arrives. False if the lock is lost to another.
    fn act(&mut self, until: Moment) -> bool;
    /// The job is stopped because nothing helped.
    fn expire(&mut self);
}

/// A job under supervision.
struct Job {
    started: Started,
    status: Option<WaitStatus>,
    /// Why we stop it, if we do.
    stopped: Option<Ended>,
    /// When we kill it.
    kill_at: Option<Moment>,
}

/// Forwards signals, keeps the time and the lease, until the job has ended. If the job is stopped and may take its time
/// for that, what it has started and left behind in its group counts as the job.
///
/// # Errors
/// When the system cannot tell about the child.
pub fn supervise(
    started: Started,
    signals: &Signals,
    limits: Limits,
    mut lease: Option<&mut dyn Keep>,
    story: Story,
) -> io::Result<Ended> {
    let mut job = Job { started, status: None, stopped: None, kill_at: None };
    let mut timeout = limits.timeout.map(Moment::after);
    signals.watch(started.pid);
    let alarm = lease.as_ref().and_then(|_| Alarm::new());
    loop {
        signals.forget_child();
        if let Some(ended) = job.ended()? {
            return Ok(ended);
        }
        while let Some(signal) = signals.take() {
            story.tell(&Event::Forwarding(signal));
            job.signal(signal);
        }
        if timeout.is_some_and(Moment::has_come) {
            timeout = None;
            job.stop(Ended::TimedOut, Moment::after(limits.kill_after.unwrap_or_default()));
        }
        let held = lease.as_deref_mut().filter(|_| job.stopped != Some(Ended::LeaseLost));
        let lease_event = held.and_then(|lease| job.keep(lease, timeout, limits.kill_after));
        if job.kill_at.is_some_and(Moment::has_come) {
            job.kill();
        }
        let next = [timeout, job.kill_at, lease_event].into_iter().flatten().min();
        let alarm = alarm.as_ref().zip(next).filter(|(alarm, next)| alarm.set(*next));
        // Whatever ended the wait, the loop looks for itself.
        let _ = signals.wait(alarm.map(|(alarm, _)| (alarm.as_fd(), PollFlags::IN)), next, Heed::Everything);
    }
}

impl Job {
    /// Renews the lease if it is due, or stops the job if it is lost. Says when to look again, unless it is lost.
    fn keep(&mut self, lease: &mut dyn Keep, timeout: Option<Moment>, kill_after: Option<Duration>) -> Option<Moment> {
        let grace = Moment::after(kill_after.unwrap_or(LEASE_KILL_AFTER));
        if lease.stop_by().has_come() {
            lease.expire();
            self.stop(Ended::LeaseLost, grace.min(lease.gone_by()));
            return None;
        }
        if lease.due().has_come() {
            let until = [timeout, self.kill_at].into_iter().flatten().fold(lease.stop_by(), Moment::min);
            if !lease.act(until) {
                self.stop(Ended::LeaseLost, grace);
                return None;
            }
        }
        Some(lease.due().min(lease.stop_by()))
    }

    /// Reaps whatever child has ended, and says how the job has, if it is over.
    fn ended(&mut self) -> io::Result<Option<Ended>> {
        while self.status.is_none() || self.kill_at.is_some() {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) if pid == self.started.pid => self.status = Some(status),
                Ok(Some(_)) | Err(Errno::INTR) => {}
                Ok(None) => break,
                Err(Errno::CHILD) if self.status.is_some() => break,
                Err(error) => return Err(error.into()),
            }
        }
        let ended = self.status.filter(|_| self.kill_at.is_none() || !self.leaves_others());
        Ok(ended.map(|status| self.stopped.unwrap_or(Ended::of(status))))
    }

    /// Whether a child of ours still runs in the job's group. As long as one does, the group's number is not another's.
    fn leaves_others(&self) -> bool {
        loop {
            match self.started.leads.then(|| waitpgid(self.started.pid, WaitOptions::NOHANG)) {
                None => return false,
                // It has just ended, and might have been the last.
                Some(Ok(Some(_)) | Err(Errno::INTR)) => {}
                Some(found) => return found.is_ok(),
            }
        }
    }

    /// Ends the job: SIGTERM now and SIGKILL at `kill_at`, or SIGKILL at once if that has come.
    fn stop(&mut self, why: Ended, kill_at: Moment) {
        // That the lease was lost is not over when the job's time is up as well.
        if self.stopped != Some(Ended::LeaseLost) {
            self.stopped = Some(why);
        }
        self.kill_at = Some(self.kill_at.map_or(kill_at, |earlier| earlier.min(kill_at)));
        if !kill_at.has_come() {
            self.signal(Signal::TERM);
        }
    }

    /// Signals the job's group, or the job alone if it has none of its own or has left it. Neither number can be
    /// another's: the job, or a child of ours in its group, has not been waited for.
    fn signal(&self, signal: Signal) {
        let reached = self.started.leads && kill_process_group(self.started.pid, signal).is_ok();
        if !reached && self.status.is_none() {
            // It can only fail for a job that has changed its user, which nobody but root may signal.
            let _ = kill_process(self.started.pid, signal);
        }
    }

    /// Kills the whole group, and the job also if it has left the group.
    fn kill(&mut self) {
        self.signal(Signal::KILL);
        if self.status.is_none() {
            let _ = kill_process(self.started.pid, Signal::KILL);
        }
        self.kill_at = None;
    }
}

impl Limits {
    /// Makes orphans of the job our children, if they are to be waited for when it is stopped.
    pub fn adopt_orphans(self, leased: bool) {
        if leased || self.kill_after.is_some() {
            // Without it (Linux before 3.4) a stopped job is over as soon as its first process is.
            let _ = set_child_subreaper(Some(getpid()));
        }
    }
}

impl Ended {
    fn of(status: WaitStatus) -> Self {
        match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Self::Code(u8::try_from(code).unwrap_or(u8::MAX)),
            (None, signal) => Self::Signal(signal.unwrap_or_default()),
        }
    }
}
