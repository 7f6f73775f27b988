//! RESP2, the wire format of Redis (<https://redis.io/docs/latest/develop/reference/protocol-spec/>): commands to
//! bytes, bytes to replies. No sockets, no clocks, no commands.
//!
//! Only the scalar types `+ - : $` are read. No command of golock's returns an aggregate or a RESP3 type, so those are
//! errors, as is everything that is not to the letter of the protocol.

mod parse;

pub use parse::{BULK_LIMIT, Error, LINE_LIMIT, Parsed, parse};

/// One reply of the server: `+OK`, `-ERR …` (its refusal in its own words), `:1`, `$3 …`, or `$-1`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Reply {
    Status(Vec<u8>),
    Error(Vec<u8>),
    Integer(i64),
    Bulk(Vec<u8>),
    Nil,
}

impl Reply {
    /// The server's words, if it refused.
    pub fn error(&self) -> Option<&[u8]> {
        if let Self::Error(words) = self { Some(words) } else { None }
    }
}

/// Commands that are sent together, as bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Request {
    pub bytes: Vec<u8>,
    pub commands: usize,
    /// How many of the last ones only inform: a refusal of one of these is an answer too.
    pub informs: usize,
}

impl Request {
    /// Appends `command`, a list of arguments of any bytes, as an array of bulk strings.
    pub fn push(&mut self, command: &[&[u8]]) {
        self.bytes.reserve(command.iter().map(|argument| argument.len() + 16).sum());
        self.line(&[b"*", command.len().to_string().as_bytes()]);
        for argument in command {
            self.line(&[b"$", argument.len().to_string().as_bytes(), b"\r\n", argument]);
        }
        self.commands += 1;
    }

    fn line(&mut self, parts: &[&[u8]]) {
        parts.iter().chain(&[&b"\r\n"[..]]).for_each(|part| self.bytes.extend_from_slice(part));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_counted_and_kept_byte_for_byte() {
        let mut request = Request::default();
        request.push(&[b"GET", b"k"]);
        request.push(&[b"SET", b"", b"a\r\n\0\xff"]);
        let expected = b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n*3\r\n$3\r\nSET\r\n$0\r\n\r\n$5\r\na\r\n\0\xff\r\n";
        assert_eq!((&request.bytes[..], request.commands), (&expected[..], 2));
    }

    #[test]
    fn only_an_error_has_the_words_of_one() {
        assert_eq!(Reply::Error(b"no".to_vec()).error(), Some(&b"no"[..]));
        for other in [Reply::Status(b"OK".to_vec()), Reply::Integer(0), Reply::Bulk(b"no".to_vec()), Reply::Nil] {
            assert_eq!(other.error(), None);
        }
    }
}
