//! Settings: one table, filled from options, environment and config file in this order, made into one [`Invocation`].
//!
//! A value that does not parse, or that contradicts another, is an error that names it; nothing is then run.

mod collect;
mod file;
mod help;
mod table;
mod url;
mod value;

pub use collect::{Source, read_limited};
pub use help::{help, version};
pub use table::{Id, Kind, PREFIX, Rank, Setting, TABLE};

use crate::job::Limits;
use crate::lock::name;
use crate::net::{Endpoint, Identity, Login, Retry, Server, TlsMode, Trust};
use collect::{FILE_LIMIT, Given};
use rustix::process::geteuid;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What golock was called to do.
#[derive(Debug)]
pub enum Invocation<'a> {
    /// Run the command under the lock.
    Run(Config, &'a [OsString]),
    /// Delete the lock.
    Reset(Config),
    /// Say whether the lock is held.
    Status(Config),
    /// Print the lock's full name.
    PrintKey(Config),
    /// Print the help: the common settings, or all.
    Help(bool),
    /// Print the version.
    Version,
}

/// The same, as far as the command line alone tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Mode {
    #[default]
    Run,
    Status,
    PrintKey,
    Help,
    HelpAll,
    Version,
}

/// Everything that the settings say, parsed and free of contradictions.
#[derive(Debug)]
pub struct Config {
    /// The lock's full name.
    pub name: Vec<u8>,
    /// The folder of the local locks, if the lock is one.
    pub local: Option<PathBuf>,
    /// Where Redis is, and how it is spoken to.
    pub server: Server,
    /// The file that holds the password.
    pub auth_file: Option<PathBuf>,
    /// How long and how often to try.
    pub retry: Retry,
    /// How long a lock persists at least, and at most.
    pub grace: Duration,
    /// How long a lock persists at most.
    pub release: Duration,
    /// What ends a command that does not end by itself.
    pub limits: Limits,
    /// The length of the lease, if the lock is held by one.
    pub lease: Option<Duration>,
    /// How long to wait for a held lock.
    pub wait: Duration,
    /// The exit code when the lock is held by another.
    pub skip_exit: u8,
    /// Whether to tell on stderr what happens.
    pub verbose: bool,
    /// Whether to print the lock's full name on stderr.
    pub show_key: bool,
    /// Names that look like settings and are none.
    pub unknown: Vec<Vec<u8>>,
}

/// Why the settings make no sense.
#[derive(Debug)]
pub enum Error {
    /// This option is not understood, and why.
    Usage(String, &'static str),
    /// There is no command, and none of the options that do without.
    NoCommand,
    /// A value (not shown if secret) does not parse, and why.
    Invalid(Id, Source, Option<Vec<u8>>, &'static str),
    /// The second setting cannot be given with the first.
    Conflict(Id, Id),
    /// The first setting needs the second.
    Needs(Id, Id),
    /// A line of the config file is no plain assignment.
    FileLine(PathBuf, usize),
    /// A file cannot be read.
    Unreadable(PathBuf, io::Error),
    /// Cronlock's Sentinel support is asked for.
    Sentinel(Source),
    /// TLS is wanted over a Unix socket.
    SocketTls,
    /// A setting that means nothing to a local lock was given with it.
    LocalWith(Id),
}

impl<'a> Invocation<'a> {
    /// From the arguments without the program's name, and the environment.
    ///
    /// # Errors
    /// [`enum@Error`] says which.
    pub fn parse(args: &'a [OsString], env: impl IntoIterator<Item = (OsString, OsString)>) -> Result<Self, Error> {
        let mut given = Given::collect(args, env)?;
        match given.mode {
            Mode::Help => return Ok(Self::Help(false)),
            Mode::HelpAll => return Ok(Self::Help(true)),
            Mode::Version => return Ok(Self::Version),
            Mode::Run | Mode::Status | Mode::PrintKey => {}
        }
        let config = Config::build(&mut given)?;
        let reset = given.switch(Id::Reset);
        let runs = given.mode == Mode::Run && !reset;
        if given.command.is_empty() && (runs || !given.has(Id::Key)) {
            return Err(Error::NoCommand);
        }
        Ok(match given.mode {
            Mode::Status => Self::Status(config),
            Mode::PrintKey => Self::PrintKey(config),
            _ if reset => Self::Reset(config),
            _ => Self::Run(config, given.command),
        })
    }
}

impl Config {
    /// How long Redis keeps the lock without hearing from us.
    pub fn ttl(&self) -> Duration {
        self.lease.map_or(self.release, |lease| lease.min(self.release))
    }

    fn build(given: &mut Given<'_>) -> Result<Self, Error> {
        refuse_contradictions(given)?;
        Ok(Self {
            name: full_name(given)?,
            local: local_folder(given)?,
            server: server(given)?,
            auth_file: given.path(Id::AuthFile),
            retry: Retry {
                timeout: given.seconds(Id::RedisTimeout),
                attempts: given.number(Id::Attempts),
                backoff: given.seconds(Id::Backoff),
            },
            grace: given.seconds(Id::Grace),
            release: given.seconds(Id::Release),
            limits: Limits { timeout: given.optional(Id::Timeout), kill_after: given.optional(Id::KillAfter) },
            lease: given.optional(Id::Lease),
            wait: given.seconds(Id::Wait),
            skip_exit: given.number(Id::SkipExit),
            verbose: given.switch(Id::Verbose),
            show_key: given.switch(Id::ShowKey),
            unknown: std::mem::take(&mut given.unknown),
        })
    }
}

fn refuse_contradictions(given: &Given<'_>) -> Result<(), Error> {
    use Id::{Auth, AuthFile, Db, Host, Port, Tls, TlsCert, TlsKey, Url, User};
    let excluded =
        [(Url, Host), (Url, Port), (Url, User), (Url, Auth), (Url, AuthFile), (Url, Db), (Url, Tls), (Auth, AuthFile)];
    let both = |&(one, other): &(Id, Id)| given.has(one) && given.has(other);
    if let Some((one, other)) = excluded.into_iter().find(both) {
        return Err(Error::Conflict(one, other));
    }
    for (one, other) in [(TlsCert, TlsKey), (TlsKey, TlsCert)] {
        if given.has(one) && !given.has(other) {
            return Err(Error::Needs(one, other));
        }
    }
    if given.has(User) && !given.has(Auth) && !given.has(AuthFile) {
        return Err(Error::Needs(User, Auth));
    }
    Ok(())
}

/// The folder of the local locks, if the lock is to be one.
fn local_folder(given: &Given<'_>) -> Result<Option<PathBuf>, Error> {
    if !given.switch(Id::Local) {
        return Ok(None);
    }
    if let Some(id) = given.options().find(|id| id.concerns_redis()) {
        return Err(Error::LocalWith(id));
    }
    if given.optional(Id::Lease).is_some() {
        return Err(Error::Conflict(Id::Local, Id::Lease));
    }
    let found = match given.path(Id::LocalDir) {
        Some(folder) => Some(folder),
        None if geteuid().is_root() => Some("/run/golock".into()),
        // Not $XDG_RUNTIME_DIR, which a session has and cron does not: the two would not see each other's locks.
        None => given.variable("HOME").map(|home| Path::new(home).join(".local/state/golock")),
    };
    found.map(Some).ok_or(Error::Needs(Id::Local, Id::LocalDir))
}

/// Where Redis is, and how it is spoken to.
fn server(given: &Given<'_>) -> Result<Server, Error> {
    if let Some(url) = given.url()? {
        let login = Login { user: url.user, password: url.password, database: url.database };
        return Ok(Server { endpoint: Endpoint::Tcp(url.host, url.port), login, tls: tls(given, url.tls)? });
    }
    let login = Login { user: given.bytes(Id::User), password: given.bytes(Id::Auth), database: given.number(Id::Db) };
    let tls = tls(given, given.switch(Id::Tls))?;
    let endpoint = match given.path(Id::Host).filter(|path| path.is_absolute()) {
        Some(_) if tls != TlsMode::Off => return Err(Error::SocketTls),
        Some(path) => Endpoint::Unix(path),
        None => Endpoint::Tcp(given.host()?, given.number(Id::Port)),
    };
    Ok(Server { endpoint, login, tls })
}

/// How TLS is spoken, if it is `on`.
fn tls(given: &Given<'_>, on: bool) -> Result<TlsMode, Error> {
    let skip = given.switch(Id::TlsSkipVerify);
    if !on {
        // Where nobody has said that TLS is off, whoever names a certificate thinks that it is on.
        let certificate = [Id::TlsCa, Id::TlsCert].into_iter().find(|&id| given.has(id) && !given.has(Id::Tls));
        return certificate.map_or(Ok(TlsMode::Off), |id| Err(Error::Needs(id, Id::Tls)));
    }
    let trust = match given.path(Id::TlsCa).or_else(|| given.variable("SSL_CERT_FILE").map(PathBuf::from)) {
        _ if skip => Trust::Anyone,
        Some(path) => Trust::File(path),
        None => Trust::BuiltIn,
    };
    let identity = given.path(Id::TlsCert).zip(given.path(Id::TlsKey)).map(|(chain, key)| Identity { chain, key });
    Ok(TlsMode::On(trust, identity))
}

fn full_name(given: &Given<'_>) -> Result<Vec<u8>, Error> {
    let prefix = given.bytes(Id::Prefix).unwrap_or_else(|| Id::Prefix.row().default.into());
    let command: Vec<_> = given.command.iter().map(|word| word.as_bytes()).collect();
    Ok(name(&prefix, given.bytes(Id::Key).as_deref(), &command, given.key_format()?))
}

/// The password in the file at `path`, without one trailing newline.
///
/// # Errors
/// When the file cannot be read.
pub fn read_password(path: &Path) -> Result<Vec<u8>, Error> {
    let mut password =
        collect::read_limited(path, FILE_LIMIT).map_err(|error| Error::Unreadable(path.into(), error))?;
    password.pop_if(|last| *last == b'\n');
    Ok(password)
}

/// Whether everybody on this host can read the file at `path`.
pub fn is_public(path: &Path) -> bool {
    path.metadata().is_ok_and(|found| found.is_file() && found.mode() & 0o004 != 0)
}
