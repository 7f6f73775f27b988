//! Which way leads to the lock: the configured server, or the node of a cluster that it named, and the address that
//! answered last, which comes first the next time.

use super::resolve::{known, look_up};
use super::socket::Socket;
use super::{Endpoint, Failure, Kind, Outcome};
use crate::clock::Instant;
use crate::interrupt::Deadline;
use crate::process::Variables;
use crate::text::Cause;
use crate::words;
use std::io::ErrorKind;
use std::net::SocketAddr;

/// A server, and what is known of its address.
struct Way {
    endpoint: Endpoint,
    /// The address that answered last.
    peer: Option<SocketAddr>,
    /// Whether it has failed since.
    failed: bool,
    /// Whether the server has ever let us in.
    lets_in: bool,
    /// The address that was connected to last, and the one that has failed last, which comes after the others.
    tried: Option<SocketAddr>,
    shunned: Option<SocketAddr>,
}

impl Way {
    fn to(endpoint: Endpoint, peer: Option<SocketAddr>) -> Self {
        Self { endpoint, peer, failed: false, lets_in: false, tried: None, shunned: None }
    }
}

/// The ways to the lock.
pub(super) struct Route<'a> {
    home: Way,
    /// The node that the last redirection named.
    node: Option<Way>,
    /// Whether the configured server is asked nevertheless, because the node has failed.
    is_at_home: bool,
    variables: &'a Variables,
}

impl<'a> Route<'a> {
    pub(super) fn new(endpoint: Endpoint, variables: &'a Variables) -> Self {
        Self { home: Way::to(endpoint, None), node: None, is_at_home: false, variables }
    }

    fn way(&self) -> &Way {
        self.node.as_ref().filter(|_| !self.is_at_home).unwrap_or(&self.home)
    }

    fn way_mut(&mut self) -> &mut Way {
        self.node.as_mut().filter(|_| !self.is_at_home).unwrap_or(&mut self.home)
    }

    pub(super) fn server(&self) -> &Endpoint {
        &self.way().endpoint
    }

    pub(super) fn answered(&mut self, peer: Option<SocketAddr>) {
        let way = self.way_mut();
        (way.peer, way.failed, way.shunned) = (peer, false, None);
        if self.is_at_home {
            (self.node, self.is_at_home) = (None, false);
        }
    }

    /// Whether this server has ever let us in.
    pub(super) fn lets_in(&self) -> bool {
        self.way().lets_in
    }

    pub(super) fn let_in(&mut self) {
        self.way_mut().lets_in = true;
    }

    pub(super) fn connected(&mut self, peer: Option<SocketAddr>) {
        self.way_mut().tried = peer;
    }

    /// What the failure of an exchange means for the next: whatever it is, another server may do better. So the name is looked
    /// up again, its other addresses come first, and of a node and the server that named it the other one is next.
    pub(super) fn failed(&mut self, kind: &Kind) {
        match kind {
            Kind::Moved(node) => {
                // A node without a name of its own is on the same host.
                let peer = match (self.server(), node) {
                    (Endpoint::Tcp(host, _), Endpoint::Tcp(other, port)) if host == other => {
                        self.way().peer.map(|peer| SocketAddr::new(peer.ip(), *port))
                    }
                    _ => None,
                };
                let lets_in = self.node.as_ref().is_some_and(|way| way.lets_in && way.endpoint == *node);
                (self.node, self.is_at_home) = (Some(Way { lets_in, ..Way::to(node.clone(), peer) }), false);
            }
            Kind::Lost | Kind::Busy | Kind::Final | Kind::ReadOnly => {
                let way = self.way_mut();
                (way.failed, way.shunned) = (true, way.tried);
                if *kind == Kind::ReadOnly {
                    way.peer = None;
                }
                self.is_at_home = self.node.is_some() && !self.is_at_home;
            }
        }
    }

    /// Connects. The address that answered last comes first, and half of the time is kept for looking the name up again;
    /// when it has failed since, it comes last.
    pub(super) fn connect<'d>(&self, deadline: Deadline<'d>) -> Outcome<Socket<'d>> {
        let way = self.way();
        let (host, port) = match &way.endpoint {
            Endpoint::Unix(path) => return Socket::unix(path, deadline),
            Endpoint::Tcp(host, port) => (host, *port),
        };
        let half = deadline.min(Instant::after(deadline.at.remaining().unwrap_or_default() / 2));
        let look_up = |until| {
            look_up(host, port, self.variables, until).map_err(|error| match error.kind() {
                ErrorKind::TimedOut => Failure::lost("name lookup timed out"),
                _ => Failure::lost(words!("name lookup failed: {}", Cause(&error))),
            })
        };
        let mut addresses = match (known(host, port), way.peer) {
            (Some(mut addresses), peer) => {
                if addresses.last().copied() == peer {
                    addresses.reverse();
                }
                addresses
            }
            (None, None) => look_up(deadline)?,
            (None, Some(peer)) if way.failed => look_up(half).unwrap_or_else(|_| vec![peer]),
            (None, Some(peer)) => match Socket::tcp(&[peer], half) {
                Ok(socket) => return Ok(Socket { deadline, ..socket }),
                Err(failure) => match look_up(deadline)? {
                    same if same == [peer] => return Err(failure),
                    addresses => addresses,
                },
            },
        };
        // Stable: only what has failed goes to the end.
        addresses.sort_by_key(|address| Some(*address) == way.shunned);
        Socket::tcp(&addresses, deadline)
    }
}
