//! What may and what may not have happened in a round.

use rustix::process::Signal;

use super::runs::{Hit, LEASE, Run};
use super::trouble::Trouble;
use crate::support::soak::{Court, Overlap, Standstill, Testimony};

/// The steps of the clock that jobs and tests read, both ways.
const STEP: f64 = 0.02;

/// A golock that stood still for less has no excuse: so long before its lease ends the job must be gone.
const MARGIN: f64 = 3.0 / 12.0;

/// All that is known of a round.
#[derive(Default)]
pub(super) struct Round {
    pub(super) runs: Vec<Run>,
    pub(super) troubles: Vec<Trouble>,
    pub(super) hits: Vec<Hit>,
    pub(super) standstills: Vec<Standstill>,
    /// What the jobs under each lock have said.
    pub(super) testimonies: Vec<Testimonies>,
    /// What stood in Redis, and should not have.
    pub(super) leftovers: Vec<String>,
}

/// What the jobs under one lock have said.
pub(super) struct Testimonies {
    pub(super) starts: Vec<Testimony>,
    pub(super) ends: Vec<Testimony>,
    pub(super) overlaps: Vec<Overlap>,
}

impl Testimonies {
    pub(super) fn of(court: &Court) -> Self {
        let mut starts = court.starts();
        starts.sort_by(|one, other| one.at.total_cmp(&other.at));
        Self { starts, ends: court.ends(), overlaps: court.overlaps() }
    }
}

/// Why two jobs could run at the same time, or one follow another within its grace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Excuse {
    /// Redis had lost the lock of one of them.
    Loss,
    /// The machine stood still, and golock could not keep its times.
    Standstill,
    /// RELEASE was over: no lock promises more.
    Release,
}

impl Round {
    /// Everything that no trouble explains.
    pub(super) fn complaints(&self) -> Vec<String> {
        let of_runs = self.runs.iter().filter_map(|run| self.complaint(run).map(|why| format!("{why}: {run:?}")));
        let overlaps = self.overlaps().into_iter().filter(|(_, excuse)| excuse.is_none());
        let of_overlaps = overlaps.map(|(overlap, _)| format!("two jobs under one lock: {overlap:?}"));
        of_runs.chain(of_overlaps).chain(self.hasty()).chain(self.leftovers.iter().cloned()).collect()
    }

    /// The overlaps, and what explains them.
    pub(super) fn overlaps(&self) -> Vec<(Overlap, Option<Excuse>)> {
        let said = self.testimonies.iter().enumerate();
        let overlaps = said.flat_map(|(lock, said)| said.overlaps.iter().map(move |overlap| (lock, *overlap)));
        overlaps.map(|(lock, overlap)| (overlap, self.excuse(lock, &overlap))).collect()
    }

    fn excuse(&self, lock: usize, overlap: &Overlap) -> Option<Excuse> {
        let stood_still = || self.standstills.iter().any(|stop| stop.explains(overlap, MARGIN));
        let mut both = overlap.golocks.into_iter().filter_map(|golock| self.run_of(golock));
        both.find_map(|run| self.loss_explains(lock, run, overlap.at).or_else(|| run.is_over_at(overlap.at)))
            .or_else(|| stood_still().then_some(Excuse::Standstill))
    }

    /// Redis lost the lock of `run`, which it may have had, before another got it at `at`. With a lease it notices.
    fn loss_explains(&self, lock: usize, run: &Run, at: f64) -> Option<Excuse> {
        let latest = |trouble: &Trouble| if run.order.leased { trouble.to + seconds(LEASE) } else { f64::MAX };
        let explains = |trouble: &&Trouble| {
            trouble.loses(lock) && run.asked <= trouble.to && trouble.from <= at && at <= latest(trouble)
        };
        self.troubles.iter().find(explains).map(|_| Excuse::Loss)
    }

    /// Jobs that started in the grace of the one before: the grace counts from when the lock was taken, which was after
    /// golock was started.
    fn hasty(&self) -> Vec<String> {
        let mut hasty = Vec::new();
        for (lock, said) in self.testimonies.iter().enumerate() {
            for pair in said.starts.windows(2) {
                let Some(run) = self.run_of(pair[0].golock) else { continue };
                let overlap = Overlap { golocks: [run.golock, pair[1].golock], at: pair[1].at };
                let soon = pair[1].at + STEP < run.asked + seconds(run.order.grace);
                if soon && self.excuse(lock, &overlap).is_none() {
                    hasty.push(format!("started within the grace of another: {:?} after {run:?}", pair[1]));
                }
            }
        }
        hasty
    }

    fn run_of(&self, golock: i32) -> Option<&Run> {
        self.runs.iter().find(|run| run.golock == golock)
    }

    /// What is wrong with a run, if anything.
    fn complaint(&self, run: &Run) -> Option<&'static str> {
        let (starts, _) = self.testimony(run);
        let killed = run.done.code == -Signal::KILL.as_raw();
        if !run.done.stdout.is_empty() || run.done.stderr.lines().count() > 1 {
            return Some("said too much");
        }
        if starts > 1 || (run.outlived && !killed) {
            return Some("had two jobs, or left one behind");
        }
        self.complaint_of_end(run)
    }

    /// What is wrong with its exit code.
    fn complaint_of_end(&self, run: &Run) -> Option<&'static str> {
        const TERM: i32 = Signal::TERM.as_raw();
        const KILL: i32 = Signal::KILL.as_raw();
        // TERM may come before golock has learned to catch it.
        const STOPPED: [i32; 2] = [128 + TERM, -TERM];
        match run.done.code {
            code if code == run.order.code => self.complaint_of_success(run),
            200 | 201 if run.order.must => Some("was lost, though Redis was left in peace"),
            200 => self.complaint_of_skip(run),
            201 => self.complaint_of_failure(run),
            code if STOPPED.contains(&code) && self.was_hit(run, Signal::TERM) => None,
            code if code == -KILL && self.was_hit(run, Signal::KILL) => self.complaint_of_death(run),
            _ => Some("ended with a code that it should not have"),
        }
    }

    /// golock did its job, but may have had trouble with the lock.
    fn complaint_of_success(&self, run: &Run) -> Option<&'static str> {
        if self.testimony(run) != (1, 1) {
            return Some("told of a job that did not run to its end");
        }
        let line = &run.done.stderr;
        let known = line.is_empty() || line.contains("lost before it was released") || line.contains("cannot release");
        let explained = if line.contains("lost before") {
            self.met_loss(run) || self.is_touched(run) || run.is_slow()
        } else {
            line.is_empty() || self.is_troubled(run) || self.was_hit(run, Signal::TERM)
        };
        (!known || !explained).then_some("said something for no reason")
    }

    /// golock failed, which it may only in trouble.
    fn complaint_of_failure(&self, run: &Run) -> Option<&'static str> {
        if run.done.stderr.is_empty() {
            return Some("failed, and did not say why");
        }
        let lost = run.order.leased && run.done.stderr.contains(" was lost: ");
        if self.testimony(run).0 > 0 && !lost {
            return Some("failed after its job had started");
        }
        let explained = self.is_troubled(run) || self.was_hit(run, Signal::TERM) || (lost && self.met_loss(run));
        (!explained).then_some("failed, though Redis was up")
    }

    /// golock skipped: it waited as long as it was told, and the lock was another's.
    fn complaint_of_skip(&self, run: &Run) -> Option<&'static str> {
        if self.testimony(run).0 > 0 || !run.done.stderr.is_empty() {
            return Some("skipped, and not quietly");
        }
        if run.lasted() + STEP < seconds(run.order.wait) && !(run.order.leased && self.met_loss(run)) {
            return Some("skipped before its wait was over");
        }
        let others = self.runs.iter().filter(|other| other.order.lock == run.order.lock && other.golock != run.golock);
        let mut ends = others.filter(|other| other.asked <= run.ended).filter_map(|other| self.claim_end(other));
        (!ends.any(|end| end + STEP >= run.asked)).then_some("skipped, though nobody held the lock")
    }

    /// golock was killed: so was its job, if it had a lease.
    fn complaint_of_death(&self, run: &Run) -> Option<&'static str> {
        let mut ends = self.testimonies[run.order.lock].ends.iter().filter(|end| end.golock == run.golock);
        let survived = run.order.leased && ends.any(|end| end.at > run.ended + STEP);
        survived.then_some("was killed, and its leased job lived on")
    }

    /// Until when the lock may have been held by a run: to the end of its grace if nothing disturbed it. Otherwise what it
    /// has sent may still have taken the lock when the trouble was over, for its whole TTL.
    fn claim_end(&self, run: &Run) -> Option<f64> {
        let signalled = self.hits.iter().any(|hit| hit.golock == run.golock);
        if signalled || run.order.rough() || self.is_touched(run) || run.is_slow() {
            let troubles = self.troubles.iter().filter(|trouble| run.met(trouble)).map(|trouble| trouble.to);
            return Some(troubles.fold(run.ended, f64::max) + seconds(run.order.ttl()));
        }
        let starts = self.testimonies[run.order.lock].starts.iter().filter(|start| start.golock == run.golock);
        starts.map(|start| run.ended.max(start.at + seconds(run.order.grace))).next()
    }

    /// How many jobs of this golock have started, and how many have run to their end.
    fn testimony(&self, run: &Run) -> (usize, usize) {
        let count = |of: &[Testimony]| of.iter().filter(|one| one.golock == run.golock).count();
        let said = &self.testimonies[run.order.lock];
        (count(&said.starts), count(&said.ends))
    }

    fn was_hit(&self, run: &Run, signal: Signal) -> bool {
        self.hits.iter().any(|hit| hit.golock == run.golock && hit.signal == signal)
    }

    /// Whether its lock may have been lost to Redis or an operator while it ran.
    fn met_loss(&self, run: &Run) -> bool {
        self.troubles.iter().any(|trouble| trouble.loses(run.order.lock) && run.met(trouble))
    }

    /// Whether Redis, or the machine, was in trouble while it ran.
    fn is_touched(&self, run: &Run) -> bool {
        let stood_still = |stop: &Standstill| stop.from <= run.ended && run.asked <= stop.to;
        self.standstills.iter().any(stood_still) || self.troubles.iter().any(|it| it.disturbs() && run.met(it))
    }

    /// Whether it may have failed: because of that, or because more of its connections broke than it may open again. A
    /// renewal is not tried again at once.
    fn is_troubled(&self, run: &Run) -> bool {
        let bearable = if run.order.leased { 0 } else { run.order.attempts };
        self.is_touched(run) || run.is_slow() || run.broken > bearable
    }
}

impl Run {
    pub(super) fn lasted(&self) -> f64 {
        self.ended - self.asked
    }

    fn met(&self, trouble: &Trouble) -> bool {
        trouble.falls_into(self.asked, self.ended)
    }

    /// Whether an answer came too late for it, as it says or as the time shows that it spent on other things than its job
    /// and its wait: a slow machine is no fault.
    fn is_slow(&self) -> bool {
        let timeout = seconds(self.order.timeout);
        let says = self.done.stderr.contains("no answer in time") && self.lasted() + STEP >= timeout;
        says || self.lasted() - self.order.span.as_secs_f64() - seconds(self.order.wait) >= timeout
    }

    /// Whether its lock has ended by itself then, at the latest.
    fn is_over_at(&self, at: f64) -> Option<Excuse> {
        let latest = self.asked + seconds(self.order.wait + self.order.ttl());
        (!self.order.leased && at >= latest).then_some(Excuse::Release)
    }
}

fn seconds(count: u64) -> f64 {
    f64::from(u32::try_from(count).unwrap())
}
