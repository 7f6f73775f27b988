//! The controlling terminal, as a shell with job control hands it around: whichever process group is in its foreground
//! may read it, and gets Ctrl-C and Ctrl-Z.

use crate::interrupt::{Interrupts, Whom};
use crate::process::of_status;
use nix::unistd::{self, getpgid, getpid, getsid};
use rustix::fs::{FileType, Mode, OFlags, fstat, open};
use rustix::process::{self, Pid, Signal};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetpgrp, tcsetattr, tcsetpgrp};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// The terminal that golock was started from, whatever its stdin is.
pub struct Terminal {
    tty: Option<OwnedFd>,
    ours: Option<Pid>,
    /// The job's group, if we have given it the terminal.
    job: Option<Pid>,
    /// Its modes (echo, lines, ...) before the job had it.
    modes: Option<Termios>,
    /// Whether the job gets it without asking for it.
    is_for_job: bool,
    /// Whether the job had it when it ended.
    was_given: bool,
    /// Whether our group has been interrupted since the job got it.
    is_interrupted: bool,
}

impl Terminal {
    /// Under cron there is none.
    pub fn open(interrupts: &Interrupts) -> Self {
        let tty = open_tty();
        let is_for_job = tty.is_some() && !may_be_wanted_by_others(interrupts);
        let (job, modes, was_given, is_interrupted) = (None, None, false, false);
        Self { tty, ours: group(None), job, modes, is_for_job, was_given, is_interrupted }
    }

    /// Whether there is one.
    pub fn is_there(&self) -> bool {
        self.tty.is_some()
    }

    fn foreground(&self) -> Option<Pid> {
        tcgetpgrp(self.tty.as_ref()?).ok()
    }

    /// Whether whoever hands it around has given it to our process group, and it may be given to the job: the group is in
    /// its foreground, or the job of a golock in the group is, this one or another one of the same pipeline.
    pub fn is_ours(&self) -> bool {
        let foreground = self.foreground();
        let is_of_our_group = |leader| parent(leader).is_some_and(|parent| group(Some(parent)) == self.ours);
        foreground.is_some_and(|leader| [self.ours, self.job].contains(&foreground) || is_of_our_group(leader))
    }

    /// Whether the job's group has it, because we have put it there, or one that has been left to us: a golock in the job had
    /// put it there, and was killed.
    fn is_given(&self) -> bool {
        let is_left = |leader| parent(leader) == Some(process::getpid());
        self.job.is_some() && self.foreground().is_some_and(|group| Some(group) == self.job || is_left(group))
    }

    /// Gives it to `job`, which has asked for it; in the background of a shell it is left alone.
    pub fn give(&mut self, job: Pid) {
        if let Some(tty) = self.tty.as_ref().filter(|_| self.is_ours()) {
            // It may have left the group in which it was started.
            let group = group(Some(job)).unwrap_or(job);
            self.modes = self.modes.take().or_else(|| tcgetattr(tty).ok());
            self.job = tcsetpgrp(tty, group).is_ok().then_some(group);
            (self.is_for_job, self.is_interrupted) = (true, false);
        }
    }

    /// Gives it to `job`, unless others have it or may want it as well: then the job has to ask.
    pub fn offer(&mut self, job: Pid) {
        if self.is_for_job && self.foreground() == self.ours {
            self.give(job);
        }
    }

    /// Takes it back from the job. golock blocks SIGTTOU, so that this is allowed from the background.
    pub fn take(&mut self) {
        if let Some((tty, ours)) = self.tty.as_ref().zip(self.ours).filter(|_| self.is_given()) {
            let _ = tcsetpgrp(tty, ours);
        }
    }

    /// Gives it to the other processes of our group, which were stopped because one of them wanted it.
    pub fn share(&mut self, interrupts: &Interrupts) {
        self.take();
        self.is_for_job = false;
        interrupts.continue_group();
    }

    /// Our group was interrupted, maybe by the keyboard.
    pub fn interrupted(&mut self) {
        self.is_interrupted = self.is_ours();
    }

    /// Takes it back from a job that has ended; also for a process that has just been stopped because the job had it. A job
    /// that was killed could not put its modes back; one that exits has set them for good.
    pub fn finish(&mut self, interrupts: &Interrupts, is_killed: bool) {
        self.was_given = self.is_given();
        self.take();
        if let Some((tty, modes)) = self.tty.as_ref().zip(self.modes.as_ref()).filter(|_| self.was_given && is_killed) {
            let _ = tcsetattr(tty, OptionalActions::Now, modes);
        }
        if self.was_given && (interrupts.forget(Signal::TTIN) | interrupts.forget(Signal::TTOU)) {
            interrupts.continue_group();
        }
    }

    /// After the job was interrupted by Ctrl-C: without the job the terminal would have interrupted our group, the rest of a
    /// pipeline or the script that called us.
    pub fn pass_on_interrupt(&self) {
        if self.is_interrupted {
            die_of_interrupt(Whom::Ourselves);
        } else if self.was_given {
            die_of_interrupt(Whom::Group);
        }
    }
}

/// Dies of SIGINT, after it has reached `whom`, or a script or a loop that called us would go on. Does not where we lead
/// the session, so that there is nobody to notice.
fn die_of_interrupt(whom: Whom) {
    if getsid(None) != Ok(getpid()) {
        Interrupts::raise(Signal::INT, whom);
    }
}

/// After SIGINT has ended golock before there was a job: on a terminal it was Ctrl-C.
pub fn end_interrupted() {
    if open_tty().is_some() {
        die_of_interrupt(Whom::Ourselves);
    }
}

fn open_tty() -> Option<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    open("/dev/tty", flags, Mode::empty()).ok()
}

/// Whether other processes of our group may want it while the job runs. To take it from them would stop them, and a script
/// with them, for the shell to see. They may if a pipe leads to or from them, as `golock JOB | less`, and in the background
/// of a script, `golock JOB & read answer`: what a shell without job control starts there ignores SIGINT (POSIX).
fn may_be_wanted_by_others(interrupts: &Interrupts) -> bool {
    let is_pipe = |file: &dyn AsFd| {
        fstat(file.as_fd())
            .is_ok_and(|stat| matches!(FileType::from_raw_mode(stat.st_mode), FileType::Fifo | FileType::Socket))
    };
    // Where SIGTTIN is ignored, as a shell does in $(...), a job that has to ask is not heard, but fails.
    let can_ask = || !interrupts.ignores(Signal::TTIN);
    interrupts.ignores(Signal::INT) || ((is_pipe(&io::stdin()) || is_pipe(&io::stdout())) && can_ask())
}

/// The process group of any process, or ours. In a PID namespace of its own (unshare -pf) a process may not see it; rustix
/// takes for granted that it does.
fn group(pid: Option<Pid>) -> Option<Pid> {
    let pid = pid.map(|pid| unistd::Pid::from_raw(pid.as_raw_nonzero().get()));
    getpgid(pid).ok().and_then(|group| Pid::from_raw(group.as_raw()))
}

/// The parent of any process (proc(5)).
fn parent(pid: Pid) -> Option<Pid> {
    Pid::from_raw(of_status(pid.as_raw_nonzero(), "PPid:")?.parse().ok()?)
}
