//! Settings: one table, filled from options, environment and config file in this order, made into one [`Invocation`].
//!
//! A value that does not parse, or that contradicts another of the same source, is an error that names it; nothing is then
//! run.

mod file;
mod help;
mod settings;
mod table;
mod url;

pub use help::{help, version};
pub use settings::Source;
pub use table::{Id, Kind, PREFIX, Rank, Setting, TABLE};

use crate::job::Limits;
use crate::lock::{KeyFormat, name};
use crate::net::{Endpoint, Identity, Password, Server, TlsMode, TlsOptions, Trust};
use crate::process::Variables;
use crate::text::{Escaped, Line, Secret};
use crate::words;
use rustix::process::geteuid;
use settings::Settings;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What golock was called to do.
#[derive(Debug)]
pub enum Invocation<'a> {
    /// Print this text.
    Print(Vec<u8>),
    /// Run the command under the lock.
    Run(Config, &'a [OsString]),
    /// Do something else with the lock, or with all of them.
    Lock(LockAction, Config),
}

/// What is done with a lock where no command is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockAction {
    /// Delete it.
    Reset,
    /// Say what is known of it.
    Status,
    /// List all jobs, for people.
    List,
    /// The same for Prometheus.
    Metrics,
}

/// What is to be done, as far as the command line alone tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Action {
    #[default]
    Run,
    Status,
    List,
    Metrics,
    PrintKey,
    Help {
        all: bool,
    },
    Version,
}

/// Everything that the settings say, parsed and free of contradictions.
#[derive(Debug)]
pub struct Config {
    /// What stands before the names of all locks.
    pub prefix: Vec<u8>,
    /// The lock's full name.
    pub name: Vec<u8>,
    /// Where the lock is kept.
    pub backend: Backend,
    /// How long a lock persists at least; at most `release`.
    pub grace: Duration,
    /// How long a lock persists at most.
    pub release: Duration,
    /// The length of the lease, if the lock is held by one; at most `release`.
    pub lease: Option<Duration>,
    /// How long the record of a run is kept, if there is to be one.
    pub record: Option<Duration>,
    /// How old the last success may be.
    pub max_age: Option<Duration>,
    /// What ends a command that does not end by itself.
    pub limits: Limits,
    /// How long to wait for a held lock.
    pub wait: Duration,
    /// The exit code when the lock is held by another.
    pub skip_exit: u8,
    /// Whether to tell on stderr what happens.
    pub verbose: bool,
    /// Whether to print the lock's full name on stderr.
    pub show_key: bool,
    /// What VERBOSE tells of the settings.
    pub notes: Vec<Line>,
}

/// Where a lock is kept.
#[derive(Debug)]
pub enum Backend {
    /// In this Redis.
    Redis(Server),
    /// In this folder.
    Local(PathBuf),
}

/// Why the settings make no sense.
#[derive(Debug)]
pub struct Error {
    /// The words.
    pub why: Line,
    /// The command that does not run, as far as it was found.
    pub command: Option<OsString>,
}

impl<'a> Invocation<'a> {
    /// From the arguments without the program's name, and the environment.
    pub fn parse(args: &'a [OsString], env: &Variables) -> Result<Self, Error> {
        let mut settings = Settings::default();
        let parsed = Self::read(&mut settings, args, env);
        parsed.map_err(|why| Error { why, command: settings.command.first().cloned() })
    }

    fn read(settings: &mut Settings<'a>, args: &'a [OsString], env: &Variables) -> Result<Self, Line> {
        settings.read_options(args)?;
        match settings.action {
            Action::Help { all } => return Ok(Self::Print(help(all).into_bytes())),
            Action::Version => return Ok(Self::Print(version().into_bytes())),
            _ => {}
        }
        for (name, value) in env {
            settings.read_variable(name, value)?;
        }
        settings.read_file()?;
        settings.check_numbers()?;
        settle(settings)?;
        let config = Config::build(settings, env)?;
        let reset = settings.switch(Id::Reset);
        let needs_key = match settings.action {
            Action::List | Action::Metrics => false,
            Action::Run if !reset => true,
            _ => !settings.has(Id::Key),
        };
        if settings.command.is_empty() && needs_key {
            let runs = settings.action == Action::Run && !reset;
            return Err(if runs { "no command given; see golock --help" } else { "it needs a command or --key" }.into());
        }
        Ok(match settings.action {
            Action::Status => Self::Lock(LockAction::Status, config),
            Action::List => Self::Lock(LockAction::List, config),
            Action::Metrics => Self::Lock(LockAction::Metrics, config),
            Action::PrintKey => Self::Print([&config.name[..], b"\n"].concat()),
            _ if reset => Self::Lock(LockAction::Reset, config),
            _ => Self::Run(config, settings.command),
        })
    }
}

impl Config {
    fn build(settings: &mut Settings<'_>, env: &Variables) -> Result<Self, Line> {
        let release = settings.seconds(Id::Release);
        let prefix = settings.bytes(Id::Prefix).unwrap_or(Id::Prefix.row().default.as_bytes()).to_vec();
        Ok(Self {
            name: full_name(settings, &prefix)?,
            prefix,
            backend: match local_folder(settings, env)? {
                Some(folder) => Backend::Local(folder),
                None => Backend::Redis(server(settings, env)?),
            },
            grace: settings.seconds(Id::Grace).min(release),
            release,
            lease: settings.optional(Id::Lease).map(|lease| lease.min(release)),
            record: settings.optional(Id::Record),
            max_age: settings.optional(Id::MaxAge),
            limits: Limits { timeout: settings.optional(Id::Timeout), kill_after: settings.optional(Id::KillAfter) },
            wait: settings.seconds(Id::Wait),
            skip_exit: settings.number(Id::SkipExit),
            verbose: settings.switch(Id::Verbose),
            show_key: settings.switch(Id::ShowKey),
            notes: std::mem::take(&mut settings.notes),
        })
    }
}

/// Settles what excludes each other, and refuses what makes no sense together.
fn settle(settings: &mut Settings<'_>) -> Result<(), Line> {
    if settings.switch(Id::Local) {
        settings.exclude(Id::Local, Id::Lease)?;
        // In one environment, or one file, the place of Redis stands for the other jobs.
        for id in [Id::Host, Id::Url] {
            if settings.strength(id) > settings.strength(Id::Local) {
                settings.exclude(Id::Local, id)?;
            }
        }
    }
    settings.read_url()?;
    settings.exclude(Id::Auth, Id::AuthFile)?;
    for (one, other) in [(Id::TlsCert, Id::TlsKey), (Id::TlsKey, Id::TlsCert)] {
        if settings.has(one) && !settings.has(other) {
            return Err(needs(settings, one, other));
        }
    }
    if settings.has(Id::User) && !settings.has(Id::Auth) && !settings.has(Id::AuthFile) {
        return Err(needs(settings, Id::User, Id::Auth));
    }
    // In a file it may be meant for those jobs that have a TIMEOUT.
    let is_for_this_job = settings.strength(Id::KillAfter) > Some(0) && settings.optional(Id::KillAfter).is_some();
    if is_for_this_job && !settings.has(Id::Timeout) && !settings.has(Id::Lease) {
        return Err(needs(settings, Id::KillAfter, Id::Timeout));
    }
    let is_meant = settings.has(Id::Grace) && settings.strength(Id::Grace) >= settings.strength(Id::Release);
    if is_meant && settings.seconds(Id::Grace) > settings.seconds(Id::Release) {
        let release = settings.seconds(Id::Release).as_secs();
        return Err(words!("{}: it is longer than RELEASE, which is {} s", settings.place(Id::Grace), release));
    }
    Ok(())
}

fn needs(settings: &Settings<'_>, one: Id, other: Id) -> Line {
    words!("{} needs {}{}", settings.place(one), PREFIX, other.row().name)
}

/// The folder of the local locks, if the lock is to be one.
fn local_folder(settings: &Settings<'_>, env: &Variables) -> Result<Option<PathBuf>, Line> {
    if !settings.switch(Id::Local) {
        return Ok(None);
    }
    if let Some(id) = settings.options().find(|id| id.concerns_redis() && settings.strength(Id::Local) == Some(2)) {
        return Err(words!("{} means nothing to a local lock", settings.place(id)));
    }
    let found = match settings.path(Id::LocalDir) {
        Some(folder) => Some(folder),
        None if geteuid().is_root() => Some("/run/golock".into()),
        // Not $XDG_RUNTIME_DIR, which a session has and cron does not: the two would not see each other's locks.
        None => variable(env, "HOME").map(|home| Path::new(home).join(".local/state/golock")),
    };
    found.map(Some).ok_or_else(|| needs(settings, Id::Local, Id::LocalDir))
}

/// The value of a variable of others, unless it is empty.
fn variable<'e>(env: &'e Variables, name: &str) -> Option<&'e OsStr> {
    let (_, value) = env.iter().find(|(known, value)| known == name && !value.is_empty())?;
    Some(value)
}

/// Where Redis is, and how it is spoken to.
fn server(settings: &Settings<'_>, env: &Variables) -> Result<Server, Line> {
    let password = match (settings.bytes(Id::Auth), settings.path(Id::AuthFile)) {
        (Some(password), _) => Password::Given(Secret(password.to_vec())),
        (None, Some(path)) => Password::File(path),
        (None, None) => Password::None,
    };
    let tls = tls(settings, env)?;
    let endpoint = match settings.path(Id::Host).filter(|path| path.is_absolute()) {
        Some(_) if tls != TlsMode::Off => {
            return Err(words!("{}: a Unix socket does not speak TLS", settings.place(Id::Tls)));
        }
        Some(path) => Endpoint::Unix(path),
        None => Endpoint::Tcp(host(settings)?, settings.number(Id::Port)),
    };
    Ok(Server {
        endpoint,
        user: settings.bytes(Id::User).map(<[u8]>::to_vec),
        password,
        database: settings.number(Id::Db),
        tls,
        timeout: settings.seconds(Id::RedisTimeout),
        attempts: settings.number(Id::Attempts),
        backoff: settings.seconds(Id::Backoff),
    })
}

/// The host, without the brackets that an IPv6 address may have.
fn host(settings: &Settings<'_>) -> Result<String, Line> {
    let given = settings.bytes(Id::Host).unwrap_or(Id::Host.row().default.as_bytes());
    let place = || settings.place(Id::Host);
    let host = std::str::from_utf8(given).map_err(|_| settings.invalid(Id::Host, "not UTF-8"))?;
    if settings.is_by_url(Id::Host) {
        return Ok(host.to_owned());
    }
    if host.starts_with("unix:") {
        return Err(words!("{}: a Unix socket is named by its path alone, which begins with a slash", place()));
    }
    if host.contains("://") {
        return Err(words!("{}: it is a URL; that is {}URL", place(), PREFIX));
    }
    let (bare, behind) = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').unwrap_or((rest, "")),
        None => match host.split_once(':') {
            Some((name, port)) if !port.contains(':') => (name, &host[name.len()..]),
            _ => (host, ""),
        },
    };
    match behind.strip_prefix(':') {
        Some(port) => {
            let (host, port) = (Escaped(bare.as_bytes()), Escaped(port.as_bytes()));
            Err(words!("{}: it holds a port; write {}HOST={} and {}PORT={}", place(), PREFIX, host, PREFIX, port))
        }
        None => Ok(bare.to_owned()),
    }
}

/// How TLS is spoken, if it is.
fn tls(settings: &Settings<'_>, env: &Variables) -> Result<TlsMode, Line> {
    let skip = settings.switch(Id::TlsSkipVerify);
    if !settings.switch(Id::Tls) {
        return expects_tls(settings, skip).map_or(Ok(TlsMode::Off), Err);
    }
    let trust = match settings.path(Id::TlsCa).or_else(|| variable(env, "SSL_CERT_FILE").map(PathBuf::from)) {
        _ if skip => Trust::Anyone,
        Some(path) => Trust::File(path),
        None => Trust::BuiltIn,
    };
    let identity = settings.path(Id::TlsCert).zip(settings.path(Id::TlsKey));
    let identity = identity.map(|(chain, key)| Identity { chain, key });
    let text = |name: &[u8]| String::from_utf8(name.to_vec()).map_err(|_| settings.invalid(Id::TlsName, "not UTF-8"));
    let name = settings.bytes(Id::TlsName).map(text).transpose()?;
    Ok(TlsMode::On(TlsOptions { trust, identity, name }))
}

/// Whoever names a certificate thinks that TLS is on, unless somebody has said that it is off. A URL without TLS says so for
/// what is given at a weaker place.
fn expects_tls(settings: &Settings<'_>, skip: bool) -> Option<Line> {
    let about = [Id::TlsCa, Id::TlsCert, Id::TlsName, Id::TlsSkipVerify];
    let mut given = about.into_iter().filter(|&id| settings.has(id) && (id != Id::TlsSkipVerify || skip));
    if settings.is_by_url(Id::Tls) {
        let id = given.find(|&id| settings.strength(id) >= settings.strength(Id::Url))?;
        return Some(words!("{} needs TLS: write rediss:// in {}", settings.place(id), settings.place(Id::Url)));
    }
    given.next().filter(|_| !settings.has(Id::Tls)).map(|id| needs(settings, id, Id::Tls))
}

fn full_name(settings: &Settings<'_>, prefix: &[u8]) -> Result<Vec<u8>, Line> {
    let format = match settings.bytes(Id::KeyFormat) {
        None | Some(b"cronlock") => KeyFormat::Cronlock,
        Some(b"golock") => KeyFormat::Golock,
        _ => return Err(settings.invalid(Id::KeyFormat, "neither cronlock nor golock")),
    };
    let command: Vec<_> = settings.command.iter().map(|word| word.as_bytes()).collect();
    Ok(name(prefix, settings.bytes(Id::Key), &command, format))
}
