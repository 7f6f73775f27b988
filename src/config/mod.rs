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
pub use settings::LockAction;
pub use table::{Id, Kind, PREFIX, Rank, Setting, TABLE};

use crate::job::Limits;
use crate::lock::{KeyFormat, name};
use crate::net::{Endpoint, Server, TlsOptions, Trust};
use crate::process::Variables;
use crate::text::{Escaped, Line, Secret};
use crate::words;
use rustix::process::geteuid;
use settings::{Action, Settings, Source};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What golock was called to do.
#[derive(Debug)]
#[allow(missing_docs)]
pub enum Invocation<'a> {
    /// Print this text.
    Print(Vec<u8>),
    /// Run the command under the lock.
    Run(Config, &'a [OsString]),
    Lock(LockAction, Config),
}

/// Everything that the settings say, parsed and free of contradictions.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct Config {
    /// What stands before the names of all locks.
    pub prefix: Vec<u8>,
    /// The lock's full name.
    pub name: Vec<u8>,
    pub backend: Backend,
    /// At most `release`.
    pub grace: Duration,
    pub release: Duration,
    /// At most `release`.
    pub lease: Option<Duration>,
    /// How long the record of a run is kept, if there is to be one.
    pub record: Option<Duration>,
    pub max_age: Option<Duration>,
    pub limits: Limits,
    pub wait: Duration,
    pub skip_exit: u8,
    pub verbose: bool,
    pub show_key: bool,
    /// What VERBOSE tells of the settings.
    pub notes: Vec<Line>,
}

/// Where a lock is kept.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one")]
#[allow(missing_docs)]
pub enum Backend {
    Redis(Server),
    /// In this folder.
    Local(PathBuf),
}

/// Why the settings make no sense, and the command that does not run, if it was found.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct Error {
    pub why: Line,
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
            Action::Help(all) => return Ok(Self::Print(help(all).into_bytes())),
            Action::Version => return Ok(Self::Print(version().into_bytes())),
            _ => {}
        }
        settings.read_environment(env)?;
        settings.read_file()?;
        settings.check_numbers()?;
        settle(settings)?;
        let resets = settings.switch(Id::Reset) && settings.source(Id::Reset) == Some(Source::Option);
        if resets && !matches!(settings.action, Action::Run) {
            return Err("--reset does nothing beside --status, --list, --metrics or --print-key".into());
        }
        let config = Config::build(settings, env)?;
        let is_nameless = settings.command.is_empty() && !settings.has(Id::Key);
        Ok(match settings.action {
            Action::Lock(LockAction::List | LockAction::Metrics) if !settings.command.is_empty() => {
                return Err("--list and --metrics take no command: they tell of all jobs under PREFIX".into());
            }
            Action::Lock(action @ (LockAction::List | LockAction::Metrics)) => Self::Lock(action, config),
            Action::Run if !settings.switch(Id::Reset) && settings.command.is_empty() => {
                return Err("no command given; see golock --help".into());
            }
            _ if is_nameless => return Err("it needs a command or --key".into()),
            Action::Lock(action) => Self::Lock(action, config),
            Action::PrintKey => Self::Print([&config.name[..], b"\n"].concat()),
            _ if settings.switch(Id::Reset) => Self::Lock(LockAction::Reset, config),
            _ => Self::Run(config, settings.command),
        })
    }
}

impl Config {
    /// The Redis that keeps the lock, if one does.
    pub fn server(&self) -> Option<&Server> {
        if let Backend::Redis(server) = &self.backend { Some(server) } else { None }
    }

    fn build(settings: &mut Settings<'_>, env: &Variables) -> Result<Self, Line> {
        let release = settings.seconds(Id::Release);
        let format = match settings.text(Id::KeyFormat) {
            b"cronlock" => KeyFormat::Cronlock,
            b"golock" => KeyFormat::Golock,
            _ => return Err(settings.invalid(Id::KeyFormat, "neither cronlock nor golock")),
        };
        let (prefix, command) = (settings.text(Id::Prefix), settings.command.iter().map(|word| word.as_bytes()));
        Ok(Self {
            prefix: prefix.to_vec(),
            name: name(prefix, settings.bytes(Id::Key), &command.collect::<Vec<_>>(), format),
            backend: if settings.switch(Id::Local) {
                Backend::Local(local_folder(settings, env)?)
            } else {
                Backend::Redis(server(settings, env)?)
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

/// Settles settings that exclude each other, and refuses those that make no sense together.
fn settle(settings: &mut Settings<'_>) -> Result<(), Line> {
    use Id::{Auth, AuthFile, Grace, Host, KillAfter, Lease, Local, Release, Timeout, TlsCert, TlsKey, Url, User};
    if settings.switch(Local) {
        if settings.switch(Lease) {
            settings.exclude(Local, Lease)?;
        }
        // In the same source, which jobs may share, HOST and URL are for the other jobs.
        for id in [Host, Url] {
            if settings.source(id) > settings.source(Local) {
                settings.exclude(Local, id)?;
            }
        }
    }
    settings.read_url()?;
    settings.exclude(Auth, AuthFile)?;
    // In a file KILL_AFTER may be meant for those jobs that have a TIMEOUT.
    let kills = settings.source(KillAfter) > Some(Source::File) && settings.switch(KillAfter);
    let pairs =
        [(TlsCert, TlsKey, TlsKey), (TlsKey, TlsCert, TlsCert), (User, Auth, AuthFile), (KillAfter, Timeout, Lease)];
    for (one, other, or) in pairs {
        let counts = if one == KillAfter { kills } else { settings.has(one) };
        if counts && !settings.has(other) && !settings.has(or) {
            return Err(needs(settings, one, other));
        }
    }
    let is_meant = settings.has(Grace) && settings.source(Grace) >= settings.source(Release);
    if is_meant && settings.seconds(Grace) > settings.seconds(Release) {
        let release = settings.seconds(Release).as_secs();
        return Err(words!("{}: it is longer than RELEASE, which is {} s", settings.place(Grace), release));
    }
    Ok(())
}

fn needs(settings: &Settings<'_>, one: Id, other: Id) -> Line {
    words!("{} needs {}", settings.place(one), settings.alike(one, other))
}

/// The folder of the local locks.
fn local_folder(settings: &Settings<'_>, env: &Variables) -> Result<PathBuf, Line> {
    let is_option = settings.source(Id::Local) == Some(Source::Option);
    if let Some(id) = settings.options().find(|id| is_option && id.concerns_redis()) {
        return Err(words!("{} means nothing to a local lock", settings.place(id)));
    }
    // Not $XDG_RUNTIME_DIR, which a session has and cron does not: the two would not see each other's locks.
    let home = || variable(env, "HOME").map(Path::new).filter(|home| home.is_absolute());
    let of_user = || home().map(|home| home.join(".local/state/golock"));
    let default = || if geteuid().is_root() { Some("/run/golock".into()) } else { of_user() };
    match settings.path(Id::LocalDir) {
        // From another folder it would be another lock.
        Some(folder) if folder.is_relative() => Err(settings.invalid(Id::LocalDir, "not an absolute path")),
        given => given.or_else(default).ok_or_else(|| needs(settings, Id::Local, Id::LocalDir)),
    }
}

/// The value of a variable that is not golock's, unless it is empty.
fn variable<'e>(env: &'e Variables, name: &str) -> Option<&'e OsStr> {
    env.get(name).filter(|value| !value.is_empty())
}

/// Where Redis is, and how it is spoken to.
fn server(settings: &Settings<'_>, env: &Variables) -> Result<Server, Line> {
    let tls = tls(settings, env)?;
    let endpoint = match settings.path(Id::Host).filter(|path| path.is_absolute()) {
        Some(_) if tls.is_some() => {
            return Err(words!("{}: a Unix socket does not speak TLS", settings.place(Id::Tls)));
        }
        Some(path) => Endpoint::Unix(path),
        None => Endpoint::Tcp(host(settings)?, settings.number(Id::Port)),
    };
    Ok(Server {
        endpoint,
        user: settings.bytes(Id::User).map(<[u8]>::to_vec),
        password: settings.bytes(Id::Auth).map(|password| Secret(password.to_vec())),
        auth_file: settings.path(Id::AuthFile),
        config_file: settings.secret_file(),
        database: settings.number(Id::Db),
        tls,
        timeout: settings.seconds(Id::RedisTimeout),
        attempts: settings.number(Id::Attempts),
        backoff: settings.seconds(Id::Backoff),
    })
}

/// The host, without the brackets that an IPv6 address may have.
fn host(settings: &Settings<'_>) -> Result<String, Line> {
    let (given, place) = (settings.text(Id::Host), settings.place(Id::Host));
    let utf8 = || std::str::from_utf8(given).map_err(|_| settings.invalid(Id::Host, "not UTF-8"));
    let is_more = given.iter().any(|byte| byte.is_ascii_whitespace() || b"=;".contains(byte));
    let more = || words!("{}: more than the name of a host", place);
    if settings.is_by_url(Id::Host) {
        return if is_more { Err(more()) } else { utf8().map(str::to_owned) };
    }
    if given.starts_with(b"unix:") {
        return Err(words!("{}: a Unix socket is named by its path alone, which begins with a slash", place));
    }
    // What stands there may be a password: the value is shown only below.
    if given.windows(3).any(|part| part == b"://") {
        return Err(words!("{}: it is a URL; that is {}", place, settings.alike(Id::Host, Id::Url)));
    }
    if given.contains(&b'@') {
        let url = settings.alike(Id::Host, Id::Url);
        return Err(words!("{}: it holds a user or a password; they belong into {}", place, url));
    }
    if is_more {
        return Err(more());
    }
    let host = utf8()?;
    let (bare, behind) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some(parts) => parts,
        // More than one colon is an IPv6 address.
        None if host.matches(':').count() == 1 => host.split_at(host.find(':').unwrap_or(host.len())),
        None => (host, ""),
    };
    if let Some(port) = behind.strip_prefix(':') {
        let parts = (Escaped(bare.as_bytes()), settings.alike(Id::Host, Id::Port), Escaped(port.as_bytes()));
        let name = settings.alike(Id::Host, Id::Host);
        return Err(words!("{}: it holds a port; write {}={} and {}={}", place, name, parts.0, parts.1, parts.2));
    }
    let is_host = behind.is_empty() && !bare.is_empty();
    if is_host { Ok(bare.to_owned()) } else { Err(settings.invalid(Id::Host, "not a host")) }
}

/// How TLS is spoken, if it is.
fn tls(settings: &Settings<'_>, env: &Variables) -> Result<Option<TlsOptions>, Line> {
    if !settings.switch(Id::Tls) {
        return expects_tls(settings).map_or(Ok(None), Err);
    }
    let of_all = || variable(env, "SSL_CERT_FILE").map(PathBuf::from);
    let trust = match settings.path(Id::TlsCa) {
        _ if settings.switch(Id::TlsSkipVerify) => Trust::Anyone,
        Some(path) => Trust::File("TLS_CA", path),
        None => of_all().map_or(Trust::BuiltIn, |path| Trust::File("SSL_CERT_FILE", path)),
    };
    let identity = settings.path(Id::TlsCert).zip(settings.path(Id::TlsKey));
    let name = settings.bytes(Id::TlsName).map(|name| String::from_utf8(name.to_vec())).transpose();
    let name = name.map_err(|_| settings.invalid(Id::TlsName, "not UTF-8"))?;
    Ok(Some(TlsOptions { trust, identity, name }))
}

/// Whoever names a certificate thinks that TLS is on, unless somebody has said that it is off. A URL without TLS says
/// so to weaker sources.
fn expects_tls(settings: &Settings<'_>) -> Option<Line> {
    let about = [Id::TlsCa, Id::TlsCert, Id::TlsName, Id::TlsSkipVerify].into_iter();
    let mut given = about.filter(|&id| settings.has(id) && (id != Id::TlsSkipVerify || settings.switch(id)));
    if settings.is_by_url(Id::Tls) {
        let id = given.find(|&id| settings.source(id) >= settings.source(Id::Url))?;
        return Some(words!("{} needs TLS: write rediss:// in {}", settings.place(id), settings.place(Id::Url)));
    }
    given.next().filter(|_| !settings.has(Id::Tls)).map(|id| needs(settings, id, Id::Tls))
}
