//! golock runs a command under a lock held in Redis, so that a job scheduled on many hosts runs on one of them and never
//! overlaps itself. DESIGN.md says what it promises; [`run`] is the whole program.

#![forbid(unsafe_code)]

pub mod clock;
pub mod config;
pub mod job;
pub mod lock;
pub mod net;
pub mod report;
pub mod resp;
pub mod signals;
pub mod tenure;

use clock::Moment;
use config::{Config, Invocation};
use job::{Ended, Keep, Started, Unfit};
use lock::{Acquired, Lease, Lock, Released, Status};
use net::{Client, TlsMode};
use report::{Event, Story};
use rustix::process::Signal;
use signals::{Cut, Heed, Signals};
use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;
use tenure::Tenure;

/// The pauses between two looks at a lock that is held, while we wait for it: the first, and the longest.
const WAIT_PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// What golock did.
#[derive(Debug)]
pub enum Outcome {
    /// It printed what was asked for.
    Printed,
    /// It looked at the lock.
    Seen(Status),
    /// It deleted the lock.
    Reset,
    /// It ran the command.
    Ran(Ended),
}

/// Why golock did not do what it was called to do.
#[derive(Debug)]
pub enum Error {
    /// The settings make no sense.
    Config(config::Error),
    /// The command cannot be run.
    Unfit(OsString, Unfit, Option<io::Error>),
    /// The lock is held by another; the code to exit with then.
    Held(u8),
    /// A signal arrived before the command was started.
    Stopped(Signal),
    /// Redis did not do what was asked (a verb) of the lock named.
    Redis(&'static str, Vec<u8>, Box<lock::Error<net::Error>>),
    /// TLS cannot be set up.
    Tls(net::SetupError),
    /// The system did not do what is named.
    System(&'static str, io::Error),
}

/// Runs golock with `args`, which do not hold the program's name, in `env`; returns its exit code.
pub fn run(args: impl IntoIterator<Item = OsString>, env: impl IntoIterator<Item = (OsString, OsString)>) -> u8 {
    let args: Vec<_> = args.into_iter().collect();
    let outcome = match job::enter(&args) {
        Some((program, error)) => Err(Error::Unfit(program.into(), Unfit::of(&error), Some(error))),
        None => Invocation::parse(args, env).map_err(Error::Config).and_then(|invocation| obey(&invocation)),
    };
    if let Err(error) = &outcome {
        report::fail(error);
    }
    exit_code(&outcome)
}

fn exit_code(outcome: &Result<Outcome, Error>) -> u8 {
    let of_signal = |signal: i32| u8::try_from(128 + signal).unwrap_or(u8::MAX);
    match outcome {
        Ok(Outcome::Printed | Outcome::Seen(Status::Free)) => 0,
        Ok(Outcome::Seen(Status::Held(..)) | Outcome::Reset) => 200,
        Ok(Outcome::Ran(Ended::Code(code))) | Err(Error::Held(code)) => *code,
        Ok(Outcome::Ran(Ended::Signal(signal))) => of_signal(*signal),
        Ok(Outcome::Ran(Ended::TimedOut)) => 202,
        Err(Error::Stopped(signal)) => of_signal(signal.as_raw()),
        Err(Error::Unfit(_, Unfit::NotExecutable, _)) => 126,
        Err(Error::Unfit(_, Unfit::NotFound, _)) => 127,
        Ok(Outcome::Ran(Ended::LeaseLost))
        | Err(Error::Config(_) | Error::Redis(..) | Error::Tls(_) | Error::System(..)) => 201,
    }
}

fn obey(invocation: &Invocation) -> Result<Outcome, Error> {
    match invocation {
        Invocation::Help => print(config::help().as_bytes()),
        Invocation::Version => print(config::version().as_bytes()),
        Invocation::PrintKey(config) => print(&[&config.name[..], b"\n"].concat()),
        Invocation::Status(config) => look(config),
        Invocation::Reset(config) => reset(config),
        Invocation::Run(config, command) => run_command(config, command),
    }
}

fn print(text: &[u8]) -> Result<Outcome, Error> {
    let mut stdout = io::stdout();
    let written = stdout.write_all(text).and_then(|()| stdout.flush());
    written.map(|()| Outcome::Printed).map_err(|error| Error::System("print", error))
}

fn look(config: &Config) -> Result<Outcome, Error> {
    let signals = catch_signals()?;
    let mut redis = connect(config, &signals, Story::begin(config))?;
    let status = lock::status(&mut redis, &config.name).map_err(|error| blame("look at", config, error, &signals))?;
    print(report::status(&config.name, &status).as_bytes())?;
    Ok(Outcome::Seen(status))
}

fn reset(config: &Config) -> Result<Outcome, Error> {
    let signals = catch_signals()?;
    let mut redis = connect(config, &signals, Story::begin(config))?;
    lock::reset(&mut redis, &config.name).map_err(|error| blame("reset", config, error, &signals))?;
    Ok(Outcome::Reset)
}

/// The whole job: find the command, take the lock, run the command, release the lock.
fn run_command(config: &Config, command: &[OsString]) -> Result<Outcome, Error> {
    let story = Story::begin(config);
    let program = command.first().map_or(OsStr::new(""), OsString::as_os_str);
    let path =
        job::find(program, std::env::var_os("PATH")).map_err(|unfit| Error::Unfit(program.into(), unfit, None))?;
    let signals = catch_signals()?;
    let mut redis = connect(config, &signals, story)?;

    let asked = Moment::now();
    let lock = acquire(config, &mut redis, &signals, story)?;
    let grace_end = Moment::after(config.grace.min(config.release));
    let mut lease = config.lease.map(|length| Lease::new(lock.clone(), length, asked + config.release));
    let started = begin(config, &path, command, &lock, lease.as_mut(), &mut redis, &signals)
        .inspect_err(|_| give_back(&mut redis, &lock, &signals, story))?;
    story.tell(&Event::Started(&path, started.pid));

    let mut tenure = lease.map(|lease| Tenure { lease, redis: &mut redis, story, failure: None });
    let keep = tenure.as_mut().map(|tenure| -> &mut dyn Keep { tenure });
    let ended = job::supervise(started, &signals, config.limits, keep, story)
        .map_err(|error| Error::System("wait for the command", error))?;
    story.tell(&Event::Ended(program, ended, config.limits.timeout));

    if ended != Ended::LeaseLost {
        release(config, &mut redis, &lock, grace_end, &signals, story);
    }
    Ok(Outcome::Ran(ended))
}

fn catch_signals() -> Result<Signals, Error> {
    Signals::install().map_err(|error| Error::System("catch signals", error))
}

/// A client of the Redis that `config` names.
fn connect<'a>(config: &Config, signals: &'a Signals, story: Story) -> Result<Client<'a>, Error> {
    let mut server = config.server.clone();
    if let Some(path) = &config.auth_file {
        server.login.password = Some(config::read_password(path).map_err(Error::Config)?);
    }
    let key = if let TlsMode::On(_, Some(identity)) = &server.tls { Some(&identity.key) } else { None };
    for secret in config.auth_file.iter().chain(key).filter(|path| config::is_public(path)) {
        story.tell(&Event::Public(secret));
    }
    Client::new(&server, config.retry, signals, story).map_err(Error::Tls)
}

/// The signal that broke off what we were doing to the lock, or else the error that did.
fn blame(verb: &'static str, config: &Config, error: lock::Error<net::Error>, signals: &Signals) -> Error {
    match (error, signals.take()) {
        (lock::Error::Exchange(net::Error::Signal), Some(signal)) => Error::Stopped(signal),
        (error, _) => Error::Redis(verb, config.name.clone(), error.into()),
    }
}

/// Takes the lock, waiting for it as long as `config` says.
fn acquire(config: &Config, redis: &mut Client<'_>, signals: &Signals, story: Story) -> Result<Lock, Error> {
    let wait_end = Moment::after(config.wait);
    let (mut pause, longest) = WAIT_PAUSES;
    loop {
        let lock = Lock::new(&config.name, config.lease.map_or(config.release, |lease| lease.min(config.release)));
        match lock::acquire(redis, &lock) {
            Ok(Acquired::Ours) => {
                story.tell(&Event::Acquired(&lock));
                return Ok(lock);
            }
            Ok(Acquired::Held(value)) if pause == WAIT_PAUSES.0 => story.tell(&Event::Held(&value)),
            Ok(Acquired::Held(_)) => {}
            Err(error) => {
                let error = blame("take", config, error, signals);
                if matches!(error, Error::Stopped(_)) {
                    give_back(redis, &lock, signals, story);
                }
                return Err(error);
            }
        }
        if wait_end.has_come() {
            return Err(Error::Held(config.skip_exit));
        }
        let look_again = Moment::after(clock::jittered(pause)).min(wait_end);
        if signals.wait(None, Some(look_again), Heed::Stops) == Err(Cut::Signal) {
            return Err(signals.take().map_or(Error::Held(config.skip_exit), Error::Stopped));
        }
        pause = longest.min(pause * 2);
    }
}

/// Starts the command under `lock`, once it is clear that the lease can be renewed and that nobody has told us to stop.
fn begin(
    config: &Config,
    path: &Path,
    command: &[OsString],
    lock: &Lock,
    mut lease: Option<&mut Lease>,
    redis: &mut Client<'_>,
    signals: &Signals,
) -> Result<Started, Error> {
    match lease.as_mut().map(|lease| lease.renew(redis)) {
        None | Some(Ok(true)) => redis.close(),
        Some(Ok(false)) => return Err(Error::Held(config.skip_exit)),
        Some(Err(error)) => return Err(blame("keep", config, error, signals)),
    }
    if let Some(signal) = signals.take() {
        return Err(Error::Stopped(signal));
    }
    config.limits.adopt_orphans(lease.is_some());
    let started = job::start(path, command, &lock.name, lock.token.as_bytes(), lease.is_some());
    started.map_err(|error| Error::Unfit(path.into(), Unfit::of(&error), Some(error)))
}

/// Gives a lock back at once that may have been taken for a command that does not run, so that another host can run it.
fn give_back(redis: &mut Client<'_>, lock: &Lock, signals: &Signals, story: Story) {
    if redis.has_spoken() {
        signals.forget();
        redis.pursue(Heed::Stops, 0, None);
        match lock::release(redis, lock, Moment::now(), Duration::ZERO) {
            // If it is another's, the signal came before it could become ours.
            Ok(Released::Lost) => {}
            Ok(released) => story.tell(&Event::Released(lock, released)),
            Err(error) => story.tell(&Event::NotReleased(lock, &error)),
        }
    }
}

/// Releases `lock`. Whatever comes of it, the command's exit code stands, so a failure is only told.
fn release(config: &Config, redis: &mut Client<'_>, lock: &Lock, grace_end: Moment, signals: &Signals, story: Story) {
    // What arrived before was meant for the job; what arrives from here on ends our patience with Redis.
    signals.forget();
    redis.pursue(Heed::Nothing, config.retry.attempts, None);
    match lock::release(redis, lock, grace_end, config.retry.timeout) {
        Ok(released) => story.tell(&Event::Released(lock, released)),
        Err(error) => story.tell(&Event::NotReleased(lock, &error)),
    }
    redis.close();
}
