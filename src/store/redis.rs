use super::{Attempt, Ending, Error, Grant, Held, Listing, LockStore, Why, end_of, may_stay};
use crate::clock::Instant;
use crate::config::Config;
use crate::interrupt::{Interrupts, WakeOn};
use crate::job::{Binding, ExitReason, Renewal, Renewed, Schedule, StopReason};
use crate::lock::{self, Acquired, Confirmed, End, Lease, LockOptions, Look, Record, Released, Status, Token};
use crate::net::{Budget, Client, Lasting};
use crate::text;
use crate::text::{Escaped, Line, Log, Span};
use crate::words;
use std::time::Duration;

/// How long giving a lock back may take: somebody waits for us to stop.
const GIVE_BACK: Duration = Duration::from_secs(5);

/// How long who skips looks at the lock that is held, for VERBOSE.
const LOOK: Duration = Duration::from_secs(1);

/// A lock in Redis.
pub struct RedisStore<'a> {
    client: Client<'a>,
    lease: Lease,
    look: Look,
    verbose: bool,
    prefix: Vec<u8>,
    interrupts: &'a Interrupts,
    log: &'a dyn Log,
}

/// The same, when we hold it.
struct RedisLock<'a> {
    store: RedisStore<'a>,
    /// Why the last renewal failed, if it did.
    failure: Option<Line>,
    /// How the lock was lost, if it was.
    loss: Option<Line>,
}

impl<'a> RedisStore<'a> {
    /// The lock that `config` and `options` name. Nothing is sent yet.
    pub fn new(
        client: Client<'a>,
        config: &Config,
        options: LockOptions,
        interrupts: &'a Interrupts,
        log: &'a dyn Log,
    ) -> Self {
        let (lease, prefix) = (Lease::new(options, Token::random()), config.prefix.clone());
        let look = if config.max_age.is_some() { Look::Record } else { Look::Lock };
        Self { client, lease, look, verbose: config.verbose, prefix, interrupts, log }
    }

    fn record_key(&self) -> Option<&[u8]> {
        self.lease.options.record.as_ref().map(|record| &record.key[..])
    }

    /// The signal that broke off what we were doing, or else the error that did.
    fn error(&self, verb: &'static str, error: &lock::Error) -> Error {
        let name = &self.lease.options.name;
        match self.interrupts.termination().filter(|_| error.is_interrupted()) {
            Some(signal) => Error { why: Why::Interrupted(signal), left: None },
            None => (words!("cannot {} the lock {}: {}", verb, Escaped(name), error.words())).into(),
        }
    }

    /// The budget of whoever asks before there is a lock.
    fn patience(&self) -> Budget {
        self.client.patience(Instant::NEVER)
    }

    /// When the last attempt to acquire may begin. Without a record only the grace of another run keeps a late one from
    /// running once more.
    fn begin_by(&self) -> Instant {
        let LockOptions { record, tick, grace, .. } = &self.lease.options;
        tick.filter(|_| record.is_none() && !grace.is_zero()).map_or(Instant::NEVER, |start| start + *grace)
    }

    /// All that can be known of a lock that is held, if VERBOSE asks for it, and it comes within a second.
    fn looked_at(&mut self, status: Status) -> Status {
        if !self.verbose {
            return self.redacted(status);
        }
        let budget = Budget { attempts: 0, until: Instant::after(LOOK), ..self.patience() };
        let (name, record) = (self.lease.options.name.clone(), self.record_key().map(<[u8]>::to_vec));
        let seen = lock::status(&mut self.client.with(budget), &name, record.as_deref()).unwrap_or_default();
        // It may have gone since, which changes nothing for who skips.
        let known = if seen.value.is_some() { seen } else { status };
        self.redacted(known)
    }

    /// What is known of a lock, without the password that the server may repeat.
    fn redacted(&self, mut status: Status) -> Status {
        status.redact(&|text| self.client.redacted(text));
        status
    }

    /// The error that we could not `verb` the lock. If only the answers were lost, it stands, for nobody: it is given back.
    fn not_taken(&mut self, verb: &'static str, error: &lock::Error, may_hold: bool) -> Error {
        let mut error = self.error(verb, error);
        if may_hold {
            error.left = self.give_back(&End::default()).err();
        }
        error
    }

    fn tell_acquired(&self, note: Option<Vec<u8>>) {
        self.log.debug(text!("got the lock, for {} at most", Span(self.lease.options.ttl())));
        if let Some(words) = note.map(|words| self.client.redacted(&words)) {
            let what = if self.lease.eval_refused { "redis refuses EVAL" } else { "nothing is recorded of this run" };
            self.log.debug(text!("{}: {}", what, Escaped(&words)));
        }
    }

    /// Releases the lock, whose grace is over now, within five seconds.
    fn give_back(&mut self, end: &End) -> Result<(), Line> {
        self.interrupts.forget_all();
        self.lease.grace_end = Instant::ZERO;
        let budget = self.client.insistence(Instant::after(GIVE_BACK));
        let released = lock::release(&mut self.client.with(budget), &self.lease, GIVE_BACK, end);
        self.client.close();
        match released.map(|release| release.lock) {
            // If it is another's, it has never been ours.
            Ok(Released::Free | Released::InGrace(_) | Released::Lost) => Ok(()),
            Ok(Released::LeftToExpire) => Err(self.not_released(&"it might be another's by now".into())),
            Err(error) => Err(self.not_released(&error.words())),
        }
    }

    fn not_released(&self, why: &Line) -> Line {
        let options = &self.lease.options;
        words!("cannot release {}: {}; {}", Escaped(&options.name), *why, may_stay(options.ttl()))
    }
}

impl<'a> LockStore<'a> for RedisStore<'a> {
    fn acquire(mut self: Box<Self>) -> Result<Attempt<'a>, Error> {
        let budget = self.client.patience(self.begin_by());
        let stale = match lock::acquire(&mut self.client.with(budget), &mut self.lease, self.look) {
            Ok(Acquired::Held(status)) => {
                let status = self.looked_at(status);
                return Ok(Attempt::Busy(self, status));
            }
            Ok(Acquired::Ours) => None,
            Ok(Acquired::Stale(value)) => Some(value),
            Err(unsure) => return Err(self.not_taken("take", &unsure.error, unsure.may_hold)),
        };
        let (budget, margin) = (self.patience(), self.client.timeout());
        let confirmed = self.lease.confirm(&mut self.client.with(budget), stale.as_deref(), margin);
        match confirmed {
            Ok(Confirmed::Ours(note)) => {
                self.client.close();
                self.tell_acquired(note);
                Ok(Attempt::Acquired(Box::new(RedisLock { store: *self, failure: None, loss: None })))
            }
            Ok(Confirmed::Served) => {
                self.client.close();
                Ok(Attempt::Served)
            }
            Ok(Confirmed::Lost(value)) => {
                let status = self.redacted(Status::held(value));
                Ok(Attempt::Busy(self, status))
            }
            Err(error) => Err(self.not_taken("keep", &error, true)),
        }
    }

    fn status(&mut self) -> Result<Status, Error> {
        let (budget, name) = (self.patience(), self.lease.options.name.clone());
        let record = self.record_key().map(<[u8]>::to_vec);
        match lock::status(&mut self.client.with(budget), &name, record.as_deref()) {
            Ok(status) => Ok(self.redacted(status)),
            Err(error) => Err(self.error("look at", &error)),
        }
    }

    fn list(&mut self) -> Result<Listing, Error> {
        let (budget, prefix) = (self.patience(), self.prefix.clone());
        let found = lock::list(&mut self.client.with(budget), &prefix).map_err(|error| self.error("list", &error))?;
        let redacted = |entry: lock::Entry| lock::Entry { status: self.redacted(entry.status), ..entry };
        let note = found.is_of_one_node.then_some("these are the jobs of one node of a cluster");
        Ok(Listing { entries: found.entries.into_iter().map(redacted).collect(), note })
    }

    fn reset(&mut self) -> Result<bool, Error> {
        let (budget, name) = (self.patience(), self.lease.options.name.clone());
        lock::reset(&mut self.client.with(budget), &name).map_err(|error| self.error("reset", &error))
    }

    fn tells_overdue(&mut self) -> bool {
        let Some(key) = lock::of_overdue(&self.prefix, &self.lease.options.name) else { return true };
        let budget = self.patience();
        lock::overdue_is_ours(&mut self.client.with(budget), &key).unwrap_or(false)
    }
}

impl Held for RedisLock<'_> {
    fn lasts(&self) -> bool {
        self.store.lease.lasts(Instant::now())
    }

    fn grant(&self) -> Grant<'_> {
        let Lease { token, fence, options, .. } = &self.store.lease;
        let binding = if options.lease.is_some() { Binding::DieWithParent } else { Binding::None };
        Grant { token: token.as_bytes(), fence: *fence, binding }
    }

    fn loss(&self) -> Line {
        let lease = &self.store.lease;
        let failure = || self.failure.clone().unwrap_or_else(|| "golock stood still for too long".into());
        let over = || if lease.is_final || lease.hold_end.has_passed() { "RELEASE is over".into() } else { failure() };
        self.loss.clone().unwrap_or_else(over)
    }

    fn release(mut self: Box<Self>, exit: ExitReason) -> Ending {
        let (lost, loss) = (exit == ExitReason::Stopped(StopReason::LockLost), self.loss());
        let store = &mut self.store;
        // What arrived before was meant for the job.
        store.interrupts.forget_all();
        let budget = if lost {
            // It may be ours all the same, and the record is to say how the run ended.
            Budget { attempts: 0, ..store.client.insistence(Instant::after(GIVE_BACK)) }
        } else {
            store.client.insistence(Instant::NEVER)
        };
        let margin = store.client.timeout();
        let released = lock::release(&mut store.client.with(budget), &store.lease, margin, &end_of(exit));
        store.client.close();
        let name = Escaped(&store.lease.options.name);
        let (record, outcome) = match released {
            Ok(release) => (release.record, Ok(release.lock)),
            Err(error) => (None, Err(error.words())),
        };
        let parsed = record.as_deref().and_then(Record::parse);
        if let Some(words) = record.filter(|text| parsed.is_none() && !text.is_empty()) {
            let words = store.client.redacted(&words);
            store.log.debug(text!("the end of this run is not recorded: {}", Escaped(&words)));
        }
        let (trouble, note) = match outcome {
            _ if lost => (Some(words!("the lock {} was lost: {}", name, loss)), Line::default()),
            Ok(Released::Free) => (None, "released the lock".into()),
            Ok(Released::InGrace(left)) => (None, words!("released the lock, with {} of grace left", Span(left))),
            Ok(Released::Lost) => {
                (Some(words!("the lock {} was lost before the command ended", name)), Line::default())
            }
            Ok(Released::LeftToExpire) => {
                let words = "left the lock to expire: it cannot be released safely without EVAL";
                (None, words.into())
            }
            Err(why) => (Some(store.not_released(&why)), Line::default()),
        };
        Ending { trouble, note, record: parsed }
    }

    fn abandon(mut self: Box<Self>, end: &str) -> Result<(), Line> {
        self.store.give_back(&End { result: end.into(), success: false })
    }
}

/// A lock in Redis is kept by renewing its lease.
impl Renewal for RedisLock<'_> {
    fn schedule(&self) -> Schedule {
        let lease = &self.store.lease;
        let renews = lease.options.lease.is_some() && !lease.is_final;
        let renew_at = if renews { lease.renew_at } else { Instant::NEVER };
        Schedule { renew_at, stop_at: lease.stop_at(), kill_at: lease.kill_at(), hold_end: lease.hold_end }
    }

    fn renew(&mut self, until: Instant) -> Renewed {
        let store = &mut self.store;
        let until = until.min(Instant::after(store.lease.attempt()));
        let budget =
            Budget { wake: WakeOn::JobExit, attempts: 0, until, begin_by: Instant::NEVER, lasting: Lasting::Forbidden };
        let renewed = store.lease.renew(&mut store.client.with(budget));
        store.client.close();
        match renewed {
            Ok(true) => self.failure = None,
            Ok(false) => {
                self.loss = Some("another holds the lock".into());
                return Renewed::Lost;
            }
            Err(error) if error.is_interrupted() => store.lease.renew_now(),
            Err(error) => {
                store.log.debug(text!("the lease was not renewed: {}", error.words()));
                self.failure = Some(error.words());
            }
        }
        Renewed::Kept
    }
}
