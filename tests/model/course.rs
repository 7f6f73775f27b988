//! What comes of an event.

use std::time::Duration;

use golock::lock::{Acquired, Answer, Error, Lease, Released, Repeat};

use crate::event::Event;
use crate::host::{End, NAME, Phase, Silence, Step, moment};
use crate::redis::Request;
use crate::world::{MARGIN, Setting, Stray, World, Wrong, second};

impl World {
    /// What the world is after an event.
    pub(crate) fn after(&self, setting: &Setting, event: Event) -> Self {
        let mut next = self.clone();
        next.happen(setting, event);
        if next.progress() <= self.progress() {
            next.wrong = next.wrong.or(Some(Wrong::Stuck));
        }
        next
    }

    fn happen(&mut self, setting: &Setting, event: Event) {
        let now = self.now();
        match event {
            Event::Begin(index) => self.go(setting, index, Phase::Acquiring),
            Event::Answer(index) => self.answer(setting, index),
            Event::Refuse(index) => self.fail(setting, index, false, false),
            Event::LoseRequest(index) => self.fail(setting, index, true, false),
            Event::LoseReply(index) => self.fail(setting, index, true, true),
            Event::Delay(index) => self.delay(setting, index),
            Event::GiveUp(index) => self.hear(setting, index, None),
            Event::Arrive(index) => {
                let Stray { host, request, .. } = self.strays.remove(index);
                self.execute(setting, host, request);
            }
            Event::Renew(index) => self.go(setting, index, Phase::Renewing),
            Event::Stop(index) => self.hosts[index].enter(Phase::Stopping, now),
            Event::JobEnds(index) => {
                let lost = self.hosts[index].phase == Phase::Stopping;
                self.go(setting, index, if lost { Phase::Ended(End::LeaseLost) } else { Phase::Releasing });
            }
            Event::Signal(index) => {
                self.budget.signals -= 1;
                self.go(setting, index, Phase::GivingBack);
            }
            Event::Crash(index) => {
                self.budget.crashes -= 1;
                self.hosts[index].enter(Phase::Ended(End::Crashed), now);
            }
            Event::Reset => {
                self.budget.resets -= 1;
                self.was_reset = true;
                self.redis.answer(&vec![vec![b"DEL".to_vec(), NAME.to_vec()]]);
            }
            Event::PredecessorTakes => self.predecessor_takes(),
            Event::PredecessorEnds => self.predecessor_ends(),
            Event::Tick => self.tick(setting),
        }
    }

    fn tick(&mut self, setting: &Setting) {
        let expired = self.redis.pass(setting.tick);
        let now = self.now();
        self.strays.retain(|stray| stray.until.is_none_or(|end| now < end));
        if self.grace_end <= now {
            self.grace_end = 0;
        }
        for host in self.hosts.iter_mut().filter(|host| host.job_runs() && expired.as_deref() == Some(host.token())) {
            host.outlived = true;
            if host.lease.is_some() {
                self.wrong = Some(Wrong::Outlived);
            }
        }
        // Its job is taken to be done before its lock is gone.
        self.predecessor_runs &= expired.is_none_or(|value| value.len() > 12);
    }

    /// SETNX, or GETSET after a look, which leaves no TTL.
    fn predecessor_takes(&mut self) {
        (self.redis.value, self.redis.expires) = (Some(second(3600)), None);
        (self.predecessor_may_come, self.predecessor_runs) = (false, true);
    }

    /// That it would overwrite whatever stands there then is its own fault, and left out.
    fn predecessor_ends(&mut self) {
        self.predecessor_runs = false;
        if self.redis.value.as_ref().is_some_and(|value| value.len() <= 12) {
            self.redis.expires = Some(self.now() + 1000);
        }
    }

    /// One attempt fails, after it was `sent` or before, and was `done` or not.
    fn fail(&mut self, setting: &Setting, index: usize, sent: bool, done: bool) {
        self.budget.losses -= 1;
        let Some((request, repeat)) = setting.asks(&self.hosts[index]) else { return };
        if done {
            self.execute(setting, index, request);
        }
        self.count_failure(setting, index, sent, repeat);
    }

    fn delay(&mut self, setting: &Setting, index: usize) {
        self.budget.strays -= 1;
        let Some((request, repeat)) = setting.asks(&self.hosts[index]) else { return };
        let until = (repeat == Repeat::Never).then(|| self.hosts[index].asked() + MARGIN);
        self.strays.push(Stray { host: index, request, until });
        self.count_failure(setting, index, true, repeat);
    }

    /// The reconnect loop of the client.
    fn count_failure(&mut self, setting: &Setting, index: usize, sent: bool, repeat: Repeat) {
        let host = &mut self.hosts[index];
        host.failures += 1;
        host.sent |= sent;
        let once = matches!(host.phase, Phase::GivingBack | Phase::Renewing);
        if once || repeat == Repeat::Never || host.failures >= setting.tries {
            self.hear(setting, index, None);
        }
    }

    fn answer(&mut self, setting: &Setting, index: usize) {
        let Some((request, _)) = setting.asks(&self.hosts[index]) else { return };
        let replies = self.execute(setting, index, request.clone());
        // What must not be repeated is sent again only after a look at the lock on a later connection. That the earlier one
        // is not carried out after that look is all that golock trusts the network with, and only where EVAL is refused.
        self.strays.retain(|stray| stray.host != index || stray.until.is_none());
        let replies = setting.mutation.map_or(replies.clone(), |fault| fault.replies(&request, replies));
        let repeated = self.hosts[index].sent;
        self.hear(setting, index, Some(Answer { replies, repeated }));
    }

    /// Redis carries out what this host has sent.
    fn execute(&mut self, setting: &Setting, index: usize, request: Request) -> Vec<golock::resp::Reply> {
        let request = setting.mutation.map_or(request.clone(), |fault| fault.request(request));
        let before = self.redis.clone();
        let replies = self.redis.answer(&request);
        let own = self.hosts[index].token();
        let is_own = |value: &Option<Vec<u8>>| value.as_deref() == Some(own);
        let held = before.value.as_ref().is_some_and(|value| value.len() > 12) || self.predecessor_runs;
        // Between a look and a step an operator may have interfered; only a script leaves no room for that.
        let excused = self.was_reset && !setting.scripts;
        if before != self.redis && held && !is_own(&before.value) && before.value.is_some() && !excused {
            self.wrong = Some(Wrong::Touched);
        }
        let taken = !is_own(&before.value) && is_own(&self.redis.value);
        if taken && self.now() < self.grace_end && !self.was_reset {
            self.wrong = Some(Wrong::Grace);
        }
        replies
    }

    /// The host hears an answer, or that there is none.
    fn hear(&mut self, setting: &Setting, index: usize, answer: Option<Answer>) {
        let now = self.now();
        self.hosts[index].hear(now, answer);
        self.proceed(setting, index);
    }

    /// The host begins with another phase.
    fn go(&mut self, setting: &Setting, index: usize, phase: Phase) {
        let now = self.now();
        self.hosts[index].enter(phase, now);
        self.proceed(setting, index);
    }

    /// The host goes on until it has to wait.
    fn proceed(&mut self, setting: &Setting, index: usize) {
        let now = self.now();
        match setting.step(&self.hosts[index]) {
            None | Some(Step::Asks(..)) => {}
            Some(Step::Acquired(result)) => self.acquired(setting, index, &result),
            Some(Step::Renewed(result, lease)) => self.renewed(setting, index, result, lease),
            Some(Step::Released(result)) => {
                if self.hosts[index].phase == Phase::Releasing {
                    self.grace_end = self.grace_kept(index, &result);
                    self.hosts[index].enter(Phase::Ended(End::Ran), now);
                } else {
                    self.hosts[index].enter(Phase::Ended(End::GaveBack), now);
                }
            }
        }
    }

    fn acquired(&mut self, setting: &Setting, index: usize, result: &Result<Acquired, Error<Silence>>) {
        let (now, host) = (self.redis.now, &mut self.hosts[index]);
        match result {
            Ok(Acquired::Ours) => {
                host.grace_end = now + setting.grace.min(setting.release) * 1000;
                let hold_end = moment(host.began + setting.release * 1000);
                let lease = setting.lease.map(Duration::from_secs);
                host.lease = lease.map(|length| Lease::new(host.lock.clone(), length, hold_end));
                if host.lease.is_some() { self.go(setting, index, Phase::Settling) } else { self.start(index) }
            }
            Ok(Acquired::Held(_)) => {
                let own = self.redis.value.as_deref() == Some(host.token());
                let left = self.redis.value == Some(second(-10)) && !self.predecessor_runs;
                let skipped_for_nothing = own || (left && setting.scripts);
                host.enter(Phase::Ended(End::Skipped), now);
                self.wrong = self.wrong.or(skipped_for_nothing.then_some(Wrong::Lost));
            }
            // Only the answers may have been lost.
            Err(Error::Exchange(_)) => self.go(setting, index, Phase::GivingBack),
            Err(_) => host.enter(Phase::Ended(End::Failed), now),
        }
    }

    /// Until when the lock has to persist after this release.
    fn grace_kept(&self, index: usize, released: &Result<Released, Error<Silence>>) -> u64 {
        let host = &self.hosts[index];
        let own = self.redis.value.as_deref() == Some(host.token());
        // A lock that was lost counts as released if that was said twice.
        let kept = own && matches!(released, Ok(Released::InGrace(_)));
        if kept { host.grace_end } else { 0 }
    }

    fn start(&mut self, index: usize) {
        let now = self.now();
        self.hosts[index].enter(Phase::Running, now);
        // While it runs, the lock persists as long as its TTL at the most.
        self.grace_end = self.hosts[index].grace_end.min(self.redis.expires.unwrap_or(0));
    }

    /// What the store and the supervisor make of a renewal.
    fn renewed(&mut self, setting: &Setting, index: usize, result: Result<bool, Error<Silence>>, lease: Lease) {
        let now = self.now();
        let host = &mut self.hosts[index];
        let late = lease.stop_by() <= moment(now);
        host.lock = lease.lock.clone();
        host.lease = Some(lease);
        match (host.phase, result) {
            (Phase::Settling, Ok(true)) if !late => self.start(index),
            (Phase::Settling, Ok(true)) if host.rounds < 2 => {
                host.rounds += 1;
                self.go(setting, index, Phase::Settling);
            }
            (Phase::Settling, _) => self.go(setting, index, Phase::GivingBack),
            (_, Ok(false)) => host.enter(Phase::Stopping, now),
            (_, _) => host.enter(Phase::Running, now),
        }
    }
}
