//! What befalls Redis, and when.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::runs::lock_name;
use crate::support::soak::{Dice, pass};
use crate::support::watch::uptime;
use crate::support::{Data, Golock, Server};

/// A kind of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// Redis is frozen (SIGSTOP) for a moment, or for longer than a lease.
    Frozen,
    /// Its clients are disconnected (CLIENT KILL).
    Disconnected,
    /// It is killed (SIGKILL), and started again with every write that it had acknowledged.
    Killed,
    /// It is killed, and started again without the last writes: what a kill costs that comes before the disk has them.
    Torn,
    /// It is killed, and started again without any data.
    Emptied,
    /// An operator deletes one lock, whoever holds it.
    Reset,
}

/// All kinds, those that tell the most in the least time several times.
const KINDS: [Kind; 10] = [
    Kind::Frozen,
    Kind::Frozen,
    Kind::Disconnected,
    Kind::Disconnected,
    Kind::Killed,
    Kind::Killed,
    Kind::Torn,
    Kind::Emptied,
    Kind::Reset,
    Kind::Reset,
];

/// Something that befell Redis.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trouble {
    pub(super) kind: Kind,
    /// The only lock that it concerns; without, all.
    pub(super) lock: Option<usize>,
    pub(super) from: f64,
    pub(super) to: f64,
}

impl Kind {
    /// Whether locks may be gone after it that were held before.
    pub(super) fn loses(self) -> bool {
        matches!(self, Self::Torn | Self::Emptied | Self::Reset)
    }
}

impl Trouble {
    /// Whether this lock may be gone after it, though it was held before.
    pub(super) fn loses(&self, lock: usize) -> bool {
        self.kind.loses() && self.lock.is_none_or(|only| only == lock)
    }

    /// Whether an exchange with Redis may fail or take long because of it.
    pub(super) fn disturbs(&self) -> bool {
        self.kind != Kind::Reset
    }

    /// Whether it falls into this time. The clock has steps of 10 ms.
    pub(super) fn falls_into(&self, from: f64, to: f64) -> bool {
        self.from <= to + 0.02 && from <= self.to + 0.02
    }
}

/// A redis-server that has every write on disk before it acknowledges it.
pub(super) struct Durable {
    // It ends before its folder.
    pub(super) server: Server,
    folder: TempDir,
}

impl Durable {
    pub(super) fn start() -> Self {
        let folder = TempDir::new().unwrap();
        let place = folder.path().to_str().unwrap();
        let server = Server::start(&["--appendonly", "yes", "--appendfsync", "always", "--dir", place]);
        Self { server, folder }
    }

    /// Brings trouble of one kind after the other over Redis until `end`.
    pub(super) fn suffer(&self, locks: usize, dice: &Dice, end: Instant) -> Vec<Trouble> {
        let mut troubles = Vec::new();
        loop {
            pass(dice.span(50, 800), end);
            if Instant::now() >= end {
                return troubles;
            }
            let kind = KINDS[dice.index(KINDS.len())];
            let lock = (kind == Kind::Reset).then(|| dice.index(locks));
            let from = uptime();
            self.cause(kind, lock.unwrap_or_default(), dice, end);
            troubles.push(Trouble { kind, lock, from, to: uptime() });
        }
    }

    fn cause(&self, kind: Kind, lock: usize, dice: &Dice, end: Instant) {
        match kind {
            Kind::Frozen => {
                self.server.stop();
                pass(absence(dice), end);
                self.server.cont();
            }
            Kind::Disconnected => {
                let _: i64 = self.server.query(&["CLIENT", "KILL", "TYPE", "normal"]);
            }
            Kind::Killed => self.kill(dice, end, |_| {}),
            Kind::Emptied => self.kill(dice, end, |folder| {
                fs::remove_dir_all(folder).unwrap();
                fs::create_dir(folder).unwrap();
            }),
            Kind::Torn => {
                let length = log_length(self.folder.path());
                pass(dice.span(20, 500), end);
                self.kill(dice, end, |folder| tear_log(folder, length, dice));
            }
            Kind::Reset => {
                let reset = Golock::new(self.server.port()).set("KEY", lock_name(lock)).args(["--reset"]);
                reset.run().assert_silent(200);
            }
        }
    }

    /// Kills the server, does something to its data, and starts it again.
    fn kill(&self, dice: &Dice, end: Instant, harm: impl FnOnce(&Path)) {
        self.server.kill();
        harm(self.folder.path());
        pass(absence(dice), end);
        self.server.restart(Data::Kept);
    }
}

/// How long Redis does not answer: for a moment, or for longer than a lease.
fn absence(dice: &Dice) -> Duration {
    if dice.below(4) == 0 { dice.span(3000, 4000) } else { dice.span(0, 1000) }
}

/// The file to which the server appends its writes: since Redis 7 in a folder, as one of several.
fn log(folder: &Path) -> PathBuf {
    let entries = fs::read_dir(folder.join("appendonlydir")).into_iter().flatten();
    let mut parts = entries.map(|entry| entry.unwrap().path());
    parts.find(|part| part.to_string_lossy().ends_with(".incr.aof")).unwrap_or_else(|| folder.join("appendonly.aof"))
}

fn log_length(folder: &Path) -> u64 {
    fs::metadata(log(folder)).unwrap().len()
}

/// Cuts off some of what was appended since the log had this length, at any byte. The server ignores half a command at
/// the end.
fn tear_log(folder: &Path, least: u64, dice: &Dice) {
    let log = fs::OpenOptions::new().write(true).open(log(folder)).unwrap();
    let length = log.metadata().unwrap().len();
    log.set_len(least + dice.below(length - least + 1)).unwrap();
}
