use super::plain::{Released, Whose, delete_or_set, look};
use super::record::number;
use super::{Error, LockOptions, Token, eval, milliseconds};
use crate::clock::{self, Instant};
use crate::exchange::{Answer, Exchange, Repeat};
use crate::resp::Reply;
use std::time::Duration;

/// Confirms that the lock `KEYS[1]` belongs to the token `ARGV[1]`, for `ARGV[2]` milliseconds from now: it prolongs
/// the lock if it is ours, and sets it if it is gone, because then nobody holds it. The lock of a predecessor, whose
/// value was `ARGV[3]`, is taken over if it has no TTL; `ARGV[3]` is the token where there is none to take over. It
/// never shortens: if it arrives after the release, it leaves the grace as it is.
///
/// Result: the value of a lock that is another's, or what follows, which begins with the token.
///
/// Repeated, it sets the same lock to the same end or a later one, and counts again from when it was sent again.
const CONFIRM: &str = "local v,p=redis.call('GET',KEYS[1]) \
    if v and v~=ARGV[1] and not(v==ARGV[3] and redis.call('TTL',KEYS[1])==-1) then return v end \
    if v~=ARGV[1] then redis.call('SET',KEYS[1],ARGV[1],'PX',ARGV[2]) \
    else p=redis.call('PTTL',KEYS[1]) if p<tonumber(ARGV[2]) then redis.call('PEXPIRE',KEYS[1],ARGV[2]) end end ";

/// In front of [`CONFIRM`], for a renewal of the run that the record `KEYS[2]` tells of: once that has ended, the lock was
/// released, and a renewal that arrives only then changes nothing.
const UNLESS_OVER: &str = "local r=redis.pcall('GET',KEYS[2]) \
    if type(r)=='string' and string.find(r,' end=%d.* by='..ARGV[1]) then return ARGV[1] end ";

/// The end of [`CONFIRM`] where nothing is recorded.
const UNRECORDED: &str = "return ARGV[1]";

/// The end of [`CONFIRM`] that writes the beginning of a run into the record `KEYS[2]`:
///
/// - `ARGV[4]`: for how many milliseconds the record is kept then.
/// - `ARGV[5]`: who runs what (`host=… pid=… program=…`).
/// - `ARGV[6]`: if another run began within this many milliseconds before now, it has served for this one too, and the
///   lock is given back. If that depends on how long the request was under way (at most since the lock was set), the
///   lock is left as it was, so that this bound stays true. If it is empty, neither is asked.
/// - `ARGV[7]`: a run that began then or before, by Redis's clock, is known to have been too early to serve.
///
/// A success or a first record that is ahead of now was written when the clock was, and counts as of now: it would hide for
/// long that nothing succeeds.
///
/// The token stands in the record of its run: only this tells a run from one of the same host and process id in another
/// container. If the run has ended there, this request was under way for longer than the run, and begins nothing. In
/// the script `f` is the fence, `h` the host, `s` the start, `d` the end, `u` the result, `o`
/// the last success, `b` the failures since, `i` the first record, `l` what stands behind; `n` is now, `m` our mark, `g` is
/// `ARGV[6]`, `a` the age of the other run, `p` what was left of the lock, `y` the new fence, and `C` makes now of what is ahead.
///
/// Result: the token, a space, and the fence of this run; or `served`; or `unsure`, how many milliseconds ago the other run
/// began, and when; or why nothing was recorded.
///
/// Repeated, it numbers the run again: no fence is ever given twice. Whatever fails in it leaves the lock as it is.
const RECORDED: &str = "local t,r=redis.pcall('TIME'),redis.pcall('GET',KEYS[2]) \
    local e=t.err or r and r.err if e then return ARGV[1]..' '..e end \
    local N=function(n) return string.format('%.0f',n) end \
    local n,m,f,h,s,d,u,o,b,i,l=t[1]*1000+math.floor(t[2]/1000),' by='..ARGV[1],string.match(r or '',\
    '^fence=(%d+) host=(%S*) pid=%d* program=%S* start=(%d+) end=(%d*) result=(%S*) ok=(%d*) failed=(%d+) first=(%d+)(.*)$') \
    if f and (#r>999 or tonumber(f)>9e15 or string.find(r,'='..string.rep('%d',20))) then f,o,b,i=nil end \
    local back=function() if p and p>0 then redis.call('PEXPIRE',KEYS[1],p) else redis.call('DEL',KEYS[1]) end end \
    if not f then l=m elseif string.find(l,m,1,true) then if d~='' then back() return ARGV[1]..' served' end else \
    local g,a=tonumber(ARGV[6]),n-s if g and a>=0 and tonumber(s)>tonumber(ARGV[7]) then \
    if a<g then redis.call('DEL',KEYS[1]) return ARGV[1]..' served' end \
    if not p or p<0 or a<g+ARGV[2]-p then back() return ARGV[1]..' unsure '..N(a)..' '..s end end \
    l=' last='..(d=='' and '?' or u)..'@'..h..m if d=='' then b=b+1 end end \
    local y,C=N(math.max((f or 0)+1,t[1]*1000000+t[2])),function(v) return (tonumber(v) or 0)>n and N(n) or v end \
    e=redis.pcall('SET',KEYS[2],'fence='..y..' '..ARGV[5]..' start='..N(n)..' end= result= ok='..C(o or '')\
    ..' failed='..N(b or 0)..' first='..C(i or N(n))..l,'PX',ARGV[4]).err \
    return ARGV[1]..' '..(e or y)";

/// Why a lock that we got too late is not used.
pub const TOO_LATE: &str =
    "it was asked for later than GRACE after the start, and another run may have served for this one";

/// The longest pause between two attempts at a renewal.
const PAUSE: Duration = Duration::from_secs(1);

/// The most times that a lock is confirmed: again if the answer came too late, or another run is in doubt.
const ROUNDS: u32 = 4;

/// A lock that we hold, or are about to: its proof, and its times.
///
/// With LEASE, its times are fractions of the length: it is renewed every third, the job gets SIGTERM a sixth before
/// the end, and SIGKILL no later than a twelfth before it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lease {
    /// What is wanted.
    pub options: LockOptions,
    /// The value that is ours alone.
    pub token: Token,
    /// When it was asked for.
    pub asked_at: Instant,
    /// Until when Redis cannot have let it expire.
    pub valid_until: Instant,
    /// When RELEASE is over.
    pub hold_end: Instant,
    /// Until when it is to persist after the job.
    pub grace_end: Instant,
    /// When it is to be renewed.
    pub renew_at: Instant,
    /// Whether it ends with the hold, and cannot be renewed any more.
    pub is_final: bool,
    /// The number of this run, which grows with each; `None` where it could not be had.
    pub fence: Option<u64>,
    /// Whether the server refuses EVAL.
    pub eval_refused: bool,
}

/// The outcome of a confirmation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Confirmed {
    /// The lock is ours; the server's words say why nothing was recorded, if that was wanted.
    Ours(Option<Vec<u8>>),
    /// Another run has served for this one; the lock was given back.
    Served,
    /// The lock is another's, with this value.
    Lost(Vec<u8>),
}

/// A run that begins. Another has served for it if it began after `since`, where that is given, but not if it began at
/// `too_early` or before, by Redis's clock.
#[derive(Clone, Copy)]
struct Begin {
    since: Option<Instant>,
    too_early: u64,
}

/// What the reply to [`CONFIRM`] means.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    /// The lock is ours. The fence, or why there is none.
    Ours(Option<u64>, Option<Vec<u8>>),
    /// Another run has served for this one; the lock was given back.
    Served,
    /// Another run began this many milliseconds ago, at this time by Redis's clock.
    Unsure(u64, u64),
    /// The lock is another's.
    Lost(Vec<u8>),
}

impl Lease {
    /// A lock that is not held yet.
    pub fn new(options: LockOptions, token: Token) -> Self {
        let [asked_at, valid_until, hold_end, grace_end, renew_at] = [Instant::ZERO; 5];
        let (is_final, fence, eval_refused) = (false, None, false);
        Self { options, token, asked_at, valid_until, hold_end, grace_end, renew_at, is_final, fence, eval_refused }
    }

    /// We ask for it now: if we get it, its times count from here.
    pub(super) fn ask_for(&mut self, now: Instant) {
        self.asked_at = now;
        self.valid_until = now + self.options.ttl();
        self.hold_end = now + self.options.release;
    }

    /// When the job is to be stopped, unless the lock was renewed before.
    pub fn stop_at(&self) -> Instant {
        self.options.lease.map_or(Instant::NEVER, |length| self.valid_until.before(length / 6))
    }

    /// When the job is killed, unless the lock was renewed before.
    pub fn kill_at(&self) -> Instant {
        self.options.lease.map_or(Instant::NEVER, |length| self.valid_until.before(length / 12))
    }

    /// How long one attempt at a renewal may take, so that there is time for another on a new connection.
    pub fn attempt(&self) -> Duration {
        self.options.ttl() / 6
    }

    /// Whether a command may start under it: without LEASE, nine tenths of RELEASE are left.
    pub fn lasts(&self, now: Instant) -> bool {
        now < self.valid_until.before(self.options.lease.map_or(self.options.release / 10 * 9, |length| length / 6))
    }

    /// Makes sure, right before the command starts, that the lock is ours and lasts. Hold and grace count from here.
    /// `stale` is the value of a predecessor's lock that is to be taken over; `margin` is how long a command to Redis
    /// may be under way. If it fails, the lock may be ours all the same.
    pub fn confirm(
        &mut self,
        redis: &mut dyn Exchange,
        stale: Option<&[u8]>,
        margin: Duration,
    ) -> Result<Confirmed, Error> {
        let mut begin = Begin { since: self.options.tick, too_early: 0 };
        for _ in 0..ROUNDS {
            let note = match self.ask(redis, stale, Some(begin)) {
                Ok(Asked::Ours(fence, note)) => {
                    self.fence = fence;
                    note
                }
                Ok(Asked::Unsure(age, at)) => {
                    // That it may have begun after golock was started is enough: the doubt is as long as the answer took.
                    if begin.since.is_some_and(|start| age < elapsed(start, redis.now())) {
                        // Every run that is not too early has served then.
                        begin.since = Some(Instant::ZERO);
                    } else {
                        begin.too_early = at;
                    }
                    continue;
                }
                Ok(Asked::Served) => return Ok(Confirmed::Served),
                Ok(Asked::Lost(value)) => return Ok(Confirmed::Lost(value)),
                // GET has said that the lock is ours, but that may have been on another connection, and long ago.
                Err(Error::Refused(_, words)) if self.options.lease.is_none() && stale.is_none() => {
                    self.eval_refused = true;
                    match look(redis, &self.options.name, &self.token)? {
                        Whose::Ours => {}
                        Whose::Gone => return Err(Error::Failed("the lock is gone")),
                        Whose::Another(value) => return Ok(Confirmed::Lost(value)),
                    }
                    if !self.lasts(redis.now()) {
                        self.set_without_eval(redis, margin)?;
                    }
                    Some(words)
                }
                Err(error) => return Err(error),
            };
            if self.fence.is_none() && self.options.late_from() < self.asked_at {
                return Err(Error::Failed(TOO_LATE));
            }
            if self.lasts(redis.now()) {
                self.grace_end = redis.now() + self.options.grace;
                return Ok(Confirmed::Ours(note));
            }
            if self.eval_refused {
                break;
            }
        }
        Err(Error::Failed("redis takes too long to answer for the lock to be sure"))
    }

    /// Sets it, which is ours, to last for RELEASE from now, where EVAL is refused. If it is not surely ours any more, it is
    /// left as it is.
    fn set_without_eval(&mut self, redis: &mut dyn Exchange, margin: Duration) -> Result<(), Error> {
        let (name, release) = (&self.options.name[..], self.options.release);
        let (asked, valid) = (redis.now(), (self.valid_until, margin));
        if let Released::InGrace(_) = delete_or_set(redis, (name, &self.token), valid, &|_| release)? {
            (self.valid_until, self.hold_end) = (asked + release, asked + release);
        }
        Ok(())
    }

    /// Renews it; false if the lock is another's. If it fails, it is due again a pause after it began, or at once if it
    /// has taken longer.
    pub fn renew(&mut self, redis: &mut dyn Exchange) -> Result<bool, Error> {
        self.renew_at = redis.now() + PAUSE.min(self.options.ttl() / 12);
        Ok(!matches!(self.ask(redis, None, None)?, Asked::Lost(_)))
    }

    /// Makes it due at once: an attempt was broken off for something more urgent.
    pub fn renew_now(&mut self) {
        self.renew_at = Instant::ZERO;
    }

    /// The one question that confirms, renews, and takes over. That of a run which begins is recorded, and the hold counts
    /// from it.
    fn ask(&mut self, redis: &mut dyn Exchange, stale: Option<&[u8]>, begin: Option<Begin>) -> Result<Asked, Error> {
        let (options, token, hold_end) = (&self.options, self.token.as_bytes(), self.hold_end);
        let hold_end = |at: Instant| if begin.is_some() { at + options.release } else { hold_end };
        let ttl = |at: Instant| hold_end(at).since(at).map(|left| left.min(options.ttl()));
        let record = options.record.as_ref().filter(|_| begin.is_some() || self.fence.is_some());
        let (before, after) = match (record, begin) {
            (None, _) => ("", UNRECORDED),
            (Some(_), None) => (UNLESS_OVER, UNRECORDED),
            (Some(_), Some(_)) => ("", RECORDED),
        };
        let script = [before, CONFIRM, after].concat();
        let answer = redis.exchange(Repeat::Always, &|now, request| {
            let Some(ttl) = ttl(now).map(milliseconds) else { return };
            let about_lock = [token, ttl.as_bytes(), stale.unwrap_or(token)];
            let Some(record) = record else { return eval(request, &script, &[&options.name], &about_lock) };
            let keys: [&[u8]; 2] = [&options.name, &record.key];
            let Some(Begin { since, too_early }) = begin else { return eval(request, &script, &keys, &about_lock) };
            let since = since.map_or(String::new(), |start| elapsed(start, now).to_string());
            // A record that is kept for a shorter time than the run takes would never tell of its end.
            let (keep, run) = (milliseconds(record.keep.max(options.release)), record.run.identity());
            let too_early = too_early.to_string();
            let about_run = [keep.as_bytes(), &run, since.as_bytes(), too_early.as_bytes()];
            eval(request, &script, &keys, &[&about_lock[..], &about_run].concat());
        })?;
        let asked_at = answer.asked;
        let asked = judge(answer, token)?;
        if let Asked::Ours(..) = asked {
            let ttl = ttl(asked_at).unwrap_or_default();
            (self.valid_until, self.hold_end) = (asked_at + ttl, hold_end(asked_at));
            self.renew_at = asked_at + self.options.ttl() / 3;
            self.is_final = ttl < self.options.ttl();
        }
        Ok(asked)
    }
}

/// The milliseconds from `start` to `now`, rounded up.
fn elapsed(start: Instant, now: Instant) -> u64 {
    clock::milliseconds(now.since(start).unwrap_or_default()) + 1
}

fn judge(answer: Answer, token: &[u8]) -> Result<Asked, Error> {
    let text = match answer.only() {
        None => return Err(Error::Failed("RELEASE is over")),
        Some(Reply::Bulk(text)) => text,
        other => return Err(Error::of("EVAL", other)),
    };
    let numbers = |words: &[u8]| {
        let mut words = words.split(|&byte| byte == b' ').map(number);
        words.next().flatten().zip(words.next().flatten())
    };
    let Some(behind) = text.strip_prefix(token) else { return Ok(Asked::Lost(text)) };
    Ok(match behind.strip_prefix(b" ") {
        None if behind.is_empty() => Asked::Ours(None, None),
        None => Asked::Lost(text),
        Some(b"served") => Asked::Served,
        Some(words) => match (words.strip_prefix(b"unsure ").and_then(numbers), number(words)) {
            (Some((age, at)), _) => Asked::Unsure(age, at),
            (_, Some(fence)) => Asked::Ours(Some(fence), None),
            _ => Asked::Ours(None, Some(words.to_vec())),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::super::scripted::{Scripted, at, lease, own, own_and, refusal, script, silence, timed};
    use super::super::{Recording, Run};
    use super::*;

    const MARGIN: Duration = Duration::from_secs(1);

    /// A lock without LEASE, of ten seconds.
    fn plain() -> Lease {
        let mut plain = lease(110_000, 10, None);
        plain.asked_at = at(100_000);
        plain
    }

    fn recorded(started: u64) -> Lease {
        let run = Run { host: b"web 1".to_vec(), pid: 7, program: b"job".to_vec() };
        let mut recorded = plain();
        recorded.options.record = Some(Recording { key: b"r".to_vec(), keep: Duration::from_mins(1), run });
        recorded.options.tick = Some(at(started));
        recorded
    }

    fn confirm(lease: &mut Lease, redis: &mut Scripted) -> Result<Confirmed, Error> {
        lease.confirm(redis, None, MARGIN)
    }

    #[test]
    fn its_times_are_fractions_of_its_length() {
        let mut lease = lease(112_000, 1000, Some(12));
        assert_eq!((lease.stop_at(), lease.kill_at()), (at(110_000), at(111_000)));
        assert_eq!((lease.renew_at, lease.attempt()), (Instant::ZERO, Duration::from_secs(2)));
        assert_eq!(lease.renew(&mut script([Some(own())])), Ok(true));
        assert_eq!((lease.renew_at, lease.valid_until, lease.is_final), (at(104_000), at(112_000), false));
        lease.renew_now();
        assert_eq!(lease.renew_at, Instant::ZERO);
        assert_eq!((plain().stop_at(), plain().kill_at()), (Instant::NEVER, Instant::NEVER));
    }

    #[test]
    fn no_renewal_reaches_beyond_the_hold() {
        for (hold_end, last) in [(112_001, false), (112_000, false), (111_999, true)] {
            let (mut lease, mut redis) = (lease(112_000, 1000, Some(12)), script([Some(own())]));
            lease.hold_end = at(hold_end);
            assert_eq!(lease.renew(&mut redis), Ok(true));
            assert_eq!((lease.is_final, lease.valid_until), (last, at(hold_end.min(112_000))));
        }
        let (mut lease, mut redis) = (lease(112_000, 1000, Some(12)), script([]));
        lease.hold_end = at(100_000);
        assert_eq!((lease.renew(&mut redis), redis.asked.len()), (Err(Error::Failed("RELEASE is over")), 0));
        assert_eq!(lease.valid_until, at(112_000));
    }

    #[test]
    fn a_renewal_counts_from_when_it_was_sent() {
        let (mut lease, mut redis) = (lease(112_000, 1000, Some(12)), timed([(1500, Some(vec![own()]))]));
        assert_eq!((lease.renew(&mut redis), lease.valid_until), (Ok(true), at(112_000)));
        assert_eq!(redis.asked, ["EVAL 1 k TOKEN 12000 TOKEN"]);
    }

    #[test]
    fn only_another_token_means_that_it_is_lost() {
        let renew = |reply| lease(112_000, 1000, Some(12)).renew(&mut script([reply]));
        assert_eq!(renew(Some(Reply::Bulk(b"another".to_vec()))), Ok(false));
        assert_eq!(renew(Some(refusal())), Err(Error::Refused("EVAL", b"NOPERM".to_vec())));
        assert_eq!(renew(Some(Reply::Nil)), Err(Error::Unexpected("EVAL")));
        let mut short = lease(112_000, 1000, Some(6));
        assert_eq!((short.renew(&mut script([None])), short.renew_at), (Err(Error::Exchange(silence())), at(100_500)));
        let mut long = lease(112_000, 1000, Some(12));
        assert_eq!((long.renew(&mut script([None])), long.renew_at), (Err(Error::Exchange(silence())), at(101_000)));
    }

    #[test]
    fn hold_and_grace_count_from_the_confirmation() {
        let (mut lease, mut redis) = (plain(), timed([(300, Some(vec![own()]))]));
        lease.options.grace = Duration::from_secs(4);
        redis.now = at(105_000);
        assert_eq!(confirm(&mut lease, &mut redis), Ok(Confirmed::Ours(None)));
        assert_eq!((lease.valid_until, lease.hold_end, lease.grace_end), (at(115_000), at(115_000), at(109_300)));
        assert_eq!(redis.asked, ["EVAL 1 k TOKEN 10000 TOKEN"]);
    }

    #[test]
    fn a_confirmation_that_comes_too_late_is_asked_for_again() {
        let late = |after| (after, Some(vec![own()]));
        let (mut lease, mut redis) = (plain(), timed([late(1000), late(999)]));
        assert_eq!(confirm(&mut lease, &mut redis), Ok(Confirmed::Ours(None)));
        assert_eq!(redis.asked.len(), 2);
        let mut redis = timed([late(1000), late(1000), late(1000), late(1000)]);
        let why = "redis takes too long to answer for the lock to be sure";
        assert_eq!(confirm(&mut plain(), &mut redis), Err(Error::Failed(why)));
        let with_lease = || super::super::scripted::lease(112_000, 1000, Some(12));
        assert_eq!(confirm(&mut with_lease(), &mut timed([late(9999)])), Ok(Confirmed::Ours(None)));
        assert_eq!(confirm(&mut with_lease(), &mut timed([late(10_000), late(0)])), Ok(Confirmed::Ours(None)));
    }

    #[test]
    fn what_is_another_s_is_lost_and_a_failure_is_none() {
        let confirmed = |reply| confirm(&mut plain(), &mut script([reply]));
        assert_eq!(confirmed(Some(Reply::Bulk(b"x".to_vec()))), Ok(Confirmed::Lost(b"x".to_vec())));
        assert_eq!(confirmed(None), Err(Error::Exchange(silence())));
        assert_eq!(confirmed(Some(Reply::Integer(1))), Err(Error::Unexpected("EVAL")));
        let mut redis = script([Some(own())]);
        assert_eq!(plain().confirm(&mut redis, Some(b"1699999999"), MARGIN), Ok(Confirmed::Ours(None)));
        assert_eq!(redis.asked, ["EVAL 1 k TOKEN 10000 1699999999"]);
        let refused = Err(Error::Refused("EVAL", b"NOPERM".to_vec()));
        assert_eq!(plain().confirm(&mut script([Some(refusal())]), Some(b"1"), MARGIN), refused);
        assert_eq!(confirm(&mut lease(112_000, 1000, Some(12)), &mut script([Some(refusal())])), refused);
    }

    #[test]
    fn a_run_is_recorded_and_numbered() {
        let (mut lease, mut redis) = (recorded(97_500), script([Some(own_and(" 1700"))]));
        assert_eq!((confirm(&mut lease, &mut redis), lease.fence), (Ok(Confirmed::Ours(None)), Some(1700)));
        assert_eq!(redis.asked, ["EVAL 2 k r TOKEN 10000 TOKEN 60000 host=web%201 pid=7 program=job 2501 0"]);
        let (mut lease, mut redis) = (recorded(97_500), script([Some(own_and(" ERR no TIME"))]));
        redis.repeated = true;
        let note = Ok(Confirmed::Ours(Some(b"ERR no TIME".to_vec())));
        assert_eq!((confirm(&mut lease, &mut redis), lease.fence), (note, None));
        assert!(redis.asked[0].ends_with(" 2501 0"), "{:?}", redis.asked);
        lease.options.tick = None;
        let mut redis = script([Some(own_and(" 5"))]);
        assert_eq!((confirm(&mut lease, &mut redis), lease.fence), (Ok(Confirmed::Ours(None)), Some(5)));
        assert!(redis.asked[0].ends_with("program=job - 0"), "{:?}", redis.asked);
    }

    #[test]
    fn a_renewal_records_nothing() {
        let (mut lease, mut redis) = (recorded(97_500), script([Some(own())]));
        assert_eq!(lease.renew(&mut redis), Ok(true));
        assert_eq!(redis.asked, ["EVAL 1 k TOKEN 10000 TOKEN"]);
    }

    #[test]
    fn a_run_that_began_after_the_start_has_served() {
        let mut redis = script([Some(own_and(" served"))]);
        assert_eq!(confirm(&mut recorded(97_500), &mut redis), Ok(Confirmed::Served));
    }

    #[test]
    fn a_doubt_is_as_long_as_the_answer_took() {
        // Sent 2,500 ms after the start, answered 400 later: a run that began 2,901 before the question was before us.
        let (before, after) = (Ok(Confirmed::Ours(None)), Ok(Confirmed::Served));
        for (age, next, outcome) in [(2901, "2901 1700", before), (2900, "100401 0", after)] {
            let last = if age == 2901 { own_and(" 9") } else { own_and(" served") };
            let unsure = own_and(&format!(" unsure {age} 1700"));
            let mut redis = timed([(400, Some(vec![unsure])), (0, Some(vec![last]))]);
            assert_eq!(confirm(&mut recorded(97_500), &mut redis), outcome, "{age}");
            assert!(redis.asked[1].ends_with(&format!("program=job {next}")), "{:?}", redis.asked);
        }
    }

    #[test]
    fn only_the_whole_token_is_ours() {
        let mut redis = script([Some(own_and("x"))]);
        let another = if let Reply::Bulk(text) = own_and("x") { text } else { Vec::new() };
        assert_eq!(confirm(&mut plain(), &mut redis), Ok(Confirmed::Lost(another)));
    }

    #[test]
    fn without_eval_it_starts_only_while_it_surely_lasts() {
        let (mut lease, mut redis) = (plain(), timed([(999, Some(vec![refusal()])), (0, Some(vec![own()]))]));
        let refused = || Ok(Confirmed::Ours(Some(b"NOPERM".to_vec())));
        assert_eq!(confirm(&mut lease, &mut redis), refused());
        assert_eq!((lease.eval_refused, lease.valid_until), (true, at(110_000)));
        let set = |last| timed([(1000, Some(vec![refusal()])), (100, Some(vec![own()])), last]);
        let mut redis = set((100, Some(vec![Reply::Status(b"OK".to_vec())])));
        assert_eq!((confirm(&mut lease, &mut redis), lease.valid_until), (refused(), at(111_100)));
        assert_eq!(redis.asked[1..], ["GET k", "SET k TOKEN XX EX 10"]);
        let failed = Err(Error::Failed("redis takes too long to answer for the lock to be sure"));
        assert_eq!(confirm(&mut plain(), &mut set((100, Some(vec![Reply::Nil])))), failed);
        assert_eq!(confirm(&mut plain(), &mut set((1000, Some(vec![Reply::Status(b"OK".to_vec())])))), failed);
        // The one that said that it is ours may have lost it since.
        let found = |reply| confirm(&mut plain(), &mut script([Some(refusal()), Some(reply)]));
        assert_eq!(found(Reply::Nil), Err(Error::Failed("the lock is gone")));
        assert_eq!(found(Reply::Bulk(b"another".to_vec())), Ok(Confirmed::Lost(b"another".to_vec())));
        let late = || timed([(9000, Some(vec![refusal()])), (0, Some(vec![own()]))]);
        assert_eq!(confirm(&mut plain(), &mut late()), failed, "nothing is sent within the margin");
    }

    #[test]
    fn without_a_record_a_lock_that_was_asked_for_after_the_grace_is_not_used() {
        for (asked_at, grace, is_used) in [(140_000, 40, true), (140_001, 40, false), (140_001, 0, true)] {
            for reply in [refusal(), own_and(" ERR no TIME"), own()] {
                let mut lease = recorded(100_000);
                lease.options.grace = Duration::from_secs(grace);
                lease.ask_for(at(asked_at));
                let mut redis = script([Some(reply), Some(own())]);
                redis.now = at(asked_at);
                let confirmed = confirm(&mut lease, &mut redis);
                assert_eq!(confirmed.is_ok(), is_used, "{asked_at} {grace}: {confirmed:?}");
            }
        }
    }
}
