//! The controlling terminal, as a shell with job control hands it around: whichever process group is in its foreground
//! may read it, and is who Ctrl-C and Ctrl-Z are for.

use crate::interrupt::Interrupts;
use rustix::fs::{Mode, OFlags, open};
use rustix::process::{Pid, Signal, getpgrp, getpid, getsid, kill_current_process_group};
use rustix::termios::{tcgetpgrp, tcsetpgrp};
use std::os::fd::OwnedFd;

/// The terminal that golock was started from, whatever its stdin is.
pub struct Terminal {
    tty: Option<OwnedFd>,
    ours: Pid,
    job: Option<Pid>,
}

impl Terminal {
    /// Under cron there is none.
    pub fn open() -> Self {
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        Self { tty: open("/dev/tty", flags, Mode::empty()).ok(), ours: getpgrp(), job: None }
    }

    /// Whether there is one.
    pub fn is_there(&self) -> bool {
        self.tty.is_some()
    }

    fn foreground(&self) -> Option<Pid> {
        tcgetpgrp(self.tty.as_ref()?).ok()
    }

    /// Whether our process group is in its foreground.
    pub fn is_ours(&self) -> bool {
        self.foreground() == Some(self.ours)
    }

    /// Whether the job's group is, because we have put it there.
    pub fn is_given(&self) -> bool {
        self.job.is_some() && self.foreground() == self.job
    }

    /// Puts the group of `job` into the foreground, if we are; in the background of a shell the terminal is left alone.
    pub fn give(&mut self, job: Pid) {
        if let Some(tty) = self.tty.as_ref().filter(|_| self.is_ours()) {
            self.job = tcsetpgrp(tty, job).is_ok().then_some(job);
        }
    }

    /// Takes it back from the job. golock blocks SIGTTOU, so that this is allowed from the background.
    pub fn take(&mut self) {
        if let Some(tty) = self.tty.as_ref().filter(|_| self.is_given()) {
            let _ = tcsetpgrp(tty, self.ours);
        }
    }

    /// Gives it to the other processes of our group, of which one was stopped because it wanted it: in a pipeline.
    pub fn share(&mut self) {
        self.take();
        let _ = kill_current_process_group(Signal::CONT);
    }

    /// After the job was interrupted by Ctrl-C: the terminal would have interrupted our group as well, the rest of a pipeline
    /// or the script that called us, which goes on unless we die of it. Where we lead the session there is nobody to notice.
    pub fn interrupt_group(&self, interrupts: &Interrupts) {
        if self.job.is_some() && getsid(None) != Ok(getpid()) {
            interrupts.raise(Signal::INT);
        }
    }
}
