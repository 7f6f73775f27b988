use super::{Answer, Command, Error, Exchange, Lock, Repeat, Token, only};
use crate::resp::Reply;

/// How often a lock may vanish between the question and the answer before we stop to ask: each time somebody's lock
/// has just expired or was reset, which does not happen again and again.
const ROUNDS: u32 = 5;

/// The most digits of a predecessor's value, a Unix second. Golock's own tokens have 19.
const SECOND_DIGITS: usize = 12;

/// Takes over the lock `KEYS[1]` of a predecessor, whose value was `ARGV[1]`, for the token `ARGV[2]` and `ARGV[3]`
/// seconds. Gives back the value that stands there in the end. Repeated by the winner, it gives the same again.
const TAKE_OVER: &[u8] = b"local v=redis.call('GET',KEYS[1]) \
    if not v or (v==ARGV[1] and redis.call('TTL',KEYS[1])==-1) then \
    redis.call('SET',KEYS[1],ARGV[2],'EX',ARGV[3]) return ARGV[2] end return v";

/// The outcome of asking for a lock.
#[derive(Debug, PartialEq, Eq)]
pub enum Acquired {
    /// It is ours.
    Ours,
    /// It is held by another, with this value.
    Held(Vec<u8>),
}

/// What to ask, or what the last answer means.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Ours,
    Held(Vec<u8>),
    /// There is no lock any more: ask again.
    Vanished,
    /// It is a lock that a predecessor left behind, with this value.
    Abandoned(Vec<u8>),
}

/// Asks for `lock`.
///
/// # Errors
/// When Redis could not be asked, refused, or answered nonsense. The lock may have been taken all the same.
pub fn acquire<X: Exchange>(redis: &mut X, lock: &Lock) -> Result<Acquired, Error<X::Error>> {
    let (name, token, seconds) = (lock.name.as_slice(), lock.token.as_bytes(), lock.ttl.as_secs().to_string());
    for _ in 0..ROUNDS {
        let set: Command<'_> = &[b"SET", name, token, b"NX", b"EX", seconds.as_bytes()];
        let answer = redis.exchange(&[set, &[b"GET", name]], Repeat::Always)?;
        let mut verdict = judge(answer, &lock.token, redis.unix_second())?;
        if let Verdict::Abandoned(value) = verdict {
            let take: Command<'_> = &[b"EVAL", TAKE_OVER, b"1", name, &value, token, seconds.as_bytes()];
            verdict = judge_take_over(redis.exchange(&[take], Repeat::Always)?, &lock.token)?;
        }
        match verdict {
            Verdict::Ours => return Ok(Acquired::Ours),
            Verdict::Held(value) | Verdict::Abandoned(value) => return Ok(Acquired::Held(value)),
            Verdict::Vanished => {}
        }
    }
    Err(Error::Vanishing)
}

/// What the replies to SET and GET mean at the Unix second `now`. Only GET decides who holds the lock: the reply to SET
/// is that of its last repetition.
fn judge<E>(answer: Answer, token: &Token, now: u64) -> Result<Verdict, Error<E>> {
    let Ok([set, get]) = <[Reply; 2]>::try_from(answer.replies) else { return Err(Error::Unexpected("SET")) };
    match (set, get) {
        (_, Reply::Bulk(value)) if value == token.as_bytes() => Ok(Verdict::Ours),
        (Reply::Error(words), _) => Err(Error::Refused("SET", words)),
        (_, Reply::Error(words)) => Err(Error::Refused("GET", words)),
        (Reply::Status(_) | Reply::Nil, Reply::Nil) => Ok(Verdict::Vanished),
        (Reply::Status(_) | Reply::Nil, Reply::Bulk(value)) if is_past(&value, now) => Ok(Verdict::Abandoned(value)),
        (Reply::Status(_) | Reply::Nil, Reply::Bulk(value)) => Ok(Verdict::Held(value)),
        _ => Err(Error::Unexpected("SET and GET")),
    }
}

fn judge_take_over<E>(answer: Answer, token: &Token) -> Result<Verdict, Error<E>> {
    match only(answer) {
        Some(Reply::Bulk(value)) if value == token.as_bytes() => Ok(Verdict::Ours),
        Some(Reply::Bulk(value)) => Ok(Verdict::Held(value)),
        Some(Reply::Error(words)) => Err(Error::Refused("EVAL (to take over a lock that a predecessor left)", words)),
        _ => Err(Error::Unexpected("EVAL")),
    }
}

/// Whether `value` is a Unix second, as the predecessors write it, that is not later than `now`.
fn is_past(value: &[u8], now: u64) -> bool {
    is_second(value) && value.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0')) <= now
}

/// Whether `value` is a number as the predecessors write it.
pub(super) fn is_second(value: &[u8]) -> bool {
    (1..=SECOND_DIGITS).contains(&value.len()) && value.iter().all(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000;

    fn verdict(set: Reply, get: Reply, token: &Token) -> Result<Verdict, Error<()>> {
        judge(Answer { replies: vec![set, get], repeated: false }, token, NOW)
    }

    fn bulk(text: &str) -> Reply {
        Reply::Bulk(text.into())
    }

    #[test]
    fn the_own_token_read_back_is_the_only_proof() {
        let token = Token::random();
        let own = || Reply::Bulk(token.as_bytes().to_vec());
        for set in [Reply::Status(b"OK".to_vec()), Reply::Nil, Reply::Error(b"OOM command not allowed".to_vec())] {
            assert_eq!(verdict(set, own(), &token), Ok(Verdict::Ours));
        }
        let ok = || Reply::Status(b"OK".to_vec());
        assert_eq!(verdict(ok(), bulk("other"), &token), Ok(Verdict::Held(b"other".to_vec())));
        assert_eq!(verdict(ok(), Reply::Nil, &token), Ok(Verdict::Vanished));
        assert_eq!(verdict(Reply::Nil, Reply::Nil, &token), Ok(Verdict::Vanished));
    }

    #[test]
    fn a_refusal_or_nonsense_is_never_an_answer() {
        let token = Token::random();
        let no = || Reply::Error(b"NOPERM".to_vec());
        assert_eq!(verdict(no(), bulk("other"), &token), Err(Error::Refused("SET", b"NOPERM".to_vec())));
        assert_eq!(verdict(Reply::Nil, no(), &token), Err(Error::Refused("GET", b"NOPERM".to_vec())));
        assert!(verdict(Reply::Integer(1), bulk("other"), &token).is_err());
        assert!(verdict(Reply::Nil, Reply::Integer(1), &token).is_err());
        assert!(verdict(Reply::Nil, Reply::Status(token.as_bytes().to_vec()), &token).is_err());
    }

    #[test]
    fn only_a_past_second_is_an_abandoned_lock() {
        let token = Token::random();
        for past in ["1700000000", "1699999999", "0", "000000000001"] {
            assert_eq!(verdict(Reply::Nil, bulk(past), &token), Ok(Verdict::Abandoned(past.into())), "{past}");
        }
        let foreign = Token::random().to_string();
        for held in ["1700000001", "0000000000001", "", "-1", "+1", " 1", "1 ", "1.5", "x", "999999999999", &foreign] {
            assert_eq!(verdict(Reply::Nil, bulk(held), &token), Ok(Verdict::Held(held.into())), "{held}");
        }
    }

    #[test]
    fn the_take_over_is_won_by_the_own_token_only() {
        let token = Token::random();
        let judged = |reply| judge_take_over::<()>(Answer { replies: vec![reply], repeated: true }, &token);
        assert_eq!(judged(Reply::Bulk(token.as_bytes().to_vec())), Ok(Verdict::Ours));
        assert_eq!(judged(bulk("1699999999")), Ok(Verdict::Held(b"1699999999".to_vec())));
        assert!(judged(Reply::Nil).is_err());
        assert!(judged(Reply::Integer(1)).is_err());
        let refused = Error::Refused("EVAL (to take over a lock that a predecessor left)", b"NOPERM".to_vec());
        assert_eq!(judged(Reply::Error(b"NOPERM".to_vec())), Err(refused));
    }
}
