//! What can happen to a connection, and where.

use std::io::Read;
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use super::scripted::send;

/// Which way the bytes flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From golock to the server.
    Request,
    /// From the server to golock.
    Reply,
}

/// What happens to the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// It ends in order (FIN).
    Close,
    /// It ends in an error (RST).
    Reset,
    /// It stays open, but nothing more passes in this direction.
    Stall,
    /// What is left passes in pieces of at most `piece` bytes, each after `delay`.
    Slow { piece: usize, delay: Duration },
    /// What is left passes when the sender has given up the connection.
    Late,
}

/// A fault of one connection. It happens when there is a byte at offset `at` to pass on: the bytes before it get
/// through as always. A break among the requests leaves the server with the bytes before it, and the client with
/// its replies to those. At a break among the replies the server has seen the whole request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    /// Which bytes are counted.
    pub(crate) direction: Direction,
    /// The offset of the first byte that the fault hits.
    pub(crate) at: usize,
    /// What it is.
    pub(crate) action: Action,
}

impl Action {
    /// From here on every byte comes alone.
    pub(crate) const SPLIT: Self = Self::Slow { piece: 1, delay: Duration::from_micros(100) };

    /// The rest comes after a pause.
    pub(crate) const DELAY: Self = Self::Slow { piece: usize::MAX, delay: Duration::from_millis(50) };

    /// Deals with `bytes`, the first that the fault hits: whether it goes on like that, or nothing if one side has ended.
    pub(crate) fn pass(self, bytes: &[u8], mut from: &TcpStream, to: &TcpStream) -> Option<bool> {
        match self {
            Self::Close | Self::Reset | Self::Stall => Some(false),
            Self::Slow { piece, delay } => bytes
                .chunks(piece)
                .all(|piece| {
                    thread::sleep(delay);
                    send(to, piece)
                })
                .then_some(true),
            Self::Late => {
                let mut rest = bytes.to_vec();
                let _ = from.read_to_end(&mut rest);
                send(to, rest);
                None
            }
        }
    }
}
