//! What values of settings mean, by the README's rules, and what a configuration made of them is.

use super::config::LONGEST;
use super::given::{Given, text};
use super::layers::Settled;
use golock::config::{Backend, Config, Id, Kind};
use golock::net::{Endpoint, Server, TlsOptions, Trust};
use golock::text::Secret;
use std::path::PathBuf;
use std::time::Duration;

impl Settled {
    /// Asserts that `config` says the same.
    pub(crate) fn assert_same(&self, config: &Config) {
        let span = |id| Duration::from_secs(self.number(id));
        let some = |id| Some(span(id)).filter(|span| !span.is_zero());
        let release = span(Id::Release);
        assert_eq!((config.release, config.grace), (release, span(Id::Grace).min(release)));
        assert_eq!(config.lease, some(Id::Lease).map(|lease| lease.min(release)));
        assert_eq!((config.record, config.max_age), (some(Id::Record), some(Id::MaxAge)));
        assert_eq!((config.limits.timeout, config.limits.kill_after), (some(Id::Timeout), some(Id::KillAfter)));
        assert_eq!((config.wait, u64::from(config.skip_exit)), (span(Id::Wait), self.number(Id::SkipExit)));
        assert_eq!((config.verbose, config.show_key), (self.is_on(Id::Verbose), self.is_on(Id::ShowKey)));
        assert_eq!(config.prefix, self.value(Id::Prefix));
        if let Some(key) = self.some(Id::Key) {
            assert_eq!(config.name, [self.value(Id::Prefix), &key].concat());
        }
        match &config.backend {
            Backend::Local(folder) => {
                assert!(self.is_on(Id::Local));
                assert!(self.path(Id::LocalDir).is_none_or(|given| given == *folder));
            }
            Backend::Redis(server) => {
                assert!(!self.is_on(Id::Local));
                assert_eq!(*server, self.server());
            }
        }
    }

    fn path(&self, id: Id) -> Option<PathBuf> {
        self.some(id).map(|path| text(&path).into())
    }

    fn server(&self) -> Server {
        let number = |id| u32::try_from(self.number(id)).expect("a number that was checked");
        let host = self.value(Id::Host);
        let host = if self.said(Id::Host).is_some_and(|said| said.by_url) { Some(host) } else { bare_host(host) };
        let tcp = |host| {
            Endpoint::Tcp(String::from_utf8_lossy(host).into_owned(), u16::try_from(number(Id::Port)).expect("a port"))
        };
        let socket = self.path(Id::Host).filter(|path| path.is_absolute()).map(Endpoint::Unix);
        Server {
            endpoint: socket.unwrap_or_else(|| tcp(host.expect("a host that was checked"))),
            user: self.some(Id::User),
            password: self.some(Id::Auth).map(Secret),
            auth_file: self.path(Id::AuthFile),
            config_file: self.is_in_file(Id::Auth).then(|| Given::files()[0].clone().into()),
            database: number(Id::Db),
            tls: self.is_on(Id::Tls).then(|| self.tls()),
            timeout: Duration::from_secs(self.number(Id::RedisTimeout)),
            attempts: number(Id::Attempts),
            backoff: Duration::from_secs(self.number(Id::Backoff)),
        }
    }

    fn tls(&self) -> TlsOptions {
        let trust = match self.path(Id::TlsCa) {
            _ if self.is_on(Id::TlsSkipVerify) => Trust::Anyone,
            Some(path) => Trust::File("TLS_CA", path),
            None => Trust::BuiltIn,
        };
        let identity = self.path(Id::TlsCert).zip(self.path(Id::TlsKey));
        TlsOptions {
            trust,
            identity,
            name: self.some(Id::TlsName).map(|name| String::from_utf8_lossy(&name).into_owned()),
        }
    }
}

/// Whether no name or address of a host has any of this.
pub(crate) fn is_more_than_host(host: &[u8]) -> bool {
    host.iter().any(|byte| byte.is_ascii_whitespace() || matches!(byte, b'=' | b';'))
}

/// `host` without the brackets of an IPv6 address; none if a port, or anything else, stands behind it.
pub(crate) fn bare_host(host: &[u8]) -> Option<&[u8]> {
    let is_bracketed = host.starts_with(b"[") && host.contains(&b']');
    match host.strip_prefix(b"[") {
        Some(rest) if is_bracketed => rest.strip_suffix(b"]").filter(|bare| !bare.is_empty() && !bare.contains(&b']')),
        _ => (host.split(|&byte| byte == b':').count() != 2).then_some(host),
    }
}

/// The parts of a URL in which nothing is escaped; none for any other.
pub(crate) fn plain_url(url: &[u8]) -> Option<[(Id, Vec<u8>); 6]> {
    let (scheme, rest) = str::from_utf8(url).ok()?.split_once("://")?;
    let tls = ["redis", "valkey", "rediss", "valkeys"].iter().position(|known| *known == scheme)? > 1;
    let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
    let (login, address) = authority.split_once('@').unwrap_or(("", authority));
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    let (host, port) = address.split_once(':').unwrap_or((address, ""));
    let is_plain = |part: &str| part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
    let is_number = |id, text: &str| text.is_empty() || number(id, text.as_bytes()).is_some();
    let is_whole = !host.is_empty() && (user.is_empty() || !password.is_empty());
    let is_fit =
        [user, password, host].into_iter().all(is_plain) && is_number(Id::Port, port) && is_number(Id::Db, database);
    let tls = if tls { "yes" } else { "no" };
    let parts = [
        (Id::Host, host),
        (Id::Port, port),
        (Id::User, user),
        (Id::Auth, password),
        (Id::Db, database),
        (Id::Tls, tls),
    ];
    (is_whole && is_fit).then(|| parts.map(|(id, text)| (id, text.into())))
}

/// What `value` means for the number, span or switch `id`, and 0 for anything else; none where it means nothing.
pub(crate) fn number(id: Id, value: &[u8]) -> Option<u64> {
    let text = str::from_utf8(value).unwrap_or("?");
    match id.row().kind {
        Kind::Number(least, most) => digits(text).filter(|number| (least..=most).contains(number)),
        Kind::Time(_) => {
            let (least, zero_is_off) = match id {
                Id::RedisTimeout | Id::Release => (1, false),
                Id::Lease => (3, true),
                _ => (0, false),
            };
            let seconds = seconds(text).filter(|seconds| *seconds <= LONGEST)?;
            ((zero_is_off && seconds == 0) || seconds >= least).then_some(seconds)
        }
        Kind::Switch => {
            let is_one_of = |words: &str| words.split(' ').any(|word| text.eq_ignore_ascii_case(word));
            if is_one_of("yes true on 1 t") { Some(1) } else { is_one_of("no false off 0 f").then_some(0) }
        }
        Kind::Bytes | Kind::Secret | Kind::Path => Some(0),
    }
}

fn digits(text: &str) -> Option<u64> {
    let is_plain = !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit());
    text.parse().ok().filter(|_| is_plain)
}

/// Seconds, or numbers with units, the larger ones first.
fn seconds(text: &str) -> Option<u64> {
    let (mut rest, mut sum) = (text, None);
    for (unit, length) in [('d', 86_400), ('h', 3600), ('m', 60), ('s', 1)] {
        let Some((number, behind)) = rest.split_once(unit) else { continue };
        sum = Some(sum.unwrap_or(0_u64).checked_add(digits(number)?.checked_mul(length)?)?);
        rest = behind;
    }
    if sum.is_some() { sum.filter(|_| rest.is_empty()) } else { digits(text) }
}
