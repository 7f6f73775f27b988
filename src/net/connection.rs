use super::Failure;
use super::dial::Socket;
use crate::resp::{Parsed, Reply, parse};
use crate::signals::Patience;
use std::io::{self, Read, Write};

/// How much is read at once: more than any reply that golock hopes for.
const CHUNK: usize = 512;

/// A connection on which nothing has failed so far.
pub(super) struct Connection<'a> {
    stream: Socket<'a>,
}

impl<'a> Connection<'a> {
    pub(super) fn new(stream: Socket<'a>) -> Self {
        Self { stream }
    }

    /// Sends `request` and reads `count` replies. Gives itself back with them: whoever has a connection has one whose
    /// next reply answers the next command.
    pub(super) fn exchange(
        mut self,
        request: &[u8],
        count: usize,
        patience: Patience<'a>,
    ) -> Result<(Self, Vec<Reply>), Failure> {
        self.stream.patience = patience;
        let mut replies = Vec::with_capacity(count);
        let sent = self.stream.write_all(request).map_err(Failure::Io);
        match self.receive(count, &mut replies).and(sent) {
            Ok(()) => Ok((self, replies)),
            // A server that turns us away says so and hangs up, at times before it has read what we sent.
            Err(failure) => Err(match replies.pop() {
                Some(Reply::Error(words)) => Failure::Refused("the connection", words),
                _ => failure,
            }),
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
        match self.stream.read(&mut chunk).map_err(Failure::Io)? {
            0 => Err(Failure::Closed),
            count => io::Write::write_all(buffer, &chunk[..count]).map_err(Failure::Io),
        }
    }
}
