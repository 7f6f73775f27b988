//! The lock protocol: what is asked of Redis, and what its answers mean.
//!
//! Its laws: every exchange can be repeated with the same outcome; holding is proven by reading the own token back;
//! Redis's TTL is the only clock that frees a lock. Decisions are pure functions of replies. The exchanges go through
//! [`Exchange`], which knows nothing of locks, so that anything that answers like Redis can stand behind it.

mod acquire;
mod key;
mod lease;
mod release;
mod status;
mod token;

pub use acquire::{Acquired, acquire};
pub use key::{KeyFormat, digest, name};
pub use lease::Lease;
pub use release::{Released, release, reset};
pub use status::{Holder, Status, Ttl, status};
pub use token::Token;

use crate::clock::{Moment, unix_milliseconds};
use crate::resp::Reply;
use std::time::Duration;

/// A command: its name and arguments.
pub type Command<'a> = &'a [&'a [u8]];

/// Whether an exchange may be sent again when its reply was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Repeat {
    /// Until it is answered: doing it twice has the outcome of doing it once.
    Always,
    /// Never: between two times somebody else may have come to hold the lock.
    Never,
}

/// The replies to one exchange.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Answer {
    /// As many as commands were sent.
    pub replies: Vec<Reply>,
    /// Whether the commands may have been carried out more than once.
    pub repeated: bool,
}

/// Something that answers like Redis, and the clocks beside it.
pub trait Exchange {
    /// Why there is no answer.
    type Error;

    /// Sends `commands` together and gives back their replies.
    ///
    /// # Errors
    /// When there is no answer, or none in time. The commands may have been carried out all the same.
    fn exchange(&mut self, commands: &[Command<'_>], repeat: Repeat) -> Result<Answer, Self::Error>;

    /// The present.
    fn now(&self) -> Moment {
        Moment::now()
    }

    /// The Unix second by the wall clock of this host, which may be wrong.
    fn unix_second(&self) -> u64 {
        unix_milliseconds() / 1000
    }
}

/// Why a question about a lock has no answer.
#[derive(Debug, PartialEq, Eq)]
pub enum Error<E> {
    /// The exchange failed.
    Exchange(E),
    /// The server refused the command named, in its own words.
    Refused(&'static str, Vec<u8>),
    /// The server's reply to the command named is none that this command has.
    Unexpected(&'static str),
    /// The answers came when what they were about was nearly over.
    Late,
    /// The lock was gone each time right after it had been set.
    Vanishing,
}

impl<E> From<E> for Error<E> {
    fn from(error: E) -> Self {
        Self::Exchange(error)
    }
}

/// The lock that this process asks for: made before it asks, and proven to be held each time before it is touched.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lock {
    /// The lock's full name.
    pub name: Vec<u8>,
    /// The value that is ours alone.
    pub token: Token,
    /// How long Redis keeps it, in whole seconds.
    pub ttl: Duration,
    /// Until when Redis cannot have let it expire, if we get it: it counts from before we ask.
    pub surely_until: Moment,
}

impl Lock {
    /// The lock `name`, to be asked for at once.
    pub fn new(name: &[u8], ttl: Duration) -> Self {
        Self { name: name.to_vec(), token: Token::random(), ttl, surely_until: Moment::after(ttl) }
    }
}

/// The only reply to a command sent alone.
fn only(answer: Answer) -> Option<Reply> {
    answer.replies.into_iter().next()
}

#[cfg(test)]
mod scripted {
    use super::{Answer, Command, Exchange, Lock, Moment, Repeat, Token};
    use crate::resp::Reply;
    use std::time::Duration;

    /// Answers one command after the other as it was told, always at the same time.
    pub(super) struct Scripted {
        pub(super) replies: Vec<Option<Reply>>,
        pub(super) asked: Vec<String>,
    }

    /// The moment of so many milliseconds; a script is played at that of 100,000.
    pub(super) fn at(milliseconds: u64) -> Moment {
        Moment::ZERO + Duration::from_millis(milliseconds)
    }

    pub(super) fn script(replies: impl IntoIterator<Item = Option<Reply>>) -> Scripted {
        Scripted { replies: replies.into_iter().collect(), asked: Vec::new() }
    }

    pub(super) fn lock(surely_until: Moment) -> Lock {
        let ttl = Duration::from_secs(12);
        Lock { name: b"k".to_vec(), token: Token::from_number(1), ttl, surely_until }
    }

    /// The token of the lock of these tests.
    pub(super) fn own() -> Reply {
        Reply::Bulk(Token::from_number(1).as_bytes().to_vec())
    }

    impl Exchange for Scripted {
        type Error = ();

        fn exchange(&mut self, commands: &[Command<'_>], _: Repeat) -> Result<Answer, ()> {
            let [command] = commands else { panic!("more than one command") };
            let words = command.iter().map(|word| String::from_utf8_lossy(word).into_owned());
            self.asked.push(words.collect::<Vec<_>>().join(" "));
            let reply = self.replies.remove(0).ok_or(())?;
            Ok(Answer { replies: vec![reply], repeated: false })
        }

        fn now(&self) -> Moment {
            at(100_000)
        }
    }

    #[test]
    fn the_wall_clock_tells_seconds() {
        let second = script([]).unix_second();
        assert!((1_700_000_000..100_000_000_000).contains(&second), "{second}");
    }
}
