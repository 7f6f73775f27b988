//! Several hosts with short jobs under one lock, and the jobs' own testimony of whether they ever ran at the same time.

use std::ffi::OsString;
use std::fs;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use super::golock::{Done, Golock, Running};
use super::job_tools::Notes;
use super::wait::{holds_within, until};
use super::watch::uptime;

/// Marks that it runs, looks who else does, runs for `$1` seconds, takes its mark away, and ends with code `$2`. A mark is
/// the name of a file: process id, the time of its birth, process id of its golock. That of a job that was killed stays;
/// it is told from one that runs by looking at the process, and is cleared away by the next.
///
/// No clock is needed to see an overlap: who finds another alive when it has already marked itself, overlaps with it.
const WITNESS: &str = r#"
born() { { read -r line <"/proc/$1/stat"; } 2>/dev/null && set -- ${line##*) } && case $1 in [ZX]) false;; esac && born=${20}; }
tell() { read -r now _ </proc/uptime; echo "$* $now" >>"$0/log"; }
born $$; self="$PPID $$ $born"; mine=$$.$born.$PPID
: >"$0/marks/$mine"; tell start $self
for mark in "$0"/marks/*; do
  mark=${mark##*/}; pid=${mark%%.*}; rest=${mark#*.}; since=${rest%.*}; golock=${rest#*.}
  [ "$mark" = "$mine" ] && continue
  if born "$pid" && [ "$born" = "$since" ] && [ -e "$0/marks/$mark" ]; then tell overlap $PPID "$golock"; else rm -f "$0/marks/$mark"; fi
done
sleep "$1"
rm "$0/marks/$mine"; tell end $self
exit "$2""#;

/// A source of numbers that look random, and are the same for the same seed.
pub(crate) struct Dice(Mutex<u64>);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Mutex::new(seed))
    }

    /// A number below `limit` (splitmix64).
    pub(crate) fn below(&self, limit: u64) -> u64 {
        let mut state = self.0.lock().unwrap();
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }

    /// An index into so many.
    pub(crate) fn index(&self, count: usize) -> usize {
        usize::try_from(self.below(u64::try_from(count).unwrap())).unwrap()
    }

    /// A span between these numbers of milliseconds.
    pub(crate) fn span(&self, least: u64, most: u64) -> Duration {
        Duration::from_millis(least + self.below(most - least))
    }
}

/// A seed: that of `GOLOCK_SOAK_SEED`, or another each time.
pub(crate) fn seed() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let fresh = |_| RandomState::new().build_hasher().finish() % 1_000_000;
    std::env::var("GOLOCK_SOAK_SEED").map_or_else(fresh, |seed| seed.parse().unwrap())
}

/// How long a soak takes: `GOLOCK_SOAK_SECONDS`, or just long enough to be a test like any other.
pub(crate) fn length() -> Duration {
    Duration::from_secs(std::env::var("GOLOCK_SOAK_SECONDS").map_or(7, |seconds| seconds.parse().unwrap()))
}

/// Waits for `span`, but not beyond `end`.
pub(crate) fn pass(span: Duration, end: Instant) {
    holds_within(span, || Instant::now() > end);
}

/// The folder in which the jobs leave their testimony.
pub(crate) struct Court(Notes);

/// Two jobs that ran at the same time, by their golocks, at this time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Overlap {
    pub(crate) golocks: [i32; 2],
    pub(crate) at: f64,
}

/// What one job says of its start or its end.
#[derive(Clone, Debug)]
pub(crate) struct Testimony {
    pub(crate) golock: i32,
    pub(crate) job: Pid,
    /// When the job's process was born, by which it is told from another that has got its number.
    pub(crate) born: String,
    pub(crate) at: f64,
}

impl Court {
    pub(crate) fn new() -> Self {
        let notes = Notes::new();
        fs::create_dir(notes.path("marks")).unwrap();
        Self(notes)
    }

    /// The words for a job that lasts so long and ends with this code.
    pub(crate) fn job(&self, span: Duration, code: i32) -> Vec<OsString> {
        let mut words = self.0.job(WITNESS);
        words.extend([span.as_secs_f64().to_string().into(), code.to_string().into()]);
        words
    }

    /// What the jobs say of their starts.
    pub(crate) fn starts(&self) -> Vec<Testimony> {
        self.testimonies("start")
    }

    /// What they say of their ends; those that were killed say nothing.
    pub(crate) fn ends(&self) -> Vec<Testimony> {
        self.testimonies("end")
    }

    fn testimonies(&self, of: &str) -> Vec<Testimony> {
        let testimony = |words: Vec<String>| Testimony {
            golock: words[0].parse().unwrap(),
            job: Pid::from_raw(words[1].parse().unwrap()).unwrap(),
            born: words[2].clone(),
            at: words[3].parse().unwrap(),
        };
        self.told(of).map(testimony).collect()
    }

    /// The overlaps that jobs have seen.
    pub(crate) fn overlaps(&self) -> Vec<Overlap> {
        let overlap = |words: Vec<String>| Overlap {
            golocks: [&words[0], &words[1]].map(|pid| pid.parse().unwrap()),
            at: words[2].parse().unwrap(),
        };
        self.told("overlap").map(overlap).collect()
    }

    /// The words of each line that begins with this one, which is left out.
    fn told(&self, of: &str) -> impl Iterator<Item = Vec<String>> {
        let log = self.0.read("log");
        let rest = |line: &str| line.strip_prefix(of)?.strip_prefix(' ').map(String::from);
        let lines: Vec<_> = log.lines().filter_map(rest).collect();
        lines.into_iter().map(|line| line.split(' ').map(String::from).collect())
    }
}

/// A host of which at most one golock runs at a time.
#[derive(Default)]
pub(crate) struct Host(Mutex<Option<Running>>);

impl Host {
    /// Runs golock once.
    pub(crate) fn run(&self, golock: &Golock) -> Done {
        self.start(golock);
        self.wait()
    }

    /// Starts golock.
    pub(crate) fn start(&self, golock: &Golock) -> Pid {
        self.0.lock().unwrap().insert(golock.spawn()).pid()
    }

    /// Waits until the golock that was started has ended.
    pub(crate) fn wait(&self) -> Done {
        // Whoever signals it holds the mutex, and so never hits another process that has got its number.
        until("golock ends", || self.0.lock().unwrap().as_mut().is_none_or(Running::has_ended));
        let ended = self.0.lock().unwrap().take();
        ended.unwrap().wait()
    }

    /// Sends a signal to the golock that runs, or to `only`; says to which.
    pub(crate) fn signal(&self, signal: Signal, only: Option<Pid>) -> Option<Pid> {
        let mut running = self.0.lock().unwrap();
        let golock = running.as_mut().filter(|golock| only.is_none_or(|pid| pid == golock.pid()))?;
        if golock.has_ended() {
            return None;
        }
        golock.signal(signal);
        Some(golock.pid())
    }
}

/// A time in which a golock could do nothing, because it, or the whole machine, stood still.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standstill {
    /// Nobody in particular: the machine.
    pub(crate) golock: Option<i32>,
    pub(crate) from: f64,
    pub(crate) to: f64,
}

impl Standstill {
    /// Whether this explains an overlap: it fell into this time, or into the moment after it in which golock still had
    /// to notice.
    pub(crate) fn explains(&self, overlap: &Overlap, least: f64) -> bool {
        const NOTICE: f64 = 2.0;
        self.golock.is_none_or(|golock| overlap.golocks.contains(&golock))
            && self.to - self.from >= least
            && self.from <= overlap.at
            && overlap.at <= self.to + NOTICE
    }
}

/// Watches whether the machine runs this thread when it should, as long as `wanted`.
pub(crate) fn watch_machine(wanted: impl Fn() -> bool) -> Vec<Standstill> {
    let (mut stops, mut last) = (Vec::new(), uptime());
    holds_within(Duration::MAX, || {
        let now = uptime();
        if now - last > 0.1 {
            stops.push(Standstill { golock: None, from: last, to: now });
        }
        last = now;
        !wanted()
    });
    stops
}
