//! What must never happen, seen by somebody who knows everything.

use golock::lock::{Record, Released};
use golock::resp::Reply;

use crate::host::{End, Host, Phase, instant, millisecond};
use crate::operation::{Operation, Packet};
use crate::redis::{Redis, Slot};
use crate::world::{History, Setting, World, second};

/// What must never happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Wrong {
    /// A host has changed the lock of another.
    Touched,
    /// A lock was taken before the grace of the last job was over.
    Grace,
    /// A host skips its run although its own token stands in the lock, or a lock that a crash has left for ever.
    Lost,
    /// The lock of a lease has expired under a running job.
    Outlived,
    /// A command has started under a lock that does not last as long as its host believes.
    Unsure,
    /// A release or a renewal has made a lock last longer than it is to.
    Lengthened,
    /// A host has ended although it knows or fears that the lock is its own, and another exchange might get through.
    Kept,
    /// A command has started although another run of its tick had begun.
    Twice,
    /// A host skips its run because another served for it, and there was none.
    Unserved,
    /// A number was given to a run that is not greater than all before.
    Fence,
    /// The record has decided who holds the lock.
    Decided,
    /// A run that is over has begun again, because its confirmation came late.
    Revived,
    /// The end of a run stands in the record of another.
    Meddled,
    /// The record tells of failures that nobody has seen.
    Slander,
    /// A transition has led nowhere, so that a schedule need not end.
    Stuck,
}

impl World {
    pub(crate) fn blame(&mut self, wrong: Wrong) {
        self.wrong = self.wrong.or(Some(wrong));
    }

    /// Redis carries out what a host has sent.
    pub(crate) fn carry_out(&mut self, setting: &Setting, packet: &Packet, is_stray: bool) -> Vec<Reply> {
        let before = self.redis.clone();
        let replies = self.redis.answer(&packet.commands);
        let token = self.hosts[packet.host].token();
        let owned = self.redis.lock.value.as_deref() == Some(token.as_bytes());
        self.prove_lock(setting, packet, &before, owned, is_stray);
        if matches!(packet.phase, Phase::Confirming | Phase::Running) {
            self.prove_over(packet, &before);
        }
        match packet.phase {
            Phase::Acquiring if setting.once && owned && before.lock != self.redis.lock && !is_stray => {
                let grace_end = self.hosts[packet.host].started + setting.grace * 1000;
                self.hosts[packet.host].traces.underway = packet.sent <= grace_end && self.now() >= grace_end;
            }
            Phase::Confirming => self.prove_confirmation(setting, packet, &before, &replies, is_stray),
            Phase::Running | Phase::Releasing | Phase::GivingBack => {
                self.prove_end_of_hold(setting, packet, &before, &replies);
            }
            _ => {}
        }
        self.prove_record(setting, packet, &before, &replies);
        if !is_stray {
            self.hosts[packet.host].traces.owned = owned || self.is_left_behind(setting, packet.phase);
        }
        setting.mutation.map_or(replies.clone(), |mutation| mutation.replies(&packet.commands, replies))
    }

    /// Whether a lock stands there that a crash has left for ever, and that is free for whoever asks.
    fn is_left_behind(&self, setting: &Setting, phase: Phase) -> bool {
        let asks = matches!(phase, Phase::Acquiring | Phase::Confirming);
        asks && setting.rules.scripts && self.redis.lock.value == Some(second(-10)) && !self.predecessor_runs
    }

    /// Nobody changes another's lock, or takes one before its grace is over.
    fn prove_lock(&mut self, setting: &Setting, packet: &Packet, before: &Redis, owned: bool, is_stray: bool) {
        let token = self.hosts[packet.host].token();
        let was_owned = before.lock.value.as_deref() == Some(token.as_bytes());
        let held = before.lock.value.as_ref().is_some_and(|value| value.len() > 12) || self.predecessor_runs;
        // Between a look and a step an operator may have interfered; only a script leaves no room for that.
        let excused = self.was_robbed() && !self.redis.rules.scripts;
        if before.lock != self.redis.lock && held && !was_owned && before.lock.value.is_some() && !excused {
            self.blame(Wrong::Touched);
        }
        self.hosts[packet.host].traces.raced |=
            setting.once && is_stray && packet.phase == Phase::Acquiring && owned && !was_owned;
        if owned && !was_owned && self.now() < self.grace_end && !self.was_robbed() {
            self.blame(Wrong::Grace);
        }
    }

    /// Whether the record says that the run of a host has ended.
    fn is_over(&self, host: usize, before: &Redis) -> bool {
        let number = self.hosts[host].traces.number;
        let is_of_it = |record: &Record| record.number("fence") == Some(number) && record.number("end").is_some();
        before.run().is_some_and(|record| is_of_it(&record))
    }

    /// What is sent for a run that goes on, or begins, changes nothing once that run has ended.
    fn prove_over(&mut self, packet: &Packet, before: &Redis) {
        let changed = self.redis.record.value != before.record.value || self.redis.lock != before.lock;
        // Then another may have the same number.
        let repeats = self.was_flushed && self.redis.behind > 0;
        if self.is_over(packet.host, before) && changed && !repeats {
            self.blame(Wrong::Revived);
        }
    }

    /// Numbers grow, and who is told that another run has served is told the truth.
    fn prove_confirmation(
        &mut self,
        setting: &Setting,
        packet: &Packet,
        before: &Redis,
        replies: &[Reply],
        is_stray: bool,
    ) {
        let now = self.now();
        self.was_late |= is_stray;
        let token = self.hosts[packet.host].token();
        if !is_stray && setting.once {
            self.hosts[packet.host].traces.confirmed = now;
        }
        let Some(Reply::Bulk(text)) = replies.first() else { return };
        let Some(behind) = text.strip_prefix(token.as_bytes()) else { return };
        if behind == b" served" {
            if !is_stray && !self.has_served(setting, before, packet.host) {
                self.blame(Wrong::Unserved);
            }
        } else if let Some(fence) = str::from_utf8(behind).ok().and_then(|text| text.trim().parse::<u64>().ok()) {
            let traces = &mut self.hosts[packet.host].traces;
            // Only if nobody else was numbered since, it is still the same run.
            let is_known = traces.number > 0 && traces.number == self.last_fence;
            traces.runs += u8::from(!is_known);
            (traces.number, traces.recorded, traces.given_back) = (fence, Some(now), false);
            self.prove_number(fence);
        }
    }

    /// Numbers grow, whoever they are given to. A clock that steps back, and data that are lost, can be too much together.
    fn prove_number(&mut self, fence: u64) {
        if fence <= self.last_fence && !(self.was_flushed && self.redis.behind > 0) {
            self.blame(Wrong::Fence);
        }
        self.last_fence = self.last_fence.max(fence);
    }

    /// Whether another run began after a host was started, up to how long the host waited for an answer. Where Redis's clock
    /// has stepped back, an old run may look new, but none that is still to come.
    fn has_served(&self, setting: &Setting, before: &Redis, index: usize) -> bool {
        if before.behind > 0 {
            return before.run().is_some_and(|record| record.number("start").unwrap() <= before.milliseconds());
        }
        let host = &self.hosts[index];
        let heard = host.operation.iter().flat_map(|operation| &operation.heard);
        let under_way = heard.filter_map(|heard| Some(heard.at - millisecond(heard.outcome.as_ref().ok()?.asked)));
        let doubt = under_way.max().unwrap_or(0);
        let others = self.hosts.iter().filter(|other| other.index != index && !other.traces.given_back);
        let long_before = matches!(setting.history, History::Before(ago) if host.started + ago <= doubt);
        long_before || others.filter_map(|other| other.traces.recorded).any(|recorded| recorded + doubt >= host.started)
    }

    /// A renewal does not reach beyond RELEASE, and a release not beyond the grace: each but for the time that it was under
    /// way. Without a lease a release makes nothing last longer.
    fn prove_end_of_hold(&mut self, setting: &Setting, packet: &Packet, before: &Redis, replies: &[Reply]) {
        let host = &mut self.hosts[packet.host];
        let looks = packet.commands[0][0] == b"GET" || matches!(replies[0], Reply::Error(_));
        let own = host.token();
        if looks || before.lock.value.as_deref() != Some(own.as_bytes()) {
            return;
        }
        let releases = packet.phase != Phase::Running;
        // Without EVAL nobody can take back what is recorded.
        host.traces.given_back |= packet.phase == Phase::GivingBack && packet.commands[0][0] == b"EVAL";
        // EX counts whole seconds.
        let slack = if packet.commands[0][0] == b"SET" { 999 } else { 0 };
        let (now, end) = (self.redis.now, self.redis.lock.expires.unwrap_or(0));
        let allowed = packet.ends.max(packet.sent) + (now - packet.sent) + slack;
        let was = before.lock.expires.unwrap_or(u64::MAX);
        let lengthened = releases && setting.lease.is_none() && end > was + slack;
        // With the grace over it is DEL that releases, but for one that may meet an earlier DEL, which is still under way.
        let waits = releases && packet.commands[0][0] == b"SET" && packet.ends <= packet.sent;
        if (end > allowed && (releases || end > was) && !waits) || lengthened {
            self.blame(Wrong::Lengthened);
        }
    }

    /// The record changes nothing but itself, unless it shows that another run has served, or that this one is over.
    fn prove_record(&mut self, setting: &Setting, packet: &Packet, before: &Redis, replies: &[Reply]) {
        if packet.commands[0].get(2).is_none_or(|keys| keys != b"2") || !before.rules.scripts {
            return;
        }
        let first = |replies: &[Reply]| match &replies[0] {
            Reply::Bulk(text) => text.split(|&byte| byte == b' ').map(<[u8]>::to_vec).take(2).collect(),
            other => vec![format!("{other:?}").into_bytes()],
        };
        let words = first(replies);
        let (mut without, same) = (before.clone(), self.redis.lock.clone());
        without.record = Slot::default();
        let decided = match words.get(1).map(Vec::as_slice) {
            Some(b"served" | b"unsure") => before.run().is_none(),
            _ => first(&without.answer(&packet.commands))[0] != words[0] || without.lock != same,
        };
        if decided && !(packet.phase == Phase::Running && self.is_over(packet.host, before)) {
            self.blame(Wrong::Decided);
        }
        let of = before
            .run()
            .filter(|_| self.redis.record.value != before.record.value && packet.phase != Phase::Confirming);
        if of.is_some_and(|record| record.number("fence") != Some(self.hosts[packet.host].traces.number)) {
            self.blame(Wrong::Meddled);
        }
        let begun: u64 = self.hosts.iter().map(|host| u64::from(host.traces.runs)).sum();
        let known = !matches!(setting.history, History::Garbage(_)) && !self.was_late;
        let failed = |record: Record| record.number("failed").unwrap() + u64::from(record.number("end").is_none());
        if known && self.redis.run().is_some_and(|record| failed(record) > begun) {
            self.blame(Wrong::Slander);
        }
    }

    /// A command starts only under a lock that surely lasts, and once in each tick.
    pub(crate) fn prove_start(&mut self, setting: &Setting, index: usize) {
        if !self.is_held(index) && !self.was_robbed() {
            self.blame(Wrong::Unsure);
        }
        let (host, lock_end) = (&self.hosts[index], self.redis.lock.expires.unwrap_or(0));
        let served = |other: &Host| other.index != index && other.traces.began.is_some_and(|at| at >= host.started);
        let twice = |other: &Host| served(other) && !self.is_excused(setting, host, other);
        if setting.once && self.hosts.iter().any(twice) {
            self.blame(Wrong::Twice);
        }
        let host = &mut self.hosts[index];
        // While it runs, the lock persists as long as its TTL at the most.
        self.grace_end = host.times.grace().min(lock_end);
        host.traces.began = setting.once.then_some(host.traces.confirmed);
        (host.traces.underway, host.traces.confirmed) = (false, 0);
    }

    /// Whether nothing keeps a host from running once more in its tick.
    fn is_excused(&self, setting: &Setting, host: &Host, other: &Host) -> bool {
        let recorded = host.times.fence.is_some() && other.traces.number > 0;
        // Without a record the grace of the other run has to do, and the way of a request is no part of it.
        let late = setting.grace == 0 || host.traces.underway;
        self.was_flushed || self.redis.behind > 0 || host.traces.raced || (!recorded && (late || self.was_reset))
    }

    /// Whether a host's lock stands at least as long as the host believes.
    pub(crate) fn is_held(&self, index: usize) -> bool {
        let (host, lock) = (&self.hosts[index], &self.redis.lock);
        lock.value.as_deref() == Some(host.token().as_bytes())
            && lock.expires.is_some_and(|end| instant(end) >= host.times.valid_until && end > self.now())
    }

    /// Nobody ends who knows that the lock is his.
    pub(crate) fn prove_end(&mut self, index: usize, end: End) {
        let own = self.redis.lock.value.as_deref() == Some(self.hosts[index].token().as_bytes());
        let kept = match end {
            End::Failed => own,
            End::Served => self.hosts[index].traces.owned,
            _ => false,
        };
        if kept {
            self.blame(Wrong::Kept);
        }
    }

    /// Nobody stops to give back a lock who might still be heard.
    pub(crate) fn prove_release(
        &mut self,
        setting: &Setting,
        index: usize,
        lock: Result<Released, &golock::lock::Error>,
        operation: &Operation,
    ) {
        let owned = self.hosts[index].traces.owned;
        let kept = match lock {
            // Where EVAL is refused, what is not surely ours is left alone.
            Ok(Released::LeftToExpire) => self.redis.rules.scripts && setting.budget.refusals == 0,
            // There a command that was not answered may still be under way, and finds a lock that is ours.
            Ok(Released::InGrace(_)) => {
                let refuses = !self.redis.rules.scripts || setting.budget.refusals > 0;
                owned && self.hosts[index].phase == Phase::GivingBack && !refuses
            }
            Ok(Released::Free | Released::Lost) => owned,
            Err(golock::lock::Error::Exchange(_)) => !operation.spent,
            Err(_) => setting.budget.refusals == 0,
        };
        if kept {
            self.blame(Wrong::Kept);
        }
    }

    /// Whether two jobs run at the same time, none of which has outlived its lock, and without an operator's doing.
    pub(crate) fn overlaps(&self) -> bool {
        let running = self.hosts.iter().filter(|host| host.job_runs());
        let excused = self.was_robbed() || running.clone().any(|host| host.traces.outlived);
        running.count() + usize::from(self.predecessor_runs) > 1 && !excused
    }

    /// Whether a job runs under a lock that does not last as long as its host believes.
    pub(crate) fn is_deceived(&self) -> bool {
        let trusts = |host: &&Host| host.job_runs() && !host.traces.outlived;
        !self.was_robbed() && self.hosts.iter().filter(trusts).any(|host| !self.is_held(host.index))
    }

    /// Whether a lock of golock's might stay for longer than it was taken for.
    pub(crate) fn lasts_too_long(&self, setting: &Setting) -> bool {
        let longest = self.now() + setting.ttl().max(setting.grace) * 1000 + self.redis.behind;
        let golocks = self.redis.lock.value.as_ref().is_some_and(|value| value.len() > 12);
        golocks && self.redis.lock.expires.is_none_or(|end| end > longest)
    }

    /// Whether nothing can happen any more although a host has not ended.
    pub(crate) fn is_stuck(&self, setting: &Setting) -> bool {
        let ended = |host: &Host| matches!(host.phase, Phase::Ended(_));
        !self.hosts.iter().all(ended) && self.events(setting).is_empty()
    }
}
