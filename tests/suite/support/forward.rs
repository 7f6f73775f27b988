//! Connections that are passed on to a server, which can be exchanged while they come.

use std::io::{self, Read};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;

use super::scripted::{Scripted, send};

/// An address that stays the same when the server behind it changes: it stands for a name in DNS, or for an address
/// that moves with the primary.
pub(crate) struct Forwarder {
    clients: Scripted,
    target: Arc<AtomicU16>,
}

impl Forwarder {
    /// In front of the server on this port of 127.0.0.1.
    pub(crate) fn start(port: u16) -> Self {
        let target = Arc::new(AtomicU16::new(port));
        let clients = Scripted::start({
            let target = Arc::clone(&target);
            move |_, client| forward(client, target.load(Ordering::SeqCst))
        });
        Self { clients, target }
    }

    /// From the next connection on, the server on this port.
    pub(crate) fn switch_to(&self, port: u16) {
        self.target.store(port, Ordering::SeqCst);
    }

    /// Where it listens on 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.clients.port()
    }

    /// How many connections it has accepted.
    pub(crate) fn connections(&self) -> usize {
        self.clients.connections()
    }
}

/// Passes bytes both ways between a client and a port of 127.0.0.1 until one side ends; a port on which nobody listens
/// ends at once.
pub(crate) fn forward(client: &TcpStream, port: u16) {
    let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else { return };
    server.set_nodelay(true).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| carry(client, &server));
        carry(&server, client);
    });
}

/// Passes bytes on until one side ends, and then ends both.
pub(crate) fn carry(mut from: &TcpStream, to: &TcpStream) {
    let mut chunk = [0; 4096];
    while let Ok(count) = from.read(&mut chunk) {
        if count == 0 || !send(to, &chunk[..count]) {
            break;
        }
    }
    for stream in [from, to] {
        // Whoever ends first ends both.
        let _: io::Result<()> = stream.shutdown(Shutdown::Both);
    }
}
