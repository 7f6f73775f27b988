//! The supervisor: the table of golock's own, and what follows from it for the lock.

use golock::clock::Instant;
use golock::job::{self, Action};
use golock::lock::{Error, Lease};

use crate::event::Event;
use crate::host::{Phase, instant, millisecond};
use crate::mutation::Mutation;
use crate::operation::Operation;
use crate::world::{MARGIN, Setting, World};

/// How long a job may take to end when its lock is lost.
const KILL_AFTER: u64 = 1000;

impl World {
    /// Something happens to a job.
    pub(crate) fn supervise(&mut self, setting: &Setting, index: usize, event: Event) {
        let event = match event {
            Event::Renew(_) => job::Event::RenewalDue,
            Event::LeaseOver(_) => job::Event::LeaseOver,
            Event::Timeout(_) => {
                self.budget.timeouts -= 1;
                job::Event::Timeout
            }
            Event::KillDue(_) => job::Event::KillDue,
            Event::LeaderEnds(_) => job::Event::LeaderEnded,
            Event::Suspend(_) => {
                self.budget.suspends -= 1;
                job::Event::JobStopped
            }
            Event::Continue(_) => job::Event::Continued,
            _ => {
                // A renewal under way gives way.
                self.hosts[index].operation = None;
                job::Event::JobEnded
            }
        };
        self.handle(setting, index, event);
    }

    fn handle(&mut self, setting: &Setting, index: usize, event: job::Event) {
        let (now, host) = (self.now(), &mut self.hosts[index]);
        let (state, action) = host.job.state.on(event);
        host.job.state = state;
        match action {
            Action::Renew => self.renew(setting, index),
            Action::Terminate => self.terminate(index, now + KILL_AFTER),
            // It is stopped, and does not run another instruction of its own.
            Action::Lose if event == job::Event::LockOver => {
                host.job.lost = true;
                self.end_job(setting, index);
            }
            Action::Lose => {
                let lease_end = millisecond(host.lease(setting).kill_at());
                let latest = if event == job::Event::LeaseOver { lease_end } else { u64::MAX };
                host.job.lost = true;
                self.terminate(index, latest.min(now + KILL_AFTER));
            }
            Action::Kill => self.end_job(setting, index),
            Action::Look => self.look(setting, index),
            Action::Finish => self.release(setting, index),
            _ => {}
        }
    }

    fn terminate(&mut self, index: usize, kill_at: u64) {
        let job = &mut self.hosts[index].job;
        job.kill_at = Some(job.kill_at.map_or(kill_at, |earlier| earlier.min(kill_at)));
    }

    /// The job is killed, and nothing of it is left.
    fn end_job(&mut self, setting: &Setting, index: usize) {
        self.handle(setting, index, job::Event::JobEnded);
    }

    fn renew(&mut self, setting: &Setting, index: usize) {
        let (now, host) = (self.now(), &self.hosts[index]);
        let lease = host.lease(setting);
        let attempt = now + golock::clock::milliseconds(lease.attempt());
        let until = attempt.min(millisecond(lease.stop_at())).min(host.job.kill_at.unwrap_or(u64::MAX));
        self.go(setting, index, Phase::Running, Operation::new(now, 1, Some(until)));
    }

    /// A stopped job is to continue: the lock is seen to first.
    fn look(&mut self, setting: &Setting, index: usize) {
        let (now, host) = (instant(self.now()), &mut self.hosts[index]);
        let lease = host.lease(setting);
        let is_due = lease.options.lease.is_some() && !lease.is_final && lease.renew_at <= now;
        if is_due && !is_over(&lease, now) && !setting.has(Mutation::ResumedUnseen) {
            host.job.resumes = true;
            return self.renew(setting, index);
        }
        self.looked(setting, index);
    }

    /// What the look has found.
    fn looked(&mut self, setting: &Setting, index: usize) {
        let is_over = is_over(&self.hosts[index].lease(setting), instant(self.now()));
        let holds = !is_over || setting.has(Mutation::ResumedUnseen);
        self.handle(setting, index, if holds { job::Event::LockHolds } else { job::Event::LockOver });
    }

    /// What the store and the supervisor make of a renewal.
    pub(crate) fn renewed(&mut self, setting: &Setting, index: usize, result: &Result<bool, Error>) {
        let host = &mut self.hosts[index];
        let resumes = std::mem::take(&mut host.job.resumes);
        // It was broken off for something more urgent, and is due at once.
        if result.as_ref().is_err_and(Error::is_interrupted) {
            host.times.renew_at = instant(0);
        }
        match result {
            Ok(false) if resumes => self.handle(setting, index, job::Event::LockOver),
            Ok(false) => self.handle(setting, index, job::Event::RenewalFailed),
            _ if resumes => self.looked(setting, index),
            _ => {}
        }
    }

    /// The job is over, and with it the hold.
    fn release(&mut self, setting: &Setting, index: usize) {
        let (now, lost) = (self.now(), self.hosts[index].job.lost);
        // A lock that is lost may be ours all the same, and the record is to say how the run ended.
        let (tries, until) = if lost { (1, Some(now + MARGIN)) } else { (setting.tries, None) };
        self.go(setting, index, Phase::Releasing, Operation::new(now, tries, until));
    }
}

fn is_over(lease: &Lease, now: Instant) -> bool {
    lease.hold_end <= now || lease.stop_at() <= now
}
