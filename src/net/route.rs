//! Which way leads to the lock: the configured server, or the node of a cluster that it named, and the address that
//! answered last, which is the way back.

use super::resolve::{known, look_up};
use super::socket::{Socket, unreachable};
use super::{Endpoint, Failure, Kind};
use crate::clock::Instant;
use crate::interrupt::Deadline;
use crate::process::Variables;
use crate::text::Cause;
use crate::words;
use std::io::ErrorKind;
use std::net::SocketAddr;

/// A server, and what is known of its address.
#[derive(Debug)]
struct Way {
    endpoint: Endpoint,
    /// The address that answered last.
    peer: Option<SocketAddr>,
    /// Whether it has failed since.
    failed: bool,
}

/// The ways to the lock.
pub(super) struct Route<'a> {
    home: Way,
    /// The node that the last redirection named.
    node: Option<Way>,
    variables: &'a Variables,
}

impl<'a> Route<'a> {
    pub(super) fn new(endpoint: Endpoint, variables: &'a Variables) -> Self {
        Self { home: Way::new(endpoint), node: None, variables }
    }

    fn way(&mut self) -> &mut Way {
        self.node.as_mut().unwrap_or(&mut self.home)
    }

    /// The server that is asked next.
    pub(super) fn server(&self) -> &Endpoint {
        &self.node.as_ref().unwrap_or(&self.home).endpoint
    }

    /// The server has answered, from `peer`.
    pub(super) fn answered(&mut self, peer: Option<SocketAddr>) {
        let way = self.way();
        (way.peer, way.failed) = (peer, false);
    }

    /// What the failure of an exchange means for the next.
    pub(super) fn failed(&mut self, kind: &Kind) {
        match kind {
            Kind::Moved(node) => self.node = Some(self.way().lead_to(node.clone())),
            Kind::Busy | Kind::Final => {}
            Kind::Lost | Kind::ReadOnly if self.node.is_some() => self.node = None,
            Kind::Lost => self.home.failed = true,
            Kind::ReadOnly => self.home.peer = None,
        }
    }

    /// Connects. The address that answered last comes first, and half of the time is kept for looking the name up again;
    /// when it has failed since, it comes last.
    pub(super) fn connect<'d>(&self, deadline: Deadline<'d>) -> Result<Socket<'d>, Failure> {
        let way = self.node.as_ref().unwrap_or(&self.home);
        let (host, port) = match &way.endpoint {
            Endpoint::Unix(path) => return Socket::unix(path, deadline).map_err(|error| unreachable(&error)),
            Endpoint::Tcp(host, port) => (host, *port),
        };
        if let Some(mut addresses) = known(host, port) {
            addresses.sort_by_key(|address| Some(*address) != way.peer);
            return Socket::tcp(&addresses, deadline).map_err(|error| unreachable(&error));
        }
        let half = deadline.min(Instant::after(deadline.at.remaining().unwrap_or_default() / 2));
        let looked_up = |until| {
            look_up(host, port, self.variables, until).map_err(|error| match error.kind() {
                ErrorKind::TimedOut => Failure::new(Kind::Lost, "name lookup timed out"),
                _ => Failure::new(Kind::Lost, words!("name lookup failed: {}", Cause(&error))),
            })
        };
        let to = |addresses: &[SocketAddr], until| Socket::tcp(addresses, until).map_err(|error| unreachable(&error));
        match way.peer {
            None => to(&looked_up(deadline)?, deadline),
            Some(peer) if way.failed => match looked_up(half) {
                Ok(addresses) => to(&addresses, deadline),
                Err(_) => to(&[peer], deadline),
            },
            Some(peer) => to(&[peer], half).or_else(|failure| match looked_up(deadline)? {
                same if same == [peer] => Err(failure),
                addresses => to(&addresses, deadline),
            }),
        }
    }
}

impl Way {
    fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, peer: None, failed: false }
    }

    /// The way to a node that this server has named: without a name of its own it is on the same host.
    fn lead_to(&self, node: Endpoint) -> Self {
        let peer = match (&self.endpoint, &node) {
            (Endpoint::Tcp(host, _), Endpoint::Tcp(other, port)) if host == other => {
                self.peer.map(|peer| SocketAddr::new(peer.ip(), *port))
            }
            _ => None,
        };
        Self { endpoint: node, peer, failed: false }
    }
}
