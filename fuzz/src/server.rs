//! A server that says what an input says, on a Unix socket. It runs on a thread of its own and answers at once, so that
//! nobody ever waits for a deadline.

use super::request::{Words, commands};
use golock::resp::{Reply, parse};
use rustix::net::sockopt::set_socket_send_buffer_size;
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use tempfile::TempDir;

/// How much is sent at once.
const PIECE: usize = 4096;

/// What the server says on one connection, in parts; when they are over, it hangs up.
pub(crate) type Part = Vec<Vec<u8>>;

/// A conversation of one or more connections, and what has become of it.
#[derive(Default)]
pub(crate) struct Play {
    parts: Mutex<VecDeque<Part>>,
    turns: Mutex<Vec<Turn>>,
}

/// A request and what it was answered.
#[derive(Clone)]
pub(crate) struct Turn {
    /// The commands that came together.
    pub(crate) asked: Vec<Words>,
    /// The bytes that went back.
    pub(crate) sent: Vec<u8>,
}

/// A listening server.
pub(crate) struct Server {
    folder: TempDir,
    play: Arc<Mutex<Arc<Play>>>,
}

impl Server {
    /// Starts to listen. The thread lives as long as the process.
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (server, listener) = (Self { folder, play: Arc::default() }, |path: &Path| UnixListener::bind(path));
        let listener = listener(&server.path()).expect("a socket");
        let play = Arc::clone(&server.play);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let play = Arc::clone(&lock(&play));
                play.serve(&stream.expect("a connection"));
            }
        });
        server
    }

    /// Where it listens.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("redis")
    }

    /// From here on it says `parts`, one on each connection.
    pub(crate) fn play(&self, parts: VecDeque<Part>) -> Arc<Play> {
        let play = Arc::new(Play { parts: Mutex::new(parts), turns: Mutex::default() });
        *lock(&self.play) = Arc::clone(&play);
        play
    }
}

impl Play {
    /// How many requests have come so far.
    pub(crate) fn count(&self) -> usize {
        lock(&self.turns).len()
    }

    /// What was said to all requests but the first `count`.
    pub(crate) fn turns_behind(&self, count: usize) -> Vec<Turn> {
        lock(&self.turns)[count..].to_vec()
    }

    fn serve(&self, stream: &UnixStream) {
        let mut part = lock(&self.parts).pop_front().unwrap_or_default().into_iter();
        // A large buffer of the kernel would hide how much the client takes.
        if part.as_slice().iter().any(|text| text.len() > PIECE) {
            set_socket_send_buffer_size(stream, PIECE).expect("a smaller buffer");
        }
        while let Some(asked) = request(stream) {
            let count = asked.len();
            lock(&self.turns).push(Turn { asked, sent: Vec::new() });
            loop {
                let Some(text) = part.next() else { return };
                let Some(is_answered) = self.say(stream, &text, count) else { return };
                if is_answered {
                    break;
                }
            }
        }
    }

    /// Sends `text`, and says whether that lets a client go on that waits for `count` replies; none if it has hung up.
    fn say(&self, mut stream: &UnixStream, text: &[u8], count: usize) -> Option<bool> {
        for piece in text.chunks(PIECE) {
            // First, for the client may have drawn its conclusions before we run again.
            lock(&self.turns).last_mut()?.sent.extend_from_slice(piece);
            stream.write_all(piece).ok()?;
        }
        lock(&self.turns).last().map(|turn| is_answer(&turn.sent, count))
    }
}

impl Turn {
    /// The commands, each with the reply to it, as far as they were sent in full.
    pub(crate) fn replies(&self) -> Vec<(&Words, Reply)> {
        let (mut rest, mut replies) = (&self.sent[..], Vec::new());
        for command in &self.asked {
            let Ok(Some((reply, used))) = parse(rest) else { break };
            rest = &rest[used..];
            replies.push((command, reply));
        }
        replies
    }

    /// The reply to the only command, if that is `name`.
    pub(crate) fn only(&self, name: &str) -> Option<Reply> {
        let reply = self.replies().pop().filter(|(command, _)| is(command, name));
        reply.map(|(_, reply)| reply).filter(|_| self.asked.len() == 1)
    }
}

/// Whether `command` is called `name`.
pub(crate) fn is(command: &Words, name: &str) -> bool {
    command.first().is_some_and(|first| first == name.as_bytes())
}

/// The commands that have come; none if the client has hung up.
fn request(mut stream: &UnixStream) -> Option<Vec<Words>> {
    let (mut bytes, mut chunk) = (Vec::new(), [0; PIECE]);
    loop {
        let count = stream.read(&mut chunk).ok().filter(|&count| count > 0)?;
        bytes.extend_from_slice(&chunk[..count]);
        let commands = commands(&bytes);
        if !commands.is_empty() {
            return Some(commands);
        }
    }
}

/// Whether `sent` lets a client go on that waits for `count` replies: they are all there, or nonsense is.
fn is_answer(mut sent: &[u8], count: usize) -> bool {
    for _ in 0..count {
        match parse(sent) {
            Ok(Some((_, used))) => sent = &sent[used..],
            Ok(None) => return false,
            Err(_) => return true,
        }
    }
    true
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
