//! `[cut][cut][bytes of a server]`: what the parser makes of them, whole and in pieces.

use golock::resp::{BULK_LIMIT, Error, LINE_LIMIT, Parsed, Reply, parse};

type Outcome = Result<Parsed, Error>;

/// The longest line with its type and all of its end but one byte, and the same of a bulk string.
const MOST_OF_A_LINE: usize = 1 + LINE_LIMIT + 1;
const MOST_OF_A_BULK: usize = "$65536\r\n".len() + BULK_LIMIT + 1;

/// Reads all replies of a stream. Each is judged by an oracle, and again from what has come of it at either cut, as a
/// connection sees it that gets the stream in three pieces.
pub fn parse_reply(input: &[u8]) {
    let Some((cuts, stream)) = input.split_first_chunk::<2>() else { return };
    let cuts = cuts.map(|cut| usize::from(cut) * stream.len() / 255);
    let mut at = 0;
    loop {
        let rest = &stream[at..];
        let whole = parse(rest);
        assert!(whole.as_ref().ok() == expected(rest).as_ref(), "the oracle disagrees with {whole:?}");
        assert_bounded(rest.len(), &whole);
        for come in cuts.into_iter().filter_map(|cut| stream.get(at..cut)) {
            assert_prefix(&parse(come), come.len(), &whole);
        }
        match whole {
            Ok(Some((_, used))) => at += used,
            Ok(None) | Err(_) => return,
        }
    }
}

/// Memory is bounded by the limits: that of a reply, and that of a buffer that waits for more.
fn assert_bounded(length: usize, outcome: &Outcome) {
    match outcome {
        Ok(Some((Reply::Status(line) | Reply::Error(line), _))) => assert!(line.capacity() <= LINE_LIMIT),
        Ok(Some((Reply::Bulk(bytes), _))) => assert!(bytes.capacity() <= BULK_LIMIT),
        Ok(None) => assert!(length <= MOST_OF_A_LINE.max(MOST_OF_A_BULK)),
        Ok(Some((Reply::Integer(_) | Reply::Nil, _))) | Err(_) => {}
    }
}

/// The first `length` bytes say the same as the whole, or that there is more to come; an error stays that error.
fn assert_prefix(prefix: &Outcome, length: usize, whole: &Outcome) {
    match whole {
        Ok(Some((_, used))) if length >= *used => assert_eq!(prefix, whole),
        Err(_) if prefix.is_err() => assert_eq!(prefix, whole),
        _ => assert_eq!(*prefix, Ok(None), "more bytes gave {whole:?}"),
    }
}

/// RESP2 once more, strictly and without a thought to speed; none for an error.
fn expected(bytes: &[u8]) -> Option<Parsed> {
    let Some((kind, rest)) = bytes.split_first() else { return Some(None) };
    if !b"+-:$".contains(kind) {
        return None;
    }
    let end = rest.iter().position(|&byte| byte == b'\r' || byte == b'\n').unwrap_or(rest.len());
    let (line, rest) = rest.split_at(end);
    if line.len() > LINE_LIMIT {
        return None;
    }
    let Some(rest) = rest.strip_prefix(b"\r\n") else { return unless_begun(rest) };
    let used = bytes.len() - rest.len();
    let reply = match kind {
        b'+' => Reply::Status(line.to_vec()),
        b'-' => Reply::Error(line.to_vec()),
        b':' => Reply::Integer(decimal(line)?),
        _ if line == b"-1" => Reply::Nil,
        _ => {
            let length = usize::try_from(decimal(line)?).ok().filter(|&length| length <= BULK_LIMIT)?;
            let Some((body, rest)) = rest.split_at_checked(length) else { return Some(None) };
            if !rest.starts_with(b"\r\n") {
                return unless_begun(rest);
            }
            return Some(Some((Reply::Bulk(body.to_vec()), used + length + 2)));
        }
    };
    Some(Some((reply, used)))
}

/// There is more to come where `rest` is the beginning of a line end.
fn unless_begun(rest: &[u8]) -> Option<Parsed> {
    b"\r\n".starts_with(rest).then_some(None)
}

/// A number that is written exactly as Rust would.
fn decimal(text: &[u8]) -> Option<i64> {
    let number: i64 = str::from_utf8(text).ok()?.parse().ok()?;
    (number.to_string().as_bytes() == text).then_some(number)
}
