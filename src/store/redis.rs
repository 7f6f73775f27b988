use super::{Attempt, Ending, Error, Held, LockStore, end_of, not_begun};
use crate::clock::Instant;
use crate::config::Config;
use crate::interrupt::{Interrupts, WakeOn};
use crate::job::{Binding, ExitReason, Renewal, Renewed, Schedule, StopReason};
use crate::lock::{self, Acquired, Confirmed, End, Entry, Lease, LockOptions, Look, Record, Released, Status, Token};
use crate::net::{Budget, Client, Lasting};
use crate::text::{Escaped, Line, Log, Span};
use crate::{text, words};
use std::time::Duration;

/// How long giving a lock back may take: somebody waits for us to stop.
const GIVE_BACK: Duration = Duration::from_secs(5);

/// How long who skips looks at the lock that is held, for VERBOSE.
const LOOK: Duration = Duration::from_secs(1);

/// A lock in Redis.
pub struct RedisStore<'a> {
    client: Client<'a>,
    config: &'a Config,
    lease: Lease,
    interrupts: &'a Interrupts,
    log: &'a dyn Log,
}

/// The same, when we hold it.
struct RedisLock<'a> {
    store: RedisStore<'a>,
    /// Why the last renewal failed, if it did.
    failure: Option<Line>,
    /// Whether another holds it.
    is_taken: bool,
}

impl<'a> RedisStore<'a> {
    /// The lock that `config` and `options` name. Nothing is sent yet.
    pub fn new(
        client: Client<'a>,
        config: &'a Config,
        options: LockOptions,
        interrupts: &'a Interrupts,
        log: &'a dyn Log,
    ) -> Self {
        Self { client, config, lease: Lease::new(options, Token::random()), interrupts, log }
    }

    fn record_key(&self) -> Option<Vec<u8>> {
        self.lease.options.record.as_ref().map(|record| record.key.clone())
    }

    /// The error that we could not `verb` the lock; or the signal that broke it off. If only the answers were lost, the lock
    /// stands, for nobody: it is given back.
    fn error(&mut self, verb: &'static str, error: &lock::Error, may_hold: bool) -> Error {
        let signal = self.interrupts.termination().filter(|_| error.is_interrupted());
        let code = signal.map_or(201, |signal| u8::try_from(128 + signal.as_raw()).unwrap_or(u8::MAX));
        let left = if may_hold { self.give_back(&not_begun(code)).err() } else { None };
        let name = Escaped(&self.lease.options.name);
        match (signal, left) {
            (Some(signal), left) => Error::Interrupted(signal, left),
            (_, None) => words!("cannot {} the lock {}: {}", verb, name, error.words()).into(),
            (_, Some(left)) => words!("cannot {} the lock {}: {}; {}", verb, name, error.words(), left).into(),
        }
    }

    /// When the last attempt to acquire may begin. Without a record only the grace of another run keeps a late one from
    /// running once more.
    fn begin_by(&self) -> Instant {
        let LockOptions { record, tick, grace, .. } = &self.lease.options;
        tick.filter(|_| record.is_none() && !grace.is_zero()).map_or(Instant::NEVER, |start| start + *grace)
    }

    /// All that can be known of a lock that is held, if VERBOSE asks for it, and it comes within a second; without the
    /// password, which the server may repeat.
    fn looked_at(&mut self, mut status: Status) -> Status {
        if self.config.verbose {
            let budget = Budget { attempts: 0, until: Instant::after(LOOK), ..self.client.patience() };
            let (name, key) = (self.lease.options.name.clone(), self.record_key());
            let seen = lock::status(&mut self.client.with(budget), &name, key.as_deref()).unwrap_or_default();
            // It may have gone since, which changes nothing for who skips.
            status = if seen.value.is_some() { seen } else { status };
        }
        status.redact(&|text| self.client.redacted(text));
        status
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
        let (name, ttl) = (Escaped(&self.lease.options.name), self.lease.options.ttl().as_secs());
        words!("cannot release {}: {}; it may stay locked for up to {} s", name, *why, ttl)
    }

    fn tell_acquired(&self, note: Option<Vec<u8>>) {
        self.log.debug(text!("got the lock, for {} at most", Span(self.lease.options.ttl())));
        if let Some(words) = note.map(|words| self.client.redacted(&words)) {
            let what = if self.lease.eval_refused { "redis refuses EVAL" } else { "nothing is recorded of this run" };
            self.log.debug(text!("{}: {}", what, Escaped(&words)));
        }
    }
}

impl<'a> LockStore<'a> for RedisStore<'a> {
    fn acquire(mut self: Box<Self>) -> Result<Attempt<'a>, Error> {
        let look = if self.config.max_age.is_some() { Look::Record } else { Look::Lock };
        let budget = Budget { begin_by: self.begin_by(), ..self.client.patience() };
        let stale = match lock::acquire(&mut self.client.with(budget), &mut self.lease, look) {
            Ok(Acquired::Ours) => None,
            Ok(Acquired::Stale(value)) => Some(value),
            Ok(Acquired::Held(status)) => {
                let status = self.looked_at(status);
                return Ok(Attempt::Busy(self, status));
            }
            Err(unsure) => return Err(self.error("take", &unsure.error, unsure.may_hold)),
        };
        let (budget, margin) = (self.client.patience(), self.client.timeout());
        let confirmed = self.lease.confirm(&mut self.client.with(budget), stale.as_deref(), margin);
        // Without EVAL a predecessor's lock is not taken over.
        let refused = |error: &lock::Error| stale.is_some() && matches!(error, lock::Error::Refused(..));
        let confirmed = confirmed.map_err(|error| {
            if refused(&error) { self.error("take", &error, false) } else { self.error("keep", &error, true) }
        });
        match confirmed? {
            Confirmed::Ours(note) => {
                self.client.close();
                self.tell_acquired(note);
                Ok(Attempt::Acquired(Box::new(RedisLock { store: *self, failure: None, is_taken: false })))
            }
            Confirmed::Served => {
                self.client.close();
                Ok(Attempt::Served)
            }
            Confirmed::Lost(value) => {
                let status = self.looked_at(Status::held(value));
                Ok(Attempt::Busy(self, status))
            }
        }
    }

    fn status(&mut self) -> Result<Status, Error> {
        let (budget, name, key) = (self.client.patience(), self.lease.options.name.clone(), self.record_key());
        let seen = lock::status(&mut self.client.with(budget), &name, key.as_deref());
        let mut status = seen.map_err(|error| self.error("look at", &error, false))?;
        status.redact(&|text| self.client.redacted(text));
        Ok(status)
    }

    fn list(&mut self) -> Result<(Vec<Entry>, Option<&'static str>), Error> {
        let budget = self.client.patience();
        let found = lock::list(&mut self.client.with(budget), &self.config.prefix);
        let mut found = found.map_err(|error| match self.error("list", &error, false) {
            Error::Failed(_) => words!("cannot list {}*: {}", Escaped(&self.config.prefix), error.words()).into(),
            interrupted @ Error::Interrupted(..) => interrupted,
        })?;
        for entry in &mut found.entries {
            entry.status.redact(&|text| self.client.redacted(text));
            // Our prefix is not from the server.
            let name = entry.name.split_off(self.config.prefix.len().min(entry.name.len()));
            entry.name.extend(self.client.redacted(&name));
        }
        Ok((found.entries, found.is_of_one_node.then_some("these are the jobs of one node of a cluster")))
    }

    fn reset(&mut self) -> Result<bool, Error> {
        let (budget, name) = (self.client.patience(), self.lease.options.name.clone());
        lock::reset(&mut self.client.with(budget), &name).map_err(|error| self.error("reset", &error, false))
    }

    fn tells_overdue(&mut self) -> bool {
        let Some(key) = lock::of_overdue(&self.config.prefix, &self.lease.options.name) else { return true };
        let budget = self.client.patience();
        lock::overdue_is_ours(&mut self.client.with(budget), &key).unwrap_or(false)
    }
}

impl RedisLock<'_> {
    /// Why it was lost.
    fn loss(&self) -> Line {
        let lease = &self.store.lease;
        match &self.failure {
            _ if self.is_taken => "another holds it".into(),
            _ if lease.is_final || lease.hold_end.has_passed() => "RELEASE is over".into(),
            Some(failure) => failure.clone(),
            None => "golock stood still for too long".into(),
        }
    }
}

impl Held for RedisLock<'_> {
    fn lasts(&self) -> bool {
        self.store.lease.lasts(Instant::now())
    }

    fn grant(&self) -> (&[u8], Option<u64>, Binding<'_>) {
        let Lease { token, fence, options, .. } = &self.store.lease;
        (token.as_bytes(), *fence, if options.lease.is_some() { Binding::DieWithParent } else { Binding::None })
    }

    fn release(mut self: Box<Self>, exit: ExitReason) -> Ending {
        let loss = (exit == ExitReason::Stopped(StopReason::LockLost)).then(|| self.loss());
        let store = &mut self.store;
        // What arrived before was meant for the job.
        store.interrupts.forget_all();
        let mut budget = store.client.insistence(Instant::NEVER);
        if loss.is_some() {
            // It may be ours all the same, and the record is to say how the run ended.
            budget = Budget { attempts: 0, ..store.client.insistence(Instant::after(GIVE_BACK)) };
        }
        let margin = store.client.timeout();
        let released = lock::release(&mut store.client.with(budget), &store.lease, margin, &end_of(exit));
        store.client.close();
        let text = released.as_ref().ok().and_then(|release| release.record.clone());
        let record = text.as_deref().and_then(Record::parse);
        if let Some(text) = text.filter(|_| record.is_none()) {
            let why = if text.is_empty() { b"its record is gone".to_vec() } else { store.client.redacted(&text) };
            store.log.debug(text!("the end of this run is not recorded: {}", Escaped(&why)));
        }
        let name = Escaped(&store.lease.options.name);
        let told = match (loss, released.map(|release| release.lock)) {
            (Some(loss), _) => Err(words!("the lock {} was lost: {}", name, loss)),
            (_, Ok(Released::Free)) => Ok("released the lock".into()),
            (_, Ok(Released::InGrace(left))) => Ok(words!("released the lock, with {} of grace left", Span(left))),
            (_, Ok(Released::Lost)) => Err(words!("the lock {} was lost before the command ended", name)),
            (_, Ok(Released::LeftToExpire)) => {
                Ok("left the lock to expire: it cannot be released safely without EVAL".into())
            }
            (_, Err(error)) => Err(store.not_released(&error.words())),
        };
        Ending { told, record }
    }

    fn abandon(mut self: Box<Self>, code: u8) -> Result<(), Line> {
        self.store.give_back(&not_begun(code))
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
        let (wake, begin_by, lasting) = (WakeOn::JobExit, Instant::NEVER, Lasting::Forbidden);
        let budget = Budget { wake, attempts: 0, until, begin_by, lasting };
        let renewed = store.lease.renew(&mut store.client.with(budget));
        store.client.close();
        match renewed {
            Ok(ours) => (self.failure, self.is_taken) = (None, !ours),
            Err(error) if error.is_interrupted() => store.lease.renew_now(),
            Err(error) => {
                store.log.debug(text!("the lease was not renewed: {}", error.words()));
                self.failure = Some(error.words());
            }
        }
        if self.is_taken { Renewed::Lost } else { Renewed::Kept }
    }
}
