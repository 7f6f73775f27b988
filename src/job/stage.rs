//! The first stage of a job under a lease: golock again, which binds itself to the life of the golock that started it,
//! and then becomes the command. Between fork and exec only unsafe code could do that.

use super::start::run_as;
use crate::spawn::Words;
use nix::unistd::execv;
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

/// The first argument of a golock that is a first stage. No option may look like this.
pub(super) const MARK: &str = "--stage-of";

/// If `args` are those of a first stage, becomes the command that they name. It returns only if that failed: with the
/// program and the reason.
///
/// From here on the kernel kills the process when its parent dies (`PR_SET_PDEATHSIG`, prctl(2)); not so a setuid
/// program, nor processes that the command starts.
pub fn enter(args: &[OsString]) -> Option<(&OsStr, io::Error)> {
    let [mark, parent, program, command @ ..] = args else { return None };
    if mark != MARK {
        return None;
    }
    let parent = parent.to_str().and_then(|pid| pid.parse().ok()).and_then(Pid::from_raw);
    // std ignores SIGPIPE. What is caught instead has its default effect after execve(2); this never fails for it.
    let _ = signal_hook::flag::register(Signal::PIPE.as_raw(), Arc::default());
    let bound = set_parent_process_death_signal(Some(Signal::KILL)).map_err(io::Error::from);
    let error = match bound {
        // A parent that died before the kernel was told will not be reported.
        Ok(()) if parent.is_none() || getppid() != parent => io::ErrorKind::BrokenPipe.into(),
        Ok(()) => {
            let exec = |program: &Path, words: &Words| {
                Ok(execv(&CString::new(program.as_os_str().as_bytes())?, &words.list())?)
            };
            run_as(Path::new(program), command, exec).err()?
        }
        Err(error) => error,
    };
    Some((program, error))
}
