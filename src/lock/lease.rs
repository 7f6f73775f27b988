use super::{Error, Exchange, Lock, Repeat, only};
use crate::clock::Moment;
use crate::resp::Reply;
use std::time::Duration;

/// Renews the lock `KEYS[1]` of the token `ARGV[1]` for `ARGV[2]` milliseconds, and sets it again if it is gone: then
/// nobody holds it. Gives back the value that stands there in the end. It never shortens: a renewal that arrives after the
/// release leaves the grace as it is.
const RENEW: &[u8] = b"local v=redis.call('GET',KEYS[1]) \
    if not v then redis.call('SET',KEYS[1],ARGV[1],'PX',ARGV[2]) return ARGV[1] end \
    if v==ARGV[1] and redis.call('PTTL',KEYS[1])<tonumber(ARGV[2]) then \
    redis.call('PEXPIRE',KEYS[1],ARGV[2]) end return v";

/// The longest pause between two attempts at a renewal.
const PAUSE: Duration = Duration::from_secs(1);

/// A lock that stays ours only as long as it is renewed.
///
/// All its times are fractions of its length: renewed every third, given up a sixth before its end, so that the job can
/// be told to stop, and a twelfth before its end the job must be gone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lease {
    /// The lock.
    pub lock: Lock,
    length: Duration,
    hold_end: Moment,
    due: Moment,
    /// Whether the end of the hold, and not its length, was the end of the last renewal.
    last: bool,
}

impl Lease {
    /// A lease of `length` on `lock`, to be renewed at once and until `hold_end`.
    pub fn new(lock: Lock, length: Duration, hold_end: Moment) -> Self {
        let length = length.min(lock.ttl);
        Self { lock, length, hold_end, due: Moment::ZERO, last: false }
    }

    /// Whether it cannot be renewed any more, because the hold is over.
    pub fn is_at_its_end(&self) -> bool {
        self.last
    }

    /// When it is to be renewed.
    pub fn due(&self) -> Moment {
        self.due
    }

    /// When the job is to be stopped, unless it was renewed before.
    pub fn stop_by(&self) -> Moment {
        self.lock.surely_until.before(self.length / 6)
    }

    /// When the job must be gone, unless it was renewed before.
    pub fn gone_by(&self) -> Moment {
        self.lock.surely_until.before(self.length / 12)
    }

    /// How long one attempt at a renewal may take, so that there is time for another on a new connection.
    pub fn attempt(&self) -> Duration {
        self.length / 6
    }

    /// Renews it; false if the lock is another's. The new end counts from before we ask, and is never later than the
    /// end of the hold.
    ///
    /// # Errors
    /// When Redis could not be asked, refused, or answered nonsense. It is then due again after a pause.
    pub fn renew<X: Exchange>(&mut self, redis: &mut X) -> Result<bool, Error<X::Error>> {
        let asked = redis.now();
        self.due = asked + PAUSE.min(self.length / 12);
        let Some(ttl) = self.hold_end.since(asked).map(|left| left.min(self.length)) else { return Ok(true) };
        let milliseconds = ttl.as_millis().max(1).to_string();
        let command: &[&[u8]] =
            &[b"EVAL", RENEW, b"1", &self.lock.name, self.lock.token.as_bytes(), milliseconds.as_bytes()];
        match only(redis.exchange(&[command], Repeat::Always)?) {
            Some(Reply::Bulk(value)) if value == self.lock.token.as_bytes() => {
                self.lock.surely_until = asked + ttl;
                self.last = ttl < self.length;
                self.due = asked + self.length / 3;
                Ok(true)
            }
            Some(Reply::Bulk(_)) => Ok(false),
            Some(Reply::Error(words)) => Err(Error::Refused("EVAL (to renew the lease)", words)),
            _ => Err(Error::Unexpected("EVAL")),
        }
    }

    /// Makes it due at once: an attempt was broken off for something more urgent.
    pub fn hurry(&mut self) {
        self.due = Moment::ZERO;
    }
}

#[cfg(test)]
mod tests {
    use super::super::scripted::{at, lock, own, script};
    use super::*;

    const LENGTH: Duration = Duration::from_secs(12);

    fn lease(hold_end: u64) -> Lease {
        Lease::new(lock(at(112_000)), LENGTH, at(hold_end))
    }

    #[test]
    fn its_times_are_fractions_of_its_length() {
        let mut lease = lease(1_000_000);
        assert_eq!((lease.stop_by(), lease.gone_by(), lease.attempt()), (at(110_000), at(111_000), LENGTH / 6));
        assert_eq!(lease.due(), Moment::ZERO);
        assert_eq!(lease.renew(&mut script([Some(own())])), Ok(true));
        assert_eq!((lease.due(), lease.lock.surely_until, lease.is_at_its_end()), (at(104_000), at(112_000), false));
        lease.hurry();
        assert_eq!(lease.due(), Moment::ZERO);
    }

    #[test]
    fn no_renewal_reaches_beyond_the_hold() {
        for (hold_end, last) in [(112_001, false), (112_000, false), (111_999, true)] {
            let (mut lease, mut redis) = (lease(hold_end), script([Some(own())]));
            assert_eq!(lease.renew(&mut redis), Ok(true));
            assert_eq!((lease.is_at_its_end(), lease.lock.surely_until), (last, at(hold_end.min(112_000))));
        }
        let mut redis = script([]);
        assert_eq!(
            (lease(100_000).renew(&mut redis), redis.asked.len()),
            (Ok(true), 0),
            "there is nothing left to ask for"
        );
    }

    #[test]
    fn only_another_token_means_that_it_is_lost() {
        let renew = |reply| lease(1_000_000).renew(&mut script([reply]));
        assert_eq!(renew(Some(Reply::Bulk(b"another".to_vec()))), Ok(false));
        let refused = Error::Refused("EVAL (to renew the lease)", b"NOPERM".to_vec());
        assert_eq!(renew(Some(Reply::Error(b"NOPERM".to_vec()))), Err(refused));
        assert_eq!(renew(Some(Reply::Nil)), Err(Error::Unexpected("EVAL")));
        let mut short = Lease::new(lock(at(112_000)), Duration::from_secs(6), at(1_000_000));
        assert_eq!((short.renew(&mut script([None])), short.due()), (Err(Error::Exchange(())), at(100_500)));
        let mut long = lease(1_000_000);
        assert_eq!((long.renew(&mut script([None])), long.due()), (Err(Error::Exchange(())), at(101_000)));
    }
}
