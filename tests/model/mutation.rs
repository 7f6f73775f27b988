//! Deliberate faults of the protocol, each of which the explorer must find.

use golock::lock::Repeat;
use golock::resp::Reply;

use crate::redis::Request;

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutation {
    /// The release does not compare the value with the token.
    ReleaseWithoutCompare,
    /// The reply to SET, and not the value read back, says who holds the lock.
    OwnershipBySet,
    /// A predecessor's lock is taken over whatever its value has become.
    TakeOverWithoutCompare,
    /// A predecessor's lock is taken over although it expires by itself.
    TakeOverWithTtl,
    /// What must not be sent twice is sent until it is answered.
    RetryOfTheUnrepeatable,
    /// A renewal does not compare the value with the token.
    RenewalWithoutCompare,
    /// The lock is taken without a TTL, as cronlock does.
    LockWithoutTtl,
    /// The release without EVAL touches a lock that is about to expire.
    ReleaseAtTheLastMoment,
}

impl Mutation {
    /// What in a request is replaced, and by what.
    fn words(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::ReleaseWithoutCompare => Some(("if v~=ARGV[1] then return 0 end", "")),
            Self::TakeOverWithoutCompare => Some(("v==ARGV[1] and ", "")),
            Self::TakeOverWithTtl => Some((" and redis.call('TTL',KEYS[1])==-1", "")),
            Self::RenewalWithoutCompare => Some((
                "if v==ARGV[1] and redis.call('PTTL',KEYS[1])<tonumber(ARGV[2]) then redis.call('PEXPIRE',KEYS[1],ARGV[2]) end return v",
                "redis.call('SET',KEYS[1],ARGV[1],'PX',ARGV[2]) return ARGV[1]",
            )),
            Self::OwnershipBySet
            | Self::RetryOfTheUnrepeatable
            | Self::LockWithoutTtl
            | Self::ReleaseAtTheLastMoment => None,
        }
    }

    /// The request that is sent instead.
    pub(crate) fn request(self, mut request: Request) -> Request {
        if let (Some((old, new)), [b"EVAL", ..]) = (self.words(), words(&request[0]).as_slice()) {
            let script = str::from_utf8(&request[0][1]).unwrap();
            request[0][1] = script.replace(old, new).into_bytes();
        }
        if self == Self::LockWithoutTtl && request[0][0] == b"SET" {
            request[0].truncate(4);
        }
        request
    }

    /// What the lock code hears instead.
    pub(crate) fn replies(self, request: &Request, mut replies: Vec<Reply>) -> Vec<Reply> {
        if self == Self::OwnershipBySet && request[0][0] == b"SET" && request.len() == 2 {
            let own = matches!(replies[0], Reply::Status(_));
            replies[1] = Reply::Bulk(if own { request[0][2].clone() } else { b"another's".to_vec() });
        }
        replies
    }

    /// Whether it would be sent again.
    pub(crate) fn repeat(self, repeat: Repeat) -> Repeat {
        if self == Self::RetryOfTheUnrepeatable { Repeat::Always } else { repeat }
    }
}

fn words(command: &[Vec<u8>]) -> Vec<&[u8]> {
    command.iter().map(Vec::as_slice).collect()
}
