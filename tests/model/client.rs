//! The client: how one exchange fares between a host and Redis, attempt by attempt.
//!
//! What a refusal that passes means (BUSY, LOADING, MISCONF) is what a failed attempt means: nothing was done if it came
//! for all commands, and else as much as was done.

use golock::exchange::{Answer, Repeat};
use golock::resp::Reply;

use crate::event::Fate;
use crate::host::{Phase, instant, millisecond};
use crate::mutation::Mutation;
use crate::operation::{Heard, Operation, Packet, Silence, Step, Way};
use crate::redis::commands;
use crate::world::{MARGIN, Predecessor, Setting, World};

impl World {
    /// The host begins with an operation.
    pub(crate) fn go(&mut self, setting: &Setting, index: usize, phase: Phase, operation: Operation) {
        let host = &mut self.hosts[index];
        (host.phase, host.operation) = (phase, Some(operation));
        if !host.looks_at_clock_first() || !setting.minds_the_beginning(phase) {
            host.operation.as_mut().unwrap().began = 0;
        }
        self.proceed(setting, index);
    }

    /// The host goes on until it has to wait.
    fn proceed(&mut self, setting: &Setting, index: usize) {
        let host = &mut self.hosts[index];
        match host.step(setting, None) {
            None => {}
            Some((Step::Asks(repeat), _)) => {
                let retries = setting.has(Mutation::RetryOfTheUnrepeatable);
                host.operation.as_mut().unwrap().repeat = if retries { Repeat::Always } else { repeat };
            }
            Some((done, _)) => {
                let operation = host.operation.take().unwrap();
                self.come_to(setting, index, done, &operation);
            }
        }
    }

    /// The host hears an answer, or that there is none.
    fn hear(&mut self, setting: &Setting, index: usize, outcome: Result<Answer, Silence>) {
        let (now, host) = (self.now(), &mut self.hosts[index]);
        let (phase, operation) = (host.phase, host.operation.as_mut().unwrap());
        let at = if setting.minds_the_beginning(phase) { now } else { 0 };
        operation.heard.push(Heard { at, outcome });
        (operation.failures, operation.again, operation.first, operation.way) = (0, false, None, Way::Waiting);
        self.proceed(setting, index);
    }

    /// The host sends its request; `None` if by now there is nothing to send, which it hears at once.
    fn send(&mut self, setting: &Setting, index: usize) -> Option<Packet> {
        let (now, host) = (self.now(), &mut self.hosts[index]);
        let operation = host.operation.as_mut().unwrap();
        let mut at = now;
        if setting.mutation.is_some_and(|mutation| mutation.builds_once(host.phase)) {
            at = *operation.first.get_or_insert(now);
        }
        if setting.has(Mutation::ElapsedOnce) && host.phase == Phase::Confirming {
            at = millisecond(host.times.asked_at);
        }
        let (again, repeat) = (operation.again, operation.repeat);
        let (_, request) = host.step(setting, Some(instant(at))).unwrap();
        if request.commands == 0 {
            let answer = Answer { replies: Vec::new(), asked: instant(now), repeated: again };
            self.hear(setting, index, Ok(answer));
            return None;
        }
        let change = |text: &str| setting.mutation.map_or(text.to_owned(), |mutation| mutation.script(text));
        let mut commands = commands(&request, change);
        if let Some(mutation) = setting.mutation {
            mutation.change(&mut commands);
        }
        let until = (repeat == Repeat::Never).then_some(now + MARGIN);
        let ends = if host.phase == Phase::Running { host.times.hold_end } else { host.times.grace_end };
        Some(Packet { host: index, phase: host.phase, commands, sent: now, ends: millisecond(ends), until })
    }

    /// What is under way from the host, which sends it now if it has not.
    fn sent(&mut self, setting: &Setting, index: usize) -> Option<Packet> {
        let operation = self.hosts[index].operation.as_mut().unwrap();
        match std::mem::replace(&mut operation.way, Way::Waiting) {
            Way::Sent(packet) => Some(packet),
            _ => self.send(setting, index),
        }
    }

    /// The request leaves the host, and is under way.
    pub(crate) fn leave(&mut self, setting: &Setting, index: usize) {
        if let Some(packet) = self.send(setting, index) {
            self.hosts[index].operation.as_mut().unwrap().way = Way::Sent(packet);
        }
    }

    /// The request reaches Redis, and its answer is under way.
    pub(crate) fn arrive(&mut self, setting: &Setting, index: usize) {
        if let Some(packet) = self.sent(setting, index) {
            let answer = self.ask(setting, &packet);
            let now = self.now();
            self.hosts[index].operation.as_mut().unwrap().way = Way::Replied(answer, now);
        }
    }

    /// The answer reaches the host.
    pub(crate) fn answer(&mut self, setting: &Setting, index: usize) {
        if let Way::Replied(answer, _) = &self.hosts[index].operation.as_ref().unwrap().way {
            let mut answer = answer.clone();
            if setting.has(Mutation::CountedFromAnswer) {
                answer.asked = instant(self.now());
            }
            self.hear(setting, index, Ok(answer));
        } else if let Some(packet) = self.sent(setting, index) {
            let answer = self.ask(setting, &packet);
            self.hear(setting, index, Ok(answer));
        }
    }

    /// All commands of one exchange are refused, for good.
    pub(crate) fn refuse(&mut self, setting: &Setting, index: usize) {
        self.budget.refusals -= 1;
        let Some(packet) = self.sent(setting, index) else { return };
        let refusal = || Reply::Error(b"NOPERM this user has no permissions".to_vec());
        let replies = packet.commands.iter().map(|_| refusal()).collect();
        let repeated = self.hosts[index].operation.as_ref().unwrap().again;
        self.hear(setting, index, Ok(Answer { replies, asked: instant(packet.sent), repeated }));
    }

    fn ask(&mut self, setting: &Setting, packet: &Packet) -> Answer {
        let replies = self.carry_out(setting, packet, false);
        // What sets the end of a lock is sent again after a look at it on a later connection. That the earlier one is not
        // carried out after that look is all that golock trusts the network with, and only where EVAL is refused.
        self.strays.retain(|stray| {
            stray.host != packet.host
                || stray.until.is_none()
                || stray.commands[0].first().is_some_and(|name| name == b"DEL")
        });
        let repeated = self.hosts[packet.host].operation.as_ref().unwrap().again;
        Answer { replies, asked: instant(packet.sent), repeated }
    }

    /// The present attempt ends without an answer. False if there was nothing to send.
    fn lose(&mut self, setting: &Setting, index: usize, fate: Fate) -> bool {
        let is_heard_of = matches!(self.hosts[index].operation.as_ref().unwrap().way, Way::Replied(..));
        if fate != Fate::Unsent && !is_heard_of {
            let Some(mut packet) = self.sent(setting, index) else { return false };
            match fate {
                Fate::Unsent | Fate::Lost => {}
                Fate::Done => {
                    self.carry_out(setting, &packet, false);
                }
                Fate::Late => {
                    self.budget.strays -= 1;
                    if !matches!(packet.phase, Phase::Running | Phase::Releasing) {
                        (packet.sent, packet.ends) = (0, 0);
                    }
                    self.strays.push(packet);
                }
            }
        }
        let operation = self.hosts[index].operation.as_mut().unwrap();
        operation.again |= fate != Fate::Unsent;
        operation.way = Way::Waiting;
        true
    }

    /// One attempt fails; another follows if there is a budget for it.
    pub(crate) fn fail(&mut self, setting: &Setting, index: usize, fate: Fate) {
        if !self.lose(setting, index, fate) {
            return;
        }
        let (now, host) = (self.now(), &mut self.hosts[index]);
        // Without a record, none to acquire begins later than GRACE after the start.
        let unrecorded = host.phase == Phase::Acquiring && setting.acquires_in_grace();
        let late = unrecorded && now > host.started + setting.grace * 1000;
        let operation = host.operation.as_mut().unwrap();
        operation.failures += 1;
        operation.spent = operation.repeat == Repeat::Never || operation.failures >= operation.tries || late;
        if operation.spent {
            self.give_up(setting, index, false);
        }
    }

    /// The exchange comes to nothing.
    pub(crate) fn give_up(&mut self, setting: &Setting, index: usize, interrupted: bool) {
        let now = self.now();
        let operation = self.hosts[index].operation.as_mut().unwrap();
        let may_be_done = operation.again || operation.way != Way::Waiting;
        operation.spent |= operation.is_over(now);
        self.hear(setting, index, Err(Silence { interrupted, may_be_done }));
    }

    /// A signal comes while the host waits for Redis; `fate` is that of the present attempt, if it ends that.
    pub(crate) fn interrupt(&mut self, setting: &Setting, index: usize, fate: Fate) {
        let now = self.now();
        let gives_back = matches!(self.hosts[index].phase, Phase::Releasing | Phase::GivingBack);
        if gives_back && !setting.has(Mutation::SecondSignal) {
            let operation = self.hosts[index].operation.as_mut().unwrap();
            operation.until = Some(operation.until.unwrap_or(u64::MAX).min(now + MARGIN));
        } else if self.lose(setting, index, fate) {
            self.give_up(setting, index, true);
        }
    }
}

impl Setting {
    /// Whether it matters when a host has asked for the lock: where it may be used without EVAL, for the tick, and for who
    /// looks at a predecessor's second. What does not matter is forgotten, so that states that differ only in it become one.
    fn minds_the_beginning(&self, phase: Phase) -> bool {
        let refuses = !self.rules.scripts || self.budget.bans + self.budget.refusals > 0;
        phase != Phase::Acquiring
            || refuses
            || self.once
            || self.predecessor != Predecessor::None
            || self.has(Mutation::NoConfirm)
    }

    /// Whether a second attempt to acquire begins only while the grace of another run surely lasts.
    fn acquires_in_grace(&self) -> bool {
        self.once && self.options(0, 0).record.is_none() && self.grace > 0
    }
}
