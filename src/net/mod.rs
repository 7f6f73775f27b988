//! The way to Redis: one dial function, one deadline per exchange, one reconnect loop.
//!
//! A connection on which anything failed does not exist any more: [`connection::Connection::exchange`] takes it by
//! value and gives it back only with all replies. What was sent is then sent again on a new one, so every exchange must
//! be repeatable; [`crate::lock`] sees to that.

mod client;
mod connection;
mod dial;
mod reply;

pub use client::{Client, Login, Retry};
pub use dial::Endpoint;

use crate::resp;
use std::io;

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
        matches!(self, Self::Refused(..))
    }
}
