//! From a host's name to its addresses, within a deadline.

use super::socket::Socket;
use crate::interrupt::Deadline;
use crate::process::{CStrings, SELF, Spawn, Variables, is_no_self};
use rustix::process::{Signal, WaitOptions, kill_process, set_parent_process_death_signal, waitpid};
use std::ffi::OsString;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

/// The first argument of a golock that looks a name up. No option may look like this.
const MARK: &str = "--look-up";

/// The most that is read of its answer: some hundred addresses.
const ANSWER_LIMIT: u64 = 16 * 1024;

/// The addresses of `host` that need no lookup: literals, and `localhost`, which is always the loopback (RFC 6761,
/// section 6.3).
pub(super) fn known(host: &str, port: u16) -> Option<Vec<SocketAddr>> {
    if host == "localhost" {
        return Some(vec![(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()]);
    }
    host.parse::<IpAddr>().ok().map(|address| vec![(address, port).into()])
}

/// getaddrinfo(3) has no time limit, so golock starts itself to call it, and kills what takes too long.
pub(super) fn look_up(host: &str, port: u16, env: &Variables, deadline: Deadline<'_>) -> io::Result<Vec<SocketAddr>> {
    let (answer, asked) = UnixStream::pair()?;
    let spawn = Spawn {
        program: Path::new(SELF),
        words: &CStrings::words([SELF, MARK, host, &port.to_string()].map(str::as_bytes)),
        environment: env.strings(),
        gets: Some((asked.as_fd(), 1)),
        leads: false,
    };
    let mut text = String::new();
    match spawn.start() {
        Err(error) if is_no_self(&error) => text = addresses(host, port),
        started => {
            let child = started?;
            drop(asked);
            let read = Socket { fd: answer.into(), peer: None, deadline }.take(ANSWER_LIMIT).read_to_string(&mut text);
            let _ = kill_process(child, Signal::KILL);
            // It has been killed, so this takes no time.
            let _ = waitpid(Some(child), WaitOptions::empty());
            read?;
        }
    }
    let addresses: Result<_, _> = text.lines().map(str::parse).collect();
    addresses.map_err(|_| io::Error::other(text))
}

/// The addresses of `host`, one in each line; or why there are none.
fn addresses(host: &str, port: u16) -> String {
    match (host, port).to_socket_addrs() {
        Ok(found) => found.map(|address| address.to_string() + "\n").collect(),
        Err(error) => error.to_string(),
    }
}

/// The answer of a golock whose `args` ask for the addresses of a host.
pub fn answer_lookup(args: &[OsString]) -> Option<String> {
    let [mark, host, port] = args else { return None };
    let (host, port) = (host.to_str()?, port.to_str()?.parse().ok().filter(|_| mark == MARK)?);
    // Nobody waits for the answer any more when golock is gone.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    Some(addresses(host, port))
}
