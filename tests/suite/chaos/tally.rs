//! What a chaos soak did, in numbers.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

use super::judge::Round;

/// So many of each.
type Counts = BTreeMap<String, usize>;

/// The sum of all rounds.
#[derive(Default)]
pub(super) struct Tally {
    rounds: usize,
    troubles: Counts,
    signals: Counts,
    codes: Counts,
    excuses: Counts,
    jobs: usize,
    broken: usize,
    leased: usize,
    windows: usize,
    window_seconds: f64,
    standstills: usize,
}

impl Tally {
    pub(super) fn add(&mut self, round: &Round) {
        self.rounds += 1;
        count(&mut self.troubles, round.troubles.iter().map(|trouble| format!("{:?}", trouble.kind)));
        count(&mut self.signals, round.hits.iter().map(|hit| hit.signal.as_raw().to_string()));
        count(&mut self.codes, round.runs.iter().map(|run| format!("{:03}", run.done.code)));
        let excuses = round.overlaps().into_iter().filter_map(|(_, excuse)| excuse);
        count(&mut self.excuses, excuses.map(|excuse| format!("{excuse:?}")));
        self.jobs += round.testimonies.iter().map(|said| said.starts.len()).sum::<usize>();
        self.broken += round.runs.iter().map(|run| run.broken).sum::<usize>();
        self.leased += round.runs.iter().filter(|run| run.order.leased).count();
        let losses = || round.troubles.iter().filter(|trouble| trouble.kind.loses());
        self.windows += losses().count();
        self.window_seconds += losses().map(|loss| loss.to - loss.from).sum::<f64>();
        self.standstills += round.standstills.len();
    }
}

fn count(counts: &mut Counts, of: impl Iterator<Item = String>) {
    of.for_each(|name| *counts.entry(name).or_default() += 1);
}

impl Display for Tally {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let runs: usize = self.codes.values().sum();
        writeln!(f, "{} rounds, {runs} golocks ({} leased), {} jobs", self.rounds, self.leased, self.jobs)?;
        writeln!(f, "faults: {:?}, {} broken connections, signals {:?}", self.troubles, self.broken, self.signals)?;
        writeln!(f, "exit codes: {:?}; 200 skipped, 201 failed", self.codes)?;
        let (windows, span) = (self.windows, self.window_seconds);
        writeln!(f, "{windows} windows of lost locks, {span:.1} s together; overlaps by excuse: {:?}", self.excuses)?;
        write!(f, "the machine stood still {} times", self.standstills)
    }
}

impl Round {
    /// All that happened, in order.
    pub(super) fn log(&self) -> String {
        let troubles = self.troubles.iter().map(|trouble| (trouble.from, format!("{trouble:?}")));
        let stops = self.standstills.iter().map(|stop| (stop.from, format!("{stop:?}")));
        let runs = self.runs.iter().map(|run| (run.asked, run.to_string()));
        let said = self.testimonies.iter().flat_map(|said| said.starts.iter().chain(&said.ends));
        let jobs = said.map(|one| (one.at, format!("{one:?}")));
        let mut lines: Vec<_> = troubles.chain(stops).chain(runs).chain(jobs).collect();
        lines.sort_by(|one, other| one.0.total_cmp(&other.0));
        lines.into_iter().map(|(_, line)| line + "\n").collect()
    }
}
