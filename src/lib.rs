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

use clock::Moment;
use config::{Config, Invocation};
use job::{Ended, Job, Unfit};
use lock::{Acquired, Lock, Status};
use net::{Client, TlsMode};
use report::{Event, Story};
use rustix::process::Signal;
use signals::{Heed, Signals};
use std::ffi::{OsStr, OsString};
use std::io;
use std::time::Duration;

/// How golock ended, whatever it was called to do.
#[derive(Debug)]
pub enum Outcome {
    /// What was asked for was printed.
    Printed,
    /// The lock was looked at.
    Seen(Status),
    /// The lock was deleted.
    Reset,
    /// The lock is held by another; the code to exit with then.
    Skipped(u8),
    /// A signal arrived before the command was started.
    Stopped(Signal),
    /// The command ran and ended.
    Ran(Ended),
}

/// Why golock failed.
#[derive(Debug)]
pub enum Error {
    /// The settings make no sense.
    Config(config::Error),
    /// The command cannot be run.
    Unfit(OsString, Unfit, Option<io::Error>),
    /// Redis did not do what was asked (a verb) of the lock named.
    Redis(&'static str, Vec<u8>, Box<lock::Error<net::Error>>),
    /// TLS cannot be set up.
    Tls(net::SetupError),
    /// The system did not do what is named.
    System(&'static str, io::Error),
}

/// Runs golock with `args`, which do not hold the program's name, in `env`; returns its exit code.
pub fn run(args: impl IntoIterator<Item = OsString>, env: impl IntoIterator<Item = (OsString, OsString)>) -> u8 {
    let outcome = match Invocation::parse(args, env) {
        Ok(Invocation::Help) => print(config::help().as_bytes()),
        Ok(Invocation::Version) => print(config::version().as_bytes()),
        Ok(Invocation::PrintKey(config)) => print(&[&config.name[..], b"\n"].concat()),
        Ok(Invocation::Status(config)) => look(&config),
        Ok(Invocation::Reset(config)) => reset(&config),
        Ok(Invocation::Run(config, command)) => run_command(&config, &command),
        Err(error) => Err(Error::Config(error)),
    };
    if let Err(error) = &outcome {
        report::fail(error);
    }
    exit_code(&outcome)
}

fn exit_code(outcome: &Result<Outcome, Error>) -> u8 {
    match outcome {
        Ok(Outcome::Printed | Outcome::Seen(Status::Free)) => 0,
        Ok(Outcome::Seen(Status::Held(..)) | Outcome::Reset) => 200,
        Ok(Outcome::Skipped(code) | Outcome::Ran(Ended::Code(code))) => *code,
        Ok(Outcome::Stopped(signal)) => of_signal(signal.as_raw()),
        Ok(Outcome::Ran(Ended::Signal(signal))) => of_signal(*signal),
        Ok(Outcome::Ran(Ended::TimedOut)) => 202,
        Err(Error::Unfit(_, Unfit::NotExecutable, _)) => 126,
        Err(Error::Unfit(_, Unfit::NotFound, _)) => 127,
        Err(Error::Config(_) | Error::Redis(..) | Error::Tls(_) | Error::System(..)) => 201,
    }
}

/// As shells tell of a death by signal.
fn of_signal(signal: i32) -> u8 {
    u8::try_from(128 + signal).unwrap_or(u8::MAX)
}

/// The whole job: find the command, take the lock, run the command, release the lock.
fn run_command(config: &Config, command: &[OsString]) -> Result<Outcome, Error> {
    let story = Story::begin(config);
    let program = command.first().map_or(OsStr::new(""), OsString::as_os_str);
    let found =
        job::find(program, std::env::var_os("PATH")).map_err(|unfit| Error::Unfit(program.into(), unfit, None))?;
    let signals = Signals::install().map_err(|error| Error::System("catch signals", error))?;
    let mut redis = connect(config, &signals, story)?;

    let lock = Lock::new(&config.name, config.release);
    match lock::acquire(&mut redis, &lock) {
        Ok(Acquired::Ours) => story.tell(&Event::Acquired(&lock)),
        Ok(Acquired::Held(value)) => {
            story.tell(&Event::Held(&lock, &value));
            return Ok(Outcome::Skipped(config.skip_exit));
        }
        Err(lock::Error::Exchange(net::Error::Signal)) => {}
        Err(error) => return Err(Error::Redis("take", lock.name, error.into())),
    }
    redis.close();
    let grace_end = Moment::after(config.grace.min(config.release));
    if let Some(signal) = signals.take() {
        story.tell(&Event::Stopped(signal));
        give_back(&mut redis, &lock, &signals, story);
        return Ok(Outcome::Stopped(signal));
    }

    let job = Job::start(&found, command, &lock.name, lock.token.as_bytes()).map_err(|error| {
        give_back(&mut redis, &lock, &signals, story);
        Error::Unfit(program.into(), Unfit::of(&error), Some(error))
    })?;
    story.tell(&Event::Started(&found, job.pid()));
    let ended = job.supervise(&signals, config.timeout, story).map_err(|error| Error::System("wait", error))?;
    story.tell(&Event::Ended(program, ended, config.timeout));

    // What arrived before was meant for the job; what arrives from here on ends our patience with Redis.
    signals.forget();
    redis.pursue(Heed::Nothing, config.retry.attempts);
    release(&mut redis, &lock, grace_end, config.retry.timeout, story);
    Ok(Outcome::Ran(ended))
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

/// Gives a lock back at once that may have been taken for a command that does not run, so that another host can run it.
fn give_back(redis: &mut Client<'_>, lock: &Lock, signals: &Signals, story: Story) {
    if redis.has_spoken() {
        signals.forget();
        redis.pursue(Heed::Stops, 0);
        release(redis, lock, Moment::now(), Duration::ZERO, story);
    }
}

/// Releases `lock`. Whatever comes of it, the command's exit code stands, so a failure is only told.
fn release(redis: &mut Client<'_>, lock: &Lock, grace_end: Moment, margin: Duration, story: Story) {
    match lock::release(redis, lock, grace_end, margin) {
        Ok(released) => story.tell(&Event::Released(lock, released)),
        Err(error) => story.tell(&Event::NotReleased(lock, &error)),
    }
}

fn reset(config: &Config) -> Result<Outcome, Error> {
    let story = Story::begin(config);
    let signals = Signals::install().map_err(|error| Error::System("catch signals", error))?;
    match lock::reset(&mut connect(config, &signals, story)?, &config.name) {
        Ok(()) => Ok(Outcome::Reset),
        Err(error) => stopped(&signals, Error::Redis("reset", config.name.clone(), error.into())),
    }
}

fn look(config: &Config) -> Result<Outcome, Error> {
    let story = Story::begin(config);
    let signals = Signals::install().map_err(|error| Error::System("catch signals", error))?;
    match lock::status(&mut connect(config, &signals, story)?, &config.name) {
        Ok(status) => print(report::status(&config.name, &status).as_bytes()).map(|_| Outcome::Seen(status)),
        Err(error) => stopped(&signals, Error::Redis("look at", config.name.clone(), error.into())),
    }
}

/// The outcome of `error`, unless it was a signal that caused it.
fn stopped(signals: &Signals, error: Error) -> Result<Outcome, Error> {
    signals.take().map(Outcome::Stopped).ok_or(error)
}

fn print(text: &[u8]) -> Result<Outcome, Error> {
    use io::Write;
    let written = io::stdout().write_all(text).and_then(|()| io::stdout().flush());
    written.map(|()| Outcome::Printed).map_err(|error| Error::System("print", error))
}
