use super::socket::Socket;
use super::{Failure, Kind, Outcome};
use crate::interrupt::Deadline;
use crate::resp::{Reply, Request, parse};
use crate::words;
use std::io::{self, ErrorKind, Read, Write};

/// How much is read at once: more than any reply that golock hopes for.
const CHUNK: usize = 512;

/// What is wrong when a server sends more than it was asked for, or something else.
pub(super) const UNASKED: &str = "not the reply that was asked for";

/// A socket, or something that speaks through one.
pub(super) trait Stream<'a>: Read + Write {
    /// The socket underneath.
    fn socket(&mut self) -> &mut Socket<'a>;

    /// Says goodbye where that is the custom.
    fn close(&mut self) {}
}

pub(super) type AnyStream<'a> = Box<dyn Stream<'a> + 'a>;

impl<'a> Stream<'a> for Socket<'a> {
    fn socket(&mut self) -> &mut Self {
        self
    }
}

/// A connection on which nothing has failed so far.
pub(super) struct Connection<'a> {
    pub(super) stream: AnyStream<'a>,
    /// Whether nothing has come yet, so that it may be a port with TLS, to which we speak without.
    pub(super) may_be_tls: bool,
}

impl<'a> Connection<'a> {
    /// Sends `request` and reads its replies. Gives itself back with all of them: whoever has a connection has one whose
    /// next reply answers the next command. Without it the replies are refusals, after which the server hung up.
    pub(super) fn exchange(mut self, request: &Request, deadline: Deadline<'a>) -> Outcome<(Option<Self>, Vec<Reply>)> {
        self.stream.socket().deadline = deadline;
        let mut replies = Vec::with_capacity(request.commands);
        let sent = self.stream.write_all(&request.bytes).map_err(Box::<Failure>::from);
        match self.receive(request.commands, &mut replies).and(sent) {
            Ok(()) => Ok((Some(self), replies)),
            Err(failure) => {
                self.stream.socket().reset();
                // A server that turns us away says so and hangs up, at times before it has read what we sent.
                let is_refused = !replies.is_empty() && replies.iter().all(|reply| reply.error().is_some());
                if is_refused { Ok((None, replies)) } else { Err(failure) }
            }
        }
    }

    fn receive(&mut self, count: usize, replies: &mut Vec<Reply>) -> Outcome<()> {
        let mut buffer = Vec::new();
        while replies.len() < count {
            let parsed = parse(&buffer).map_err(|why| match buffer.first() {
                // Whoever speaks HTTP, or TLS, has not understood us.
                Some(b'H' | 0x15) if replies.is_empty() => Failure::new(Kind::Busy, why),
                _ => Failure::lost(why),
            });
            if let Some((reply, used)) = parsed? {
                buffer.drain(..used);
                replies.push(reply);
                continue;
            }
            let mut chunk = [0; CHUNK];
            let count = match self.stream.read(&mut chunk) {
                Ok(0) => return Err(self.broken(ErrorKind::UnexpectedEof.into())),
                read => read.map_err(|error| self.broken(error))?,
            };
            self.may_be_tls = false;
            buffer.extend_from_slice(&chunk[..count]);
        }
        if buffer.is_empty() { Ok(()) } else { Err(Failure::lost(UNASKED)) }
    }

    fn broken(&self, error: io::Error) -> Box<Failure> {
        use ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
        let hung_up = matches!(error.kind(), UnexpectedEof | ConnectionReset | BrokenPipe);
        let failure = Box::<Failure>::from(error);
        if !hung_up || !self.may_be_tls {
            return failure;
        }
        Failure::lost(words!("{}; is it a port with TLS?", failure.why))
    }
}
