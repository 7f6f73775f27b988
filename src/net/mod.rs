//! The way to Redis: from a name to a socket, one exchange on one connection, and the one loop that tries again.
//!
//! A connection on which anything failed does not exist any more: `Connection::exchange` takes it by value and gives it
//! back only with all replies. What was sent is then sent again on a new one, so every exchange must be repeatable;
//! [`crate::lock`] sees to that.

#![expect(clippy::unnecessary_box_returns, reason = "a failure travels far, and results are to be small")]

mod client;
mod connection;
mod credentials;
mod refusal;
mod resolve;
mod route;
mod socket;
#[cfg_attr(not(feature = "tls"), path = "no_tls.rs")]
mod tls;

pub use client::{Budget, Client};
pub use credentials::Credentials;
pub use resolve::answer_lookup;

use crate::text::{Cause, Escaped, Line, Secret, Shown};
use crate::words;
use std::fmt::{self, Display, Formatter};
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::time::Duration;

/// Where a server listens: at a host (name, or address without brackets) and port, or on a Unix socket.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Endpoint {
    Tcp(String, u16),
    Unix(PathBuf),
}

/// The server, and how to speak to it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Server {
    pub endpoint: Endpoint,
    /// The ACL user; without it AUTH sends the password alone.
    pub user: Option<Vec<u8>>,
    pub password: Option<Secret>,
    /// The file that holds the password.
    pub auth_file: Option<PathBuf>,
    /// The config file, if it holds the password.
    pub config_file: Option<PathBuf>,
    /// SELECT is sent only when it is not 0.
    pub database: u32,
    pub tls: Option<TlsOptions>,
    /// The time that one exchange may take: from name lookup to SELECT, or a request with its replies.
    pub timeout: Duration,
    /// Further connections after the first try.
    pub attempts: u32,
    /// What the wait before each further connection grows by.
    pub backoff: Duration,
}

/// How TLS is spoken.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct TlsOptions {
    pub trust: Trust,
    /// The PEM files of our own certificate, with those between it and the CA, and of its key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// The name that the server's certificate must hold, if that is not the host.
    pub name: Option<String>,
}

/// Whose certificates are accepted: those of the CAs that Mozilla trusts, of the CAs in the PEM file that a setting
/// names, or everybody's.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Trust {
    BuiltIn,
    File(&'static str, PathBuf),
    Anyone,
}

/// Why one attempt at an exchange came to nothing.
struct Failure {
    kind: Kind,
    /// Whether what was sent may have been carried out, wholly or in part.
    may_be_done: bool,
    why: Line,
}

type Outcome<T> = Result<T, Box<Failure>>;

/// What follows from a failure: the connection or the way to it was lost; the server has refused for now, or because it
/// is read-only, or because the key lives on another node of the cluster; or trying again would not help.
#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Lost,
    Busy,
    ReadOnly,
    Moved(Endpoint),
    Final,
}

impl Server {
    /// The files that nobody else should be able to read.
    pub fn secrets(&self) -> impl Iterator<Item = &PathBuf> {
        let identity = self.tls.as_ref().and_then(|tls| tls.identity.as_ref());
        self.auth_file.iter().chain(&self.config_file).chain(identity.map(|(_, key)| key))
    }
}

impl Failure {
    fn new(kind: Kind, why: impl Into<Line>) -> Box<Self> {
        Box::new(Self { may_be_done: kind == Kind::Lost, kind, why: why.into() })
    }

    fn lost(why: impl Into<Line>) -> Box<Self> {
        Self::new(Kind::Lost, why)
    }

    fn io(error: &io::Error) -> Box<Self> {
        Self::lost(match error.kind() {
            ErrorKind::TimedOut => "no answer in time".into(),
            ErrorKind::UnexpectedEof => "connection closed without an answer".into(),
            _ => words!("connection lost: {}", Cause(error)),
        })
    }
}

impl Display for Endpoint {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            // A redirection names it as it pleases.
            Self::Tcp(host, port) => {
                let (open, close) = if host.contains(':') { ("[", "]") } else { ("", "") };
                write!(f, "redis at {open}{}{close}:{port}", Escaped(host.as_bytes()))
            }
            Self::Unix(path) => write!(f, "redis at {}", Escaped::path(path)),
        }
    }
}

impl Shown for Endpoint {}

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
