use super::{Attempt, Ending, Error, Held, LockStore, end_of, not_begun, told};
use crate::clock::Instant;
use crate::config::Config;
use crate::interrupt::WakeOn;
use crate::job::{Binding, ExitReason, Renewal, Renewed, Schedule, StopReason};
use crate::lock::{self, Acquired, Confirmed, End, Entry, Lease, LockOptions, Record, Released, Status, Token};
use crate::net::{Budget, Client};
use crate::text::{Escaped, Line, Span};
use crate::words;
use std::time::Duration;

/// How long giving a lock back may take: somebody may be waiting for golock to end.
const GIVE_BACK: Duration = Duration::from_secs(5);

/// How long a list may take, however many pages it has.
const LIST: Duration = Duration::from_mins(10);

/// How long a run that is skipped looks at the lock that is held, for VERBOSE.
const LOOK: Duration = Duration::from_secs(1);

/// A lock in Redis, which we hold or not.
pub struct RedisStore<'a> {
    client: Client<'a>,
    config: &'a Config,
    lease: Lease,
    /// Why the last renewal failed, if it did.
    failure: Option<Line>,
    /// Whether another holds it.
    is_taken: bool,
}

impl<'a> RedisStore<'a> {
    /// The lock that `config` and `options` name. Nothing is sent yet.
    pub fn new(client: Client<'a>, config: &'a Config, options: LockOptions) -> Self {
        Self { client, config, lease: Lease::new(options, Token::random()), failure: None, is_taken: false }
    }

    /// The error that we could not `verb` the lock; or the signal that broke it off. If only the answers were lost, the lock
    /// stands, for nobody: it is given back.
    fn error(&mut self, verb: &'static str, error: &lock::Error, may_hold: bool) -> Error {
        let signal = self.client.interrupts.termination().filter(|_| error.is_interrupted());
        let code = signal.map_or(201, |signal| u8::try_from(128 + signal.as_raw()).unwrap_or(u8::MAX));
        let left = if may_hold { self.give_back(&not_begun(code)).err() } else { None };
        if let Some(signal) = signal {
            return Error::Interrupted(signal, left);
        }
        let left = left.map_or(Line::default(), |left| words!("; {}", left));
        words!("cannot {} the lock {}: {}{}", verb, Escaped(&self.lease.options.name), error.words(), left).into()
    }

    fn look(&mut self, budget: Budget) -> Result<Status, lock::Error> {
        let LockOptions { name, record, .. } = &self.lease.options;
        lock::status(self.client.with(budget), name, record.as_ref().map(|record| &record.key[..]))
    }

    /// That another holds the lock, with all that can be known of it, if VERBOSE asks for that and it comes within a second;
    /// without the password, which the server may repeat.
    fn busy(mut self: Box<Self>, mut status: Status) -> Attempt<'a> {
        if self.config.verbose {
            let budget = Budget { attempts: 0, until: Instant::after(LOOK), ..self.client.patience };
            // It may have gone since; the run is skipped all the same.
            status = self.look(budget).ok().filter(|seen| seen.value.is_some()).unwrap_or(status);
        }
        status.redact(&|text| self.client.redacted(text));
        Attempt::Busy(self, status)
    }

    /// Releases the lock, whose grace is over now, within five seconds.
    fn give_back(&mut self, end: &End) -> Result<(), Line> {
        self.client.interrupts.forget_all();
        self.lease.grace_end = Instant::ZERO;
        let budget = self.client.insistence(Instant::after(GIVE_BACK));
        let released = lock::release(self.client.with(budget), &self.lease, GIVE_BACK, end);
        self.client.close();
        match released.map(|release| release.lock) {
            // If it is another's, it has never been ours.
            Ok(Released::Free | Released::InGrace(_) | Released::Lost) => Ok(()),
            Ok(Released::LeftToExpire) => Err(self.not_released(&"it might be another's by now".into())),
            Err(error) => Err(self.not_released(&error.words())),
        }
    }

    /// Why it was lost.
    fn loss(&self) -> Line {
        match &self.failure {
            _ if self.is_taken => "another holds it".into(),
            _ if self.lease.is_final || self.lease.hold_end.has_passed() => "RELEASE is over".into(),
            Some(failure) => failure.clone(),
            None => "golock stood still for too long".into(),
        }
    }

    fn not_released(&self, why: &Line) -> Line {
        let (name, ttl) = (Escaped(&self.lease.options.name), self.lease.options.ttl().as_secs());
        words!("cannot release {}: {}; it may stay locked for up to {} s", name, *why, ttl)
    }
}

impl<'a> LockStore<'a> for RedisStore<'a> {
    fn acquire(mut self: Box<Self>) -> Result<Attempt<'a>, Error> {
        let options = &self.lease.options;
        let begin_by = if options.record.is_none() { options.late_from() } else { Instant::NEVER };
        let budget = Budget { begin_by, ..self.client.patience };
        let stale = match lock::acquire(self.client.with(budget), &mut self.lease, self.config.max_age.is_some()) {
            Ok(Acquired::Ours) => None,
            Ok(Acquired::Stale(value)) => Some(value),
            Ok(Acquired::Held(status)) => return Ok(self.busy(status)),
            Err(unsure) => return Err(self.error("take", &unsure.error, unsure.may_hold)),
        };
        let (budget, margin) = (self.client.patience, self.client.server.timeout);
        let confirmed = match self.lease.confirm(self.client.with(budget), stale.as_deref(), margin) {
            Ok(Confirmed::Lost(value)) => {
                let known = self.config.max_age.and_then(|_| self.look(self.client.patience).ok());
                return Ok(self.busy(known.filter(|seen| seen.value.is_some()).unwrap_or(Status::held(value))));
            }
            Ok(confirmed) => confirmed,
            // Without EVAL a predecessor's lock is not taken over.
            Err(error @ lock::Error::Refused(..)) if stale.is_some() => return Err(self.error("take", &error, false)),
            Err(error) => return Err(self.error("keep", &error, true)),
        };
        self.client.close();
        let Confirmed::Ours(note) = confirmed else { return Ok(Attempt::Served) };
        self.client.log.debug(words!("got the lock, for {} at most", Span(self.lease.options.ttl())));
        if let Some(words) = note {
            let what = if self.lease.eval_refused { "redis refuses EVAL" } else { "nothing is recorded of this run" };
            self.client.log.debug(words!("{}: {}", what, Escaped(&self.client.redacted(&words))));
        }
        Ok(Attempt::Acquired(self))
    }

    fn status(&mut self) -> Result<Status, Error> {
        let mut status = self.look(self.client.patience).map_err(|error| self.error("look at", &error, false))?;
        status.redact(&|text| self.client.redacted(text));
        Ok(status)
    }

    fn list(&mut self) -> Result<(Vec<Entry>, Option<&'static str>), Error> {
        let budget = Budget { until: Instant::after(LIST), ..self.client.patience };
        let found = lock::list(self.client.with(budget), &self.config.prefix);
        let (mut entries, note) = found.map_err(|error| match self.error("list", &error, false) {
            Error::Failed(_) => words!("cannot list {}*: {}", Escaped(&self.config.prefix), error.words()).into(),
            interrupted @ Error::Interrupted(..) => interrupted,
        })?;
        for entry in &mut entries {
            entry.status.redact(&|text| self.client.redacted(text));
            // Our prefix is not from the server.
            let name = entry.name.split_off(self.config.prefix.len().min(entry.name.len()));
            entry.name.extend(self.client.redacted(&name));
        }
        Ok((entries, note))
    }

    fn reset(&mut self) -> Result<bool, Error> {
        let budget = self.client.patience;
        let found = lock::reset(self.client.with(budget), &self.lease.options.name);
        found.map_err(|error| self.error("reset", &error, false))
    }

    fn tells_overdue(&mut self) -> bool {
        let Some(key) = lock::beside(&self.config.prefix, b"late.", &self.lease.options.name) else { return true };
        let budget = self.client.patience;
        lock::overdue_is_ours(self.client.with(budget), &key).unwrap_or(true)
    }
}

impl Held for RedisStore<'_> {
    fn lasts(&self) -> bool {
        self.lease.lasts(Instant::now())
    }

    fn grant(&self) -> (&[u8], Option<u64>, Binding<'_>) {
        let Lease { token, fence, options, .. } = &self.lease;
        (token.as_bytes(), *fence, if options.lease.is_some() { Binding::DieWithParent } else { Binding::None })
    }

    fn release(mut self: Box<Self>, exit: ExitReason) -> Ending {
        let loss = (exit == ExitReason::Stopped(StopReason::LockLost)).then(|| self.loss());
        // What arrived before was meant for the job.
        self.client.interrupts.forget_all();
        let mut budget = self.client.insistence(Instant::NEVER);
        if loss.is_some() {
            // It may still be ours, and the record should say how the run ended.
            budget = Budget { attempts: 0, ..self.client.insistence(Instant::after(GIVE_BACK)) };
        }
        let margin = self.client.server.timeout;
        let began = self.lease.hold_end.before(self.lease.options.release);
        let end = end_of(exit, Instant::now().since(began).unwrap_or_default());
        let released = lock::release(self.client.with(budget), &self.lease, margin, &end);
        self.client.close();
        let text = released.as_ref().ok().and_then(|release| release.record.clone());
        let record = text.as_deref().and_then(Record::parse);
        let record = record.map(|record| record.redacted(&|text| self.client.redacted(text)));
        if let Some(text) = text.filter(|_| record.is_none()) {
            let why = if text.is_empty() { b"its record is gone".to_vec() } else { self.client.redacted(&text) };
            self.client.log.debug(words!("the end of this run is not recorded: {}", Escaped(&why)));
        }
        let name = &self.lease.options.name;
        let told = match (loss, released) {
            (Some(loss), _) => Err(words!("the lock {} was lost: {}", Escaped(name), loss)),
            (None, Ok(release)) => told(name, release.lock),
            (None, Err(error)) => Err(self.not_released(&error.words())),
        };
        Ending { told, record }
    }

    fn abandon(mut self: Box<Self>, code: u8) -> Result<(), Line> {
        self.give_back(&not_begun(code))
    }
}

/// A lock in Redis is kept by renewing its lease.
impl Renewal for RedisStore<'_> {
    fn schedule(&self) -> Schedule {
        let lease = &self.lease;
        let renews = lease.options.lease.is_some() && !lease.is_final;
        let renew_at = if renews { lease.renew_at } else { Instant::NEVER };
        Schedule { renew_at, stop_at: lease.stop_at(), kill_at: lease.kill_at(), hold_end: lease.hold_end }
    }

    fn renew(&mut self, until: Instant) -> Renewed {
        let until = until.min(Instant::after(self.lease.attempt()));
        let budget = Budget { wake: WakeOn::JobExit, attempts: 0, ..self.client.insistence(until) };
        let renewed = self.lease.renew(self.client.with(budget));
        self.client.close();
        match renewed {
            Ok(ours) => (self.failure, self.is_taken) = (None, !ours),
            Err(error) if error.is_interrupted() => self.lease.renew_now(),
            Err(error) => {
                self.client.log.debug(words!("the lease was not renewed: {}", error.words()));
                self.failure = Some(error.words());
            }
        }
        if self.is_taken { Renewed::Lost } else { Renewed::Kept }
    }
}
