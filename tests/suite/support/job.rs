//! Jobs for golock to run, which leave traces that a test can count.

use std::ffi::OsString;
use std::fs;

use tempfile::TempDir;

use super::wait::until;

const MARK: &str = r#"echo "$$" >> "$0/ran""#;

/// Ends when the gate opens, and also when the test is gone and its folder with it.
const GATE: &str = r#"while [ -d "$0" ] && [ ! -e "$0/open" ]; do sleep 0.02; done"#;

/// A shell job and the folder in which it marks that it ran.
pub(crate) struct Job {
    dir: TempDir,
    script: String,
    code: u8,
}

impl Job {
    /// Ends at once with exit code `code`.
    pub(crate) fn exits(code: u8) -> Self {
        Self::script(MARK, code)
    }

    /// Runs until `open_gate`, then ends with exit code `code`.
    pub(crate) fn gated(code: u8) -> Self {
        Self::script(&format!("{MARK}; {GATE}"), code)
    }

    fn script(body: &str, code: u8) -> Self {
        Self { dir: TempDir::new().unwrap(), script: format!("{body}; exit {code}"), code }
    }

    /// The words that golock gets as COMMAND and ARGs.
    pub(crate) fn command(&self) -> Vec<OsString> {
        vec!["sh".into(), "-c".into(), (&self.script).into(), self.dir.path().into()]
    }

    /// The exit code with which this job ends.
    pub(crate) fn code(&self) -> i32 {
        self.code.into()
    }

    /// How often the job was started.
    pub(crate) fn runs(&self) -> usize {
        fs::read_to_string(self.dir.path().join("ran")).map_or(0, |marks| marks.lines().count())
    }

    /// Waits until the job has started.
    #[track_caller]
    pub(crate) fn wait_running(&self) {
        until("the job runs", || self.runs() > 0);
    }

    /// Lets a gated job end.
    pub(crate) fn open_gate(&self) {
        fs::write(self.dir.path().join("open"), "").unwrap();
    }
}
