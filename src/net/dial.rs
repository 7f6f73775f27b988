//! From the name of a server to a connected socket, within a deadline.

use super::Failure;
use crate::clock::Moment;
use crate::signals::Patience;
use crate::spawn::{OURSELVES, Words, is_without_self, spawn};
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, addr::SocketAddrArg, sockopt};
use rustix::process::{Signal, WaitOptions, kill_process, set_parent_process_death_signal, waitpid};
use std::ffi::OsString;
use std::io::{self, IoSlice, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The first argument of a golock that looks a name up. No option may look like this.
const MARK: &str = "--look-up";

/// The most that is read of its answer: some hundred addresses.
const ANSWER_LIMIT: u64 = 16 * 1024;

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// Host name or address (IPv6 without brackets), and port.
    Tcp(String, u16),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

/// A connected socket whose reads and writes block with patience: each looks at the deadline first.
pub(super) struct Socket<'a> {
    pub(super) fd: OwnedFd,
    /// The address that accepted, if the endpoint has addresses.
    pub(super) peer: Option<SocketAddr>,
    pub(super) patience: Patience<'a>,
}

impl<'a> Socket<'a> {
    /// Connects to `endpoint`, trying all of its addresses.
    pub(super) fn dial(endpoint: &Endpoint, patience: Patience<'a>) -> Result<Self, Failure> {
        let (fd, peer) = match endpoint {
            Endpoint::Unix(path) => {
                let address = SocketAddrUnix::new(path.as_path()).map_err(|errno| Failure::Connect(errno.into()))?;
                (connect(AddressFamily::UNIX, &address, patience).map_err(Failure::Connect)?, None)
            }
            Endpoint::Tcp(host, port) => {
                let addresses = resolve(host, *port, patience).map_err(Failure::Lookup)?;
                let (fd, peer) = connect_any(&addresses, patience).map_err(Failure::Connect)?;
                (fd, Some(peer))
            }
        };
        Ok(Self { fd, peer, patience })
    }
}

impl Socket<'_> {
    /// Makes the end of this socket a reset (`SO_LINGER` of zero, socket(7)): what the kernel has not delivered yet is
    /// dropped. It would otherwise go on to deliver a SET that we have given up, and the lock would be taken for nobody.
    pub(super) fn abort(&self) {
        // Without it the end is a normal one, as if the bytes had been under way already.
        let _ = sockopt::set_socket_linger(&self.fd, Some(Duration::ZERO));
    }
}

/// Tries each address in turn, each with its fair share of the time that is left, so that one that swallows packets
/// does not cost the others their chance. The error is that of the last.
fn connect_any(addresses: &[SocketAddr], patience: Patience<'_>) -> io::Result<(OwnedFd, SocketAddr)> {
    let mut last = io::ErrorKind::AddrNotAvailable.into();
    for (address, untried) in addresses.iter().zip((1..=addresses.len()).rev()) {
        let share = patience.deadline.remaining().ok_or(io::ErrorKind::TimedOut)? / u32::try_from(untried).unwrap_or(1);
        let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
        match connect(family, address, Patience { deadline: Moment::after(share), ..patience }) {
            Ok(fd) => return Ok((fd, *address)),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn connect(family: AddressFamily, address: &impl SocketAddrArg, patience: Patience<'_>) -> io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let fd = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&fd, address) {
        // connect(2): interrupted or not, the attempt goes on, and its end makes the socket writable.
        Err(Errno::INPROGRESS | Errno::INTR) => {
            patience.wait(&fd, PollFlags::OUT)?;
            sockopt::socket_error(&fd)??;
        }
        done => done?,
    }
    Ok(fd)
}

/// The addresses of `host`. Literals and `localhost` (RFC 6761, section 6.3: always the loopback) need no lookup.
fn resolve(host: &str, port: u16, patience: Patience<'_>) -> io::Result<Vec<SocketAddr>> {
    if host == "localhost" {
        return Ok(vec![(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()]);
    }
    match host.parse::<IpAddr>() {
        Ok(address) => Ok(vec![(address, port).into()]),
        Err(_) => look_up(host, port, patience),
    }
}

/// getaddrinfo(3) has no time limit, so golock starts itself to call it, and kills what takes too long.
fn look_up(host: &str, port: u16, patience: Patience<'_>) -> io::Result<Vec<SocketAddr>> {
    let (answer, asked) = UnixStream::pair()?;
    let mut words = Words::default();
    for word in [OURSELVES, MARK, host, &port.to_string()] {
        words.push(&[word.as_bytes()]);
    }
    let environment = Words::environment(&[]);
    let stdout = Some(asked.as_fd());
    let child = match spawn(Path::new(OURSELVES), &words, &environment, patience.signals, stdout, false) {
        Err(error) if is_without_self(&error) => return (host, port).to_socket_addrs().map(Vec::from_iter),
        started => started?,
    };
    drop(asked);
    let mut text = String::new();
    let read = Socket { fd: answer.into(), peer: None, patience }.take(ANSWER_LIMIT).read_to_string(&mut text);
    let _ = kill_process(child, Signal::KILL);
    // It has been killed, so this takes no time.
    let _ = waitpid(Some(child), WaitOptions::empty());
    read?;
    let mut addresses = Vec::new();
    for line in text.lines() {
        match line.parse() {
            Ok(address) => addresses.push(address),
            Err(_) => return Err(io::Error::other(text)),
        }
    }
    Ok(addresses)
}

/// If `args` ask for the addresses of a host, one in each line; or why there are none.
pub fn answer(args: &[OsString]) -> Option<String> {
    let [mark, host, port] = args else { return None };
    let (host, port) = (host.to_str()?, port.to_str()?.parse::<u16>().ok()?);
    if mark != MARK {
        return None;
    }
    // Nobody waits for the answer any more when golock is gone.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    Some(match (host, port).to_socket_addrs() {
        Ok(found) => found.map(|address| address.to_string() + "\n").collect(),
        Err(error) => error.to_string(),
    })
}

impl Read for Socket<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            self.patience.wait(&self.fd, PollFlags::IN)?;
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
            self.patience.check()?;
            match rustix::io::writev(&self.fd, pieces) {
                Err(Errno::AGAIN) => self.patience.wait(&self.fd, PollFlags::OUT)?,
                Err(Errno::INTR) => {}
                done => return Ok(done?),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
