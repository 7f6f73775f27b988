//! What is recorded of a job's runs, and what `--status` makes of it: in a Redis of its own, or on one host.

use std::ffi::OsString;
use std::fmt::{self, Debug, Formatter};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use tempfile::TempDir;

use super::golock::Golock;
use super::job_tools::{Notes, WHILE_NOTED};
use super::redis::Server;

/// The lock's full name, and the key of its record.
pub(crate) const NAME: &str = "cronlock.job";
pub(crate) const RECORD: &str = "cronlock.run.{cronlock.job}";

/// Where locks and records are.
pub(crate) struct Ledger {
    server: Option<Server>,
    folder: TempDir,
}

impl Ledger {
    /// In Redis.
    #[track_caller]
    pub(crate) fn redis() -> Self {
        Self { server: Some(Server::start(&[])), folder: TempDir::new().unwrap() }
    }

    /// In the files of one host.
    pub(crate) fn local() -> Self {
        Self { server: None, folder: TempDir::new().unwrap() }
    }

    /// One of each.
    #[track_caller]
    pub(crate) fn both() -> [Self; 2] {
        [Self::redis(), Self::local()]
    }

    pub(crate) fn is_local(&self) -> bool {
        self.server.is_none()
    }

    /// Its Redis.
    #[track_caller]
    pub(crate) fn server(&self) -> &Server {
        self.server.as_ref().expect("a ledger in Redis")
    }

    /// Where the local locks are.
    pub(crate) fn locks(&self) -> PathBuf {
        self.folder.path().join("locks")
    }

    /// The file of the local lock.
    pub(crate) fn file(&self) -> PathBuf {
        self.locks().join(NAME)
    }

    /// The names of all files of local locks.
    pub(crate) fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.locks()).into_iter().flatten();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// golock with this ledger, without grace, for the lock [`NAME`].
    pub(crate) fn golock(&self) -> Golock {
        self.anonymous().set("KEY", "job")
    }

    /// The same without a key.
    pub(crate) fn anonymous(&self) -> Golock {
        let golock = match &self.server {
            Some(server) => Golock::new(server.port()),
            None => Golock::new(1).set("LOCAL_DIR", self.locks()).args(["--local"]),
        };
        golock.set("GRACE", "0").set("RECONNECT_BACKOFF", "0")
    }

    /// The record, byte for byte; empty, if there is none.
    #[track_caller]
    pub(crate) fn record(&self) -> String {
        if let Some(server) = &self.server {
            return server.get(RECORD).unwrap_or_default();
        }
        let text = fs::read(self.file()).unwrap_or_default();
        let line = text.split(|&byte| byte == b'\n').nth(1).unwrap_or_default();
        String::from_utf8_lossy(line).into_owned()
    }

    /// A field of the record.
    #[track_caller]
    pub(crate) fn field(&self, name: &str) -> String {
        let record = self.record();
        let value = record.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        value.unwrap_or_else(|| panic!("no {name} in {record:?}")).to_owned()
    }

    /// A field of the record that is a number.
    #[track_caller]
    pub(crate) fn number(&self, name: &str) -> u64 {
        self.field(name).parse().unwrap()
    }

    /// Puts anything in the place of the record.
    #[track_caller]
    pub(crate) fn forge(&self, record: &[u8]) {
        let Some(server) = &self.server else {
            let text = fs::read(self.file()).unwrap_or_default();
            let first = text.split(|&byte| byte == b'\n').next().filter(|line| !line.is_empty());
            let first = first.unwrap_or(b"0 0 1234567890123456789 9999999999999");
            fs::create_dir_all(self.locks()).unwrap();
            // Over what stands there: a job may have the file open.
            return fs::write(self.file(), [first, b"\n", record, b"\n"].concat()).unwrap();
        };
        redis::cmd("SET").arg(RECORD).arg(record).query::<()>(&mut server.connection()).unwrap();
    }

    /// What `--status` says.
    #[track_caller]
    pub(crate) fn status(&self) -> Facts {
        Facts::of(&self.golock())
    }

    /// What RELEASE does in a day where a host has died. A local lock is its job's.
    #[track_caller]
    pub(crate) fn expire(&self) {
        if let Some(server) = &self.server {
            server.query::<()>(&["DEL", NAME]);
        }
    }
}

impl Debug for Ledger {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_local() { "on one host" } else { "in Redis" })
    }
}

/// The line of `--status`, and its exit code.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) code: i32,
    pub(crate) line: String,
}

impl Facts {
    /// What this golock says of its lock.
    #[track_caller]
    pub(crate) fn of(golock: &Golock) -> Self {
        let done = golock.clone().args(["--status"]).run();
        assert_eq!(done.stderr, "");
        let line = done.stdout.strip_suffix('\n').unwrap_or_default().to_owned();
        assert!(!line.is_empty() && line.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{:?}", done.stdout);
        Self { code: done.code, line }
    }

    /// The lock's name and its state.
    pub(crate) fn head(&self) -> String {
        self.line.split(' ').take(2).collect::<Vec<_>>().join(" ")
    }

    /// The names of its fields, in their order.
    pub(crate) fn fields(&self) -> Vec<&str> {
        self.line.split(' ').skip(2).map(|word| word.split_once('=').unwrap_or((word, "")).0).collect()
    }

    /// A field; empty, if it is not there.
    pub(crate) fn get(&self, name: &str) -> &str {
        let mut words = self.line.split(' ').skip(2);
        words.find_map(|word| word.strip_prefix(name)?.strip_prefix('=')).unwrap_or_default()
    }

    /// A time in Unix seconds, as date(1) reads it.
    #[track_caller]
    pub(crate) fn second(&self, name: &str) -> u64 {
        let read = Command::new("date").args(["-u", "-d", self.get(name), "+%s"]).output().unwrap();
        String::from_utf8(read.stdout).unwrap().trim().parse().unwrap_or_else(|_| panic!("{name} of {}", self.line))
    }
}

/// Milliseconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis().try_into().unwrap()
}

/// This host's name.
pub(crate) fn host() -> String {
    rustix::system::uname().nodename().to_str().unwrap().to_owned()
}

/// A job that writes down what it sees, and then runs `script`.
pub(crate) struct Witness(Notes);

impl Witness {
    pub(crate) fn new() -> Self {
        Self(Notes::new())
    }

    pub(crate) fn notes(&self) -> &Notes {
        &self.0
    }

    /// The words of the job.
    pub(crate) fn job(&self, script: &str) -> Vec<OsString> {
        let told = r#"exec 2>/dev/null; echo "$$ $PPID ${GOLOCK_FENCE-none} $(date +%s%3N)" >"$0/began""#;
        self.0.job(&format!("{told}; {script}"))
    }

    /// The words of one that first waits for [`Self::open`].
    pub(crate) fn gated(&self, script: &str) -> Vec<OsString> {
        self.job(&format!("{WHILE_NOTED}; {script}"))
    }

    pub(crate) fn open(&self) {
        self.0.write("open", "");
    }

    /// What it wrote: its process id, that of what has started it, its fence, and when.
    #[track_caller]
    pub(crate) fn began(&self) -> [u64; 4] {
        let words = self.0.lines("began", 1).remove(0);
        let numbers: Vec<_> = words.split(' ').map(|word| word.parse().unwrap()).collect();
        numbers.try_into().unwrap()
    }
}
