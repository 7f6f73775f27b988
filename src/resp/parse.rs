use super::Reply;
use std::str::FromStr;

/// The longest status, error, integer or length line, without its CRLF. The longest that Redis itself sends has 1,065
/// bytes: the refusal of protected mode, which a new user is the most likely to meet.
pub const LINE_LIMIT: usize = 2048;

/// The longest bulk string. A lock's value has 19 bytes; 64 KiB lets a foreign value be looked at and left alone.
pub const BULK_LIMIT: usize = 64 * 1024;

/// The most digits that a 64-bit number has.
const DIGITS: usize = 19;

const BAD_LINE_END: Error = "a reply without its line end";

/// What a buffer holds at its start: a reply, with the number of bytes that it took, or only the beginning of one. That is
/// never said of more bytes than the limits allow.
pub type Parsed = Option<(Reply, usize)>;

/// Why bytes are not a reply that golock reads, in words.
pub type Error = &'static str;

/// Reads one reply from the start of `bytes`, consuming nothing.
pub fn parse(bytes: &[u8]) -> Result<Parsed, Error> {
    let Some((&kind, rest)) = bytes.split_first() else { return Ok(None) };
    match kind {
        b'+' | b'-' | b':' | b'$' => {}
        b'*' | b'_' | b'#' | b',' | b'(' | b'!' | b'=' | b'%' | b'~' | b'>' | b'|' => {
            return Err("a reply of an unexpected type");
        }
        b'H' => return Err("not Redis: it looks like HTTP"),
        // A TLS alert (RFC 8446, section 5.1), which a server of TLS sends when it does not understand us.
        0x15 => return Err("not plain Redis: it looks like TLS"),
        _ => return Err("not Redis: a reply does not begin like that"),
    }
    let Some(end) = rest.iter().take(LINE_LIMIT + 1).position(|byte| matches!(byte, b'\r' | b'\n')) else {
        return if rest.len() > LINE_LIMIT { Err("a reply without end") } else { Ok(None) };
    };
    let (line, body) = match &rest[end..] {
        [b'\r', b'\n', body @ ..] => (&rest[..end], body),
        [b'\r'] => return Ok(None),
        _ => return Err(BAD_LINE_END),
    };
    let used = 1 + end + 2;
    Ok(Some(match kind {
        b'+' => (Reply::Status(line.to_vec()), used),
        b'-' => (Reply::Error(line.to_vec()), used),
        b':' => (Reply::Integer(number(line).ok_or("a reply that is not a number")?), used),
        _ if line == b"-1" => (Reply::Nil, used),
        _ => {
            let length: u64 = number(line).ok_or("a reply whose length is not a number")?;
            let length = usize::try_from(length).ok().filter(|&length| length <= BULK_LIMIT);
            let length = length.ok_or("a reply that is too long")?;
            match body.get(length..).unwrap_or_default() {
                [] | [b'\r'] => return Ok(None),
                [b'\r', b'\n', ..] => (Reply::Bulk(body[..length].to_vec()), used + length + 2),
                _ => return Err(BAD_LINE_END),
            }
        }
    }))
}

/// A number to the letter: no plus, no space, no leading zero.
fn number<T: FromStr>(text: &[u8]) -> Option<T> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let is_plain = text == b"0" || matches!(digits.first(), Some(b'1'..=b'9'));
    std::str::from_utf8(text).ok().filter(|_| is_plain && digits.len() <= DIGITS)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const UNEXPECTED_TYPE: Error = "a reply of an unexpected type";
    const HTTP: Error = "not Redis: it looks like HTTP";
    const TLS: Error = "not plain Redis: it looks like TLS";
    const NOT_REDIS: Error = "not Redis: a reply does not begin like that";
    const LINE_TOO_LONG: Error = "a reply without end";
    const BAD_LENGTH: Error = "a reply whose length is not a number";
    const BULK_TOO_LONG: Error = "a reply that is too long";
    const BAD_INTEGER: Error = "a reply that is not a number";

    fn samples() -> Vec<(Vec<u8>, Reply)> {
        let long = vec![b'x'; 65_536];
        let mut bulk = b"$65536\r\n".to_vec();
        bulk.extend_from_slice(&long);
        bulk.extend_from_slice(b"\r\n");
        let plain: [(&[u8], Reply); 11] = [
            (b"+OK\r\n", Reply::Status(b"OK".to_vec())),
            (b"+\r\n", Reply::Status(Vec::new())),
            (b"-ERR no\r\n", Reply::Error(b"ERR no".to_vec())),
            (b":0\r\n", Reply::Integer(0)),
            (b":-1\r\n", Reply::Integer(-1)),
            (b":9223372036854775807\r\n", Reply::Integer(i64::MAX)),
            (b":-9223372036854775808\r\n", Reply::Integer(i64::MIN)),
            (b"$-1\r\n", Reply::Nil),
            (b"$0\r\n\r\n", Reply::Bulk(Vec::new())),
            (b"$4\r\n\r\n\r\n\r\n", Reply::Bulk(b"\r\n\r\n".to_vec())),
            (b"$3\r\n\0\xff-\r\n", Reply::Bulk(b"\0\xff-".to_vec())),
        ];
        let mut all: Vec<_> = plain.into_iter().map(|(bytes, reply)| (bytes.to_vec(), reply)).collect();
        all.push((bulk, Reply::Bulk(long)));
        all
    }

    /// Feeds `pieces` as a connection would, and returns the reply with the number of bytes left over.
    fn feed<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Option<(Reply, usize)>, Error> {
        let (mut buffer, mut found) = (Vec::new(), None);
        for piece in pieces {
            buffer.extend_from_slice(piece);
            if let (None, Some((reply, used))) = (&found, parse(&buffer)?) {
                found = Some((reply, used));
            }
        }
        Ok(found.map(|(reply, used)| (reply, buffer.len() - used)))
    }

    #[test]
    fn every_proper_prefix_is_partial_and_the_rest_is_left() {
        for (bytes, reply) in samples() {
            for end in 0..bytes.len() {
                assert_eq!(parse(&bytes[..end]), Ok(None), "{end} bytes of {reply:?}");
            }
            let more = [bytes.as_slice(), b"+more"].concat();
            assert_eq!(parse(&more), Ok(Some((reply, bytes.len()))));
        }
    }

    #[test]
    fn every_split_over_two_and_three_feeds_gives_the_same_reply() {
        for (bytes, reply) in samples().into_iter().filter(|(bytes, _)| bytes.len() < 100) {
            for first in 0..=bytes.len() {
                for second in first..=bytes.len() {
                    let pieces = [&bytes[..first], &bytes[first..second], &bytes[second..]];
                    assert_eq!(feed(pieces), Ok(Some((reply.clone(), 0))), "{first} {second}");
                }
            }
        }
    }

    #[test]
    fn hostile_input_has_its_own_error() {
        let endless = vec![b'x'; LINE_LIMIT + 1];
        let cases: Vec<(Vec<u8>, Error)> = vec![
            (b"$2147483647\r\n".to_vec(), BULK_TOO_LONG),
            (format!("${}\r\n", 64 * 1024 + 1).into_bytes(), BULK_TOO_LONG),
            (b"$18446744073709551615\r\n".to_vec(), BAD_LENGTH),
            (b"$9999999999999999999\r\n".to_vec(), BULK_TOO_LONG),
            (b"$99999999999999999999\r\n".to_vec(), BAD_LENGTH),
            (b"$-2\r\n".to_vec(), BAD_LENGTH),
            (b"$-0\r\n".to_vec(), BAD_LENGTH),
            (b"$-01\r\n".to_vec(), BAD_LENGTH),
            (b"$+1\r\n".to_vec(), BAD_LENGTH),
            (b"$ 1\r\n".to_vec(), BAD_LENGTH),
            (b"$1 \r\n".to_vec(), BAD_LENGTH),
            (b"$01\r\n".to_vec(), BAD_LENGTH),
            (b"$\r\n".to_vec(), BAD_LENGTH),
            (b"$abc\r\n".to_vec(), BAD_LENGTH),
            (b"$3\r\nabcd\r\n".to_vec(), BAD_LINE_END),
            (b"$3\r\nabc\n".to_vec(), BAD_LINE_END),
            (b"$3\r\nabc\rx".to_vec(), BAD_LINE_END),
            (b"$3\nabc\r\n".to_vec(), BAD_LINE_END),
            (b"+OK\n".to_vec(), BAD_LINE_END),
            (b"+OK\rx".to_vec(), BAD_LINE_END),
            (b"+O\r\rK\r\n".to_vec(), BAD_LINE_END),
            (b":\r\n".to_vec(), BAD_INTEGER),
            (b":-\r\n".to_vec(), BAD_INTEGER),
            (b":-0\r\n".to_vec(), BAD_INTEGER),
            (b":+1\r\n".to_vec(), BAD_INTEGER),
            (b":00\r\n".to_vec(), BAD_INTEGER),
            (b":1.5\r\n".to_vec(), BAD_INTEGER),
            (b":9223372036854775808\r\n".to_vec(), BAD_INTEGER),
            (b":-9223372036854775809\r\n".to_vec(), BAD_INTEGER),
            (b"*-1\r\n".to_vec(), UNEXPECTED_TYPE),
            (b"*1000000000\r\n*1\r\n".to_vec(), UNEXPECTED_TYPE),
            (b"%1\r\n+a\r\n+b\r\n".to_vec(), UNEXPECTED_TYPE),
            (b"_\r\n".to_vec(), UNEXPECTED_TYPE),
            (b">2\r\n".to_vec(), UNEXPECTED_TYPE),
            (b"HTTP/1.1 400 Bad Request\r\n".to_vec(), HTTP),
            (b"\x15\x03\x03".to_vec(), TLS),
            (b"\r\n".to_vec(), NOT_REDIS),
            ([b"+", endless.as_slice()].concat(), LINE_TOO_LONG),
            ([b"$", endless.as_slice(), b"\r\n"].concat(), LINE_TOO_LONG),
        ];
        for (bytes, error) in cases {
            assert_eq!(parse(&bytes), Err(error), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn a_line_of_the_limit_is_read_and_memory_is_bounded_by_the_limits() {
        let line = vec![b'x'; LINE_LIMIT];
        let whole = [b"+", line.as_slice(), b"\r\n"].concat();
        assert_eq!(parse(&whole), Ok(Some((Reply::Status(line.clone()), LINE_LIMIT + 3))));
        assert_eq!(parse(&whole[..=LINE_LIMIT]), Ok(None));
        for start in [&b"+"[..], b"$65536\r\n"] {
            let most = [start, &vec![b'x'; LINE_LIMIT + BULK_LIMIT + 8]].concat();
            assert!(parse(&most).is_err(), "no buffer beyond the limits is ever partial");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged_the_same_however_they_arrive(
            bytes in prop::collection::vec(prop::sample::select(b"+-:$*\r\n019OKx".to_vec()), 0..24),
            cut in 0_usize..24,
        ) {
            let (left, right) = bytes.split_at(cut.min(bytes.len()));
            if let Ok(Some((reply, used))) = parse(&bytes) {
                let piecewise = feed([left, right]).expect("no prefix of a reply is an error");
                prop_assert_eq!(piecewise, Some((reply, bytes.len() - used)));
            } else if parse(left).is_err() {
                prop_assert!(parse(&bytes).is_err(), "more bytes do not mend an error");
            }
        }
    }
}
