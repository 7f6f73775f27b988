//! What may happen in a world, and when.

use golock::job::State;

use golock::exchange::Repeat;

use crate::host::{Host, Phase, instant, millisecond};
use crate::operation::Way;
use crate::redis::EPOCH;
use crate::world::{Setting, World};

/// What becomes of an attempt that fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Fate {
    /// No connection comes about, or Redis refuses everything for the moment.
    Unsent,
    /// The request is lost.
    Lost,
    /// The reply is lost.
    Done,
    /// The request is given up, and may arrive later.
    Late,
}

/// What may happen next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Event {
    Begin(usize),
    /// The request is sent, and takes its time.
    Send(usize),
    /// The request is carried out, and its reply takes its time.
    CarryOut(usize),
    /// The answer reaches the host: of what was sent now or before.
    Answer(usize),
    Fail(usize, Fate),
    /// The exchange is refused, for good.
    Refuse(usize),
    /// The host's time for the exchange is over.
    GiveUp(usize),
    Arrive(usize),
    /// A signal that ends golock, or that is for the job.
    Signal(usize, Fate),
    /// The command starts, if its lock lasts.
    Start(usize),
    Renew(usize),
    /// The lease was not renewed in time.
    LeaseOver(usize),
    Timeout(usize),
    KillDue(usize),
    JobEnds(usize),
    /// The job ends, but others of its group do not.
    LeaderEnds(usize),
    /// The job is stopped by Ctrl-Z, and golock with it.
    Suspend(usize),
    Continue(usize),
    Crash(usize),
    Reset,
    Flush,
    StepBack,
    /// EVAL is refused from now on.
    Ban,
    Die,
    Revive,
    PredecessorTakes,
    PredecessorEnds,
    Tick,
}

impl World {
    /// All that may happen.
    pub(crate) fn events(&self, setting: &Setting) -> Vec<Event> {
        let mut events = Vec::new();
        for (index, host) in self.hosts.iter().enumerate() {
            self.events_of(setting, index, host, &mut events);
        }
        // Where EVAL is refused, golock trusts the network with one thing: that an earlier DEL of its own is not carried out
        // between a look and the step that follows it.
        let steps = |host: usize| self.hosts[host].operation.as_ref().is_some_and(|now| now.repeat == Repeat::Never);
        let may_arrive = |index: &usize| self.strays[*index].until.is_none() || !steps(self.strays[*index].host);
        events.extend((0..self.strays.len()).filter(may_arrive).map(Event::Arrive));
        self.events_of_redis(&mut events);
        if self.predecessor_may_come && self.predecessor_would_take() {
            events.push(Event::PredecessorTakes);
        }
        if self.predecessor_runs {
            events.push(Event::PredecessorEnds);
        }
        if self.time_is_left(setting)
            && self.has_begun()
            && self.hosts.iter().all(|host| self.lets_time_pass(setting, host))
        {
            events.push(Event::Tick);
        }
        events
    }

    fn events_of_redis(&self, events: &mut Vec<Event>) {
        if self.budget.resets > 0 && self.redis.lock.value.is_some() {
            events.push(Event::Reset);
        }
        if self.budget.flushes > 0 && (self.redis.lock.value.is_some() || self.redis.record.value.is_some()) {
            events.push(Event::Flush);
        }
        if self.budget.steps > 0 {
            events.push(Event::StepBack);
        }
        if self.budget.bans > 0 {
            events.push(Event::Ban);
        }
        if self.budget.outages > 0 && !self.dead {
            events.push(Event::Die);
        }
        if self.dead {
            events.push(Event::Revive);
        }
    }

    fn events_of(&self, setting: &Setting, index: usize, host: &Host, events: &mut Vec<Event>) {
        match host.phase {
            Phase::Ended(_) => return,
            Phase::Idle | Phase::Acquiring if !self.may_begin(setting, index) => {}
            Phase::Idle => events.push(Event::Begin(index)),
            Phase::Starting => {
                events.push(Event::Start(index));
                if self.budget.signals > 0 {
                    events.push(Event::Signal(index, Fate::Unsent));
                }
            }
            Phase::Running => self.events_of_job(setting, index, host, events),
            Phase::Acquiring | Phase::Confirming | Phase::Releasing | Phase::GivingBack => {
                self.events_of_exchange(setting, index, host, events);
            }
        }
        if self.budget.crashes > 0 && !host.is_untouched() {
            events.push(Event::Crash(index));
        }
    }

    fn events_of_job(&self, setting: &Setting, index: usize, host: &Host, events: &mut Vec<Event>) {
        let (now, schedule, state) = (self.now(), host.lease(setting), host.job.state);
        if state == State::Stopped && !host.job.resumes {
            return events.push(Event::Continue(index));
        }
        if host.operation.is_some() {
            self.events_of_exchange(setting, index, host, events);
        }
        if host.job.resumes {
            return;
        }
        events.push(Event::JobEnds(index));
        if host.operation.is_some() {
            return;
        }
        let is_told = matches!(state, State::Stopping | State::Lost);
        if is_told {
            events.push(Event::LeaderEnds(index));
        }
        if state == State::Running && self.budget.suspends > 0 {
            events.push(Event::Suspend(index));
        }
        if self.budget.timeouts > 0 {
            events.push(Event::Timeout(index));
        }
        if host.job.kill_at.is_some_and(|at| at <= now) {
            events.push(Event::KillDue(index));
        } else if host.job.lost || schedule.options.lease.is_none() {
        } else if schedule.stop_at() <= instant(now) {
            events.push(Event::LeaseOver(index));
        } else if !schedule.is_final && schedule.renew_at <= instant(now) {
            events.push(Event::Renew(index));
        }
    }

    fn events_of_exchange(&self, setting: &Setting, index: usize, host: &Host, events: &mut Vec<Event>) {
        let (now, operation) = (self.now(), host.operation.as_ref().unwrap());
        if operation.is_over(now) {
            return events.push(Event::GiveUp(index));
        }
        // What is under way takes some time: else it is the same as if it had been done at once.
        let moved = match &operation.way {
            Way::Waiting => None,
            Way::Sent(packet) => Some(packet.sent),
            Way::Replied(_, since) => Some(*since),
        };
        let (unsent, replied) = (moved.is_none(), matches!(operation.way, Way::Replied(..)));
        if moved == Some(now) {
            return;
        }
        if self.dead && !replied {
            return events.push(Event::Fail(index, if unsent { Fate::Unsent } else { Fate::Lost }));
        }
        events.push(Event::Answer(index));
        if self.budget.delays > 0 && self.time_is_left(setting) {
            if unsent {
                events.push(Event::Send(index));
            }
            if !replied {
                events.push(Event::CarryOut(index));
            }
        }
        let fates = fates(unsent, replied);
        if self.budget.losses > 0 {
            events.extend(fates.iter().map(|&fate| Event::Fail(index, fate)));
        }
        if self.budget.signals > 0 {
            // Who gives a lock back minds none.
            let gives_back = matches!(host.phase, Phase::Releasing | Phase::GivingBack);
            let fates = if gives_back { &fates[..1] } else { fates };
            events.extend(fates.iter().map(|&fate| Event::Signal(index, fate)));
        }
        if self.budget.strays > 0 && !replied {
            events.push(Event::Fail(index, Fate::Late));
        }
        if self.budget.refusals > 0 && !replied {
            events.push(Event::Refuse(index));
        }
    }

    /// Hosts that are alike begin in their order: another would only give them other names.
    fn may_begin(&self, setting: &Setting, index: usize) -> bool {
        let waits = |index: usize| self.hosts[index].is_untouched();
        index == 0 || setting.skews[index] != setting.skews[index - 1] || !waits(index) || !waits(index - 1)
    }

    /// Whether it would change anything to begin later.
    fn has_begun(&self) -> bool {
        self.redis.lock.value.is_some() || self.hosts.iter().any(|host| host.phase != Phase::Idle)
    }

    fn time_is_left(&self, setting: &Setting) -> bool {
        self.now() + setting.tick <= setting.horizon
    }

    /// Whether nothing has to happen on this host first: its kernel wakes it in time.
    fn lets_time_pass(&self, setting: &Setting, host: &Host) -> bool {
        let then = self.now() + setting.tick;
        if host.phase != Phase::Running || (host.job.state == State::Stopped && !host.job.resumes) {
            return true;
        }
        let stop_at = if host.job.lost || setting.lease.is_none() {
            u64::MAX
        } else {
            millisecond(host.lease(setting).stop_at())
        };
        then <= stop_at.min(host.job.kill_at.unwrap_or(u64::MAX))
    }

    /// A cronlock seizes what is free or past, by a right clock.
    fn predecessor_would_take(&self) -> bool {
        let past = |value: &[u8]| value.len() <= 12 && str::from_utf8(value).unwrap().parse::<u64>().unwrap() <= EPOCH;
        self.redis.lock.value.as_deref().is_none_or(past)
    }
}

/// What may become of an attempt that is broken off.
fn fates(unsent: bool, replied: bool) -> &'static [Fate] {
    match (unsent, replied) {
        (true, _) => &[Fate::Unsent, Fate::Lost, Fate::Done],
        (_, true) => &[Fate::Done],
        _ => &[Fate::Lost, Fate::Done],
    }
}
