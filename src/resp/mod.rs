//! RESP2, the wire format of Redis (<https://redis.io/docs/latest/develop/reference/protocol-spec/>): commands to
//! bytes, bytes to replies. No sockets, no clocks, no commands.
//!
//! Only the scalar types `+ - : $` are read. No command of golock's returns an aggregate or a RESP3 type, so those are
//! errors, as is everything that is not to the letter of the protocol.

mod encode;
mod parse;

pub use encode::encode;
pub use parse::{BULK_LIMIT, Error, LINE_LIMIT, Parsed, parse};

/// One reply of the server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reply {
    /// `+OK`: a status.
    Status(Vec<u8>),
    /// `-ERR …`: the server's refusal in its own words.
    Error(Vec<u8>),
    /// `:1`.
    Integer(i64),
    /// `$3 …`: bytes.
    Bulk(Vec<u8>),
    /// `$-1`: no value.
    Nil,
}

impl Reply {
    /// The server's words, if it refused.
    pub fn error(&mut self) -> Option<&mut Vec<u8>> {
        if let Self::Error(words) = self { Some(words) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::Reply;

    #[test]
    fn only_an_error_has_the_words_of_one() {
        assert_eq!(Reply::Error(b"no".to_vec()).error(), Some(&mut b"no".to_vec()));
        for mut other in [Reply::Status(b"OK".to_vec()), Reply::Integer(0), Reply::Bulk(b"no".to_vec()), Reply::Nil] {
            assert_eq!(other.error(), None);
        }
    }
}
