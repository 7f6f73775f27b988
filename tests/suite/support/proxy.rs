//! A proxy between golock and a real server, which breaks connections at a chosen byte.

use std::collections::HashMap;
use std::io::Read;
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use socket2::SockRef;

use super::resp::{Words, commands};
use super::scripted::{Scripted, drain, send};

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
}

/// A break of one connection. It happens when there is a byte at offset `at` to pass on: the bytes before it get
/// through, it does not. A fault among the requests leaves the server with the bytes before it, and the client with
/// its replies to those. At a fault among the replies the server has seen the whole request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    /// Which bytes are counted.
    pub(crate) direction: Direction,
    /// The offset of the first byte that does not get through.
    pub(crate) at: usize,
    /// How the connection breaks.
    pub(crate) action: Action,
}

/// What has happened on one connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Record {
    /// Every byte that golock has sent.
    pub(crate) request: Vec<u8>,
    /// Every byte that the server has answered, also those that golock did not get.
    pub(crate) reply: Vec<u8>,
    /// In how many pieces the request came: one, if it was one write.
    pub(crate) request_reads: usize,
    /// Whether the connection's fault has happened.
    pub(crate) broken: bool,
}

impl Record {
    /// The complete commands that golock has sent.
    pub(crate) fn commands(&self) -> Vec<Words> {
        commands(&self.request)
    }
}

/// A running proxy.
pub(crate) struct Proxy {
    clients: Scripted,
    shared: Arc<Shared>,
}

struct Shared {
    upstream: u16,
    faults: Mutex<HashMap<usize, Fault>>,
    pace: Mutex<Option<Pace>>,
    records: Mutex<Vec<Record>>,
}

#[derive(Clone, Copy)]
struct Pace {
    piece: usize,
    delay: Duration,
}

impl Proxy {
    /// A proxy to this port of 127.0.0.1 that as yet breaks nothing.
    pub(crate) fn start(upstream: u16) -> Self {
        let shared =
            Arc::new(Shared { upstream, faults: Mutex::default(), pace: Mutex::default(), records: Mutex::default() });
        let clients = Scripted::start({
            let shared = Arc::clone(&shared);
            move |index, client| shared.serve(index, client)
        });
        Self { clients, shared }
    }

    /// Plans a fault for the connection of this index, in order of arrival.
    #[must_use]
    pub(crate) fn fault(self, index: usize, fault: Fault) -> Self {
        self.shared.faults.lock().unwrap().insert(index, fault);
        self
    }

    /// Passes bytes on in pieces of at most `piece` bytes, each after `delay`.
    #[must_use]
    pub(crate) fn pace(self, piece: usize, delay: Duration) -> Self {
        *self.shared.pace.lock().unwrap() = Some(Pace { piece, delay });
        self
    }

    /// Where golock connects to on 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.clients.port()
    }

    /// How many connections golock has made.
    pub(crate) fn connections(&self) -> usize {
        self.clients.connections()
    }

    /// How many connections are open.
    pub(crate) fn open(&self) -> usize {
        self.clients.open()
    }

    /// What has happened on each connection so far, in order of arrival.
    pub(crate) fn records(&self) -> Vec<Record> {
        self.shared.records.lock().unwrap().clone()
    }
}

impl Shared {
    fn serve(&self, index: usize, client: &TcpStream) {
        self.record(index, |_| ());
        let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, self.upstream)) else { return };
        server.set_nodelay(true).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| self.carry_requests(index, client, &server));
            self.carry_replies(index, client, &server);
        });
    }

    fn carry_requests(&self, index: usize, client: &TcpStream, server: &TcpStream) {
        let end = match self.carry(index, Direction::Request, client, server) {
            // The server ends the connection when it has dealt with what reached it; the reply side sees that.
            Some(Action::Close | Action::Reset) => Shutdown::Write,
            Some(Action::Stall) => {
                drain(client);
                Shutdown::Both
            }
            None => Shutdown::Both,
        };
        let _ = server.shutdown(end);
    }

    fn carry_replies(&self, index: usize, client: &TcpStream, server: &TcpStream) {
        if self.carry(index, Direction::Reply, server, client) == Some(Action::Stall) {
            drain(server);
        }
        let _ = server.shutdown(Shutdown::Both);
        let _ = match self.fault_of(index) {
            // With lingering off, the close at the end of `serve` is a reset; until then the client must see nothing.
            Some(Fault { action: Action::Reset, .. }) if self.record(index, |record| record.broken) => {
                SockRef::from(client).set_linger(Some(Duration::ZERO)).and_then(|()| client.shutdown(Shutdown::Read))
            }
            _ => client.shutdown(Shutdown::Both),
        };
    }

    /// Passes bytes on until one side ends, or the fault's time has come.
    fn carry(&self, index: usize, direction: Direction, mut from: &TcpStream, to: &TcpStream) -> Option<Action> {
        let fault = self.fault_of(index).filter(|fault| fault.direction == direction);
        let (mut seen, mut chunk) = (0, [0; 4096]);
        loop {
            let count = from.read(&mut chunk).ok().filter(|&count| count > 0)?;
            self.record(index, |record| record.note(direction, &chunk[..count]));
            let passing = fault.map_or(count, |fault| fault.at.saturating_sub(seen).min(count));
            if !self.pass(&chunk[..passing], to) {
                return None;
            }
            if passing < count {
                self.record(index, |record| record.broken = true);
                return fault.map(|fault| fault.action);
            }
            seen += count;
        }
    }

    fn pass(&self, bytes: &[u8], to: &TcpStream) -> bool {
        match *self.pace.lock().unwrap() {
            None => send(to, bytes),
            Some(Pace { piece, delay }) => bytes.chunks(piece).all(|bytes| {
                thread::sleep(delay);
                send(to, bytes)
            }),
        }
    }

    fn fault_of(&self, index: usize) -> Option<Fault> {
        self.faults.lock().unwrap().get(&index).copied()
    }

    fn record<T>(&self, index: usize, change: impl FnOnce(&mut Record) -> T) -> T {
        let mut records = self.records.lock().unwrap();
        if records.len() <= index {
            records.resize_with(index + 1, Record::default);
        }
        change(&mut records[index])
    }
}

impl Record {
    fn note(&mut self, direction: Direction, bytes: &[u8]) {
        match direction {
            Direction::Request => {
                self.request.extend_from_slice(bytes);
                self.request_reads += 1;
            }
            Direction::Reply => self.reply.extend_from_slice(bytes),
        }
    }
}
