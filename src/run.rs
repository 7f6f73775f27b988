//! The pipeline: find the command, take the lock, run the command, release the lock, say what happened.

use crate::clock::{self, Instant};
use crate::config::{Backend, Config, Invocation, LockAction};
use crate::files::is_world_readable;
use crate::interrupt::{Interrupts, WaitError, WakeOn};
use crate::job::{self, ExecError, ExitReason, StopReason, Supervisor, Terminal};
use crate::lock::{self, LockOptions, Recording, Run, Status};
use crate::net::{self, Client, Credentials, Password, TlsMode};
use crate::outcome::Outcome;
use crate::process::{CStrings, Variables};
use crate::report::{self, Report, base_name};
use crate::store::{Attempt, Error, Held, LocalStore, LockStore, RedisStore, Why};
use crate::text;
use crate::text::{Cause, Escaped, Line, Log};
use crate::words;
use rustix::process::{Pid, Signal};
use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The pauses between two looks at a lock that is held, while we wait for it: the first, and the longest.
const WAIT_PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// Why nothing was done: how golock ends, and the words, if there are any.
type Refusal = (Outcome, Option<Line>);

/// Runs golock with `args`, which do not hold the program's name, in the environment `env`; returns its exit code.
pub fn run(args: &[OsString], env: &Variables) -> u8 {
    let started = Instant::now();
    if let Some((program, error)) = job::become_job(args) {
        let (outcome, why) = not_started(program, &error);
        Report::new(Some(program)).did_not_run(&why);
        return outcome.exit_code();
    }
    if let Some(addresses) = net::answer_lookup(args) {
        return print(addresses.as_bytes()).exit_code();
    }
    let outcome = match Invocation::parse(args, env) {
        Ok(Invocation::Print(text)) => print(&text),
        Ok(Invocation::Lock(action, config)) => look(action, &config, env),
        Ok(Invocation::Run(config, command)) => Job { config: &config, command, env, started }.run(),
        Err(error) => {
            Report::new(error.command.as_deref()).did_not_run(&error.why);
            Outcome::Failed
        }
    };
    outcome.exit_code()
}

fn print(text: &[u8]) -> Outcome {
    let mut stdout = io::stdout();
    match stdout.write_all(text).and_then(|()| stdout.flush()) {
        Ok(()) => Outcome::Printed,
        Err(error) => {
            Report::new(None).trouble(text!("cannot print: {}", Cause(&error)));
            Outcome::Failed
        }
    }
}

/// Everything that is done with locks where no command is run.
fn look(action: LockAction, config: &Config, env: &Variables) -> Outcome {
    let report = begin(config, None);
    let told = |(outcome, why): Refusal| {
        if let Some(why) = why {
            report.trouble(text!("{}", why));
        }
        outcome
    };
    let credentials = match read_credentials(config) {
        Ok(credentials) => credentials,
        Err(why) => return told((Outcome::Failed, Some(why))),
    };
    let done = catch_signals().and_then(|interrupts| {
        let options = options(config, None, None);
        let mut store = open(config, credentials, options, &interrupts, env, &report)?;
        act(action, config, store.as_mut(), &report)
    });
    done.unwrap_or_else(told)
}

fn act(
    action: LockAction,
    config: &Config,
    store: &mut dyn LockStore<'_>,
    report: &Report,
) -> Result<Outcome, Refusal> {
    match action {
        LockAction::Reset => {
            let found = store.reset().map_err(refusal)?;
            report.debug(if found { text!("deleted the lock") } else { text!("there was no lock") });
            Ok(Outcome::Reset)
        }
        LockAction::Status => {
            let status = store.status().map_err(refusal)?;
            let held = status.value.is_some();
            Ok(match print(report::status(&config.name, &status).as_bytes()) {
                Outcome::Printed => Outcome::Looked { held },
                failed => failed,
            })
        }
        LockAction::List | LockAction::Metrics => {
            let listing = store.list().map_err(refusal)?;
            if let Some(note) = listing.note {
                report.trouble(text!("{}", note));
            }
            Ok(print(&match action {
                LockAction::List => report::table(listing.entries, config.max_age).into_bytes(),
                _ => report::metrics(&listing.entries).into_bytes(),
            }))
        }
    }
}

/// Begins to report, with what the settings have to say.
fn begin(config: &Config, command: Option<&OsStr>) -> Report {
    let mut report = Report::new(command);
    if config.show_key {
        report::show_key(&config.name);
    }
    if config.verbose {
        report.be_verbose(&config.name, clock::unix_milliseconds());
        for note in &config.notes {
            report.debug(text!("{}", *note));
        }
    }
    report
}

fn catch_signals() -> Result<Interrupts, Refusal> {
    Interrupts::catch().map_err(|error| failed(words!("cannot catch signals: {}", Cause(&error))))
}

fn failed(why: Line) -> Refusal {
    (Outcome::Failed, Some(why))
}

/// What an error of the store means. A signal ends golock in silence, unless a lock may stay.
fn refusal(error: Error) -> Refusal {
    let and_left = |why: Line| match &error.left {
        Some(left) => words!("{}; {}", why, *left),
        None => why,
    };
    match error.why {
        Why::Failed(why) => (Outcome::Failed, Some(and_left(why))),
        Why::Interrupted(signal) => {
            let why: Line = words!("stopped by signal {}", signal.as_raw());
            (Outcome::Interrupted(signal), error.left.as_ref().map(|_| and_left(why.clone())))
        }
    }
}

/// What is wanted of the lock, by a run that began at `started`, if there is to be one.
fn options(config: &Config, command: Option<&OsStr>, started: Option<Instant>) -> LockOptions {
    let run = Run {
        host: rustix::system::uname().nodename().to_bytes().to_vec(),
        pid: std::process::id(),
        program: base_name(command.unwrap_or_default()).to_vec(),
    };
    let key = lock::of_record(&config.prefix, &config.name);
    let record = key.zip(config.record).map(|(key, keep)| Recording { key, keep, run });
    // Whoever waits for the lock means to run later.
    let tick = started.filter(|_| config.wait.is_zero());
    let (name, grace, release, lease) = (config.name.clone(), config.grace, config.release, config.lease);
    LockOptions { name, grace, release, lease, record, tick }
}

/// Reads passwords and certificates, before signals are caught: a pipe may make us wait.
fn read_credentials(config: &Config) -> Result<Option<Credentials>, Line> {
    match &config.backend {
        Backend::Redis(server) => Credentials::read(server).map(Some),
        Backend::Local(_) => Ok(None),
    }
}

fn open<'a>(
    config: &'a Config,
    credentials: Option<Credentials>,
    options: LockOptions,
    interrupts: &'a Interrupts,
    env: &'a Variables,
    log: &'a dyn Log,
) -> Result<Box<dyn LockStore<'a> + 'a>, Refusal> {
    match (&config.backend, credentials) {
        (Backend::Redis(server), Some(credentials)) => {
            let client = Client::new(server.clone(), credentials, interrupts, env, log);
            Ok(Box::new(RedisStore::new(client, config, options, interrupts, log)))
        }
        (Backend::Redis(_), None) => Err(failed("the credentials were not read".into())),
        (Backend::Local(folder), _) => {
            let store = LocalStore::new(options, &config.prefix, folder, interrupts, log);
            Ok(Box::new(store.map_err(failed)?))
        }
    }
}

/// What it means that the system did not start `program`.
fn not_started(program: &OsStr, error: &io::Error) -> (Outcome, Line) {
    let (shown, cause) = (Escaped::os(program), Cause(error));
    let outcome = ExecError::of(error).map_or(Outcome::Failed, Outcome::CannotExec);
    (outcome, words!("cannot start {}: {}", shown, cause))
}

/// A job to be run.
struct Job<'a> {
    config: &'a Config,
    command: &'a [OsString],
    env: &'a Variables,
    started: Instant,
}

/// A lock that was taken, or how golock ends without.
enum Taken<'a> {
    Held(Box<dyn Held + 'a>),
    Skipped(Outcome),
}

impl Job<'_> {
    fn program(&self) -> &OsStr {
        self.command.first().map_or(OsStr::new(""), OsString::as_os_str)
    }

    fn variable(&self, name: &str) -> Option<&OsString> {
        self.env.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    fn run(&self) -> Outcome {
        let report = begin(self.config, Some(self.program()));
        self.attempt(&report).unwrap_or_else(|(outcome, why)| {
            if let Some(why) = why {
                report.did_not_run(&why);
            }
            outcome
        })
    }

    fn attempt(&self, report: &Report) -> Result<Outcome, Refusal> {
        let path = self.find()?;
        let credentials = read_credentials(self.config).map_err(failed)?;
        let interrupts = catch_signals()?;
        let options = options(self.config, Some(self.program()), Some(self.started));
        let store = open(self.config, credentials, options, &interrupts, self.env, report)?;
        let held = match self.take(store, &interrupts, report)? {
            Taken::Held(held) => held,
            Taken::Skipped(outcome) => return Ok(outcome),
        };
        let (job, held) = self.launch(held, &path, &interrupts)?;
        report.debug(text!("started {} as process {}", Escaped::path(&path), job.as_raw_nonzero().get()));
        let mut held = held;
        let supervisor = Supervisor::new(job, Terminal::open(), self.config.limits, &interrupts, report);
        let (exit, terminal) = supervisor.supervise(held.as_mut()).map_err(|error| {
            let why = words!("cannot wait for the command: {}; its lock stays until RELEASE", Cause(&error));
            (Outcome::Failed, Some(why))
        })?;
        self.finish(held, exit, report);
        if exit == ExitReason::Signal(Signal::INT.as_raw()) {
            terminal.interrupt_group(&interrupts);
        }
        Ok(Outcome::Ran(exit))
    }

    fn find(&self) -> Result<PathBuf, Refusal> {
        let program = self.program();
        job::find(program, self.variable("PATH").cloned()).map_err(|error| {
            let why = match error {
                ExecError::NotFound => "not found",
                ExecError::NotExecutable => "not executable",
            };
            let why = words!("{}: {}{}", Escaped::os(program), why, hint(program.as_bytes()));
            (Outcome::CannotExec(error), Some(why))
        })
    }

    /// Takes the lock, waiting for it as long as the settings say.
    fn take<'a>(
        &self,
        mut store: Box<dyn LockStore<'a> + 'a>,
        interrupts: &Interrupts,
        report: &Report,
    ) -> Result<Taken<'a>, Refusal> {
        let wait_end = Instant::after(self.config.wait);
        let (mut pause, longest) = WAIT_PAUSES;
        let mut holder = None;
        loop {
            let status = match store.acquire().map_err(refusal)? {
                Attempt::Acquired(held) => return Ok(Taken::Held(held)),
                Attempt::Served => {
                    report.debug(text!("another run that began since has served for this one"));
                    return Ok(Taken::Skipped(Outcome::Skipped(self.config.skip_exit)));
                }
                Attempt::Busy(again, status) => {
                    store = again;
                    status
                }
            };
            self.refuse_own(&status)?;
            let now_holds = (status.value.clone(), status.record.as_ref().map(|record| (record.fence, record.end)));
            if holder.as_ref() != Some(&now_holds) {
                report.debug(text!("{}", status.told()));
                holder = Some(now_holds);
            }
            if wait_end.has_passed() {
                return Ok(Taken::Skipped(self.skip(store.as_mut(), &status, report)));
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
        let is = |name: &str, value: &[u8]| self.variable(name).is_some_and(|known| known.as_bytes() == value);
        let token = status.value.as_deref().unwrap_or_default();
        if is("GOLOCK_KEY", &self.config.name) && !token.is_empty() && is("GOLOCK_TOKEN", token) {
            let name = Escaped(&self.config.name);
            return Err(failed(words!("the lock {} is held by the golock that runs it; set another KEY", name)));
        }
        Ok(())
    }

    /// How golock ends when the lock is held.
    fn skip(&self, store: &mut dyn LockStore<'_>, status: &Status, report: &Report) -> Outcome {
        let now = status.now.unwrap_or_else(clock::unix_milliseconds);
        match self.config.max_age.and_then(|most| status.overdue(most, now)) {
            None => Outcome::Skipped(self.config.skip_exit),
            Some(waiting) => {
                if store.tells_overdue() {
                    report.overdue(waiting, status);
                }
                Outcome::Overdue
            }
        }
    }

    /// Starts the command. If that is impossible, the lock is given back.
    fn launch<'h>(
        &self,
        held: Box<dyn Held + 'h>,
        path: &Path,
        interrupts: &Interrupts,
    ) -> Result<(Pid, Box<dyn Held + 'h>), Refusal> {
        let grant = held.grant();
        let fence = grant.fence.map_or(String::new(), |fence| fence.to_string());
        let variables: [(&str, &[u8]); 3] =
            [("GOLOCK_KEY", &self.config.name), ("GOLOCK_TOKEN", grant.token), ("GOLOCK_FENCE", fence.as_bytes())];
        let environment = CStrings::environment(self.env, &variables);
        job::adopt_orphans(self.config.limits, self.config.lease.is_some());
        let started = interrupts.control_job().and_then(|()| match interrupts.termination() {
            Some(signal) => Ok(Err(signal)),
            None if !held.lasts() => Err(io::Error::other("golock stood still for too long")),
            None => job::launch(path, self.command, &environment, grant.binding).map(Ok),
        });
        let ((outcome, why), end) = match started {
            Ok(Ok(job)) => return Ok((job, held)),
            Ok(Err(signal)) => {
                let why = words!("stopped by signal {}", signal.as_raw());
                ((Outcome::Interrupted(signal), why), words!("signal:{}", signal.as_raw()))
            }
            Err(error) => {
                let (outcome, why) = not_started(self.program(), &error);
                ((outcome, why), words!("{}", outcome.exit_code()))
            }
        };
        let end: Line = end;
        match (held.abandon(&end.to_string()), outcome) {
            (Ok(()), Outcome::Interrupted(_)) => Err((outcome, None)),
            (Ok(()), _) => Err((outcome, Some(why))),
            (Err(left), _) => Err((outcome, Some(words!("{}; {}", why, left)))),
        }
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
        match ending.trouble {
            Some(trouble) => report.about_job(text!("{}", trouble)),
            None => report.debug(text!("{}", ending.note)),
        }
        for secret in self.secrets().into_iter().filter(|path| is_world_readable(path)) {
            report.about_job(text!("warning: everybody can read {}", Escaped::path(secret)));
        }
        let status = Status { record: ending.record, ..Status::default() };
        let overdue = self.config.max_age.and_then(|most| status.overdue(most, clock::unix_milliseconds()));
        if let Some(waiting) = overdue.filter(|_| exit != ExitReason::Code(0)) {
            report.overdue(waiting, &status);
        }
    }

    /// The files that nobody else should be able to read.
    fn secrets(&self) -> Vec<&Path> {
        let Backend::Redis(server) = &self.config.backend else { return Vec::new() };
        let mut secrets = Vec::new();
        if let Password::File(path) = &server.password {
            secrets.push(path.as_path());
        }
        if let TlsMode::On(options) = &server.tls {
            secrets.extend(options.identity.iter().map(|identity| identity.key.as_path()));
        }
        secrets
    }
}

/// What a command that is not found may have been meant to be.
fn hint(program: &[u8]) -> &'static str {
    let name = program.split(|&byte| byte == b'=').next().unwrap_or_default();
    let is_name =
        |name: &[u8]| !name.is_empty() && name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    if name.len() < program.len() && is_name(name) {
        "; for a variable write golock env NAME=VALUE COMMAND"
    } else if program.iter().any(|byte| b" \t;|&<>$`".contains(byte)) {
        "; for a shell's command line write golock sh -c 'LINE'"
    } else {
        ""
    }
}
