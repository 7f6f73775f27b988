use super::status::{Status, is_second, with_record};
use super::{Error, Lease, Token, Unsure};
use crate::exchange::{Exchange, Repeat};
use crate::resp::Reply;
use std::cell::Cell;

/// How often a lock may vanish between the question and the answer before we stop asking: each time somebody's lock
/// has just expired or was reset, which does not happen again and again.
const ROUNDS: u32 = 5;

/// The outcome of asking for a lock.
#[derive(Debug, PartialEq, Eq)]
pub enum Acquired {
    /// It is ours.
    Ours,
    /// It is a lock that a predecessor left behind, with this value: ours, if the confirmation takes it over.
    Stale(Vec<u8>),
    /// Another holds it.
    Held(Status),
}

/// Asks for the lock of `lease`: SET NX EX and GET in one write, of which GET decides. Repeated by the winner it has the
/// same outcome, because SET NX does nothing then. Whoever `looks` gets the record of a lock that is held as well.
pub fn acquire(redis: &mut dyn Exchange, lease: &mut Lease, looks: bool) -> Result<Acquired, Unsure> {
    let (options, token) = (lease.options.clone(), lease.token.clone());
    let seconds = options.ttl().as_secs().to_string();
    let wanted = options.record.as_ref().filter(|_| looks).map(|record| &record.key[..]);
    // Asked for once: what stands there may be too long for a reply, and must not fail the lock.
    let asks = Cell::new(wanted);
    let mut may_hold = false;
    for _ in 0..ROUNDS {
        lease.ask_for(redis.now());
        let answer = redis.exchange(Repeat::Always, &|_, request| {
            request.push(&[b"SET", &options.name, token.as_bytes(), b"NX", b"EX", seconds.as_bytes()]);
            request.push(&[b"GET", &options.name]);
            if let Some(record) = asks.take() {
                request.push(&[b"GET", record]);
                request.informs = 1;
            }
        });
        let answer = answer.map_err(|lost| Unsure { may_hold: may_hold || lost.may_be_done, error: lost.into() })?;
        lease.asked_at = answer.asked;
        let mut replies = answer.replies;
        let seen = if replies.len() > 2 { replies.pop() } else { None };
        // Also if nothing is there in the end: a proxy may have asked a replica that lags.
        may_hold |= answer.repeated || matches!(replies.first(), Some(Reply::Status(_)));
        let judged = judge(replies, &token, redis.unix_second());
        match judged.map_err(|error| Unsure { error, may_hold })? {
            Some(Acquired::Held(status)) if wanted.is_some() && seen.is_none() => {
                // It may have gone since; it was held all the same.
                let known = super::status(redis, &options.name, wanted).ok().filter(|seen| seen.value.is_some());
                return Ok(Acquired::Held(known.unwrap_or(status)));
            }
            Some(Acquired::Held(status)) => return Ok(Acquired::Held(with_record(status, seen))),
            Some(acquired) => return Ok(acquired),
            None => {}
        }
    }
    let error = Error::Failed("the lock disappears as soon as it is set; is redis out of memory?");
    Err(Unsure { error, may_hold })
}

/// What GET shows is older than what SET did.
const ELSEWHERE: &str = "it was set, and another's is read; does a proxy read from a replica?";

/// What the replies to SET and GET mean at the Unix second `now`; `None`: the lock has vanished in between. Only GET decides
/// who holds the lock: the reply to SET is that of its last repetition.
fn judge(replies: Vec<Reply>, token: &Token, now: u64) -> Result<Option<Acquired>, Error> {
    let Ok([set, get]) = <[Reply; 2]>::try_from(replies) else { return Err(Error::Unexpected("SET and GET")) };
    match (set, get) {
        (_, Reply::Bulk(value)) if value == token.as_bytes() => Ok(Some(Acquired::Ours)),
        (Reply::Error(words), _) => Err(Error::Refused("SET", words)),
        (_, Reply::Error(words)) => Err(Error::Refused("GET", words)),
        (Reply::Status(_) | Reply::Nil, Reply::Nil) => Ok(None),
        (Reply::Status(_) | Reply::Nil, Reply::Bulk(value)) if is_past(&value, now) => Ok(Some(Acquired::Stale(value))),
        (Reply::Nil, Reply::Bulk(value)) => Ok(Some(Acquired::Held(Status::held(value)))),
        (Reply::Status(_), Reply::Bulk(_)) => Err(Error::Failed(ELSEWHERE)),
        _ => Err(Error::Unexpected("SET and GET")),
    }
}

/// Whether `value` is a Unix second, as the predecessors write it, that is not later than `now`.
fn is_past(value: &[u8], now: u64) -> bool {
    is_second(value) && value.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0')) <= now
}

#[cfg(test)]
mod tests {
    use super::super::scripted::{lease, timed};
    use super::super::{Record, Recording, Run};
    use super::*;
    use std::time::Duration;

    const NOW: u64 = 1_700_000_000;

    fn judged(set: Reply, get: Reply, token: &Token) -> Result<Option<Acquired>, Error> {
        judge(vec![set, get], token, NOW)
    }

    fn bulk(text: &str) -> Reply {
        Reply::Bulk(text.into())
    }

    fn held(text: &str) -> Acquired {
        Acquired::Held(Status::held(text.into()))
    }

    #[test]
    fn the_own_token_read_back_is_the_only_proof() {
        let token = Token::random();
        let own = || Reply::Bulk(token.as_bytes().to_vec());
        for set in [Reply::Status(b"OK".to_vec()), Reply::Nil, Reply::Error(b"OOM command not allowed".to_vec())] {
            assert_eq!(judged(set, own(), &token), Ok(Some(Acquired::Ours)));
        }
        let ok = || Reply::Status(b"OK".to_vec());
        assert_eq!(judged(Reply::Nil, bulk("other"), &token), Ok(Some(held("other"))));
        assert_eq!(judged(ok(), bulk("other"), &token), Err(Error::Failed(ELSEWHERE)));
        assert_eq!(judged(ok(), Reply::Nil, &token), Ok(None));
        assert_eq!(judged(Reply::Nil, Reply::Nil, &token), Ok(None));
    }

    #[test]
    fn the_record_is_read_in_the_same_write_for_whoever_asks() {
        let line = "fence=1 host=a pid=1 program=b start=1 end=2 result=0 ok=2 failed=0 first=1";
        let mut recorded = lease(0, 60, None);
        let run = Run { host: b"h".to_vec(), pid: 1, program: b"p".to_vec() };
        recorded.options.record = Some(Recording { key: b"r".to_vec(), keep: Duration::from_mins(1), run });
        let status = |record| Ok(Acquired::Held(Status { record, ..Status::held(b"other".to_vec()) }));
        let mut redis = timed([(0, Some(vec![Reply::Nil, bulk("other"), bulk(line)]))]);
        let known = Record::parse(line.as_bytes());
        assert_eq!(acquire(&mut redis, &mut recorded, true), status(known));
        assert_eq!(redis.asked, ["SET k TOKEN NX EX 60 GET k GET r"]);
        let mut redis = timed([(0, Some(vec![Reply::Nil, bulk("other")]))]);
        assert_eq!(acquire(&mut redis, &mut recorded, false), status(None));
    }

    #[test]
    fn who_was_heard_may_hold_it_although_get_is_refused() {
        let refused = Error::Refused("GET", b"NOPERM".to_vec());
        for (set, repeated, may_hold) in [
            (Reply::Nil, false, false),
            (Reply::Nil, true, true),
            (Reply::Status(b"OK".to_vec()), false, true),
            (Reply::Status(b"OK".to_vec()), true, true),
        ] {
            let mut redis = timed([(0, Some(vec![set, Reply::Error(b"NOPERM".to_vec())]))]);
            redis.repeated = repeated;
            let unsure = acquire(&mut redis, &mut lease(0, 60, None), false);
            assert_eq!(unsure, Err(Unsure { error: refused.clone(), may_hold }));
        }
    }

    #[test]
    fn what_an_earlier_round_has_set_is_not_forgotten() {
        let both = |set| (0, Some(vec![set, Reply::Nil]));
        let nothing = (1..ROUNDS).map(|_| both(Reply::Nil));
        let mut redis = timed([both(Reply::Status(b"OK".to_vec()))].into_iter().chain(nothing));
        assert!(acquire(&mut redis, &mut lease(0, 60, None), false).is_err_and(|unsure| unsure.may_hold));
    }

    #[test]
    fn a_refusal_or_nonsense_is_never_an_answer() {
        let token = Token::random();
        let no = || Reply::Error(b"NOPERM".to_vec());
        assert_eq!(judged(no(), bulk("other"), &token), Err(Error::Refused("SET", b"NOPERM".to_vec())));
        assert_eq!(judged(Reply::Nil, no(), &token), Err(Error::Refused("GET", b"NOPERM".to_vec())));
        assert!(judged(Reply::Integer(1), bulk("other"), &token).is_err());
        assert!(judged(Reply::Nil, Reply::Integer(1), &token).is_err());
        assert!(judged(Reply::Nil, Reply::Status(token.as_bytes().to_vec()), &token).is_err());
    }

    #[test]
    fn only_a_past_second_is_a_stale_lock() {
        let token = Token::random();
        for past in ["1700000000", "1699999999", "0", "000000000001"] {
            let stale = Ok(Some(Acquired::Stale(past.into())));
            assert_eq!(judged(Reply::Nil, bulk(past), &token), stale, "{past}");
        }
        let foreign = Token::random().to_string();
        for other in ["1700000001", "0000000000001", "", "-1", "+1", " 1", "1 ", "1.5", "x", "999999999999", &foreign] {
            assert_eq!(judged(Reply::Nil, bulk(other), &token), Ok(Some(held(other))), "{other}");
        }
    }
}
