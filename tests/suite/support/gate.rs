//! Replies that wait until the test lets them pass.

use std::io::Read;
use std::net::{Ipv4Addr, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

use super::forward::forward;
use super::resp::{commands, count_replies};
use super::scripted::{Scripted, send};
use super::wait::WATCHDOG;

/// Something that is shut, until it is opened.
#[derive(Default)]
pub(crate) struct Gate {
    is_open: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    pub(crate) fn open(&self) {
        *self.is_open.lock().unwrap() = true;
        self.opened.notify_all();
    }

    /// Waits until it is open; not for ever, so that a test that has failed ends.
    pub(crate) fn wait(&self) {
        let is_open = self.is_open.lock().unwrap();
        drop(self.opened.wait_timeout_while(is_open, WATCHDOG, |is_open| !*is_open).unwrap());
    }
}

/// A way to a server on which one answer is withheld.
pub(crate) struct Withheld {
    clients: Scripted,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    gate: Gate,
    answered: Gate,
}

impl Withheld {
    /// Of the first connection, the answer to the exchange of this index waits; everything else passes at once.
    pub(crate) fn start(port: u16, exchange: usize) -> Self {
        let shared = Arc::new(Shared::default());
        let clients = Scripted::start({
            let shared = Arc::clone(&shared);
            move |index, client| if index == 0 { shared.hold(client, port, exchange) } else { forward(client, port) }
        });
        Self { clients, shared }
    }

    /// Where it listens on 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.clients.port()
    }

    /// Waits until the server has answered, which the client does not know.
    pub(crate) fn wait_answered(&self) {
        self.shared.answered.wait();
    }

    /// Lets the answer pass.
    pub(crate) fn release(&self) {
        self.shared.gate.open();
    }
}

impl Shared {
    fn hold(&self, mut client: &TcpStream, port: u16, exchange: usize) {
        let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        server.set_nodelay(true).unwrap();
        for index in 0..=exchange {
            // What golock says in one exchange is one write.
            let mut request = vec![0; 1 << 16];
            let Ok(length) = client.read(&mut request) else { return };
            let count = commands(&request[..length]).len();
            if count == 0 || !send(&server, &request[..length]) {
                return;
            }
            let (mut reply, mut chunk) = (Vec::new(), [0; 4096]);
            while count_replies(&reply) < count {
                match server.read(&mut chunk) {
                    Ok(length) if length > 0 => reply.extend_from_slice(&chunk[..length]),
                    _ => return,
                }
            }
            if index == exchange {
                self.answered.open();
                self.gate.wait();
            }
            if !send(client, reply) {
                return;
            }
        }
        std::thread::scope(|scope| {
            scope.spawn(|| super::forward::carry(client, &server));
            super::forward::carry(&server, client);
        });
    }
}
