//! The port between the lock and the network: something that asks Redis, and the clocks that go with it.

use crate::clock::{Instant, unix_milliseconds};
use crate::resp::{Reply, Request};
use crate::text::Line;

/// Whether an exchange may be sent again when its reply was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Repeat {
    /// Until it is answered: doing it twice has the outcome of doing it once.
    Always,
    /// Never: in between, another may have taken the lock.
    Never,
}

/// The replies to one exchange.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Answer {
    /// As many as commands were sent: none, if by then there was nothing to send.
    pub replies: Vec<Reply>,
    /// When what was answered was sent.
    pub asked: Instant,
    /// Whether the commands may have been carried out more than once.
    pub repeated: bool,
}

/// An exchange that came to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unanswered {
    /// Why; `None` if a signal arrived that had to be handled first.
    pub why: Option<Line>,
    /// Whether one of its attempts may have been carried out all the same.
    pub may_be_done: bool,
}

/// Makes the request of one attempt, which is sent now. It is called anew for each, because what depends on time is
/// different then. A request without commands is not sent.
pub type Build<'a> = &'a dyn Fn(Instant, &mut Request);

/// Something that answers like Redis.
pub trait Exchange {
    /// Sends what `build` makes, in one write, and gives back its replies.
    fn exchange(&mut self, repeat: Repeat, build: Build<'_>) -> Result<Answer, Unanswered>;

    /// The present.
    fn now(&self) -> Instant {
        Instant::now()
    }

    /// The Unix second by the wall clock of this host, which may be wrong.
    fn unix_second(&self) -> u64 {
        unix_milliseconds() / 1000
    }
}

impl Answer {
    /// The only reply to a command sent alone.
    pub fn only(self) -> Option<Reply> {
        self.replies.into_iter().next()
    }
}
