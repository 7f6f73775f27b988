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
pub mod spawn;
pub mod store;

use clock::Moment;
use config::{Config, Invocation};
use job::{Ended, Unfit};
use lock::Status;
use report::{Event, Story};
use rustix::process::Signal;
use signals::{Cut, Heed, Signals};
use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::time::Duration;
use store::{LocalStore, RedisStore, Store};

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
    /// The lock on this host cannot be used.
    Local(store::LocalError),
    /// TLS cannot be set up.
    Tls(net::SetupError),
    /// The system did not do what is named.
    System(&'static str, io::Error),
}

/// Runs golock with `args`, which do not hold the program's name, in `env`; returns its exit code.
pub fn run(args: &[OsString], env: impl IntoIterator<Item = (OsString, OsString)>) -> u8 {
    let outcome = match (job::enter(args), net::answer(args)) {
        (Some((program, error)), _) => Err(unfit(program, error)),
        (None, Some(addresses)) => print(addresses.as_bytes()),
        (None, None) => Invocation::parse(args, env).map_err(Error::Config).and_then(|invocation| obey(&invocation)),
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
        | Err(Error::Config(_) | Error::Redis(..) | Error::Local(_) | Error::Tls(_) | Error::System(..)) => 201,
    }
}

fn obey(invocation: &Invocation<'_>) -> Result<Outcome, Error> {
    match invocation {
        Invocation::Help(all) => print(config::help(*all).as_bytes()),
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
    let status = open_store(config, signals, Story::begin(config))?.status()?;
    print(report::status(&config.name, &status).as_bytes())?;
    Ok(Outcome::Seen(status))
}

fn reset(config: &Config) -> Result<Outcome, Error> {
    let signals = catch_signals()?;
    open_store(config, signals, Story::begin(config))?.reset()?;
    Ok(Outcome::Reset)
}

/// The whole job: find the command, take the lock, run the command, release the lock.
fn run_command(config: &Config, command: &[OsString]) -> Result<Outcome, Error> {
    let story = Story::begin(config);
    let program = command.first().map_or(OsStr::new(""), OsString::as_os_str);
    let path = job::find(program, std::env::var_os("PATH")).map_err(|why| Error::Unfit(program.into(), why, None))?;
    let signals = catch_signals()?;
    let mut store = open_store(config, signals, story)?;

    acquire(store.as_mut(), config, signals)?;
    let ready = store.settle().and_then(|()| signals.take().map_or(Ok(()), |signal| Err(Error::Stopped(signal))));
    let started = ready.and_then(|()| {
        config.limits.adopt_orphans(store.binds());
        let started = job::start(&path, command, (&config.name, store.token()), store.binds(), signals);
        started.map_err(|error| unfit(program, error))
    });
    let started = started.inspect_err(|error| store.give_back(matches!(error, Error::Stopped(_))))?;
    story.tell(&Event::Started(&path, started.pid));

    let ended = job::supervise(started, signals, config.limits, store.keep(), story)
        .map_err(|error| Error::System("wait for the command", error))?;
    story.tell(&Event::Ended(program, ended, config.limits.timeout));
    if ended == Ended::LeaseLost {
        store.tell_loss();
    } else {
        store.release();
    }
    Ok(Outcome::Ran(ended))
}

/// What it means that the system did not start `program`.
fn unfit(program: &OsStr, error: io::Error) -> Error {
    match Unfit::of(&error) {
        Some(why) => Error::Unfit(program.into(), why, Some(error)),
        None => Error::System("start the command", error),
    }
}

fn catch_signals() -> Result<&'static Signals, Error> {
    Signals::install().map_err(|error| Error::System("catch signals", error))
}

fn open_store<'a>(config: &'a Config, signals: &'a Signals, story: Story) -> Result<Box<dyn Store + 'a>, Error> {
    Ok(match &config.local {
        Some(folder) => Box::new(LocalStore::new(config, folder, signals, story)?),
        None => Box::new(RedisStore::new(config, signals, story)?),
    })
}

/// Takes the lock, waiting for it as long as `config` says.
fn acquire(store: &mut dyn Store, config: &Config, signals: &Signals) -> Result<(), Error> {
    let wait_end = Moment::after(config.wait);
    let (mut pause, longest) = WAIT_PAUSES;
    while !store.acquire()? {
        if wait_end.has_come() {
            return Err(Error::Held(config.skip_exit));
        }
        let look_again = Moment::after(clock::jittered(pause)).min(wait_end);
        if signals.wait(None, Some(look_again), Heed::Stops) == Err(Cut::Signal) {
            return Err(signals.take().map_or(Error::Held(config.skip_exit), Error::Stopped));
        }
        pause = longest.min(pause * 2);
    }
    Ok(())
}
