//! What comes of an event, and what the store makes of what the lock code comes to.

use golock::clock::Instant;
use golock::lock::{Acquired, Confirmed, Error, Release, Released, Unsure};

use crate::event::{Event, Fate};
use crate::host::{End, Phase, Times, instant};
use crate::mutation::Mutation;
use crate::operation::{Operation, Step};
use crate::proof::Wrong;
use crate::redis::NAME;
use crate::world::{MARGIN, Setting, World, second};

/// How far Redis's clock steps back, in milliseconds.
const STEP: u64 = 2000;

impl World {
    /// What the world is after an event.
    pub(crate) fn after(&self, setting: &Setting, event: Event) -> Self {
        let mut next = self.clone();
        next.happen(setting, event);
        if next.progress() <= self.progress() {
            next.blame(Wrong::Stuck);
        }
        next
    }

    fn happen(&mut self, setting: &Setting, event: Event) {
        match event {
            Event::Begin(index) => self.begin_host(setting, index),
            Event::Send(index) => {
                self.budget.delays -= 1;
                self.leave(setting, index);
            }
            Event::CarryOut(index) => {
                self.budget.delays -= 1;
                self.arrive(setting, index);
            }
            Event::Answer(index) => self.answer(setting, index),
            Event::Fail(index, fate) => {
                // What Redis does not answer while it is away costs no luck.
                if !self.dead && fate != Fate::Late {
                    self.budget.losses -= 1;
                }
                self.fail(setting, index, fate);
            }
            Event::Refuse(index) => self.refuse(setting, index),
            Event::GiveUp(index) => self.give_up(setting, index, false),
            Event::Arrive(index) => {
                let packet = self.strays.remove(index);
                self.carry_out(setting, &packet, true);
            }
            Event::Signal(index, fate) => {
                self.budget.signals -= 1;
                if self.hosts[index].phase == Phase::Starting {
                    self.give_back(setting, index);
                } else {
                    self.interrupt(setting, index, fate);
                }
            }
            Event::Start(index) => self.start(setting, index),
            Event::Crash(index) => {
                self.budget.crashes -= 1;
                self.hosts[index].end(setting, End::Crashed);
            }
            Event::Renew(index)
            | Event::LeaseOver(index)
            | Event::Timeout(index)
            | Event::KillDue(index)
            | Event::JobEnds(index)
            | Event::LeaderEnds(index)
            | Event::Suspend(index)
            | Event::Continue(index) => self.supervise(setting, index, event),
            other => self.happen_elsewhere(setting, other),
        }
    }

    /// What happens to Redis, to a predecessor, and to time.
    fn happen_elsewhere(&mut self, setting: &Setting, event: Event) {
        match event {
            Event::Reset => {
                self.budget.resets -= 1;
                self.was_reset = true;
                self.redis.call(&[b"DEL".to_vec(), NAME.to_vec()]);
            }
            Event::Flush => {
                self.budget.flushes -= 1;
                self.was_flushed = true;
                (self.redis.lock, self.redis.record) = Default::default();
                // Its job is taken to be over.
                self.predecessor_runs = false;
            }
            Event::StepBack => {
                self.budget.steps -= 1;
                self.redis.set_back(STEP);
            }
            Event::Ban => {
                self.budget.bans -= 1;
                self.redis.rules.scripts = false;
            }
            Event::Die => {
                self.budget.outages -= 1;
                self.dead = true;
            }
            Event::Revive => self.dead = false,
            Event::PredecessorTakes => self.predecessor_takes(),
            Event::PredecessorEnds => self.predecessor_ends(),
            _ => self.tick(setting),
        }
    }

    fn tick(&mut self, setting: &Setting) {
        let expired = self.redis.pass(setting.tick);
        let now = self.now();
        self.strays.retain(|stray| !stray.is_over(now));
        if self.grace_end <= now {
            self.grace_end = 0;
        }
        let outlives = |token: &[u8]| expired.as_deref() == Some(token);
        for host in self.hosts.iter_mut().filter(|host| host.job_runs() && outlives(host.token().as_bytes())) {
            host.traces.outlived = true;
            if setting.lease.is_some() {
                self.wrong = self.wrong.or(Some(Wrong::Outlived));
            }
        }
        // Its job is taken to be done before its lock is gone.
        self.predecessor_runs &= expired.is_none_or(|value| value.len() > 12);
    }

    /// SETNX, or GETSET after a look, which leaves no TTL.
    fn predecessor_takes(&mut self) {
        (self.redis.lock.value, self.redis.lock.expires) = (Some(second(3600)), None);
        (self.predecessor_may_come, self.predecessor_runs) = (false, true);
    }

    /// That it would overwrite whatever stands there then is its own fault, and left out.
    fn predecessor_ends(&mut self) {
        self.predecessor_runs = false;
        if self.redis.lock.value.as_ref().is_some_and(|value| value.len() <= 12) {
            self.redis.lock.expires = Some(self.now() + 1000);
        }
    }

    pub(crate) fn begin_host(&mut self, setting: &Setting, index: usize) {
        let now = self.now();
        self.hosts[index].started = if setting.once { now } else { 0 };
        self.go(setting, index, Phase::Acquiring, Operation::new(now, setting.tries, None));
    }

    /// What the store makes of what an operation has come to.
    pub(crate) fn come_to(&mut self, setting: &Setting, index: usize, step: Step, operation: &Operation) {
        match step {
            Step::Asks(_) => {}
            Step::Acquired(result, times) => {
                self.hosts[index].times = times;
                self.acquired(setting, index, result);
            }
            Step::Confirmed(result, times) => {
                self.hosts[index].times = times;
                self.confirmed(setting, index, &result);
            }
            Step::Renewed(result, times) => {
                self.hosts[index].times = times;
                self.renewed(setting, index, &result);
            }
            Step::Released(result) => self.released(setting, index, &result, operation),
        }
    }

    fn acquired(&mut self, setting: &Setting, index: usize, result: Result<Acquired, Unsure>) {
        match result {
            Ok(Acquired::Held(_)) => self.skip(setting, index),
            Ok(Acquired::Ours) if setting.has(Mutation::NoConfirm) => self.hosts[index].phase = Phase::Starting,
            Ok(ours) => {
                self.hosts[index].stale = if let Acquired::Stale(value) = ours { Some(value) } else { None };
                let operation = Operation::new(self.now(), setting.tries, None);
                self.go(setting, index, Phase::Confirming, operation);
            }
            // If only the answers were lost, the lock stands, for nobody.
            Err(Unsure { error, may_hold }) => {
                let forgotten = setting.has(Mutation::FearForgotten) && matches!(error, Error::Refused(..));
                if may_hold && !forgotten {
                    self.give_back(setting, index);
                } else {
                    self.finish(setting, index, End::Failed);
                }
            }
        }
    }

    fn confirmed(&mut self, setting: &Setting, index: usize, result: &Result<Confirmed, Error>) {
        self.hosts[index].stale = None;
        match result {
            Ok(Confirmed::Ours(_)) => {
                let times = &mut self.hosts[index].times;
                // It has served its purpose.
                times.asked_at = instant(0);
                self.hosts[index].phase = Phase::Starting;
            }
            Ok(Confirmed::Served) => self.finish(setting, index, End::Served),
            Ok(Confirmed::Lost(_)) => self.skip(setting, index),
            Err(_) if setting.has(Mutation::NoGiveBack) => self.finish(setting, index, End::Failed),
            Err(_) => self.give_back(setting, index),
        }
    }

    /// The last look before the command starts.
    fn start(&mut self, setting: &Setting, index: usize) {
        let (now, host) = (self.now(), &self.hosts[index]);
        let careless = setting.has(Mutation::NoConfirm) || setting.has(Mutation::NoLastLook);
        if host.lease(setting).lasts(instant(now)) || careless {
            self.prove_start(setting, index);
            self.hosts[index].phase = Phase::Running;
        } else {
            self.give_back(setting, index);
        }
    }

    fn skip(&mut self, setting: &Setting, index: usize) {
        if self.hosts[index].traces.owned {
            self.blame(Wrong::Lost);
        }
        self.finish(setting, index, End::Skipped);
    }

    pub(crate) fn finish(&mut self, setting: &Setting, index: usize, end: End) {
        self.prove_end(index, end);
        self.hosts[index].end(setting, end);
    }

    /// The lock is given back: no command runs under it.
    fn give_back(&mut self, setting: &Setting, index: usize) {
        self.hosts[index].times.grace_end = Instant::ZERO;
        let now = self.now();
        self.go(setting, index, Phase::GivingBack, Operation::new(now, setting.tries, Some(now + MARGIN)));
    }

    fn released(&mut self, setting: &Setting, index: usize, result: &Result<Release, Error>, operation: &Operation) {
        let lock = result.as_ref().map(|release| release.lock);
        self.prove_release(setting, index, lock, operation);
        let releases = self.hosts[index].phase == Phase::Releasing;
        if releases {
            let in_grace = self.hosts[index].traces.owned && matches!(lock, Ok(Released::InGrace(_)));
            self.grace_end = if in_grace { crate::host::millisecond(self.hosts[index].times.grace_end) } else { 0 };
        }
        self.hosts[index].end(setting, if releases { End::Ran } else { End::GaveBack });
    }
}

impl Times {
    /// When its grace is over, in milliseconds.
    pub(crate) fn grace(&self) -> u64 {
        crate::host::millisecond(self.grace_end)
    }
}
