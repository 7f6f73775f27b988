//! The program under test, started in an environment that holds only the settings a test gives.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::wait::{WATCHDOG, holds_within};

/// One golock command line and environment; it can be started any number of times.
#[derive(Clone)]
pub(crate) struct Golock {
    environment: Vec<(OsString, OsString)>,
    words: Vec<OsString>,
    prelude: String,
}

impl Golock {
    /// golock for the Redis on this port of 127.0.0.1; no config file, standard input empty.
    #[must_use]
    pub(crate) fn new(port: u16) -> Self {
        Self { environment: Vec::new(), words: Vec::new(), prelude: String::new() }
            .set("CONFIG", "/dev/null")
            .set("HOST", "127.0.0.1")
            .set("PORT", port.to_string())
    }

    /// Gives a setting through the environment: `set("GRACE", "0")` is `CRONLOCK_GRACE=0`.
    #[must_use]
    pub(crate) fn set(self, setting: &str, value: impl AsRef<OsStr>) -> Self {
        self.env(format!("CRONLOCK_{setting}"), value)
    }

    /// Leaves out a setting that was given through the environment. An empty value would unset what the config file says.
    #[must_use]
    pub(crate) fn unset(mut self, setting: &str) -> Self {
        let name = format!("CRONLOCK_{setting}");
        self.environment.retain(|(given, _)| *given != *name);
        self
    }

    /// Adds any other variable to the environment.
    #[must_use]
    pub(crate) fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.as_ref().into(), value.as_ref().into()));
        self
    }

    /// Adds words to the command line: options first, then COMMAND and its ARGs.
    #[must_use]
    pub(crate) fn args(mut self, words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.words.extend(words.into_iter().map(|word| word.as_ref().into()));
        self
    }

    /// Shell commands to run first in the process that becomes golock: `ulimit`, `trap`, redirections by `exec`.
    #[must_use]
    pub(crate) fn prelude(mut self, commands: &str) -> Self {
        self.prelude = commands.into();
        self
    }

    /// Starts it and waits for its end.
    #[track_caller]
    pub(crate) fn run(&self) -> Done {
        self.spawn().wait()
    }

    /// Starts it.
    #[track_caller]
    pub(crate) fn spawn(&self) -> Running {
        let (stdout, stderr) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        let mut command = self.command();
        command.stdin(Stdio::null()).stdout(stdout.try_clone().unwrap()).stderr(stderr.try_clone().unwrap());
        Running { child: command.spawn().expect("golock starts"), stdout, stderr }
    }

    /// As under cron there is no terminal, also where the tests have one: for that it needs a session of its own.
    fn command(&self) -> Command {
        let binary = env::var_os("GOLOCK_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_golock").into());
        let mut command = Command::new("setsid");
        if !self.prelude.is_empty() {
            command.args(["sh", "-c", &format!("{}; exec \"$0\" \"$@\"", self.prelude)]);
        }
        command.arg(binary);
        command.args(&self.words);
        for (name, _) in env::vars_os().filter(|(name, _)| is_setting(name)) {
            command.env_remove(name);
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }
}

fn is_setting(name: &OsStr) -> bool {
    [b"CRONLOCK_", b"GOLOCK_".as_slice()].iter().any(|prefix| name.as_encoded_bytes().starts_with(prefix))
}

/// A golock that was started. Output goes to files, so that a job that lives on cannot hold up the test.
pub(crate) struct Running {
    child: Child,
    stdout: File,
    stderr: File,
}

impl Running {
    /// Its process id.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Sends a signal to golock alone.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Whether it has ended; `wait` then returns at once.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for its end; one that never ends is killed and fails the test.
    #[track_caller]
    pub(crate) fn wait(mut self) -> Done {
        let ended = holds_within(WATCHDOG, || self.has_ended());
        self.child.kill().unwrap();
        let code = code(self.child.wait().unwrap());
        let done = Done { code, stdout: written(&mut self.stdout), stderr: written(&mut self.stderr) };
        assert!(ended, "golock did not end within {WATCHDOG:?}: {done:?}");
        done
    }
}

impl Drop for Running {
    /// For a test that fails while golock runs; after `wait` there is nothing left to kill.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| -status.signal().unwrap())
}

fn written(file: &mut File) -> String {
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// How a golock ended.
#[derive(Debug)]
pub(crate) struct Done {
    /// The exit code, or -N if signal N killed golock itself.
    pub(crate) code: i32,
    /// All of standard output, the job's included.
    pub(crate) stdout: String,
    /// All of standard error, the job's included.
    pub(crate) stderr: String,
}

impl Done {
    /// Asserts this exit code and no output at all.
    #[track_caller]
    pub(crate) fn assert_silent(&self, code: i32) {
        assert_eq!((self.code, &*self.stdout, &*self.stderr), (code, "", ""), "{self:?}");
    }

    /// Asserts this exit code and exactly one line on stderr, which holds every one of `parts`.
    #[track_caller]
    pub(crate) fn assert_one_line(&self, code: i32, parts: &[&str]) {
        assert_eq!((self.code, &*self.stdout), (code, ""), "{self:?}");
        let line = self.stderr.strip_suffix('\n').unwrap_or_default();
        assert!(!line.is_empty() && !line.contains(char::is_control), "not one line: {self:?}");
        for part in parts {
            assert!(line.contains(part), "{part:?} is not in {line:?}");
        }
    }
}
