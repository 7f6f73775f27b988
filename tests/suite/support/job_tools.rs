//! Jobs that leave notes of what they see, and ways to look at a running process.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Pid, Signal};
use tempfile::TempDir;

use super::golock::Golock;
use super::wait::until;

/// The signals that golock forwards, with the names that shells know them by.
pub(crate) const FORWARDED: [(&str, Signal); 6] = [
    ("HUP", Signal::HUP),
    ("INT", Signal::INT),
    ("QUIT", Signal::QUIT),
    ("TERM", Signal::TERM),
    ("USR1", Signal::USR1),
    ("USR2", Signal::USR2),
];

/// Words of shell that run a command with no signal ignored, even if the tests run in the background or under nohup. A
/// shell cannot do it: what it inherits as ignored stays so.
pub(crate) const UNIGNORED: &str = r#"perl -e '$SIG{$_} = "DEFAULT" for qw(HUP INT QUIT CHLD); exec @ARGV'"#;

/// A prelude after which no signal is ignored, and none leaves a core file.
pub(crate) fn pristine() -> String {
    format!(r#"ulimit -c 0; exec {UNIGNORED} "$0" "$@""#)
}

/// A wait that goes on for ever, by any measure of these tests.
pub(crate) const EVER: &str = "1000000";

/// A line of shell that waits until the test is done with the notes, and ends also when the test has failed.
pub(crate) const WHILE_NOTED: &str = r#"while [ -d "$0" ] && [ ! -e "$0/open" ]; do sleep 0.02; done"#;

/// golock on this port of 127.0.0.1, without grace, and reconnecting at once.
pub(crate) fn graceless(port: u16) -> Golock {
    Golock::new(port).set("GRACE", "0").set("RECONNECT_BACKOFF", "0")
}

/// The golock that is tested, for a job that calls it.
pub(crate) fn binary() -> OsString {
    std::env::var_os("GOLOCK_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_golock").into())
}

/// A folder that a shell job knows as `$0`, in which it and the test leave each other notes.
pub(crate) struct Notes(TempDir);

impl Notes {
    pub(crate) fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    /// The folder, free of symbolic links.
    pub(crate) fn folder(&self) -> PathBuf {
        fs::canonicalize(self.0.path()).unwrap()
    }

    /// The words that golock gets as COMMAND and ARGs to run `script`.
    pub(crate) fn job(&self, script: &str) -> Vec<OsString> {
        vec!["sh".into(), "-c".into(), script.into(), self.folder().into()]
    }

    pub(crate) fn path(&self, note: &str) -> PathBuf {
        self.folder().join(note)
    }

    pub(crate) fn write(&self, note: &str, text: impl AsRef<[u8]>) {
        fs::write(self.path(note), text).unwrap();
    }

    /// Puts a script into the folder that can be executed.
    #[track_caller]
    pub(crate) fn executable(&self, note: &str, text: &str) -> PathBuf {
        let draft = format!("{note}.draft");
        self.write(&draft, text);
        copy_executable(self.path(&draft), self.path(note));
        self.path(note)
    }

    fn allow(&self, note: &str, mode: u32) -> PathBuf {
        fs::set_permissions(self.path(note), fs::Permissions::from_mode(mode)).unwrap();
        self.path(note)
    }

    /// What a note says; nothing, if it is not there.
    pub(crate) fn read(&self, note: &str) -> String {
        String::from_utf8_lossy(&self.bytes(note)).into_owned()
    }

    /// The same, byte for byte.
    pub(crate) fn bytes(&self, note: &str) -> Vec<u8> {
        fs::read(self.path(note)).unwrap_or_default()
    }

    /// Waits until a note says enough, and returns it.
    #[track_caller]
    pub(crate) fn wait_for(&self, note: &str, enough: impl Fn(&str) -> bool) -> String {
        until(&format!("the note {note:?} says enough"), || enough(&self.read(note)));
        self.read(note)
    }

    /// Waits until a note has at least this many lines, and returns them.
    #[track_caller]
    pub(crate) fn lines(&self, note: &str, least: usize) -> Vec<String> {
        let text = self.wait_for(note, |text| text.matches('\n').count() >= least);
        text.lines().map(String::from).collect()
    }

    /// Waits for a note that is a process id.
    #[track_caller]
    pub(crate) fn pid(&self, note: &str) -> Pid {
        Pid::from_raw(self.lines(note, 1)[0].trim().parse().unwrap()).unwrap()
    }

    /// A prelude that sends golock's stderr into a note, where it can be read while golock runs.
    pub(crate) fn stderr_into(&self, note: &str) -> String {
        format!("exec 2>{}", quoted(&self.path(note)))
    }
}

/// A path as one word of a shell.
pub(crate) fn quoted(path: &Path) -> String {
    format!("'{}'", path.to_str().unwrap().replace('\'', r"'\''"))
}

/// What `/proc/PID/status` says about a process.
#[cfg(target_os = "linux")]
pub(crate) fn status(pid: Pid) -> String {
    fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default()
}

/// Whether the process of this status waits for something to happen.
#[cfg(target_os = "linux")]
pub(crate) fn sleeps(status: &str) -> bool {
    field(status, "State").starts_with('S')
}

/// A field of such a text.
#[cfg(target_os = "linux")]
#[track_caller]
pub(crate) fn field<'t>(status: &'t str, name: &str) -> &'t str {
    let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    value.unwrap_or_else(|| panic!("no {name} in {status:?}")).trim()
}

/// Whether the set of signals in this field holds `signal`.
#[cfg(target_os = "linux")]
#[track_caller]
pub(crate) fn has_signal(status: &str, name: &str, signal: Signal) -> bool {
    signals(status, name) & (1 << (signal.as_raw() - 1)) != 0
}

/// The set of signals in this field; signal N is bit N - 1. Those from 32 on are the C library's own.
#[cfg(target_os = "linux")]
#[track_caller]
pub(crate) fn signals(status: &str, name: &str) -> u64 {
    u64::from_str_radix(field(status, name), 16).unwrap() & 0x7fff_ffff
}

/// The names of all settings.
pub(crate) const SETTINGS: [&str; 34] = [
    "HOST",
    "PORT",
    "USER",
    "AUTH",
    "AUTH_FILE",
    "DB",
    "URL",
    "REDIS_TIMEOUT",
    "RECONNECT_ATTEMPTS",
    "RECONNECT_BACKOFF",
    "GRACE",
    "RELEASE",
    "TIMEOUT",
    "KILL_AFTER",
    "KEY",
    "KEY_FORMAT",
    "PREFIX",
    "RESET",
    "VERBOSE",
    "SHOW_KEY",
    "TLS",
    "TLS_SKIP_VERIFY",
    "TLS_CA",
    "TLS_CERT",
    "TLS_KEY",
    "TLS_NAME",
    "LEASE",
    "WAIT",
    "SKIP_EXIT",
    "RECORD",
    "MAX_AGE",
    "LOCAL",
    "LOCAL_DIR",
    "CONFIG",
];

/// Where a setting is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Option,
    Environment,
    File,
}

/// A golock of which nothing is set but what a test gives, each at a place of the test's choice.
pub(crate) struct Layers {
    notes: Notes,
    golock: Golock,
    options: Vec<OsString>,
    lines: String,
}

impl Layers {
    pub(crate) fn new() -> Self {
        let notes = Notes::new();
        let golock = Golock::new(0).unset("HOST").unset("PORT").set("CONFIG", notes.path("conf"));
        Self { notes, golock, options: Vec::new(), lines: String::new() }
    }

    /// Gives a setting: as `--name=value`, as a variable, or as a further line of the config file.
    #[must_use]
    pub(crate) fn given(mut self, source: Source, name: &str, value: &str) -> Self {
        match source {
            Source::Option => self.options.push(format!("{}={value}", option(name)).into()),
            Source::Environment => self.golock = self.golock.set(name, value),
            Source::File => self.lines.extend(["CRONLOCK_", name, "='", value, "'\n"]),
        }
        self
    }

    /// What golock calls the place of a setting, which is on this line if it is in the file.
    pub(crate) fn place(&self, source: Source, name: &str, line: usize) -> String {
        match source {
            Source::Option => option(name),
            Source::Environment => format!("CRONLOCK_{name}"),
            Source::File => format!("{}:{line}: CRONLOCK_{name}", self.notes.path("conf").display()),
        }
    }

    /// The folder of the config file.
    pub(crate) fn notes(&self) -> &Notes {
        &self.notes
    }

    /// Puts a file beside the config file that nobody else may read.
    pub(crate) fn write(&self, note: &str, text: impl AsRef<[u8]>) -> PathBuf {
        self.notes.write(note, text);
        self.notes.allow(note, 0o600)
    }

    /// golock, whose next arguments come behind the options.
    pub(crate) fn golock(&self) -> Golock {
        self.notes.write("conf", &self.lines);
        self.golock.clone().args(&self.options)
    }
}

/// The option of a setting.
pub(crate) fn option(name: &str) -> String {
    format!("--{}", name.to_lowercase().replace('_', "-"))
}

/// Copies a file that is then executed. Another process does it: had we written it, a child that another test is just
/// starting could still hold it open, and what is open for writing cannot be executed.
#[track_caller]
pub(crate) fn copy_executable(from: impl AsRef<Path>, to: impl AsRef<Path>) {
    assert!(Command::new("cp").arg(from.as_ref()).arg(to.as_ref()).status().unwrap().success());
    fs::set_permissions(to, fs::Permissions::from_mode(0o755)).unwrap();
}
