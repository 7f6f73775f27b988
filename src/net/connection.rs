use super::socket::Socket;
use super::{Failure, Kind, tls};
use crate::interrupt::Deadline;
use crate::resp::{Parsed, Reply, Request, parse};
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;

/// How much is read at once: more than any reply that golock hopes for.
const CHUNK: usize = 512;

/// A socket, or something that speaks through one.
pub(super) trait Stream<'a>: Read + Write {
    /// The socket underneath.
    fn socket(&mut self) -> &mut Socket<'a>;

    /// Says goodbye where that is the custom.
    fn close(&mut self) {}
}

impl<'a> Stream<'a> for Socket<'a> {
    fn socket(&mut self) -> &mut Self {
        self
    }
}

/// A connection on which nothing has failed so far.
pub(super) struct Connection<'a> {
    stream: Box<dyn Stream<'a> + 'a>,
    /// Whether anything has come.
    answered: bool,
}

/// How an exchange broke.
pub(super) enum Broken {
    /// The server has said why, and hung up.
    Refused(Vec<u8>),
    /// The server hung up on a connection of which it had not answered a single byte.
    Silent(Failure),
    /// Otherwise.
    Lost(Failure),
}

impl<'a> Connection<'a> {
    pub(super) fn new(stream: Box<dyn Stream<'a> + 'a>) -> Self {
        Self { stream, answered: false }
    }

    pub(super) fn peer(&mut self) -> Option<SocketAddr> {
        self.stream.socket().peer
    }

    pub(super) fn close(mut self) {
        self.stream.close();
    }

    /// Sends `request` and reads its replies. Gives itself back with them: whoever has a connection has one whose
    /// next reply answers the next command.
    pub(super) fn exchange(mut self, request: &Request, deadline: Deadline<'a>) -> Result<(Self, Vec<Reply>), Broken> {
        self.stream.socket().deadline = deadline;
        let mut replies = Vec::with_capacity(request.commands);
        let sent = self.stream.write_all(&request.bytes).map_err(tls::failure);
        match self.receive(request.commands, &mut replies).and_then(|()| sent.map_err(Broken::Lost)) {
            Ok(()) => Ok((self, replies)),
            Err(broken) => {
                self.stream.socket().reset();
                // A server that turns us away says so and hangs up, at times before it has read what we sent.
                match replies.pop() {
                    Some(Reply::Error(words)) if replies.iter().all(|reply| reply.error().is_some()) => {
                        Err(Broken::Refused(words))
                    }
                    _ => Err(broken),
                }
            }
        }
    }

    fn receive(&mut self, count: usize, replies: &mut Vec<Reply>) -> Result<(), Broken> {
        let lost = |words: &'static str| Broken::Lost(Failure::new(Kind::Lost, words));
        let mut buffer = Vec::new();
        while replies.len() < count {
            match parse(&buffer).map_err(lost)? {
                Parsed::Complete(reply, used) => {
                    buffer.drain(..used);
                    replies.push(reply);
                }
                Parsed::Partial => self.fill(&mut buffer)?,
            }
        }
        if buffer.is_empty() { Ok(()) } else { Err(lost("not the reply that was asked for")) }
    }

    fn fill(&mut self, buffer: &mut Vec<u8>) -> Result<(), Broken> {
        let mut chunk = [0; CHUNK];
        match self.stream.read(&mut chunk) {
            Ok(0) => Err(self.broken(ErrorKind::UnexpectedEof.into())),
            Err(error) => Err(self.broken(error)),
            Ok(count) => {
                self.answered = true;
                buffer.extend_from_slice(&chunk[..count]);
                Ok(())
            }
        }
    }

    fn broken(&self, error: std::io::Error) -> Broken {
        use ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
        let hung_up = matches!(error.kind(), UnexpectedEof | ConnectionReset | BrokenPipe);
        let failure = tls::failure(error);
        if hung_up && !self.answered { Broken::Silent(failure) } else { Broken::Lost(failure) }
    }
}
