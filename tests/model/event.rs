//! What may happen in a world, and when.

use golock::lock::Repeat;

use crate::host::{EPOCH, Host, Phase, moment};
use crate::world::{MARGIN, Setting, World};

/// What may happen next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Event {
    Begin(usize),
    /// The request reaches Redis, and the answer its host.
    Answer(usize),
    /// No connection comes about.
    Refuse(usize),
    LoseRequest(usize),
    LoseReply(usize),
    /// The request is given up, and may arrive later.
    Delay(usize),
    /// The host's time for the exchange is over.
    GiveUp(usize),
    Arrive(usize),
    Renew(usize),
    /// The lease was not renewed in time: the job is told to stop.
    Stop(usize),
    /// The job has ended, by itself or because it was stopped.
    JobEnds(usize),
    /// A signal before the job has started; the request under way gets lost, or does not (`Delay` first).
    Signal(usize),
    Crash(usize),
    Reset,
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
        events.extend((0..self.strays.len()).map(Event::Arrive));
        if self.budget.resets > 0 && self.redis.value.is_some() {
            events.push(Event::Reset);
        }
        if self.predecessor_may_come && self.predecessor_would_take() {
            events.push(Event::PredecessorTakes);
        }
        if self.predecessor_runs {
            events.push(Event::PredecessorEnds);
        }
        if self.now() + setting.tick <= setting.horizon
            && self.has_begun()
            && self.hosts.iter().all(|host| self.lets_time_pass(setting, host))
        {
            events.push(Event::Tick);
        }
        events
    }

    fn events_of(&self, setting: &Setting, index: usize, host: &Host, events: &mut Vec<Event>) {
        let late = host.lease.as_ref().is_some_and(|lease| lease.stop_by() <= moment(self.now()));
        match host.phase {
            Phase::Ended(_) => return,
            Phase::Idle if self.may_begin(index) => events.push(Event::Begin(index)),
            Phase::Idle => {}
            Phase::Running if late => events.push(Event::Stop(index)),
            Phase::Running => {
                events.push(Event::JobEnds(index));
                if host.lease.as_ref().is_some_and(|lease| lease.due() <= moment(self.now())) {
                    events.push(Event::Renew(index));
                }
            }
            Phase::Stopping => events.push(Event::JobEnds(index)),
            Phase::Renewing if late => events.push(Event::GiveUp(index)),
            Phase::Acquiring | Phase::Settling | Phase::Renewing | Phase::Releasing | Phase::GivingBack => {
                self.events_of_exchange(setting, index, host, events);
            }
        }
        if self.budget.crashes > 0 && host.phase != Phase::Idle {
            events.push(Event::Crash(index));
        }
    }

    fn events_of_exchange(&self, setting: &Setting, index: usize, host: &Host, events: &mut Vec<Event>) {
        let Some((_, repeat)) = setting.asks(host) else { return };
        if repeat == Repeat::Never && host.asked() + MARGIN <= self.now() {
            return events.push(Event::GiveUp(index));
        }
        events.push(Event::Answer(index));
        if self.budget.losses > 0 {
            events.extend([Event::Refuse(index), Event::LoseRequest(index), Event::LoseReply(index)]);
        }
        if self.budget.strays > 0 {
            events.push(Event::Delay(index));
        }
        if self.budget.signals > 0 && matches!(host.phase, Phase::Acquiring | Phase::Settling) {
            events.push(Event::Signal(index));
        }
    }

    /// Hosts that are alike begin in their order: another would only give them other names.
    fn may_begin(&self, index: usize) -> bool {
        index == 0 || self.hosts[index - 1].phase != Phase::Idle || !self.hosts[index].is_like(&self.hosts[index - 1])
    }

    /// Whether it would change anything to begin later.
    fn has_begun(&self) -> bool {
        self.redis.value.is_some() || self.hosts.iter().any(|host| host.phase != Phase::Idle)
    }

    /// Whether nothing has to happen on this host first: its kernel wakes it in time.
    fn lets_time_pass(&self, setting: &Setting, host: &Host) -> bool {
        let Some(lease) = &host.lease else { return true };
        let then = moment(self.now() + setting.tick);
        match host.phase {
            Phase::Running | Phase::Renewing => then <= lease.stop_by(),
            Phase::Stopping => then <= lease.gone_by(),
            _ => true,
        }
    }

    /// A cronlock seizes what is free or past, by a right clock.
    fn predecessor_would_take(&self) -> bool {
        let past = |value: &[u8]| value.len() <= 12 && str::from_utf8(value).unwrap().parse::<u64>().unwrap() <= EPOCH;
        self.redis.value.as_deref().is_none_or(past)
    }
}
