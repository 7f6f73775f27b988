//! Deliberate faults of the protocol, each of which the explorer must find.

use golock::resp::Reply;

use crate::host::Phase;
use crate::redis::Command;

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
    /// A release makes a lock without a lease last longer.
    ReleaseLengthens,
    /// A renewal reaches beyond RELEASE.
    RenewalBeyondRelease,
    /// The end of a lock counts from the answer, and not from when it was asked for.
    CountedFromAnswer,
    /// The rest of the grace is that of the first attempt to release.
    GraceOnce,
    /// The command starts as soon as GET has shown our token.
    NoConfirm,
    /// Nobody looks at the clock between the confirmation and the start.
    NoLastLook,
    /// That an earlier attempt may have taken the lock is forgotten when a later one is refused.
    FearForgotten,
    /// A lock that could not be confirmed is not given back.
    NoGiveBack,
    /// A second signal ends the attempts to give a lock back.
    SecondSignal,
    /// A run gets the number of the one before it, if the clock does not tell them apart.
    NumberTwice,
    /// The numbers of runs are those of the clock alone.
    NumberByClock,
    /// A run that is confirmed once more is recorded, and numbered, once more.
    RecordedAgain,
    /// A confirmation that arrives after the end of its run begins it again.
    RunsAgain,
    /// A renewal that arrives after the end of its run sets the lock again.
    RenewsAfterEnd,
    /// A run takes its own record for that of another.
    OwnRunServes,
    /// A run takes the record of another of the same host and process id for its own.
    NamesakeIsOwn,
    /// A run that was given back before its command started has served.
    VoidServes,
    /// How long ago golock was started is that of its first attempt to get the lock.
    ElapsedOnce,
    /// What the way of a request makes doubtful counts as no other run.
    NoDoubt,
    /// A doubt leaves the lock prolonged, as if it had been set just now.
    DoubtProlongs,
    /// A run that was too early ends the search for another one.
    DoubtEndsLook,
    /// A run that began in the future has served.
    FutureServes,
    /// Without a record a lock is used although it was asked for later than GRACE after the start.
    LateUnrecorded,
    /// What is wrong with the record fails the lock.
    RecordFailsLock,
    /// The end of a run is recorded again by each repetition.
    EndedAgain,
    /// A release writes the end of a run into the record of another.
    EndsAnother,
    /// Any record is believed, however it looks.
    GarbageServes,
    /// A renewal that arrives late shortens what is left.
    RenewalShortens,
    /// A stopped job is continued without a look at its lock.
    ResumedUnseen,
}

impl Mutation {
    /// What in a script is replaced, and by what.
    fn words(self) -> Option<(&'static str, &'static str)> {
        Some(match self {
            Self::ReleaseWithoutCompare => (" elseif v~=ARGV[1] then c=0 ", " "),
            Self::TakeOverWithoutCompare => ("v==ARGV[3] and ", ""),
            Self::TakeOverWithTtl => (" and redis.call('TTL',KEYS[1])==-1", ""),
            Self::RenewalWithoutCompare => ("if v and v~=ARGV[1] and not(v==ARGV[3] ", "if false and (v==ARGV[3] "),
            Self::RenewsAfterEnd => (" then return ARGV[1] end local v,p", " then end local v,p"),
            Self::NumberTwice => ("(f or 0)+1", "(f or 0)"),
            Self::NumberByClock => ("math.max((f or 0)+1,t[1]*1000000+t[2])", "t[1]*1000000+t[2]"),
            Self::RecordedAgain | Self::OwnRunServes => {
                ("elseif string.find(l,m,1,true) then if d~='' then back() return ARGV[1]..' served' end else", "else")
            }
            Self::RunsAgain => ("if d~='' then back() return ARGV[1]..' served' end", ""),
            Self::NamesakeIsOwn => ("string.find(l,m,1,true)", "string.find(r,ARGV[5],1,true)"),
            Self::ReleaseLengthens => ("if ARGV[3]=='1' or p<0 or p>g then", "if true then"),
            Self::VoidServes => ("if ARGV[4]=='0' then s=0 end", ""),
            Self::RenewalShortens => ("if p<tonumber(ARGV[2]) then", "if true then"),
            Self::NoDoubt => ("if not p or p<0 or a<g+ARGV[2]-p then", "if false then"),
            Self::DoubtProlongs => ("back() return ARGV[1]..' unsure '", "return ARGV[1]..' unsure '"),
            Self::FutureServes => ("g and a>=0 and", "g and"),
            Self::RecordFailsLock => ("redis.pcall('GET',KEYS[2])", "redis.call('GET',KEYS[2])"),
            Self::EndedAgain => ("end= result= ok=(%d*)", "end=%d* result=%S* ok=(%d*)"),
            Self::EndsAnother => ("if f and string.find(l,' by='..ARGV[1],1,true) then", "if f then"),
            Self::GarbageServes => (
                "if f and (#r>999 or tonumber(f)>9e15 or string.find(r,'='..string.rep('%d',20))) then f,o,b,i=nil end",
                "",
            ),
            _ => return None,
        })
    }

    /// The script that is sent instead.
    pub(crate) fn script(self, text: &str) -> String {
        self.words().map_or(text.to_owned(), |(old, new)| text.replace(old, new))
    }

    /// Changes the commands that are sent.
    pub(crate) fn change(self, commands: &mut [Command]) {
        if self == Self::LockWithoutTtl && commands[0][0] == b"SET" {
            commands[0].truncate(4);
        }
        // The confirmation of a recorded run: two keys, and seven arguments.
        if let (Self::DoubtEndsLook, [_, _, _, _, _, _, _, _, _, _, since, too_early]) = (self, &mut commands[0][..])
            && too_early != b"0"
        {
            since.clear();
        }
    }

    /// What the lock code hears instead.
    pub(crate) fn replies(self, commands: &[Command], mut replies: Vec<Reply>) -> Vec<Reply> {
        if self == Self::OwnershipBySet && commands[0][0] == b"SET" && commands.len() == 2 {
            let own = matches!(replies[0], Reply::Status(_));
            replies[1] = Reply::Bulk(if own { commands[0][2].clone() } else { b"another's".to_vec() });
        }
        replies
    }

    /// Whether the request of this phase is built only once.
    pub(crate) fn builds_once(self, phase: Phase) -> bool {
        self == Self::GraceOnce && phase == Phase::Releasing
    }
}
