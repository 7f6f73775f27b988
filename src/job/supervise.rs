use crate::clock::Moment;
use crate::report::{Event, Story};
use crate::signals::{Cut, Heed, Signals};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use std::ffi::{OsStr, OsString};
use std::io::{self, IsTerminal};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

/// What execvp(3) runs a script with that has no `#!` line, and so what shells, timeout(1) and flock(1) do.
const SHELL: &str = "/bin/sh";

/// `ENOEXEC` of execve(2): not in a format that the kernel runs.
const ENOEXEC: i32 = 8;

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// With this exit code.
    Code(u8),
    /// Of this signal.
    Signal(i32),
    /// We killed it when its time was up.
    TimedOut,
}

/// A running command.
pub struct Job {
    child: Child,
    pid: Pid,
    /// Whether it leads a process group of its own.
    leads: bool,
}

impl Job {
    /// Starts `program` as `command` says, with two variables added to the environment: the lock's name and token.
    ///
    /// It gets a process group of its own, so that all of it can be signalled; not on a terminal, where it could then
    /// not read (as with `timeout --foreground`).
    ///
    /// # Errors
    /// When the system refuses; nothing runs then.
    pub fn start(program: &Path, command: &[OsString], name: &[u8], token: &[u8]) -> io::Result<Self> {
        let leads = !io::stdin().is_terminal();
        let arguments = command.get(1..).unwrap_or_default();
        let prepare = |mut made: Command| {
            made.args(arguments);
            made.env("GOLOCK_KEY", OsStr::from_bytes(name)).env("GOLOCK_TOKEN", OsStr::from_bytes(token));
            if leads { made.process_group(0).spawn() } else { made.spawn() }
        };
        let mut direct = Command::new(program);
        direct.arg0(command.first().map_or(program.as_os_str(), OsString::as_os_str));
        let child = match prepare(direct) {
            Err(error) if error.raw_os_error() == Some(ENOEXEC) => {
                let mut script = Command::new(SHELL);
                script.arg(program);
                prepare(script)
            }
            started => started,
        }?;
        let pid = Pid::from_child(&child);
        Ok(Self { child, pid, leads })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Forwards signals and keeps the time until the job has ended.
    ///
    /// # Errors
    /// When the system cannot tell about the child.
    pub fn supervise(mut self, signals: &Signals, timeout: Option<Duration>, story: Story) -> io::Result<Ended> {
        let mut deadline = timeout.map(Moment::after);
        let mut killed = false;
        loop {
            signals.forget_child();
            if let Some(status) = self.child.try_wait()? {
                return Ok(if killed { Ended::TimedOut } else { Ended::of(status) });
            }
            while let Some(signal) = signals.take() {
                story.tell(&Event::Forwarding(signal));
                self.signal(signal);
            }
            if signals.wait(None, deadline, Heed::Everything) == Err(Cut::Deadline) {
                (killed, deadline) = (true, None);
                self.kill();
            }
        }
    }

    /// Signals the job's group, or the job alone if it has none of its own or has left it. Its pid cannot be another's:
    /// the job has not been waited for.
    fn signal(&self, signal: Signal) {
        if !self.leads || kill_process_group(self.pid, signal).is_err() {
            // It can only fail for a job that has changed its user, which nobody but root may signal.
            let _ = kill_process(self.pid, signal);
        }
    }

    /// Kills the whole group, and the job also if it has left the group.
    fn kill(&self) {
        self.signal(Signal::KILL);
        let _ = kill_process(self.pid, Signal::KILL);
    }
}

impl Ended {
    fn of(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Code(u8::try_from(code).unwrap_or(u8::MAX)),
            (None, signal) => Self::Signal(signal.unwrap_or_default()),
        }
    }
}
