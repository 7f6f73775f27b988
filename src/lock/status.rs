use super::acquire::is_second;
use super::{Error, Exchange, Repeat, Token, only};
use crate::resp::Reply;

/// The value of `KEYS[1]` behind its TTL in seconds and a space, or nil.
const STATUS: &[u8] = b"local v=redis.call('GET',KEYS[1]) return v and redis.call('TTL',KEYS[1])..' '..v";

/// Whether a lock is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// By nobody.
    Free,
    /// By somebody.
    Held(Ttl, Holder),
}

/// When a held lock expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ttl {
    /// In so many seconds.
    Seconds(u64),
    /// Never.
    None,
    /// The server refuses EVAL, without which golock cannot know.
    Unknown,
}

/// Whose lock a value is, by its form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// Golock's.
    Golock,
    /// Of cronlock or golock (Go).
    Predecessor,
    /// No lock's.
    Unknown,
}

/// Looks at the lock `name`, changing nothing.
///
/// # Errors
/// When Redis could not be asked, refused, or answered nonsense.
pub fn status<X: Exchange>(redis: &mut X, name: &[u8]) -> Result<Status, Error<X::Error>> {
    match only(redis.exchange(&[&[b"EVAL", STATUS, b"1", name]], Repeat::Always)?) {
        Some(Reply::Nil) => Ok(Status::Free),
        Some(Reply::Bulk(text)) => read(&text).ok_or(Error::Unexpected("EVAL")),
        Some(Reply::Error(_)) => status_plainly(redis, name),
        _ => Err(Error::Unexpected("EVAL")),
    }
}

/// The answer where EVAL is refused.
fn status_plainly<X: Exchange>(redis: &mut X, name: &[u8]) -> Result<Status, Error<X::Error>> {
    match only(redis.exchange(&[&[b"GET", name]], Repeat::Always)?) {
        Some(Reply::Nil) => Ok(Status::Free),
        Some(Reply::Bulk(value)) => Ok(Status::Held(Ttl::Unknown, Holder::of(&value))),
        Some(Reply::Error(words)) => Err(Error::Refused("GET", words)),
        _ => Err(Error::Unexpected("GET")),
    }
}

fn read(text: &[u8]) -> Option<Status> {
    let space = text.iter().position(|&byte| byte == b' ')?;
    let ttl = match std::str::from_utf8(&text[..space]).ok()?.parse::<i64>().ok()? {
        -1 => Ttl::None,
        seconds => Ttl::Seconds(u64::try_from(seconds).ok()?),
    };
    Some(Status::Held(ttl, Holder::of(&text[space + 1..])))
}

impl Holder {
    /// Whose lock has this value.
    pub fn of(value: &[u8]) -> Self {
        if value.len() == Token::DIGITS && value.iter().all(u8::is_ascii_digit) {
            Self::Golock
        } else if is_second(value) {
            Self::Predecessor
        } else {
            Self::Unknown
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::scripted::script;
    use super::*;

    fn seen(replies: &[Reply]) -> Result<Status, Error<()>> {
        status(&mut script(replies.iter().cloned().map(Some)), b"k")
    }

    #[test]
    fn a_lock_is_seen_with_eval_and_without() {
        let (refusal, bulk) = (|| Reply::Error(b"NOPERM".to_vec()), |text: &str| Reply::Bulk(text.into()));
        let held = |ttl| Ok(Status::Held(ttl, Holder::Predecessor));
        assert_eq!(seen(&[Reply::Nil]), Ok(Status::Free));
        assert_eq!(seen(&[bulk("40 1700000000")]), held(Ttl::Seconds(40)));
        assert_eq!(seen(&[bulk("nonsense")]), Err(Error::Unexpected("EVAL")));
        assert_eq!(seen(&[Reply::Integer(1)]), Err(Error::Unexpected("EVAL")));
        assert_eq!(seen(&[refusal(), Reply::Nil]), Ok(Status::Free));
        assert_eq!(seen(&[refusal(), bulk("1700000000")]), held(Ttl::Unknown));
        assert_eq!(seen(&[refusal(), refusal()]), Err(Error::Refused("GET", b"NOPERM".to_vec())));
        assert_eq!(seen(&[refusal(), Reply::Integer(1)]), Err(Error::Unexpected("GET")));
    }

    #[test]
    fn the_reply_of_the_script_is_read() {
        let token = Token::random().to_string();
        assert_eq!(read(format!("40 {token}").as_bytes()), Some(Status::Held(Ttl::Seconds(40), Holder::Golock)));
        assert_eq!(read(b"-1 1700000000"), Some(Status::Held(Ttl::None, Holder::Predecessor)));
        assert_eq!(read(b"0 "), Some(Status::Held(Ttl::Seconds(0), Holder::Unknown)));
        for nonsense in [&b""[..], b"5", b"x y", b"-2 1"] {
            assert_eq!(read(nonsense), None);
        }
    }
}
