use super::release::set_without_eval;
use super::{Error, LockOptions, Recording, Token, milliseconds};
use crate::clock::{self, Instant};
use crate::exchange::{Answer, Exchange, Repeat};
use crate::resp::Reply;
use std::time::Duration;

/// Confirms that the lock `KEYS[1]` is the token's `ARGV[1]`, for `ARGV[2]` milliseconds from now: it prolongs the lock if
/// it is ours, and sets it if it is gone, because then nobody holds it. The lock of a predecessor, whose value was
/// `ARGV[3]`, is taken over if it has no TTL; `ARGV[3]` is the token where there is none to take over. It never shortens:
/// if it arrives after the release, it leaves the grace as it is.
///
/// Result: the value of a lock that is another's, or what follows, which begins with the token.
///
/// Repeated, it sets the same lock to the same end or a later one, and counts again from when it was sent again.
const CONFIRM: &str = "local v,p=redis.call('GET',KEYS[1]) \
    if v and v~=ARGV[1] and not(v==ARGV[3] and redis.call('TTL',KEYS[1])==-1) then return v end \
    if v~=ARGV[1] then redis.call('SET',KEYS[1],ARGV[1],'PX',ARGV[2]) \
    else p=redis.call('PTTL',KEYS[1]) if p<tonumber(ARGV[2]) then redis.call('PEXPIRE',KEYS[1],ARGV[2]) end end ";

/// The end of [`CONFIRM`] where nothing is recorded.
const PLAIN: &str = "return ARGV[1]";

/// The end of [`CONFIRM`] that writes the beginning of a run into the record `KEYS[2]`, which is then kept for `ARGV[4]`
/// milliseconds; `ARGV[5]` says who runs what (`host=… pid=… program=…`). If another run began in the `ARGV[6]` milliseconds
/// before now, it has served for this one too, and the lock is given back. If one began so shortly before that this
/// depends on how long the request was under way, at most since the lock was set, nothing is written. An empty `ARGV[6]`
/// asks neither. `ARGV[7]` is 1 if an earlier confirmation of ours may have written what stands there.
///
/// Result: the token, a space, and the fence of this run; or `served`; or `unsure` and how many milliseconds ago the other
/// run began; or why nothing was recorded.
///
/// Repeated, it numbers the run again: no fence is ever given twice. Whatever fails in it leaves the lock as it is.
const RECORD: &str = "local t,r=redis.pcall('TIME'),redis.pcall('GET',KEYS[2]) \
    local e=t.err or r and r.err if e then return ARGV[1]..' '..e end \
    local N=function(n) return string.format('%.0f',n) end \
    local n,f,w,h,s,d,u,o,b,i,l=t[1]*1000+math.floor(t[2]/1000),string.match(r or '',\
    '^fence=(%d+) (host=(%S*) pid=%d* program=%S*) start=(%d+) end=(%d*) result=(%S*) ok=(%d*) failed=(%d+) first=(%d+)(.*)$') \
    if f and (#r>999 or tonumber(f)>9e15) then f,o,b,i=nil end \
    if not f then l='' elseif ARGV[7]~='1' or w~=ARGV[5] or d~='' then \
    local g,a=tonumber(ARGV[6]),n-s if g and a>=0 then \
    if a<g then redis.call('DEL',KEYS[1]) return ARGV[1]..' served' end \
    if not p or p<0 or a<g+ARGV[2]-p then return ARGV[1]..' unsure '..N(a) end end \
    l=' last='..(d=='' and '?' or u)..'@'..h if d=='' then b=b+1 end end \
    local y=N(math.max((f or 0)+1,t[1]*1000000+t[2])) \
    e=redis.pcall('SET',KEYS[2],'fence='..y..' '..ARGV[5]..' start='..N(n)..' end= result= ok='..(o or '')\
    ..' failed='..N(b or 0)..' first='..(i or N(n))..l,'PX',ARGV[4]).err \
    return ARGV[1]..' '..(e or y)";

/// Why a lock is not used that was got too late.
const TOO_LATE: &str = "it was free only later than GRACE after the start, and another run may have served for this one";

/// The longest pause between two attempts at a renewal.
const PAUSE: Duration = Duration::from_secs(1);

/// How often the lock is confirmed at most: again, if the answer came too late, or another run is in doubt.
const ROUNDS: u32 = 4;

/// A lock that we hold, or are about to: its proof, and its times.
///
/// With LEASE, its times are fractions of the length: it is renewed every third, the job is told to stop a sixth before the
/// end, and a twelfth before the end it must be gone.
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
    /// The server's words, if it refuses EVAL.
    pub eval_refused: Option<Vec<u8>>,
}

/// What a confirmation has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Confirmed {
    /// The lock is ours; the words say why nothing was recorded, if that was wanted.
    Ours(Option<Vec<u8>>),
    /// Another run has served for this one; the lock was given back.
    Served,
    /// The lock is another's, with this value.
    Lost(Vec<u8>),
}

impl Lease {
    /// A lock that is not held yet.
    pub fn new(options: LockOptions, token: Token) -> Self {
        let [asked_at, valid_until, hold_end, grace_end, renew_at] = [Instant::ZERO; 5];
        let (is_final, fence, eval_refused) = (false, None, None);
        Self { options, token, asked_at, valid_until, hold_end, grace_end, renew_at, is_final, fence, eval_refused }
    }

    /// It is asked for now: if we get it, its times count from here.
    pub(super) fn ask_for(&mut self, now: Instant) {
        self.asked_at = now;
        self.valid_until = now + self.options.ttl();
        self.hold_end = now + self.options.release;
    }

    /// When the job is to be stopped, unless the lock was renewed before.
    pub fn stop_at(&self) -> Instant {
        self.options.lease.map_or(Instant::NEVER, |length| self.valid_until.before(length / 6))
    }

    /// When the job must be gone, unless the lock was renewed before.
    pub fn kill_at(&self) -> Instant {
        self.options.lease.map_or(Instant::NEVER, |length| self.valid_until.before(length / 12))
    }

    /// How long one attempt at a renewal may take, so that there is time for another on a new connection.
    pub fn attempt(&self) -> Duration {
        self.options.ttl() / 6
    }

    /// Whether a command may start under it: without LEASE, nine tenths of RELEASE are left.
    pub fn lasts(&self, now: Instant) -> bool {
        let end = self.options.lease.map_or_else(
            || self.valid_until.before(self.options.release / 10 * 9),
            |length| self.valid_until.before(length / 6),
        );
        now < end
    }

    /// Makes sure, right before the command starts, that the lock is ours and lasts. Hold and grace count from here.
    /// `stale` is the value of a predecessor's lock that is to be taken over; `margin` is how long a command may be under
    /// way.
    ///
    /// # Errors
    /// When Redis could not be asked, refused, or answered nonsense, or each time so late that the lock might be over. The
    /// lock may be ours all the same.
    pub fn confirm<X: Exchange>(
        &mut self,
        redis: &mut X,
        stale: Option<&[u8]>,
        margin: Duration,
    ) -> Result<Confirmed, Error<X::Error>> {
        let mut tick = self.options.tick.map_or(Tick::Any, Tick::After);
        for _ in 0..ROUNDS {
            match self.ask(redis, stale, Some(tick)) {
                Err(Error::Refused(_, words)) if self.options.lease.is_none() && stale.is_none() => {
                    self.eval_refused = Some(words);
                    return self.confirm_without_eval(redis, margin);
                }
                Ok(Asked::Ours(fence, note)) if self.lasts(redis.now()) => {
                    self.fence = fence;
                    self.grace_end = redis.now() + self.options.grace;
                    return if note.is_some() { self.in_time().map(|()| Confirmed::Ours(note)) } else { Ok(Confirmed::Ours(None)) };
                }
                Ok(Asked::Ours(..)) => {}
                Ok(Asked::Unsure(age)) => tick = tick.decided(age, redis.now()),
                Ok(Asked::Served) => return Ok(Confirmed::Served),
                Ok(Asked::Lost(value)) => return Ok(Confirmed::Lost(value)),
                Err(error) => return Err(error),
            }
        }
        Err(Error::Failed("redis takes longer to answer than the lock lasts"))
    }

    /// Where EVAL is refused, GET has said that the lock is ours, and only if it does not surely last it is set anew, under
    /// the rules of the release without EVAL.
    fn confirm_without_eval<X: Exchange>(
        &mut self,
        redis: &mut X,
        margin: Duration,
    ) -> Result<Confirmed, Error<X::Error>> {
        self.in_time()?;
        if !self.lasts(redis.now()) && !(set_without_eval(redis, self, margin)? && self.lasts(redis.now())) {
            return Err(Error::Failed("redis takes longer to answer than the lock lasts, and refuses EVAL"));
        }
        self.grace_end = redis.now() + self.options.grace;
        Ok(Confirmed::Ours(None))
    }

    /// Where nothing is recorded, only the grace of another run keeps us from running once more, so a lock that was asked for
    /// later than GRACE after the start is not used.
    ///
    /// # Errors
    /// When it was.
    pub fn in_time<E>(&self) -> Result<(), Error<E>> {
        let latest = self.options.tick.filter(|_| !self.options.grace.is_zero()).map(|start| start + self.options.grace);
        if latest.is_some_and(|latest| latest < self.asked_at) { Err(Error::Failed(TOO_LATE)) } else { Ok(()) }
    }

    /// Renews it; false if the lock is another's. Once the hold is over there is nothing to ask for.
    ///
    /// # Errors
    /// When Redis could not be asked, refused, or answered nonsense. It is then due again after a pause.
    pub fn renew<X: Exchange>(&mut self, redis: &mut X) -> Result<bool, Error<X::Error>> {
        self.renew_at = redis.now() + PAUSE.min(self.options.ttl() / 12);
        Ok(!matches!(self.ask(redis, None, None)?, Asked::Lost(_)))
    }

    /// Makes it due at once: an attempt was broken off for something more urgent.
    pub fn renew_now(&mut self) {
        self.renew_at = Instant::ZERO;
    }

    /// The one question that confirms, renews, and takes over. With a `tick` it is that of a run which begins: it is
    /// recorded, and the hold counts from it.
    fn ask<X: Exchange>(
        &mut self,
        redis: &mut X,
        stale: Option<&[u8]>,
        tick: Option<Tick>,
    ) -> Result<Asked, Error<X::Error>> {
        let (options, token, hold_end) = (&self.options, self.token.as_bytes(), self.hold_end);
        let hold_end = |at: Instant| if tick.is_some() { at + options.release } else { hold_end };
        let ttl = |at: Instant| hold_end(at).since(at).map(|left| left.min(options.ttl()));
        let record = options.record.as_ref().zip(tick);
        let script = [CONFIRM, record.map_or(PLAIN, |_| RECORD)].concat();
        let answer = redis.exchange(Repeat::Always, &|sending, request| {
            let Some(ttl) = ttl(sending.at).map(milliseconds) else { return };
            let about_lock = [token, ttl.as_bytes(), stale.unwrap_or(token)];
            match record {
                None => request.push(&[&[b"EVAL", script.as_bytes(), b"1", &options.name], &about_lock[..]].concat()),
                Some((Recording { key, keep, run }, tick)) => {
                    let (keep, since) = (milliseconds(*keep), tick.milliseconds(sending.at));
                    let again: &[u8] = if sending.again { b"1" } else { b"0" };
                    let keys = [b"EVAL", script.as_bytes(), b"2", &options.name, key];
                    let about_run = [keep.as_bytes(), &run.identity(), since.as_bytes(), again];
                    request.push(&[&keys[..], &about_lock, &about_run].concat());
                }
            }
        })?;
        let asked_at = answer.asked;
        let asked = judge(answer, token)?;
        if let Asked::Ours(..) = asked {
            let ttl = ttl(asked_at).unwrap_or_default();
            self.valid_until = asked_at + ttl;
            self.renew_at = asked_at + self.options.ttl() / 3;
            self.is_final = ttl < self.options.ttl();
            self.hold_end = hold_end(asked_at);
        }
        Ok(asked)
    }
}

/// Which earlier runs have served for this one too, so that it must not happen.
#[derive(Clone, Copy)]
enum Tick {
    /// None.
    Any,
    /// Those that began after golock was started.
    After(Instant),
    /// The last one.
    Served,
}

impl Tick {
    /// What is asked next, if the other run began `age` milliseconds before a question whose answer came `now`. That it may
    /// have begun after golock was started is enough: the doubt is as long as the answer took.
    fn decided(self, age: u64, now: Instant) -> Self {
        match self {
            Self::After(started) if age >= elapsed(started, now) => Self::Any,
            _ => Self::Served,
        }
    }

    /// How far back a run counts, for the script.
    fn milliseconds(self, now: Instant) -> String {
        match self {
            Self::Any => String::new(),
            Self::After(started) => elapsed(started, now).to_string(),
            Self::Served => i64::MAX.to_string(),
        }
    }
}

/// The milliseconds from `started` to `now`, rounded up.
fn elapsed(started: Instant, now: Instant) -> u64 {
    clock::milliseconds(now.since(started).unwrap_or_default()) + 1
}

/// What the reply to [`CONFIRM`] means.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    /// The lock is ours. The fence, or why there is none.
    Ours(Option<u64>, Option<Vec<u8>>),
    /// Another run has served for this one; the lock was given back.
    Served,
    /// Another run began so many milliseconds before.
    Unsure(u64),
    /// The lock is another's.
    Lost(Vec<u8>),
}

fn judge<E>(answer: Answer, token: &[u8]) -> Result<Asked, Error<E>> {
    let text = match answer.only() {
        None => return Err(Error::Failed("RELEASE is over")),
        Some(Reply::Bulk(text)) => text,
        Some(Reply::Error(words)) => return Err(Error::Refused("EVAL", words)),
        Some(_) => return Err(Error::Failed("redis sent an unexpected reply to EVAL")),
    };
    let number = |digits: &[u8]| std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
    Ok(match text.strip_prefix(token) {
        Some([]) => Asked::Ours(None, None),
        Some(b" served") => Asked::Served,
        Some([b' ', behind @ ..]) => match behind.strip_prefix(b"unsure ").and_then(number) {
            Some(age) => Asked::Unsure(age),
            None => match number(behind) {
                Some(fence) => Asked::Ours(Some(fence), None),
                None => Asked::Ours(None, Some(behind.to_vec())),
            },
        },
        _ => Asked::Lost(text),
    })
}
