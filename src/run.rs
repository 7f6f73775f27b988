//! The pipeline: find the command, take the lock, run the command, release the lock, say what happened.

use crate::clock::{self, Instant};
use crate::config::{Backend, Config, Invocation, LockAction};
use crate::files::is_world_readable;
use crate::interrupt::Interrupts;
use crate::job::{self, ExecError, ExitReason, Over, Started, StopReason, Supervisor, Terminal};
use crate::lock::{self, LockOptions, Recording, Run, Status};
use crate::net::{self, Client, Credentials, Server};
use crate::outcome::Outcome;
use crate::process::Variables;
use crate::report::{self, Report};
use crate::store::{Attempt, Error, Held, LocalStore, LockStore, RedisStore};
use crate::text::{Cause, Escaped, Line, Log};
use crate::words;
use rustix::process::Signal;
use rustix::stdio::stdout;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

/// The pauses between two looks at a lock that is held, while we wait for it: the first, and the longest.
const WAIT_PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// Why a job that had to end was not killed.
const UNREACHED: &str = "and no signal reached it: it runs as another user";

/// How golock ends without having done what it was called for, and the words, if there are any.
type Refusal = (Outcome, Option<Line>);

/// Runs golock with `args`, which do not hold the program's name, in the environment `env`; returns its exit code.
pub fn run(args: &[OsString], env: &Variables) -> u8 {
    let start = Instant::now();
    match job::become_job(args) {
        Some(job::Failure::Told(code)) => return code,
        Some(job::Failure::Untold(program, error)) => {
            return end(&Report::new(Some(program)), Err(not_started(program, &error)));
        }
        None => {}
    }
    if let Some(addresses) = net::answer_lookup(args) {
        return end(&Report::new(None), print(addresses.as_bytes(), Outcome::Printed));
    }
    let (action, config, command) = match Invocation::parse(args, env) {
        Err(error) => return end(&Report::new(error.command.as_deref()), Err(failed(error.why))),
        Ok(Invocation::Print(text)) => return end(&Report::new(None), print(&text, Outcome::Printed)),
        Ok(Invocation::Lock(action, config)) => (Some(action), config, &[][..]),
        Ok(Invocation::Run(config, command)) => (None, config, command),
    };
    let report = Report::begin(&config, command.first().map(OsString::as_os_str));
    let call = Call { config: &config, command, env, start, report: &report };
    end(&report, action.map_or_else(|| call.run(), |action| call.look(action)))
}

/// Says why golock ends, if there is a reason, and returns its exit code.
fn end(report: &Report, done: Result<Outcome, Refusal>) -> u8 {
    let (outcome, why) = done.map_or_else(|refusal| refusal, |outcome| (outcome, None));
    if let Some(why) = why {
        report.did_not_run(why);
    }
    if outcome == Outcome::Interrupted(Signal::INT) {
        job::end_interrupted();
    }
    outcome.exit_code()
}

fn print(text: &[u8], outcome: Outcome) -> Result<Outcome, Refusal> {
    let stdout = stdout().try_clone_to_owned().map(File::from);
    let written = stdout.and_then(|mut stdout| stdout.write_all(text));
    written.map(|()| outcome).map_err(|error| match error.kind() {
        // As of any program in front of head(1).
        ErrorKind::BrokenPipe => (Outcome::Failed, None),
        _ => failed(words!("cannot print: {}", Cause(&error))),
    })
}

fn failed(why: Line) -> Refusal {
    (Outcome::Failed, Some(why))
}

/// What an error of the store means. A signal ends golock in silence, unless a lock may stay.
fn refusal(error: Error) -> Refusal {
    match error {
        Error::Failed(why) => failed(why),
        Error::Interrupted(signal, left) => {
            (Outcome::Interrupted(signal), left.map(|left| words!("stopped by signal {}; {}", signal.as_raw(), left)))
        }
    }
}

/// What it means that the system did not start `program`.
fn not_started(program: &OsStr, error: &io::Error) -> Refusal {
    let outcome = ExecError::of(error).map_or(Outcome::Failed, Outcome::CannotExec);
    // It was there when it was looked for.
    let hint = if outcome == Outcome::CannotExec(ExecError::NotFound) {
        "; the interpreter that it names may be missing"
    } else {
        ""
    };
    (outcome, Some(words!("cannot start {}: {}{}", Escaped::path(program), Cause(error), hint)))
}

/// Gives back a lock under which nothing has run, and adds to `refusal` what that could not do.
fn given_back(held: Box<dyn Held + '_>, (outcome, why): Refusal) -> Refusal {
    match held.abandon(outcome.exit_code()) {
        Ok(()) => (outcome, why),
        Err(left) => (outcome, why.map(|why| words!("{}; {}", why, left))),
    }
}

/// What golock was called for.
struct Call<'a> {
    config: &'a Config,
    /// Empty where none is to be run.
    command: &'a [OsString],
    env: &'a Variables,
    start: Instant,
    report: &'a Report,
}

impl Call<'_> {
    fn program(&self) -> &OsStr {
        self.command.first().map_or(OsStr::new(""), OsString::as_os_str)
    }

    /// All that golock does with locks without running a command.
    fn look(&self, action: LockAction) -> Result<Outcome, Refusal> {
        let (credentials, interrupts) = self.prepare()?;
        let print = |text: &str, outcome| match interrupts.let_through() {
            None => print(text.as_bytes(), outcome),
            Some(signal) => Err((Outcome::Interrupted(signal), None)),
        };
        let mut store = self.open(credentials, &interrupts)?;
        match action {
            LockAction::Reset => {
                let found = store.reset().map_err(refusal)?;
                self.report.debug(if found { "deleted the lock" } else { "there was no lock" }.into());
                Ok(Outcome::Reset)
            }
            LockAction::Status => {
                let status = store.status().map_err(refusal)?;
                let outcome = Outcome::Looked(status.value.is_some());
                print(&report::status(&self.config.name, &status), outcome)
            }
            LockAction::List | LockAction::Metrics => {
                let (entries, note) = store.list().map_err(refusal)?;
                if let Some(note) = note {
                    self.report.trouble(note.into());
                }
                let is_table = action == LockAction::List;
                let text =
                    if is_table { report::table(entries, self.config.max_age) } else { report::metrics(&entries) };
                print(&text, Outcome::Printed)
            }
        }
    }

    fn run(&self) -> Result<Outcome, Refusal> {
        let path = job::find(self.program(), self.env.get("PATH").map(OsStr::to_owned))
            .map_err(|error| (Outcome::CannotExec(error), Some(error.words(self.program()))))?;
        let (credentials, interrupts) = self.prepare()?;
        let held = self.take(self.open(credentials, &interrupts)?, &interrupts)?;
        let terminal = Terminal::open(&interrupts);
        let (job, mut held) = self.launch(held, &path, &interrupts, &terminal)?;
        let pid = job.job.as_raw_nonzero().get();
        self.report.debug(words!("started {} as process {}", Escaped::path(&path), pid));
        let supervisor = Supervisor::new(job, terminal, self.config.limits, &interrupts, self.report);
        let Over { exit, was_out_of_reach, terminal } = supervisor.supervise(held.as_mut()).map_err(|error| {
            self.report.about_job(&words!("cannot wait for the command: {}; its lock stays", Cause(&error)));
            (Outcome::Failed, None)
        })?;
        let exit = match exit {
            Ok(exit) => exit,
            Err(error) => return Err(given_back(held, not_started(path.as_os_str(), &error))),
        };
        self.finish(held, exit, was_out_of_reach);
        if exit == ExitReason::Signal(Signal::INT.as_raw()) {
            terminal.pass_on_interrupt();
        }
        Ok(Outcome::Ran(exit))
    }

    /// Reads the secrets, and only then catches signals: a pipe may make us wait.
    fn prepare(&self) -> Result<(Credentials, Interrupts), Refusal> {
        let credentials = Credentials::read(self.config.server()).map_err(failed)?;
        let interrupts = Interrupts::catch();
        Ok((credentials, interrupts.map_err(|error| failed(words!("cannot catch signals: {}", Cause(&error))))?))
    }

    fn open<'s>(
        &'s self,
        credentials: Credentials,
        interrupts: &'s Interrupts,
    ) -> Result<Box<dyn LockStore<'s> + 's>, Refusal> {
        let (options, config, log) = (self.options(), self.config, self.report);
        Ok(match &config.backend {
            Backend::Redis(server) => {
                let client = Client::new(server, credentials, interrupts, self.env, log);
                Box::new(RedisStore::new(client, config, options))
            }
            Backend::Local(folder) => {
                Box::new(LocalStore::new(options, &config.prefix, folder, interrupts, log).map_err(failed)?)
            }
        })
    }

    /// What is wanted of the lock.
    fn options(&self) -> LockOptions {
        let config = self.config;
        let host = rustix::system::uname().nodename().to_bytes().to_vec();
        let run = Run { host, pid: std::process::id(), program: job::base_name(self.program()).to_vec() };
        let key = lock::beside(&config.prefix, b"run.", &config.name);
        LockOptions {
            name: config.name.clone(),
            grace: config.grace,
            release: config.release,
            lease: config.lease,
            record: key.zip(config.record).map(|(key, keep)| Recording { key, keep, run }),
            // Whoever waits for the lock means to run later.
            tick: Some(self.start).filter(|_| config.wait.is_zero()),
        }
    }

    /// Takes the lock, waiting for it as long as the settings say.
    fn take<'s>(
        &self,
        mut store: Box<dyn LockStore<'s> + 's>,
        interrupts: &Interrupts,
    ) -> Result<Box<dyn Held + 's>, Refusal> {
        let wait_end = Instant::after(self.config.wait);
        let ((mut pause, longest), mut told) = (WAIT_PAUSES, None);
        loop {
            let status;
            (store, status) = match store.acquire().map_err(refusal)? {
                Attempt::Acquired(held) => return Ok(held),
                Attempt::Busy(store, status) => (store, status),
                Attempt::Served => {
                    self.report.debug("another run that began since has served for this one".into());
                    return Err((Outcome::Skipped(self.config.skip_exit), None));
                }
            };
            self.refuse_own(&status)?;
            let holder = Some((status.value.clone(), status.record.as_ref().map(|record| record.number("end"))));
            if told != holder {
                self.report.debug(status.told());
                told = holder;
            }
            if wait_end.has_passed() {
                return Err((self.skip(store.as_mut(), &status), None));
            }
            let look_again = Instant::after(clock::jittered(pause)).min(wait_end);
            if let Some(signal) = interrupts.sleep(look_again) {
                return Err((Outcome::Interrupted(signal), None));
            }
            pause = longest.min(pause * 2);
        }
    }

    /// Refuses to wait for, or to skip because of, the very golock that runs this one.
    fn refuse_own(&self, status: &Status) -> Result<(), Refusal> {
        let is = |name: &str, value: &[u8]| self.env.get(name).is_some_and(|known| known.as_bytes() == value);
        let name = &self.config.name;
        if let Some(token) = &status.value
            && is("GOLOCK_KEY", name)
            && is("GOLOCK_TOKEN", token)
        {
            let why = words!("the lock {} is held by the golock that runs it; set another KEY", Escaped(name));
            return Err(failed(why));
        }
        Ok(())
    }

    /// How golock ends when the lock is held.
    fn skip(&self, store: &mut dyn LockStore<'_>, status: &Status) -> Outcome {
        let now = status.now.unwrap_or_else(clock::unix_milliseconds);
        // Without a record of its own, what it finds may be of long ago.
        let max_age = self.config.max_age.filter(|_| self.config.record.is_some());
        let Some(waiting) = max_age.and_then(|most| status.overdue(most, now)) else {
            return Outcome::Skipped(self.config.skip_exit);
        };
        if store.tells_overdue() {
            self.report.overdue(waiting, status);
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
    ) -> Result<(Started, Box<dyn Held + 'h>), Refusal> {
        let (token, fence, binding) = held.grant();
        let fence = fence.map_or(String::new(), |fence| fence.to_string());
        let variables: [(&str, &[u8]); 3] =
            [("GOLOCK_KEY", &self.config.name), ("GOLOCK_TOKEN", token), ("GOLOCK_FENCE", fence.as_bytes())];
        let environment = self.env.with(&variables);
        job::adopt_orphans(self.config.limits, self.config.lease.is_some());
        let started = interrupts.control_job().and_then(|()| match interrupts.termination() {
            Some(signal) => Ok(Err(signal)),
            None if !held.lasts() => Err(io::Error::other("golock stood still for too long")),
            None => job::launch(path, self.command, &environment, binding, terminal).map(Ok),
        });
        Err(match started {
            Ok(Ok(job)) => return Ok((job, held)),
            Ok(Err(signal)) => {
                let left = held.abandon(Outcome::Interrupted(signal).exit_code()).err();
                refusal(Error::Interrupted(signal, left))
            }
            Err(error) => given_back(held, not_started(path.as_os_str(), &error)),
        })
    }

    /// Releases the lock, and only then says what there is to say.
    fn finish(&self, held: Box<dyn Held + '_>, exit: ExitReason, was_out_of_reach: bool) {
        let (report, ending) = (self.report, held.release(exit));
        match exit {
            ExitReason::Code(code) => report.debug(words!("the command ended with code {}", code)),
            ExitReason::Signal(signal) => report.debug(words!("the command died of signal {}", signal)),
            ExitReason::Stopped(StopReason::TimedOut) => {
                let time = self.config.limits.timeout.unwrap_or_default().as_secs();
                report.trouble(if was_out_of_reach {
                    words!("{} had to end after {} s, {}", report.job, time, UNREACHED)
                } else {
                    words!("killed {} after {} s", report.job, time)
                });
            }
            ExitReason::Stopped(StopReason::LockLost) => report.debug("the command was stopped".into()),
        }
        match ending.told {
            Ok(note) => report.debug(note),
            Err(trouble) if was_out_of_reach => report.about_job(&words!("{}; it had to end, {}", trouble, UNREACHED)),
            Err(trouble) => report.about_job(&trouble),
        }
        for secret in self.config.server().into_iter().flat_map(Server::secrets).filter(|path| is_world_readable(path))
        {
            report.about_job(&words!("warning: everybody can read {}", Escaped::path(secret)));
        }
        let status = Status { record: ending.record, ..Status::default() };
        let overdue = self.config.max_age.and_then(|most| status.overdue(most, clock::unix_milliseconds()));
        if let Some(waiting) = overdue.filter(|_| exit != ExitReason::Code(0)) {
            report.overdue(waiting, &status);
        }
    }
}
