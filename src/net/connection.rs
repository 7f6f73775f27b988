use super::dial::Socket;
use super::{Failure, tls};
use crate::resp::{Parsed, Reply, parse};
use crate::signals::Patience;
use std::io::{ErrorKind, Read, Write};

/// How much is read at once: more than any reply that golock hopes for.
const CHUNK: usize = 512;

/// A socket, or something that speaks through one.
pub(super) trait Wire<'a>: Read + Write {
    /// The socket underneath.
    fn socket(&mut self) -> &mut Socket<'a>;

    /// Says goodbye where that is the custom.
    fn close(&mut self) {}
}

impl<'a> Wire<'a> for Socket<'a> {
    fn socket(&mut self) -> &mut Self {
        self
    }
}

/// A connection on which nothing has failed so far.
pub(super) struct Connection<'a> {
    wire: Box<dyn Wire<'a> + 'a>,
    /// Whether anything has come.
    answered: bool,
}

impl<'a> Connection<'a> {
    pub(super) fn new(wire: Box<dyn Wire<'a> + 'a>) -> Self {
        Self { wire, answered: false }
    }

    pub(super) fn close(mut self) {
        self.wire.close();
    }

    /// Sends `request` and reads `count` replies. Gives itself back with them: whoever has a connection has one whose
    /// next reply answers the next command.
    pub(super) fn exchange(
        mut self,
        request: &[u8],
        count: usize,
        patience: Patience<'a>,
    ) -> Result<(Self, Vec<Reply>), Failure> {
        self.wire.socket().patience = patience;
        let mut replies = Vec::with_capacity(count);
        let sent = self.wire.write_all(request).map_err(tls::failure);
        match self.receive(count, &mut replies).and(sent) {
            Ok(()) => Ok((self, replies)),
            Err(failure) => {
                self.wire.socket().abort();
                // A server that turns us away says so and hangs up, at times before it has read what we sent.
                Err(match replies.pop() {
                    Some(Reply::Error(words)) => Failure::Refused("the connection", words),
                    None if !self.answered && is_hangup(&failure) => Failure::Silent(Box::new(failure)),
                    _ => failure,
                })
            }
        }
    }

    fn receive(&mut self, count: usize, replies: &mut Vec<Reply>) -> Result<(), Failure> {
        let mut buffer = Vec::new();
        while replies.len() < count {
            match parse(&buffer).map_err(Failure::Protocol)? {
                Parsed::Complete(reply, used) => {
                    buffer.drain(..used);
                    replies.push(reply);
                }
                Parsed::Partial => self.fill(&mut buffer)?,
            }
        }
        if buffer.is_empty() { Ok(()) } else { Err(Failure::Surplus) }
    }

    fn fill(&mut self, buffer: &mut Vec<u8>) -> Result<(), Failure> {
        let mut chunk = [0; CHUNK];
        match self.wire.read(&mut chunk).map_err(tls::failure)? {
            0 => Err(Failure::Closed),
            count => {
                self.answered = true;
                buffer.extend_from_slice(&chunk[..count]);
                Ok(())
            }
        }
    }
}

fn is_hangup(failure: &Failure) -> bool {
    match failure {
        Failure::Closed => true,
        Failure::Io(error) => matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe),
        _ => false,
    }
}
