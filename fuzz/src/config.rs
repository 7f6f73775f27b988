//! Settings: `ARGUMENTS^ENVIRONMENT^FILE`; or `=` and settings in three layers; or `@USER`, and on lines of their own
//! password, host, port, database and scheme of a URL.

use super::given::{Given, has_secret, text};
use super::layers::layers;
use super::message::assert_true;
use super::shown::assert_line;
use super::values::{is_more_than_host, number};
use golock::config::{Backend, Config, Id, Invocation, LockAction, PREFIX, help, version};
use golock::net::{Endpoint, Server};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

/// The longest span and the longest wait for Redis that the README allows, in seconds.
pub(crate) const LONGEST: u64 = 1_000_000_000;

/// Makes an invocation of any settings.
pub fn config(input: &[u8]) {
    match input.split_first() {
        Some((b'=', text)) => layers(text),
        Some((b'@', text)) => url(text),
        _ => anything(&Given::read(input)),
    }
}

/// What is accepted is within its range and known, what is not is named, and secrets are kept.
pub(crate) fn anything(given: &Given) {
    match given.parse() {
        Ok(Invocation::Print(text))
            if [help(false), help(true), version()].iter().any(|help| help.as_bytes() == text) => {}
        Ok(invocation) => {
            assert_known(given);
            match invocation {
                Invocation::Run(config, command) => {
                    assert!(given.args.ends_with(command) && !command.is_empty(), "{command:?} is not at the end");
                    assert_within_range(&config, given);
                }
                Invocation::Lock(_, config) => assert_within_range(&config, given),
                Invocation::Print(name) => assert_eq!(name.last(), Some(&b'\n'), "{}", name.escape_ascii()),
            }
        }
        Err(error) => {
            let message = error.why.to_string();
            assert_true(&message, given);
            let command = error.command.unwrap_or_default();
            assert!(command.is_empty() || given.args.contains(&command), "{} was not given", command.display());
            let told = [message.as_bytes(), command.as_bytes()].concat();
            assert!(!given.keeps_a_secret() || !has_secret(&told), "a secret is told: {}", told.escape_ascii());
        }
    }
}

/// All variables that are ours are settings, or known to be of no use here; the file holds none without its prefix.
fn assert_known(given: &Given) {
    let is_known = |short: &[u8]| {
        let is_of_others = [&b"NTPDATE"[..], b"USE_SENTINEL", b"LOCAL_VIP"].contains(&short);
        Id::named(short).is_some() || is_of_others || short.starts_with(b"SENTINEL_")
    };
    let names = given.env.iter().map(|(name, _)| name.as_bytes()).chain(given.file_lines().map(|(name, _)| name));
    for short in names.filter_map(|name| name.strip_prefix(PREFIX.as_bytes())) {
        assert!(is_known(short), "{PREFIX}{} is accepted in silence", short.escape_ascii());
    }
    // Behind another prefix it may be another's, unless the value is one of ours.
    let env = given.env.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    for (name, value) in env.chain(given.file_lines()) {
        let Some(short) = name.strip_prefix(b"GOLOCK_") else { continue };
        let is_setting = Id::named(short).is_some_and(|id| {
            // A file's value may be in quotes.
            ![Id::Key, Id::Url].contains(&id)
                && value.first().is_some_and(u8::is_ascii_digit)
                && number(id, value).is_some()
        });
        assert!(!is_setting, "GOLOCK_{} is accepted in silence", short.escape_ascii());
    }
    let stray = given.file_lines().find(|(name, _)| Id::named(name).is_some());
    assert!(stray.is_none(), "a name without its prefix is accepted in silence: {stray:?}");
}

fn assert_within_range(config: &Config, given: &Given) {
    let spans = |least| Duration::from_secs(least)..=Duration::from_secs(LONGEST);
    assert!(spans(1).contains(&config.release) && spans(0).contains(&config.wait));
    assert!(config.grace <= config.release && config.lease.is_none_or(|lease| spans(1).contains(&lease)));
    assert!(config.lease.is_none_or(|lease| lease <= config.release));
    let limits = [config.limits.timeout, config.limits.kill_after, config.record, config.max_age];
    assert!(limits.iter().flatten().all(|span| spans(1).contains(span)));
    if let Backend::Redis(server) = &config.backend {
        assert_server_within_range(server);
    }
    for note in config.notes.iter().map(ToString::to_string) {
        assert_line(&note);
        assert!(!given.keeps_a_secret() || !has_secret(note.as_bytes()), "a secret is told: {note}");
    }
}

fn assert_server_within_range(server: &Server) {
    let spans = |least| Duration::from_secs(least)..=Duration::from_secs(LONGEST);
    assert!(spans(1).contains(&server.timeout) && spans(0).contains(&server.backoff));
    assert!(server.attempts <= 1_000_000 && server.database <= 2_147_483_647);
    assert!(server.password.is_none() || server.auth_file.is_none(), "two passwords");
    assert!(server.user.is_none() || server.password.is_some() || server.auth_file.is_some());
    match &server.endpoint {
        Endpoint::Tcp(host, port) => assert!(*port != 0 && !host.is_empty(), "{:?}", server.endpoint),
        Endpoint::Unix(path) => assert!(path.is_absolute() && server.tls.is_none()),
    }
}

/// What a URL is made of.
struct Parts<'a> {
    user: &'a [u8],
    password: &'a [u8],
    host: &'a [u8],
    port: u32,
    database: u32,
    scheme: &'a str,
}

/// A URL made of its parts gives the same parts, or is refused.
fn url(input: &[u8]) {
    let mut lines = input.split(|&byte| byte == b'\n');
    let [user, password, host] = [(); 3].map(|()| lines.next().unwrap_or_default());
    let mut line = || str::from_utf8(lines.next().unwrap_or_default()).unwrap_or_default();
    let [port, database] = [6379, 0].map(|default| line().parse().unwrap_or(default));
    let scheme = Some(line()).filter(|scheme| !scheme.is_empty()).unwrap_or("redis");
    let parts = Parts { user, password, host, port, database, scheme };
    let has_nul = [user, password, host, scheme.as_bytes()].iter().any(|part| part.contains(&0));
    let is_fit = !has_nul && str::from_utf8(host).is_ok_and(|host| !host.is_empty());
    let is_fit = is_fit && ["redis", "rediss", "valkey", "valkeys"].contains(&scheme);
    let is_fit = is_fit && (1..=65_535).contains(&port) && database <= 2_147_483_647;
    let is_fit = is_fit && (user.is_empty() || !password.is_empty());
    // What begins with a slash is a Unix socket, as in HOST.
    let is_socket = host.starts_with(b"/");
    let is_fit = is_fit && !(is_socket && parts.is_tls()) && (is_socket || !is_more_than_host(host));
    let escaped = [user, password, host].map(|part| encoded(part).into_bytes());
    parts.assert_read([&escaped[0], &escaped[1], &escaped[2]], is_fit.into());
    // Where nobody has escaped anything, the host must not come out of the password, nor the password be cut.
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'.';
    if is_fit && host.iter().all(is_plain) && !user.contains(&b':') && !has_percent(&parts) {
        parts.assert_read([user, password, host], None);
    }
}

fn has_percent(parts: &Parts<'_>) -> bool {
    parts.user.contains(&b'%') || parts.password.contains(&b'%')
}

impl Parts<'_> {
    /// Reads the URL with user, password and host as they are `written`; whether it `is_fit`, if that is known.
    fn assert_read(&self, written: [&[u8]; 3], is_fit: Option<bool>) {
        let [user, password, host] = written;
        let behind = format!(":{}/{}", self.port, self.database);
        let start = [self.scheme.as_bytes(), b"://"].concat();
        let url = [b"--url=", &start[..], user, b":", password, b"@", host, behind.as_bytes()].concat();
        let args = vec![text(b"--status"), text(b"--key=k"), text(&url)];
        let given = Given { args, ..Given::default() };
        let shown = url.escape_ascii();
        match given.parse() {
            Err(error) => {
                assert_ne!(is_fit, Some(true), "{shown} gave {}", error.why);
                assert!(error.why.to_string().starts_with("--url"), "{shown} gave {}", error.why);
            }
            Ok(Invocation::Lock(LockAction::Status, Config { backend: Backend::Redis(server), .. })) => {
                assert_ne!(is_fit, Some(false), "{shown} gave {server:?}");
                self.assert_same(server, &shown.to_string());
            }
            Ok(other) => panic!("{shown} gave {other:?}"),
        }
    }

    fn is_tls(&self) -> bool {
        ["rediss", "valkeys"].contains(&self.scheme)
    }

    fn assert_same(&self, server: Server, url: &str) {
        let port = u16::try_from(self.port).unwrap_or_default();
        let tcp = Endpoint::Tcp(String::from_utf8_lossy(self.host).into_owned(), port);
        let is_socket = self.host.starts_with(b"/");
        assert_eq!(server.endpoint, if is_socket { Endpoint::Unix(text(self.host).into()) } else { tcp }, "{url}");
        let some = |part: &[u8]| (!part.is_empty()).then(|| part.to_vec());
        let password = server.password.map(|secret| secret.0);
        assert_eq!((server.user, password), (some(self.user), some(self.password)), "{url}");
        assert_eq!((server.database, server.tls.is_some()), (self.database, self.is_tls()), "{url}");
    }
}

/// `part` in percent-encoding, all of it that is not a letter or a digit.
fn encoded(part: &[u8]) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric();
    part.iter().map(|byte| if plain(byte) { char::from(*byte).to_string() } else { format!("%{byte:02x}") }).collect()
}
