//! The words for every error.

use super::Shown;
use crate::config::{self, Kind, PREFIX, Source};
use crate::job::Unfit;
use crate::net::{self, Endpoint, Failure};
use crate::store::LocalError;
use crate::{Error, lock, resp};
use std::fmt::{self, Display, Formatter};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;

impl Display for Error {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            Self::Unfit(program, _, Some(error)) => write!(f, "cannot run {}: {error}", Shown(program.as_bytes())),
            Self::Unfit(program, unfit, None) => {
                let why = match unfit {
                    Unfit::NotFound => "not found",
                    Unfit::NotExecutable => "not executable",
                };
                write!(f, "cannot run {}: {why}", Shown(program.as_bytes()))
            }
            Self::Held(_) => f.write_str("the lock is held by another"),
            Self::Stopped(signal) => write!(f, "stopped by signal {}", signal.as_raw()),
            Self::Redis(verb, name, error) => write!(f, "cannot {verb} the lock {}: {error}", Shown(name)),
            Self::Local(error) => error.fmt(f),
            Self::Tls(error) => write!(f, "cannot set up TLS: {error}"),
            Self::System(what, error) => write!(f, "cannot {what}: {error}"),
        }
    }
}

impl Display for config::Error {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(option, why) => write!(f, "{}: {why}; see golock --help", Shown(option.as_bytes())),
            Self::NoCommand => write!(f, "no command given; see golock --help"),
            Self::Invalid(id, source, value, why) => {
                match source {
                    Source::Option => write!(f, "--{}", id.row().option())?,
                    Source::Environment => write!(f, "{PREFIX}{}", id.row().name)?,
                    Source::File(path, line) => write!(f, "{}:{line}: {PREFIX}{}", Shown::path(path), id.row().name)?,
                }
                match value {
                    Some(value) => write!(f, ": \"{}\" is {why}", Shown(value))?,
                    None => write!(f, ": {why}")?,
                }
                match id.row().kind {
                    Kind::Number(least, most) => write!(f, " from {least} to {most}"),
                    Kind::Time(least) => write!(f, " from {least} s on"),
                    _ => Ok(()),
                }
            }
            Self::Conflict(one, other) => {
                write!(f, "{PREFIX}{} and {PREFIX}{} exclude each other", one.row().name, other.row().name)
            }
            Self::Needs(one, other) => write!(f, "{PREFIX}{} needs {PREFIX}{}", one.row().name, other.row().name),
            Self::FileLine(path, line) => {
                write!(f, "{}:{line}: not a plain NAME=value (single quotes keep any value plain)", Shown::path(path))
            }
            Self::Unreadable(path, error) => write!(f, "{}: {error}", Shown::path(path)),
            Self::Sentinel(Source::File(path, line)) => {
                write!(f, "{}:{line}: {PREFIX}USE_SENTINEL: Sentinel is not supported", Shown::path(path))
            }
            Self::Sentinel(_) => write!(f, "{PREFIX}USE_SENTINEL: Sentinel is not supported"),
            Self::SocketTls => write!(f, "{PREFIX}TLS: a Unix socket does not speak TLS"),
            Self::LocalWith(id) => write!(f, "--{} means nothing to a local lock", id.row().option()),
        }
    }
}

impl Display for LocalError {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsafe(path, why) => write!(f, "not safe for local locks: {} is {why}", Shown::path(path)),
            Self::Foreign(path) => write!(f, "{} is no lock; golock --reset deletes it", Shown::path(path)),
            Self::System(what, path, error) => write!(f, "cannot {what} {}: {error}", Shown::path(path)),
        }
    }
}

impl Display for lock::Error<net::Error> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exchange(error) => error.fmt(f),
            Self::Refused(command, words) => write!(f, "redis refused {command}: {}", Shown(words)),
            Self::Unexpected(command) => write!(f, "redis sent a reply to {command} that it does not have"),
            Self::Late => write!(f, "redis takes longer to answer than the lease lasts"),
            Self::Vanishing => write!(f, "it is gone as soon as it is set; is this redis short of memory?"),
        }
    }
}

impl Display for net::Error {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::GaveUp(server, 1, failure) => write!(f, "{server}: {failure}"),
            Self::GaveUp(server, tries, failure) => write!(f, "{server}: {failure} ({tries} tries)"),
            Self::Signal => write!(f, "broken off by a signal"),
        }
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lookup(error) if error.kind() == ErrorKind::TimedOut => {
                write!(f, "looking up the name took too long")
            }
            Self::Lookup(error) => write!(f, "cannot look up the name: {error}"),
            Self::Connect(error) if error.kind() == ErrorKind::TimedOut => write!(f, "no connection in time"),
            Self::Connect(error) => write!(f, "cannot connect: {error}"),
            Self::Io(error) if error.kind() == ErrorKind::TimedOut => write!(f, "no answer in time"),
            Self::Io(error) => write!(f, "connection lost: {error}"),
            Self::Closed => write!(f, "connection closed without an answer"),
            Self::Silent(failure) => write!(f, "{failure}; is it a port with TLS?"),
            Self::NoHandshake(failure) => write!(f, "{failure} in the TLS handshake; is it a port without TLS?"),
            Self::BadServerName => write!(f, "no certificate can hold this name"),
            Self::Tls(error) => tls::explain(error, f),
            Self::Protocol(error) => error.fmt(f),
            Self::Surplus => write!(f, "not the reply that was asked for"),
            Self::Busy(words) => Shown(words).fmt(f),
            Self::Refused(what, words) => write!(f, "{what} was refused: {}", Shown(words)),
            Self::Moved(node) => write!(f, "redirected again and again, at last to {node}"),
        }
    }
}

impl Display for resp::Error {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnexpectedType(byte) => write!(f, "an unexpected type of reply ({})", byte.escape_ascii()),
            Self::NotRedis(b'H') => write!(f, "not Redis: it looks like HTTP"),
            Self::NotRedis(0x15) => write!(f, "not plain Redis: it looks like TLS"),
            Self::NotRedis(byte) => write!(f, "not Redis: a reply begins with {}", byte.escape_ascii()),
            Self::LineTooLong => write!(f, "a reply without end"),
            Self::BadLineEnd => write!(f, "a reply without its line end"),
            Self::BadLength => write!(f, "a reply whose length is no number"),
            Self::BulkTooLong => write!(f, "a reply that is too long"),
            Self::BadInteger => write!(f, "a reply that is no number"),
        }
    }
}

impl Display for Endpoint {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            // A redirection names it as it pleases.
            Self::Tcp(host, port) if host.contains(':') => write!(f, "redis at [{}]:{port}", Shown(host.as_bytes())),
            Self::Tcp(host, port) => write!(f, "redis at {}:{port}", Shown(host.as_bytes())),
            Self::Unix(path) => write!(f, "redis at {}", Shown::path(path)),
        }
    }
}

#[cfg(feature = "tls")]
mod tls {
    use crate::net::{SetupError, TlsError};
    use crate::report::Shown;
    use rustls::{AlertDescription, CertificateError, InvalidMessage};
    use std::fmt::{self, Display, Formatter};

    impl Display for SetupError {
        fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
            match self {
                Self::Unreadable(path, error) => write!(f, "{}: {error}", Shown::path(path)),
                Self::BadPem(path, 0, what) => write!(f, "{}: no {what} in PEM form in it", Shown::path(path)),
                Self::BadPem(path, line, what) => write!(f, "{}:{line}: a broken {what}", Shown::path(path)),
                Self::BadIdentity(chain, key, error) => {
                    write!(f, "{} and {} do not go together: {error}", Shown::path(chain), Shown::path(key))
                }
                Self::Other(error) => error.fmt(f),
            }
        }
    }

    /// What is wrong, for people who have to mend it.
    pub(super) fn explain(error: &TlsError, f: &mut Formatter<'_>) -> fmt::Result {
        match error {
            TlsError::InvalidCertificate(error) => certificate(error, f),
            TlsError::AlertReceived(alert) => {
                write!(f, "the server ended TLS with the alert {alert:?}")?;
                let wants = matches!(alert, AlertDescription::CertificateRequired | AlertDescription::HandshakeFailure);
                f.write_str(if wants { "; does it want a client certificate?" } else { "" })
            }
            TlsError::InvalidMessage(InvalidMessage::InvalidContentType) => {
                write!(f, "no TLS: it looks like a port without TLS")
            }
            other => write!(f, "TLS: {other}"),
        }
    }

    fn certificate(error: &CertificateError, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("the server's certificate ")?;
        match error {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => f.write_str("has expired"),
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                f.write_str("is not valid yet; is the clock right?")
            }
            CertificateError::UnknownIssuer => f.write_str("is of a CA that is not trusted"),
            CertificateError::NotValidForNameContext { presented, .. } if presented.is_empty() => {
                f.write_str("is for another name: it holds no name that counts (subjectAltName)")
            }
            CertificateError::NotValidForNameContext { presented, .. } => {
                // Each looks like DnsName("redis.example").
                let names: Vec<_> = presented.iter().map(|name| name.split('"').nth(1).unwrap_or(name)).collect();
                write!(f, "is for another name: {}", names.join(", "))
            }
            CertificateError::BadSignature => f.write_str("is not of the trusted CA, but of one with the same name"),
            CertificateError::Other(error) if error.to_string() == "CaUsedAsEndEntity" => {
                f.write_str("is not trusted: it is that of a CA, or self-signed")
            }
            CertificateError::Other(error) => write!(f, "is not acceptable: {error}"),
            other => write!(f, "is not acceptable: {other}"),
        }
    }
}

#[cfg(not(feature = "tls"))]
mod tls {
    use crate::net::{SetupError, TlsError};
    use std::fmt::{self, Display, Formatter};

    impl Display for SetupError {
        fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
            match self {
                Self::NotBuilt => f.write_str("this golock was built without it"),
            }
        }
    }

    pub(super) fn explain(error: &TlsError, _: &mut Formatter<'_>) -> fmt::Result {
        match *error {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_a_redirection_names_stays_text() {
        let shown = |host: &str| Endpoint::Tcp(host.to_owned(), 1).to_string();
        assert_eq!(shown("a\x1b[2J\nb"), "redis at a\\x1b[2J\\nb:1");
        assert_eq!(shown("::1\x07"), "redis at [::1\\x07]:1");
        assert_eq!(shown("redis.example"), "redis at redis.example:1");
    }
}
