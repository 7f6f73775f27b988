use super::Store;
use crate::Error;
use crate::clock::Moment;
use crate::config::{self, Config};
use crate::job::Keep;
use crate::lock::{self, Acquired, Lease, Lock, Released, Status};
use crate::net::{self, Client, TlsMode};
use crate::report::{Event, Loss, Story};
use crate::signals::{Heed, Signals};
use std::time::Duration;

/// How long giving a lock back may take: somebody waits for us to stop.
const GIVE_BACK: Duration = Duration::from_secs(5);

/// How often a renewal before the start is tried again that came too late.
const ROUNDS: u32 = 3;

/// A lock in Redis.
pub struct RedisStore<'a> {
    config: &'a Config,
    signals: &'a Signals,
    story: Story,
    redis: Client<'a>,
    lock: Lock,
    lease: Option<Lease>,
    grace_end: Moment,
    /// Why the last renewal failed, if it did.
    failure: Option<lock::Error<net::Error>>,
    /// How the lease was lost, if it was.
    loss: Option<Loss>,
}

impl<'a> RedisStore<'a> {
    /// The lock that `config` names. Nothing is sent yet.
    ///
    /// # Errors
    /// When the password cannot be read or TLS cannot be set up.
    pub fn new(config: &'a Config, signals: &'a Signals, story: Story) -> Result<Self, Error> {
        let mut server = config.server.clone();
        if let Some(path) = &config.auth_file {
            server.login.password = Some(config::read_password(path).map_err(Error::Config)?);
        }
        let redis = Client::new(server, config.retry, signals, story).map_err(Error::Tls)?;
        let lock = Lock::new(&config.name, config.ttl());
        Ok(Self {
            config,
            signals,
            story,
            redis,
            lock,
            lease: None,
            grace_end: Moment::now(),
            failure: None,
            loss: None,
        })
    }

    /// The signal that broke off what we were doing to the lock, or else the error that did.
    fn blame(&self, verb: &'static str, error: lock::Error<net::Error>) -> Error {
        match (error, self.signals.take()) {
            (lock::Error::Exchange(net::Error::Signal), Some(signal)) => Error::Stopped(signal),
            (error, _) => Error::Redis(verb, self.config.name.clone(), error.into()),
        }
    }
}

impl Store for RedisStore<'_> {
    fn acquire(&mut self) -> Result<bool, Error> {
        let asked = Moment::now();
        self.lock = Lock::new(&self.config.name, self.config.ttl());
        match lock::acquire(&mut self.redis, &self.lock) {
            Ok(Acquired::Ours) => {
                self.story.tell(&Event::Acquired(self.lock.ttl));
                self.grace_end = Moment::after(self.config.grace.min(self.config.release));
                let hold_end = asked + self.config.release;
                self.lease = self.config.lease.map(|length| Lease::new(self.lock.clone(), length, hold_end));
                Ok(true)
            }
            Ok(Acquired::Held(value)) => {
                self.story.tell(&Event::Held(&value));
                Ok(false)
            }
            Err(error) => {
                let error = self.blame("take", error);
                // If only the answers were lost, the lock stands, for nobody.
                if self.redis.is_unheard() {
                    self.give_back(matches!(error, Error::Stopped(_)));
                }
                Err(error)
            }
        }
    }

    fn settle(&mut self) -> Result<(), Error> {
        // Only now, because skipping is silent.
        let Config { auth_file, server, .. } = self.config;
        let key = if let TlsMode::On(_, Some(identity)) = &server.tls { Some(&identity.key) } else { None };
        for secret in auth_file.iter().chain(key).filter(|path| config::is_public(path)) {
            self.story.tell(&Event::Public(secret));
        }
        // A server that refuses renewals is better found out before the command runs. One that was so long in answering
        // that the job would be stopped at once is asked again.
        let mut late = false;
        for _ in 0..ROUNDS {
            let Some(lease) = &mut self.lease else { break };
            match lease.renew(&mut self.redis) {
                Ok(true) => late = lease.stop_by().has_come(),
                Ok(false) => return Err(Error::Held(self.config.skip_exit)),
                Err(error) => return Err(self.blame("keep", error)),
            }
            if !late {
                break;
            }
        }
        self.redis.close();
        if late { Err(self.blame("keep", lock::Error::Late)) } else { Ok(()) }
    }

    fn token(&self) -> &[u8] {
        self.lock.token.as_bytes()
    }

    fn binds(&self) -> bool {
        self.lease.is_some()
    }

    fn keep(&mut self) -> Option<&mut dyn Keep> {
        if self.lease.is_some() { Some(self) } else { None }
    }

    fn give_back(&mut self, stopped: bool) {
        self.signals.forget();
        self.redis.pursue(Heed::Stops, 0, Some(Moment::after(GIVE_BACK)));
        match lock::release(&mut self.redis, &self.lock, Moment::now(), GIVE_BACK) {
            // If it is another's, it has never been ours.
            Ok(Released::Lost) => {}
            Ok(released) => self.story.tell(&Event::Released(&self.lock.name, released)),
            Err(error) if stopped => self.story.tell(&Event::NotReleased(&self.lock, &error)),
            Err(error) => self.story.tell(&Event::NotGivenBack(&self.lock, &error)),
        }
        self.redis.close();
    }

    fn release(&mut self) {
        // What arrived before was meant for the job; what arrives from here on ends our patience with Redis.
        self.signals.forget();
        self.redis.pursue(Heed::Nothing, self.config.retry.attempts, None);
        match lock::release(&mut self.redis, &self.lock, self.grace_end, self.config.retry.timeout) {
            Ok(released) => self.story.tell(&Event::Released(&self.lock.name, released)),
            Err(error) => self.story.tell(&Event::NotReleased(&self.lock, &error)),
        }
        self.redis.close();
    }

    fn tell_loss(&mut self) {
        if let Some(loss) = &self.loss {
            self.story.tell(&Event::LeaseLost(&self.lock, loss));
        }
    }

    fn reset(&mut self) -> Result<(), Error> {
        lock::reset(&mut self.redis, &self.config.name).map_err(|error| self.blame("reset", error))
    }

    fn status(&mut self) -> Result<Status, Error> {
        lock::status(&mut self.redis, &self.config.name).map_err(|error| self.blame("look at", error))
    }
}

/// A lock in Redis is kept by renewing its lease.
impl Keep for RedisStore<'_> {
    fn due(&self) -> Moment {
        self.lease.as_ref().map_or(Moment::NEVER, Lease::due)
    }

    fn stop_by(&self) -> Moment {
        self.lease.as_ref().map_or(Moment::NEVER, Lease::stop_by)
    }

    fn gone_by(&self) -> Moment {
        self.lease.as_ref().map_or(Moment::NEVER, Lease::gone_by)
    }

    fn act(&mut self, until: Moment) -> bool {
        let Some(lease) = &mut self.lease else { return true };
        self.redis.pursue(Heed::Job, 0, Some(until.min(Moment::after(lease.attempt()))));
        let renewed = lease.renew(&mut self.redis);
        self.redis.close();
        match renewed {
            Ok(true) => self.failure = None,
            Ok(false) => {
                self.loss = Some(Loss::Taken);
                return false;
            }
            Err(lock::Error::Exchange(net::Error::Signal)) => lease.hurry(),
            Err(error) => {
                self.story.tell(&Event::NotRenewed(&error));
                self.failure = Some(error);
            }
        }
        true
    }

    fn expire(&mut self) {
        let over = self.lease.as_ref().is_some_and(Lease::is_at_its_end);
        self.loss = Some(if over { Loss::Over } else { Loss::Expired(self.failure.take()) });
    }
}
