//! A server that keeps a client waiting, but never for long.

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::time::Duration;

use crate::support::scripted::send;

const PAUSE: Duration = Duration::from_millis(100);

/// Sends one byte after another, with a pause before each, until the client hangs up.
pub(crate) fn trickle(mut stream: &TcpStream, bytes: impl IntoIterator<Item = u8>) {
    stream.set_read_timeout(Some(PAUSE)).unwrap();
    for byte in bytes {
        // The read is the pause: it ends early when the client hangs up.
        match stream.read(&mut [0; 4096]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Ok(count) if count > 0 => {}
            _ => return,
        }
        if !send(stream, [byte]) {
            return;
        }
    }
}
