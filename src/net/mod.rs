//! The way to Redis: one dial function, one deadline per exchange, one reconnect loop.
//!
//! A connection on which anything failed does not exist any more: `Connection::exchange` takes it by
//! value and gives it back only with all replies. What was sent is then sent again on a new one, so every exchange must
//! be repeatable; [`crate::lock`] sees to that.

mod client;
mod connection;
mod dial;
mod reply;
#[cfg_attr(not(feature = "tls"), path = "no_tls.rs")]
mod tls;

pub use client::{Client, Login, Retry, Server};
pub use dial::{Endpoint, answer};
pub use tls::{Error as TlsError, SetupError};

use crate::resp;
use std::io;
use std::path::PathBuf;

/// Whether and how connections are encrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsMode {
    /// They are not.
    Off,
    /// By TLS, with a certificate of our own if the server asks for one.
    On(Trust, Option<Identity>),
}

/// Whose certificates are accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Those of the CAs that Mozilla trusts.
    BuiltIn,
    /// Those of the CAs in this PEM file.
    File(PathBuf),
    /// Everybody's.
    Anyone,
}

/// The PEM files of a client certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The certificate, and those between it and the CA.
    pub chain: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Why one attempt at an exchange came to nothing.
#[derive(Debug)]
pub enum Failure {
    /// The name could not be looked up.
    Lookup(io::Error),
    /// No address of the host accepted a connection; the error is that of the last one.
    Connect(io::Error),
    /// The deadline passed, or the connection broke, in the middle.
    Io(io::Error),
    /// The server closed the connection before it had replied.
    Closed,
    /// The server hung up on a connection without TLS, of which it had not answered a single byte.
    Silent(Box<Failure>),
    /// What failed, failed before the server had shown that it speaks TLS at all.
    NoHandshake(Box<Failure>),
    /// No certificate can hold the server's name.
    BadServerName,
    /// TLS failed.
    Tls(TlsError),
    /// What the server sent is not the protocol of Redis.
    Protocol(resp::Error),
    /// The server sent more than it was asked for.
    Surplus,
    /// The server cannot serve just now, in its own words: loading, failing over, full.
    Busy(Vec<u8>),
    /// The server will not serve, in its own words, when asked for this: sending it again would not help.
    Refused(&'static str, Vec<u8>),
    /// The key lives on another node of the cluster.
    Moved(Endpoint),
}

/// Why an exchange was given up.
#[derive(Debug)]
pub enum Error {
    /// The last failure, after so many tries, with the server that was tried.
    GaveUp(Endpoint, u32, Failure),
    /// A signal arrived that had to be heeded first.
    Signal,
}

impl Failure {
    /// Whether trying again would only give the same answer.
    fn is_final(&self) -> bool {
        match self {
            Self::Refused(..) | Self::BadServerName => true,
            Self::Tls(error) => tls::is_final(error),
            _ => false,
        }
    }

    /// Whether the server has said that it did not carry out what it was asked for. A server that cannot serve just now
    /// refuses SET whenever it refuses GET.
    fn is_refusal(&self) -> bool {
        self.is_final() || matches!(self, Self::Busy(_) | Self::Moved(_))
    }
}
