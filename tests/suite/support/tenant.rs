//! A job that runs under a lease until the test lets it end.

use std::ffi::OsString;

use rustix::process::Pid;

use super::golock::{Golock, Running};
use super::job_tools::{Notes, WHILE_NOTED, graceless};
use super::watch::is_alive;

/// The lock's full name.
pub(crate) const NAME: &str = "cronlock.leased";

/// Says which process it is, and ends with code 7 when the test says so.
pub(crate) const STEADY: &str = "";

/// Says when it is told to end, and does, with code 5.
pub(crate) const OBEDIENT: &str = r#"trap 'echo TERM >>"$0/log"; exit 5' TERM"#;

/// Says when it is told to end, and does not.
pub(crate) const STUBBORN: &str = r#"trap 'echo TERM >>"$0/log"' TERM"#;

/// golock with a lease of so many seconds, for the Redis on this port, without a command as yet.
pub(crate) fn leasing(port: u16, seconds: &str) -> Golock {
    graceless(port).set("KEY", "leased").set("LEASE", seconds)
}

/// The words for a job of this character, whose notes are `notes`.
pub(crate) fn job(notes: &Notes, character: &str) -> Vec<OsString> {
    // Shells report on stderr that a signal has ended their child.
    notes.job(&format!("exec 2>\"$0/err\"; {character}\necho $$ >\"$0/pid\"; {WHILE_NOTED}; exit 7"))
}

/// A job that runs, and the golock above it.
pub(crate) struct Tenant {
    pub(crate) notes: Notes,
    pub(crate) golock: Running,
    pub(crate) job: Pid,
}

impl Tenant {
    /// Starts a job of this character and waits until it runs.
    #[track_caller]
    pub(crate) fn start(golock: &Golock, character: &str) -> Self {
        let notes = Notes::new();
        let golock = golock.clone().args(job(&notes, character)).spawn();
        Self { job: notes.pid("pid"), notes, golock }
    }

    /// Whether the job is there.
    pub(crate) fn lives(&self) -> bool {
        is_alive(self.job)
    }

    /// Whether the job has been told to end.
    pub(crate) fn is_told(&self) -> bool {
        self.notes.path("log").exists()
    }

    /// Lets the job end by itself, and expects golock to have nothing to say.
    #[track_caller]
    pub(crate) fn finish(self) {
        self.notes.write("open", "");
        self.golock.wait().assert_silent(7);
    }
}
