use super::{Answer, Command, Error, Exchange, Lock, Repeat, only};
use crate::clock::Moment;
use crate::resp::Reply;
use std::time::Duration;

/// Gives up the lock `KEYS[1]` if its value is the token `ARGV[1]`: at once, or when `ARGV[2]` milliseconds have passed
/// if that is not 0 and sooner than it expires anyway. There is no SET in it, so it works on a Redis that is out of
/// memory. Gives back 1, 0 for a foreign value, -1 if there is none.
const RELEASE: &[u8] = b"local v=redis.call('GET',KEYS[1]) if not v then return -1 end \
    if v~=ARGV[1] then return 0 end local g=tonumber(ARGV[2]) \
    if g==0 then redis.call('DEL',KEYS[1]) \
    else redis.call('PEXPIRE',KEYS[1],ARGV[2]) end return 1";

/// How often the release without EVAL starts again when its last, not repeatable step was not answered.
const ROUNDS: u32 = 3;

/// What became of a lock that was to be released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Released {
    /// It is free.
    Free,
    /// It becomes free by itself after this time.
    InGrace(Duration),
    /// It was not ours any more, and was left alone.
    Lost,
    /// It may still be ours, but not surely enough to touch it without EVAL. It expires by itself.
    Left,
}

/// Releases `lock`, which is to persist until `grace_end`; `margin` is how long a command may be under way.
///
/// # Errors
/// When Redis could not be asked, refused, or answered nonsense. The lock may have been released all the same.
pub fn release<X: Exchange>(
    redis: &mut X,
    lock: &Lock,
    grace_end: Moment,
    margin: Duration,
) -> Result<Released, Error<X::Error>> {
    let grace = grace_end.since(redis.now()).unwrap_or_default();
    // Rounded up: zero means "now" to the script.
    let milliseconds = grace.as_micros().div_ceil(1000).to_string();
    let answer = redis.exchange(
        &[&[b"EVAL", RELEASE, b"1", &lock.name, lock.token.as_bytes(), milliseconds.as_bytes()]],
        Repeat::Always,
    )?;
    // Until then a lock that we have released stands there with our token.
    let grace_is_over = grace_end.since(redis.now()).is_none();
    match judge(answer, grace_is_over) {
        Ok(true) if grace.is_zero() => Ok(Released::Free),
        Ok(true) => Ok(Released::InGrace(grace)),
        Ok(false) => Ok(Released::Lost),
        Err(Error::Refused(..)) => release_plainly(redis, lock, grace_end, margin),
        Err(error) => Err(error),
    }
}

/// Whether it was ours when it was released. A lock that is gone or another's after a repetition may have been released the
/// first time, if its grace is over.
fn judge<E>(answer: Answer, grace_is_over: bool) -> Result<bool, Error<E>> {
    let repeated = answer.repeated;
    match only(answer) {
        Some(Reply::Integer(1)) => Ok(true),
        Some(Reply::Integer(0 | -1)) => Ok(repeated && grace_is_over),
        Some(Reply::Error(words)) => Err(Error::Refused("EVAL", words)),
        _ => Err(Error::Unexpected("EVAL")),
    }
}

/// The release where the server refuses EVAL: look, then delete or shorten. Between the two the lock could expire and
/// be taken by another, so it is only touched while our own clock says that it cannot expire within `margin`, and the
/// second step is never repeated without the first.
fn release_plainly<X: Exchange>(
    redis: &mut X,
    lock: &Lock,
    grace_end: Moment,
    margin: Duration,
) -> Result<Released, Error<X::Error>> {
    let mut last = None;
    for round in 0..ROUNDS {
        let value = redis.exchange(&[&[b"GET", &lock.name]], Repeat::Always)?;
        match only(value) {
            Some(Reply::Bulk(value)) if value == lock.token.as_bytes() => {}
            Some(Reply::Nil) if round > 0 => return Ok(Released::Free),
            Some(Reply::Bulk(_) | Reply::Nil) => return Ok(Released::Lost),
            Some(Reply::Error(words)) => return Err(Error::Refused("GET", words)),
            _ => return Err(Error::Unexpected("GET")),
        }
        if lock.surely_until.since(redis.now()).is_none_or(|left| left <= margin) {
            return Ok(Released::Left);
        }
        let grace = grace_end.since(redis.now()).unwrap_or_default();
        match give_up(redis, lock, grace) {
            Err(Error::Exchange(error)) => last = Some(error),
            done => return done,
        }
    }
    last.map_or(Err(Error::Vanishing), |error| Err(Error::Exchange(error)))
}

/// Deletes the lock, or sets its end to `grace` from now.
fn give_up<X: Exchange>(redis: &mut X, lock: &Lock, grace: Duration) -> Result<Released, Error<X::Error>> {
    let seconds = (grace.as_secs() + u64::from(grace.subsec_nanos() > 0)).to_string();
    let command: Command<'_> = if grace.is_zero() {
        &[b"DEL", &lock.name]
    } else {
        &[b"SET", &lock.name, lock.token.as_bytes(), b"XX", b"EX", seconds.as_bytes()]
    };
    match (only(redis.exchange(&[command], Repeat::Never)?), grace.is_zero()) {
        (Some(Reply::Integer(1)), true) => Ok(Released::Free),
        (Some(Reply::Status(_)), false) => Ok(Released::InGrace(grace)),
        (Some(Reply::Integer(0)), true) | (Some(Reply::Nil), false) => Ok(Released::Lost),
        (Some(Reply::Error(words)), _) => Err(Error::Refused("the release", words)),
        _ => Err(Error::Unexpected("the release")),
    }
}

/// Deletes the lock `name`, whoever holds it, whether or not there is one.
///
/// # Errors
/// When Redis could not be asked, refused, or answered nonsense.
pub fn reset<X: Exchange>(redis: &mut X, name: &[u8]) -> Result<(), Error<X::Error>> {
    match only(redis.exchange(&[&[b"DEL", name]], Repeat::Always)?) {
        Some(Reply::Integer(0 | 1)) => Ok(()),
        Some(Reply::Error(words)) => Err(Error::Refused("DEL", words)),
        _ => Err(Error::Unexpected("DEL")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::scripted::{at, lock, own, script};
    use super::*;

    /// The release of a lock that lasts until so many milliseconds after now, with so many of grace, and a margin of 1,000.
    fn release_by(replies: impl IntoIterator<Item = Option<Reply>>, lasts: u64, grace: u64) -> (Outcome, Vec<String>) {
        let (mut redis, lock) = (script(replies), lock(at(100_000 + lasts)));
        let released = release(&mut redis, &lock, at(100_000 + grace), Duration::from_secs(1));
        let verbs = redis.asked.iter().map(|words| words.replace(&lock.token.to_string(), "TOKEN"));
        (released, verbs.filter(|words| !words.starts_with("EVAL")).collect())
    }

    type Outcome = Result<Released, Error<()>>;

    fn refusal() -> Reply {
        Reply::Error(b"NOPERM".to_vec())
    }

    #[test]
    fn a_release_is_free_or_in_grace() {
        let one = || [Some(Reply::Integer(1))];
        assert_eq!(release_by(one(), 5000, 0).0, Ok(Released::Free));
        assert_eq!(release_by(one(), 5000, 1).0, Ok(Released::InGrace(Duration::from_millis(1))));
    }

    #[test]
    fn without_eval_it_looks_and_then_deletes_or_shortens() {
        let plainly = |reply, grace| release_by([Some(refusal()), Some(own()), reply], 5000, grace);
        let (ok, grace) = (|| Some(Reply::Status(b"OK".to_vec())), Duration::from_millis);
        for (reply, milliseconds, outcome, step) in [
            (Some(Reply::Integer(1)), 0, Ok(Released::Free), "DEL k"),
            (Some(Reply::Integer(0)), 0, Ok(Released::Lost), "DEL k"),
            (ok(), 0, Err(Error::Unexpected("the release")), "DEL k"),
            (ok(), 1500, Ok(Released::InGrace(grace(1500))), "SET k TOKEN XX EX 2"),
            (ok(), 2000, Ok(Released::InGrace(grace(2000))), "SET k TOKEN XX EX 2"),
            (Some(Reply::Nil), 2001, Ok(Released::Lost), "SET k TOKEN XX EX 3"),
            (Some(Reply::Integer(1)), 2000, Err(Error::Unexpected("the release")), "SET k TOKEN XX EX 2"),
            (Some(refusal()), 0, Err(Error::Refused("the release", b"NOPERM".to_vec())), "DEL k"),
        ] {
            assert_eq!(plainly(reply, milliseconds), (outcome, vec!["GET k".to_owned(), step.to_owned()]));
        }
    }

    #[test]
    fn without_eval_what_is_not_surely_ours_is_left_alone() {
        let looked = |reply, lasts| release_by([Some(refusal()), reply], lasts, 0).0;
        assert_eq!(looked(Some(Reply::Bulk(b"another".to_vec())), 5000), Ok(Released::Lost));
        assert_eq!(looked(Some(Reply::Nil), 5000), Ok(Released::Lost));
        assert_eq!(looked(Some(refusal()), 5000), Err(Error::Refused("GET", b"NOPERM".to_vec())));
        assert_eq!(looked(Some(Reply::Integer(1)), 5000), Err(Error::Unexpected("GET")));
        assert_eq!(looked(Some(own()), 1000), Ok(Released::Left));
        assert_eq!(release_by([Some(refusal()), Some(own()), Some(Reply::Integer(1))], 1001, 0).0, Ok(Released::Free));
    }

    #[test]
    fn without_eval_a_lost_reply_leads_to_another_look() {
        let again =
            |more: &[Option<Reply>]| release_by([&[Some(refusal()), Some(own()), None], more].concat(), 5000, 0).0;
        assert_eq!(again(&[Some(Reply::Nil)]), Ok(Released::Free));
        assert_eq!(again(&[Some(Reply::Bulk(b"another".to_vec()))]), Ok(Released::Lost));
        assert_eq!(again(&[Some(own()), Some(Reply::Integer(1))]), Ok(Released::Free));
        assert_eq!(again(&[Some(own()), None, Some(own()), None]), Err(Error::Exchange(())));
    }

    #[test]
    fn a_reset_is_done_whether_or_not_there_was_a_lock() {
        let reset = |reply| reset(&mut script([Some(reply)]), b"k");
        assert_eq!((reset(Reply::Integer(0)), reset(Reply::Integer(1))), (Ok(()), Ok(())));
        assert_eq!(reset(Reply::Integer(2)), Err(Error::Unexpected("DEL")));
        assert_eq!(reset(Reply::Error(b"NOPERM".to_vec())), Err(Error::Refused("DEL", b"NOPERM".to_vec())));
    }

    #[test]
    fn a_loss_is_told_only_if_it_is_certain() {
        for (number, repeated, grace_is_over, ours) in [
            (1, false, false, true),
            (1, true, true, true),
            (0, false, true, false),
            (-1, false, true, false),
            (0, true, false, false),
            (-1, true, false, false),
            (0, true, true, true),
            (-1, true, true, true),
        ] {
            let answer = Answer { replies: vec![Reply::Integer(number)], repeated };
            assert_eq!(judge::<()>(answer, grace_is_over), Ok(ours), "{number} {repeated} {grace_is_over}");
        }
    }

    #[test]
    fn nonsense_is_no_release() {
        let judged = |reply| judge::<()>(Answer { replies: vec![reply], repeated: true }, true);
        assert_eq!(judged(Reply::Error(b"NOPERM".to_vec())), Err(Error::Refused("EVAL", b"NOPERM".to_vec())));
        for reply in [Reply::Integer(2), Reply::Nil, Reply::Bulk(b"1".to_vec()), Reply::Status(b"OK".to_vec())] {
            assert_eq!(judged(reply), Err(Error::Unexpected("EVAL")));
        }
    }
}
