//! The pipeline: find the command, take the lock, run the command, release the lock, say what happened.

use crate::clock::{self, Instant};
use crate::config::{Backend, Config, Invocation, LockAction};
use crate::files::is_world_readable;
use crate::interrupt::{Interrupts, WaitError, WakeOn};
use crate::job::{self, ExecError, ExitReason, StopReason, Supervisor, Terminal};
use crate::lock::{self, LockOptions, Recording, Run, Status};
use crate::net::{self, Client, Credentials, Server};
use crate::outcome::Outcome;
use crate::process::{CStrings, Variables};
use crate::report::{self, Report, base_name};
use crate::store::{Attempt, Error, Held, LocalStore, LockStore, RedisStore};
use crate::text::{Cause, Escaped, Line, Log};
use crate::{text, words};
use rustix::process::{Pid, Signal};
use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

/// The pauses between two looks at a lock that is held, while we wait for it: the first, and the longest.
const WAIT_PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// How golock ends without having done what it was called for, and the words, if there are any.
type Refusal = (Outcome, Option<Line>);

/// Runs golock with `args`, which do not hold the program's name, in the environment `env`; returns its exit code.
pub fn run(args: &[OsString], env: &Variables) -> u8 {
    let start = Instant::now();
    if let Some((program, error)) = job::become_job(args) {
        let (outcome, why) = not_started(program, &error);
        Report::new(Some(program)).did_not_run(&why);
        return outcome.exit_code();
    }
    if let Some(addresses) = net::answer_lookup(args) {
        return print(addresses.as_bytes(), Outcome::Printed).exit_code();
    }
    let outcome = match Invocation::parse(args, env) {
        Ok(Invocation::Print(text)) => print(&text, Outcome::Printed),
        Ok(Invocation::Lock(action, config)) => {
            let report = Report::begin(&config, None);
            let done = look(action, &config, env, &report);
            done.unwrap_or_else(|(outcome, why)| {
                if let Some(why) = why {
                    report.trouble(text!("{}", why));
                }
                outcome
            })
        }
        Ok(Invocation::Run(config, command)) => Job { config: &config, command, env, start }.run(),
        Err(error) => {
            Report::new(error.command.as_deref()).did_not_run(&error.why);
            Outcome::Failed
        }
    };
    outcome.exit_code()
}

fn print(text: &[u8], outcome: Outcome) -> Outcome {
    let mut stdout = io::stdout();
    match stdout.write_all(text).and_then(|()| stdout.flush()) {
        Ok(()) => outcome,
        Err(error) => {
            Report::new(None).trouble(text!("cannot print: {}", Cause(&error)));
            Outcome::Failed
        }
    }
}

/// Everything that is done with locks where no command is run.
fn look(action: LockAction, config: &Config, env: &Variables, report: &Report) -> Result<Outcome, Refusal> {
    let credentials = Credentials::read(config.server()).map_err(failed)?;
    let interrupts = catch_signals()?;
    let mut store = open(config, credentials, options(config, None, None), &interrupts, env, report)?;
    Ok(match action {
        LockAction::Reset => {
            let found = store.reset().map_err(refusal)?;
            report.debug(text!("{}", if found { "deleted the lock" } else { "there was no lock" }));
            Outcome::Reset
        }
        LockAction::Status => {
            let status = store.status().map_err(refusal)?;
            let outcome = Outcome::Looked { held: status.value.is_some() };
            print(report::status(&config.name, &status).as_bytes(), outcome)
        }
        LockAction::List | LockAction::Metrics => {
            let (entries, note) = store.list().map_err(refusal)?;
            if let Some(note) = note {
                report.trouble(text!("{}", note));
            }
            let is_table = action == LockAction::List;
            let text = if is_table { report::table(entries, config.max_age) } else { report::metrics(&entries) };
            print(text.as_bytes(), Outcome::Printed)
        }
    })
}

fn catch_signals() -> Result<Interrupts, Refusal> {
    Interrupts::catch().map_err(|error| failed(words!("cannot catch signals: {}", Cause(&error))))
}

fn failed(why: Line) -> Refusal {
    (Outcome::Failed, Some(why))
}

/// What an error of the store means. A signal ends golock in silence, unless a lock may stay.
fn refusal(error: Error) -> Refusal {
    match error {
        Error::Failed(why) => failed(why),
        Error::Interrupted(signal, left) => (Outcome::Interrupted(signal), left.map(|left| stopped_by(signal, &left))),
    }
}

fn stopped_by(signal: Signal, left: &Line) -> Line {
    words!("stopped by signal {}; {}", signal.as_raw(), *left)
}

/// What is wanted of the lock, by a run of `command` that began at `start`, if there is to be one.
fn options(config: &Config, command: Option<&OsStr>, start: Option<Instant>) -> LockOptions {
    let host = rustix::system::uname().nodename().to_bytes().to_vec();
    let run = Run { host, pid: std::process::id(), program: base_name(command.unwrap_or_default()).to_vec() };
    let key = lock::of_record(&config.prefix, &config.name);
    let record = key.zip(config.record).map(|(key, keep)| Recording { key, keep, run });
    // Whoever waits for the lock means to run later.
    let tick = start.filter(|_| config.wait.is_zero());
    let (name, grace, release, lease) = (config.name.clone(), config.grace, config.release, config.lease);
    LockOptions { name, grace, release, lease, record, tick }
}

fn open<'a>(
    config: &'a Config,
    credentials: Credentials,
    options: LockOptions,
    interrupts: &'a Interrupts,
    env: &'a Variables,
    log: &'a dyn Log,
) -> Result<Box<dyn LockStore<'a> + 'a>, Refusal> {
    Ok(match &config.backend {
        Backend::Redis(server) => {
            let client = Client::new(server, credentials, interrupts, env, log);
            Box::new(RedisStore::new(client, config, options, interrupts, log))
        }
        Backend::Local(folder) => {
            Box::new(LocalStore::new(options, &config.prefix, folder, interrupts, log).map_err(failed)?)
        }
    })
}

/// What it means that the system did not start `program`.
fn not_started(program: &OsStr, error: &io::Error) -> (Outcome, Line) {
    let outcome = ExecError::of(error).map_or(Outcome::Failed, Outcome::CannotExec);
    (outcome, words!("cannot start {}: {}", Escaped::os(program), Cause(error)))
}

/// A job to be run.
struct Job<'a> {
    config: &'a Config,
    command: &'a [OsString],
    env: &'a Variables,
    start: Instant,
}

impl Job<'_> {
    fn program(&self) -> &OsStr {
        self.command.first().map_or(OsStr::new(""), OsString::as_os_str)
    }

    fn variable(&self, name: &str) -> Option<&OsString> {
        self.env.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    fn run(&self) -> Outcome {
        let report = Report::begin(self.config, Some(self.program()));
        self.attempt(&report).unwrap_or_else(|(outcome, why)| {
            if let Some(why) = why {
                report.did_not_run(&why);
            }
            outcome
        })
    }

    fn attempt(&self, report: &Report) -> Result<Outcome, Refusal> {
        let path = job::find(self.program(), self.variable("PATH").cloned())
            .map_err(|error| (Outcome::CannotExec(error), Some(error.words(self.program()))))?;
        // Before signals are caught: a pipe may make us wait.
        let credentials = Credentials::read(self.config.server()).map_err(failed)?;
        let interrupts = catch_signals()?;
        let options = options(self.config, Some(self.program()), Some(self.start));
        let store = open(self.config, credentials, options, &interrupts, self.env, report)?;
        let held = match self.take(store, &interrupts, report)? {
            Ok(held) => held,
            Err(skipped) => return Ok(skipped),
        };
        let terminal = Terminal::open(&interrupts);
        let (job, mut held) = self.launch(held, &path, &interrupts, &terminal)?;
        report.debug(text!("started {} as process {}", Escaped::path(&path), job.as_raw_nonzero().get()));
        let supervisor = Supervisor::new(job, terminal, self.config.limits, &interrupts, report);
        let (exit, terminal) = supervisor.supervise(held.as_mut()).map_err(|error| {
            failed(words!("cannot wait for the command: {}; its lock stays until RELEASE", Cause(&error)))
        })?;
        self.finish(held, exit, report);
        if exit == ExitReason::Signal(Signal::INT.as_raw()) {
            terminal.pass_on_interrupt(&interrupts);
        }
        Ok(Outcome::Ran(exit))
    }

    /// Takes the lock, waiting for it as long as the settings say; or says how golock ends without.
    fn take<'a>(
        &self,
        mut store: Box<dyn LockStore<'a> + 'a>,
        interrupts: &Interrupts,
        report: &Report,
    ) -> Result<Result<Box<dyn Held + 'a>, Outcome>, Refusal> {
        let wait_end = Instant::after(self.config.wait);
        let ((mut pause, longest), mut told) = (WAIT_PAUSES, None);
        loop {
            let status = match store.acquire().map_err(refusal)? {
                Attempt::Acquired(held) => return Ok(Ok(held)),
                Attempt::Served => {
                    report.debug(text!("another run that began since has served for this one"));
                    return Ok(Err(Outcome::Skipped(self.config.skip_exit)));
                }
                Attempt::Busy(again, status) => {
                    store = again;
                    status
                }
            };
            self.refuse_own(&status)?;
            let holder = Some((status.value.clone(), status.record.as_ref().map(|record| record.number("end"))));
            if told != holder {
                report.debug(text!("{}", status.told()));
                told = holder;
            }
            if wait_end.has_passed() {
                return Ok(Err(self.skip(store.as_mut(), &status, report)));
            }
            let look_again = Instant::after(clock::jittered(pause)).min(wait_end);
            if interrupts.wait(None, look_again, WakeOn::Termination) == Err(WaitError::Interrupted)
                && let Some(signal) = interrupts.termination()
            {
                return Err((Outcome::Interrupted(signal), None));
            }
            pause = longest.min(pause * 2);
        }
    }

    /// Refuses to wait for, or to be skipped for, the very golock that runs this one.
    fn refuse_own(&self, status: &Status) -> Result<(), Refusal> {
        let is = |name: &str, value: Option<&[u8]>| self.variable(name).map(|known| known.as_bytes()) == value;
        let (name, token) = (&self.config.name[..], status.value.as_deref());
        if token.is_some() && is("GOLOCK_KEY", Some(name)) && is("GOLOCK_TOKEN", token) {
            let why = words!("the lock {} is held by the golock that runs it; set another KEY", Escaped(name));
            return Err(failed(why));
        }
        Ok(())
    }

    /// How golock ends when the lock is held.
    fn skip(&self, store: &mut dyn LockStore<'_>, status: &Status, report: &Report) -> Outcome {
        let now = status.now.unwrap_or_else(clock::unix_milliseconds);
        let Some(waiting) = self.config.max_age.and_then(|most| status.overdue(most, now)) else {
            return Outcome::Skipped(self.config.skip_exit);
        };
        if store.tells_overdue() {
            report.overdue(waiting, status);
        }
        Outcome::Overdue
    }

    /// Starts the command. If that is impossible, the lock is given back.
    fn launch<'h>(
        &self,
        held: Box<dyn Held + 'h>,
        path: &Path,
        interrupts: &Interrupts,
        terminal: &Terminal,
    ) -> Result<(Pid, Box<dyn Held + 'h>), Refusal> {
        let (token, fence, binding) = held.grant();
        let fence = fence.map_or(String::new(), |fence| fence.to_string());
        let variables: [(&str, &[u8]); 3] =
            [("GOLOCK_KEY", &self.config.name), ("GOLOCK_TOKEN", token), ("GOLOCK_FENCE", fence.as_bytes())];
        let environment = CStrings::environment(self.env, &variables);
        job::adopt_orphans(self.config.limits, self.config.lease.is_some());
        let started = interrupts.control_job().and_then(|()| match interrupts.termination() {
            Some(signal) => Ok(Err(signal)),
            None if !held.lasts() => Err(io::Error::other("golock stood still for too long")),
            None => job::launch(path, self.command, &environment, binding, terminal).map(Ok),
        });
        let (outcome, why) = match started {
            Ok(Ok(job)) => return Ok((job, held)),
            Ok(Err(signal)) => (Outcome::Interrupted(signal), None),
            Err(error) => {
                let (outcome, why) = not_started(self.program(), &error);
                (outcome, Some(why))
            }
        };
        let left = held.abandon(outcome.exit_code()).err();
        Err((
            outcome,
            match (outcome, why, left) {
                (_, why, None) => why,
                (Outcome::Interrupted(signal), _, Some(left)) => Some(stopped_by(signal, &left)),
                (_, why, Some(left)) => Some(words!("{}; {}", why.unwrap_or_default(), left)),
            },
        ))
    }

    /// Releases the lock, and only then says what there is to say.
    fn finish(&self, held: Box<dyn Held + '_>, exit: ExitReason, report: &Report) {
        let ending = held.release(exit);
        match exit {
            ExitReason::Code(code) => report.debug(text!("the command ended with code {}", code)),
            ExitReason::Signal(signal) => report.debug(text!("the command died of signal {}", signal)),
            ExitReason::Stopped(StopReason::TimedOut) => report.killed(self.config.limits.timeout.unwrap_or_default()),
            ExitReason::Stopped(StopReason::LockLost) => report.debug(text!("the command was stopped")),
        }
        match ending.told {
            Ok(note) => report.debug(text!("{}", note)),
            Err(trouble) => report.about_job(text!("{}", trouble)),
        }
        for secret in self.config.server().into_iter().flat_map(Server::secrets).filter(|path| is_world_readable(path))
        {
            report.about_job(text!("warning: everybody can read {}", Escaped::path(secret)));
        }
        let status = Status { record: ending.record, ..Status::default() };
        let overdue = self.config.max_age.and_then(|most| status.overdue(most, clock::unix_milliseconds()));
        if let Some(waiting) = overdue.filter(|_| exit != ExitReason::Code(0)) {
            report.overdue(waiting, &status);
        }
    }
}
