//! A proxy between golock and a real server, which does to chosen connections what a [`Fault`] says.

use std::io::Read;
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::ops::RangeInclusive;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use socket2::SockRef;

use super::fault::{Action, Direction, Fault};
use super::resp::{Words, commands};
use super::scripted::{Scripted, drain, send};

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
    faults: Mutex<Vec<(RangeInclusive<usize>, Fault)>>,
    records: Mutex<Vec<Record>>,
    /// The index of the connection whose turn it is, where they are served in turn.
    turn: Mutex<Option<usize>>,
    turned: Condvar,
}

impl Proxy {
    /// A proxy to this port of 127.0.0.1 that as yet breaks nothing.
    pub(crate) fn start(upstream: u16) -> Self {
        let shared = Arc::new(Shared {
            upstream,
            faults: Mutex::default(),
            records: Mutex::default(),
            turn: Mutex::default(),
            turned: Condvar::new(),
        });
        let clients = Scripted::start({
            let shared = Arc::clone(&shared);
            move |index, client| shared.serve(index, client)
        });
        Self { clients, shared }
    }

    /// Plans a fault for the connection of this index, in order of arrival.
    #[must_use]
    pub(crate) fn fault(self, index: usize, fault: Fault) -> Self {
        self.plan(index..=index, fault)
    }

    /// Plans a fault that lasts: for every connection from this index on.
    #[must_use]
    pub(crate) fn fault_from(self, first: usize, fault: Fault) -> Self {
        self.plan(first..=usize::MAX, fault)
    }

    fn plan(self, indices: RangeInclusive<usize>, fault: Fault) -> Self {
        self.shared.faults.lock().unwrap().push((indices, fault));
        self
    }

    /// Passes all bytes on in pieces of at most `piece` bytes, each after `delay`.
    #[must_use]
    pub(crate) fn pace(self, piece: usize, delay: Duration) -> Self {
        let slow = |direction| Fault { direction, at: 0, action: Action::Slow { piece, delay } };
        self.fault_from(0, slow(Direction::Request)).fault_from(0, slow(Direction::Reply))
    }

    /// Serves each connection only when all has reached the server that the one before had to say. For one golock, which has
    /// one connection at a time: however slow this proxy, no SET of a connection that golock has given up overtakes the
    /// release and takes the lock again, for nobody.
    #[must_use]
    pub(crate) fn in_turn(self) -> Self {
        *self.shared.turn.lock().unwrap() = Some(0);
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
        let turn = self.turn.lock().unwrap();
        drop(self.turned.wait_while(turn, |turn| turn.is_some_and(|turn| turn < index)).unwrap());
        self.connect(index, client);
        let mut turn = self.turn.lock().unwrap();
        *turn = turn.map(|_| index + 1);
        self.turned.notify_all();
    }

    fn connect(&self, index: usize, client: &TcpStream) {
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
            _ => Shutdown::Both,
        };
        let _ = server.shutdown(end);
    }

    fn carry_replies(&self, index: usize, client: &TcpStream, server: &TcpStream) {
        if self.carry(index, Direction::Reply, server, client) == Some(Action::Stall) {
            drain(server);
        }
        let _ = server.shutdown(Shutdown::Both);
        let _ = if self.is_reset(index) {
            // With lingering off, the close at the end of `serve` is a reset; until then the client must see nothing.
            SockRef::from(client).set_linger(Some(Duration::ZERO)).and_then(|()| client.shutdown(Shutdown::Read))
        } else {
            client.shutdown(Shutdown::Both)
        };
    }

    fn is_reset(&self, index: usize) -> bool {
        let faults = [Direction::Request, Direction::Reply].map(|direction| self.fault_of(index, direction));
        let planned = faults.into_iter().flatten().any(|fault| fault.action == Action::Reset);
        planned && self.record(index, |record| record.broken)
    }

    /// Passes bytes on until one side ends, or a fault ends the connection.
    fn carry(&self, index: usize, direction: Direction, mut from: &TcpStream, to: &TcpStream) -> Option<Action> {
        let fault = self.fault_of(index, direction);
        let (mut seen, mut chunk) = (0, [0; 4096]);
        loop {
            let count = from.read(&mut chunk).ok().filter(|&count| count > 0)?;
            self.record(index, |record| record.note(direction, &chunk[..count]));
            let passing = fault.map_or(count, |fault| fault.at.saturating_sub(seen).min(count));
            let (whole, rest) = chunk[..count].split_at(passing);
            if !send(to, whole) {
                return None;
            }
            if let Some(fault) = fault.filter(|_| !rest.is_empty()) {
                self.record(index, |record| record.broken = true);
                let goes_on = fault.action.pass(rest, from, to)?;
                if !goes_on {
                    return Some(fault.action);
                }
            }
            seen += count;
        }
    }

    /// The fault that was planned last for this place.
    fn fault_of(&self, index: usize, direction: Direction) -> Option<Fault> {
        let faults = self.faults.lock().unwrap();
        let here =
            |(indices, fault): &&(_, Fault)| RangeInclusive::contains(indices, &index) && fault.direction == direction;
        faults.iter().rev().find(here).map(|(_, fault)| *fault)
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
