//! A connected socket that keeps a deadline.

use super::{Failure, Outcome};
use crate::clock::Instant;
use crate::interrupt::Deadline;
use crate::text::Cause;
use crate::words;
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{SocketAddrAny, SocketAddrUnix, SocketFlags, SocketType, sockopt};
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::mem;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

/// The time that each of several addresses gets at first, and twice as much in each further round: so one that swallows
/// packets costs the next one little (RFC 8305, section 5, has the same head start).
const HEAD_START: Duration = Duration::from_millis(250);

/// Its reads and writes block until the deadline, which each of them looks at first.
pub(super) struct Socket<'a> {
    pub(super) fd: OwnedFd,
    /// The address that accepted, if there are addresses.
    pub(super) peer: Option<SocketAddr>,
    pub(super) deadline: Deadline<'a>,
}

impl<'a> Socket<'a> {
    pub(super) fn unix(path: &Path, deadline: Deadline<'a>) -> Outcome<Self> {
        let address = SocketAddrUnix::new(path).map_err(io::Error::from);
        let fd = address.and_then(|address| connect(&address.into(), deadline)).map_err(|error| unreachable(&error))?;
        Ok(Self { fd, peer: None, deadline })
    }

    /// Connects to one of `addresses`, trying all of them in rounds. The failure is that of the last one that said
    /// anything, or that the time is over.
    pub(super) fn tcp(addresses: &[SocketAddr], deadline: Deadline<'a>) -> Outcome<Self> {
        let (mut last, mut left) = (ErrorKind::AddrNotAvailable.into(), addresses.to_vec());
        let mut share = HEAD_START;
        while !left.is_empty() {
            let alone = left.len() == 1;
            for peer in mem::take(&mut left) {
                let until = if alone { deadline } else { deadline.min(Instant::after(share)) };
                match connect(&peer.into(), until) {
                    Ok(fd) => return Ok(Self { fd, peer: Some(peer), deadline }),
                    Err(error) if error.kind() == ErrorKind::TimedOut && until.at < deadline.at => left.push(peer),
                    Err(error) => last = error,
                }
                deadline.check().map_err(|error| unreachable(&error))?;
            }
            share = share.saturating_mul(2);
        }
        Err(unreachable(&last))
    }

    /// Makes the end of this socket a reset (`SO_LINGER` of zero, socket(7)): what the kernel has not delivered yet is
    /// dropped. It would otherwise go on to deliver a SET that we have given up, and the lock would be taken for nobody.
    pub(super) fn reset(&self) {
        // Without it the end is a normal one, as if the bytes had been under way already.
        let _ = sockopt::set_socket_linger(&self.fd, Some(Duration::ZERO));
    }
}

fn unreachable(error: &io::Error) -> Box<Failure> {
    match error.kind() {
        ErrorKind::TimedOut => Failure::lost("no connection in time"),
        _ => Failure::lost(words!("{}", Cause(error))),
    }
}

fn connect(address: &SocketAddrAny, deadline: Deadline<'_>) -> io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let fd = rustix::net::socket_with(address.address_family(), SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&fd, address) {
        // connect(2): interrupted or not, the attempt goes on, and its end makes the socket writable.
        Err(Errno::INPROGRESS | Errno::INTR) => {
            deadline.wait(&fd, PollFlags::OUT)?;
            sockopt::socket_error(&fd)??;
        }
        done => done?,
    }
    Ok(fd)
}

impl Read for Socket<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            self.deadline.wait(&self.fd, PollFlags::IN)?;
            match rustix::io::read(&self.fd, &mut *buffer) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                done => return Ok(done?),
            }
        }
    }
}

impl Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    /// A flight of TLS leaves as one. A server hangs up at the first record that it refuses; to write the next would
    /// fail, and its reason, which has come by then, would not be read.
    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        loop {
            // Nearly always there is room: the deadline is looked at without asking the kernel first.
            self.deadline.check()?;
            match rustix::io::writev(&self.fd, pieces) {
                Err(Errno::AGAIN) => self.deadline.wait(&self.fd, PollFlags::OUT)?,
                Err(Errno::INTR) => {}
                done => return Ok(done?),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
