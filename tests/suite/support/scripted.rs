//! A server that does to each client what a closure says.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::thread::{self, JoinHandle};

use super::resp::{Words, commands};

/// A listening server of which every thread ends when it is dropped.
pub(crate) struct Scripted {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    closing: AtomicBool,
    connections: AtomicUsize,
    // Weak, so that a script that is done with its stream really closes it.
    streams: Mutex<Vec<Weak<TcpStream>>>,
}

impl Scripted {
    /// Serves every connection with `script`, given its index in order of arrival; it is closed when the script
    /// returns. A script should return when its stream fails, because that is how the server is stopped.
    pub(crate) fn start(script: impl Fn(usize, &TcpStream) + Send + Sync + 'static) -> Self {
        Self::start_at((Ipv4Addr::LOCALHOST, 0).into(), script)
    }

    /// The same at this address.
    pub(crate) fn start_at(address: SocketAddr, script: impl Fn(usize, &TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let acceptor = thread::spawn({
            let shared = Arc::clone(&shared);
            move || shared.accept(&listener, &script)
        });
        Self { address, shared, acceptor: Some(acceptor) }
    }

    /// The port on which it listens.
    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// How many connections it has accepted.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// How many of them its scripts still serve.
    pub(crate) fn open(&self) -> usize {
        self.shared.streams.lock().unwrap().iter().filter(|stream| stream.strong_count() > 0).count()
    }
}

impl Shared {
    fn accept(&self, listener: &TcpListener, script: &(impl Fn(usize, &TcpStream) + Sync)) {
        thread::scope(|scope| {
            for stream in listener.incoming() {
                let stream = Arc::new(stream.unwrap());
                if self.closing.load(Ordering::SeqCst) {
                    break;
                }
                stream.set_nodelay(true).unwrap();
                self.streams.lock().unwrap().push(Arc::downgrade(&stream));
                let index = self.connections.fetch_add(1, Ordering::SeqCst);
                scope.spawn(move || script(index, &stream));
            }
            for stream in self.streams.lock().unwrap().iter().filter_map(Weak::upgrade) {
                let _ = stream.shutdown(Shutdown::Both);
            }
        });
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::SeqCst);
        // Accepting has no deadline: a last connection wakes it.
        let _ = TcpStream::connect(self.address);
        let served = self.acceptor.take().map(JoinHandle::join);
        assert!(thread::panicking() || served.is_some_and(|end| end.is_ok()), "a script panicked");
    }
}

/// Reads until at least `count` commands have come; fewer are returned when the client closes first.
pub(crate) fn read_commands(mut stream: &TcpStream, count: usize) -> Vec<Words> {
    let (mut bytes, mut chunk) = (Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut chunk) {
            Ok(length) if length > 0 => bytes.extend_from_slice(&chunk[..length]),
            _ => return commands(&bytes),
        }
        let commands = commands(&bytes);
        if commands.len() >= count {
            return commands;
        }
    }
}

/// Reads and forgets until the client closes.
pub(crate) fn drain(mut stream: &TcpStream) {
    let mut chunk = [0; 4096];
    while stream.read(&mut chunk).is_ok_and(|length| length > 0) {}
}

/// Writes all of `bytes`; false when the client is gone.
pub(crate) fn send(mut stream: &TcpStream, bytes: impl AsRef<[u8]>) -> bool {
    stream.write_all(bytes.as_ref()).is_ok()
}
