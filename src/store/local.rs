//! Locks on this host alone: the kernel's lock (flock(2)) on a file. The job inherits its descriptor, so that the lock is
//! held until the job has ended, however golock ended; golock unlocks it when the job has ended, and at RELEASE.

use super::lockfile::{self, Content, is_at};
use super::{Attempt, Ending, Error, Held, LockStore, end_of, folder, not_begun, told};
use crate::clock::{Instant, jittered, milliseconds, random, unix_milliseconds};
use crate::interrupt::Interrupts;
use crate::job::{Binding, ExitReason, Renewal, Renewed, Schedule, StopReason};
use crate::lock::{End, Entry, LockOptions, Record, Recording, Released, Status, TOO_LATE, Token, Ttl};
use crate::lock::{digest, percent_encoded};
use crate::text::{Cause, Escaped, Line, Log, Span, percent_decoded};
use crate::words;
use rustix::fs::{FlockOperation, flock};
use rustix::io::fcntl_dupfd_cloexec;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The longest part of a lock's name that is kept in the name of its file, of the 255 bytes that one may have. What is
/// longer is told apart by its hash.
const NAME_LIMIT: usize = 200;

/// How often a file is tried again when somebody else looks at it, or deletes it, at the same moment, and the pause
/// after each: together about ten seconds, in which whoever only looks is done even on a busy host.
const ROUNDS: u32 = 1000;
const PAUSE: Duration = Duration::from_millis(10);

/// One run in `SWEEPS` sweeps the folder, looking at `SWEPT` of its files.
const SWEEPS: u64 = 16;
const SWEPT: usize = 200;

/// The least number of the descriptor that the job inherits: scripts use small ones for themselves (`exec 3>&1 4>&2`), and
/// would let go of the lock by that.
const DESCRIPTOR: RawFd = 256;

/// How long nobody else says that a job is overdue.
const TOLD: Duration = Duration::from_hours(1);

/// A lock in a file, which we hold or not.
pub struct LocalStore<'a> {
    options: LockOptions,
    prefix: &'a [u8],
    folder: PathBuf,
    path: PathBuf,
    interrupts: &'a Interrupts,
    log: &'a dyn Log,
    /// The file, as long as we have it locked.
    file: Option<File>,
    content: Content,
    hold_end: Instant,
}

impl<'a> LocalStore<'a> {
    /// The lock that `options` names, whose name begins with `prefix`, in a folder that must be safe.
    pub fn new(
        options: LockOptions,
        prefix: &'a [u8],
        folder: &Path,
        interrupts: &'a Interrupts,
        log: &'a dyn Log,
    ) -> Result<Self, Line> {
        let folder = folder::plain(folder);
        folder::secure(&folder)?;
        let path = folder.join(file_name(&options.name));
        let (file, content, hold_end) = (None, Content::default(), Instant::ZERO);
        Ok(Self { options, prefix, folder, path, interrupts, log, file, content, hold_end })
    }

    fn failed(&self, what: &'static str) -> impl Fn(io::Error) -> Error {
        move |error| match error.kind() {
            ErrorKind::InvalidData => {
                words!("{} is not a lock; golock --reset deletes it", Escaped::path(&self.path)).into()
            }
            _ => folder::failed(what, &self.path, &error).into(),
        }
    }

    /// Takes the kernel's lock; false if another has it. The file is open in either case.
    fn lock(&self) -> Result<(File, bool), Error> {
        for _ in 0..ROUNDS {
            let file = lockfile::open(&self.path, true).map_err(self.failed("open"))?;
            let lock = |how| lockfile::lock(&file, how).map_err(self.failed("lock"));
            if lock(FlockOperation::NonBlockingLockExclusive)? {
                // A reset or a sweep may have deleted the file between opening and locking it.
                if is_at(&file, &self.path) {
                    return Ok((file, true));
                }
            } else if !lock(FlockOperation::NonBlockingLockShared)? {
                return Ok((file, false));
            } else {
                // Nobody holds it: somebody was only looking at it, as we are now.
                drop(file);
                self.pause()?;
            }
        }
        Err(self.failed("lock")(ErrorKind::TimedOut.into()))
    }

    /// Leaves others some time.
    fn pause(&self) -> Result<(), Error> {
        let signal = self.interrupts.sleep(Instant::after(jittered(PAUSE)));
        signal.map_or(Ok(()), |signal| Err(Error::Interrupted(signal, None)))
    }

    /// What is known of the lock whose file is at `path`.
    fn status_of(&self, path: &Path) -> Result<Status, Error> {
        let file = match lockfile::open(path, false) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Status::default()),
            opened => opened.map_err(self.failed("open"))?,
        };
        let is_free = lockfile::lock(&file, FlockOperation::NonBlockingLockShared).map_err(self.failed("lock"))?;
        Ok(status(lockfile::read(&file).map_err(self.failed("read"))?, !is_free))
    }
}

/// What `content` says of a lock that is held by a job, or not.
fn status(content: Content, is_held: bool) -> Status {
    let left = content.grace_left();
    let is_taken = is_held || left.is_some();
    // A job keeps it while it runs, at most for RELEASE, which only its golock knows.
    let ttl = left.filter(|_| !is_held).map_or(Ttl::Unknown, |left| Ttl::Seconds(left.div_ceil(1000)));
    let token = if content.token.is_empty() { b"0".repeat(Token::DIGITS) } else { content.token };
    let (value, now) = (is_taken.then_some(token), Some(unix_milliseconds()));
    Status { value, ttl, now, record: content.record, is_over: !is_held }
}

impl<'a> LockStore<'a> for LocalStore<'a> {
    fn acquire(mut self: Box<Self>) -> Result<Attempt<'a>, Error> {
        folder::make(&self.folder)?;
        let (file, is_ours) = self.lock()?;
        let content = match lockfile::read(&file) {
            content if !is_ours => return Ok(Attempt::Busy(self, status(content.unwrap_or_default(), true))),
            content => content.map_err(self.failed("read"))?,
        };
        if content.grace_left().is_some() {
            return Ok(Attempt::Busy(self, status(content, false)));
        }
        if self.options.record.is_none() && self.options.late_from().has_passed() {
            if !content.is_needed() {
                let _ = lockfile::remove(&file, &self.path);
            }
            return Err(words!("cannot keep the lock {}: {}", Escaped(&self.options.name), TOO_LATE).into());
        }
        let LockOptions { grace, release, tick, record, .. } = &self.options;
        let (hold_end, now, grace) = (Instant::after(*release), unix_milliseconds(), milliseconds(*grace));
        let (before, token) = (content.record, Token::random().as_bytes().to_vec());
        let age = before.as_ref().and_then(|before| now.checked_sub(before.number("start")?));
        let since = tick.map(|start| milliseconds(Instant::now().since(start).unwrap_or_default()));
        if age.zip(since).is_some_and(|(age, since)| age <= since) {
            return Ok(Attempt::Served);
        }
        // A record that is kept for a shorter time than the run takes would never tell of its end.
        let keep = |record: &Recording| now + milliseconds(record.keep.max(*release));
        let kept_until = record.as_ref().map_or(content.kept_until, keep);
        let begin = |record: &Recording| Record::begin(before.as_ref(), &record.run, now).by(&token);
        // A run without a record leaves that of others.
        let record = record.as_ref().map(begin).or(before.filter(|_| kept_until > now));
        let mut content = Content { grace: (now + grace, grace), token, kept_until, record };
        self.log.debug(words!("got the lock, for {} at most", Span(*release)));
        match lockfile::write(&file, &content) {
            // The lock is the kernel's: without a grace, nothing has to be written for it.
            Err(error) if grace == 0 => {
                self.log.debug(words!("nothing is recorded of this run: {}", Cause(&error)));
                content.record = content.record.filter(|_| self.options.record.is_none());
            }
            written => written.map_err(self.failed("write"))?,
        }
        let file = fcntl_dupfd_cloexec(&file, DESCRIPTOR).map_or(file, File::from);
        (self.file, self.content, self.hold_end) = (Some(file), content, hold_end);
        Ok(Attempt::Acquired(self))
    }

    fn status(&mut self) -> Result<Status, Error> {
        self.status_of(&self.path)
    }

    fn list(&mut self) -> Result<(Vec<Entry>, Option<&'static str>), Error> {
        lockfile::sweep(&self.folder, usize::MAX);
        let mut entries = Vec::new();
        let files = match lockfile::files(&self.folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok((entries, None)),
            found => found.map_err(|error| folder::failed("list", &self.folder, &error))?,
        };
        for path in files {
            // What is not a lock's file is not a job either.
            if let Some(name) = percent_decoded(path.file_name().unwrap_or_default().as_bytes())
                && name.starts_with(self.prefix)
                && let Ok(status) = self.status_of(&path)
                && status.record.is_some()
            {
                entries.push(Entry { name, status });
            }
        }
        Ok((entries, None))
    }

    /// Another file takes the place of a lock's, with its record: whoever has locked the old one has lost it.
    fn reset(&mut self) -> Result<bool, Error> {
        let free = self.status_of(&self.path).ok().filter(|status| status.value.is_none());
        if free.as_ref().is_some_and(|status| status.record.is_some()) {
            return Ok(false);
        }
        for _ in 0..ROUNDS {
            match lockfile::reset(&self.path) {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.pause()?,
                removed => return removed.map(|removed| removed && free.is_none()).map_err(self.failed("delete")),
            }
        }
        Err(self.failed("delete")(ErrorKind::TimedOut.into()))
    }

    fn tells_overdue(&mut self) -> bool {
        // A lock's file cannot begin with a dot.
        let path = self.folder.join([".late.", &file_name(&self.options.name)].concat());
        let Ok(file) = lockfile::open(&path, true) else { return true };
        if !lockfile::lock(&file, FlockOperation::NonBlockingLockExclusive).is_ok_and(|ours| ours) {
            return false;
        }
        // What is further ahead was written when the clock was.
        let (now, most) = (unix_milliseconds(), milliseconds(TOLD));
        let told = lockfile::read(&file).is_ok_and(|content| (now + 1..=now + most).contains(&content.kept_until));
        if !told {
            let token = Token::random().as_bytes().to_vec();
            let _ = lockfile::write(&file, &Content { kept_until: now + most, token, ..Content::default() });
        }
        !told
    }
}

impl LocalStore<'_> {
    /// The record of our run.
    fn record(&self) -> Option<&Record> {
        self.content.record.as_ref().filter(|_| self.options.record.is_some())
    }

    /// Writes the end of the run, or deletes a file that nobody needs any more, and lets go of the lock. Whether it was
    /// still ours, and whether the run is still the last one.
    fn end(&mut self, end: &End) -> (bool, bool) {
        let now = unix_milliseconds();
        if let Some((record, recording)) = self.content.record.as_mut().zip(self.options.record.as_ref()) {
            *record = record.ended(end, now);
            self.content.kept_until = now + milliseconds(recording.keep);
        }
        let is_ours = self.file.as_ref().is_some_and(|file| is_at(file, &self.path));
        let late = if is_ours { None } else { self.unclaimed() };
        if !is_ours {
            // RELEASE or a reset has ended it.
            self.content.grace = (0, 0);
        }
        let file = late.as_ref().or(self.file.as_ref().filter(|_| is_ours));
        let (is_last, write) = (file.is_some(), |file| lockfile::write(file, &self.content));
        let done = match file {
            Some(file) if self.content.is_needed() => write(file),
            // Where another is about to delete something, the next sweep finds it, and nobody a grace.
            Some(file) => lockfile::remove(file, &self.path).or_else(|_| write(file)),
            None => Ok(()),
        };
        self.unlock();
        if let Err(error) = done {
            self.log.debug(words!("the end of this run is not recorded: {}", Cause(&error)));
        }
        (is_ours, is_last)
    }

    /// The file, locked, if nobody else has had the lock since RELEASE or a reset: then the run is still the last one.
    fn unclaimed(&self) -> Option<File> {
        let file = Some(&self.path).filter(|path| path.exists()).and_then(|path| lockfile::open(path, true).ok())?;
        let is_last = |how| {
            lockfile::lock(&file, how).is_ok_and(|ours| ours)
                && lockfile::read(&file).is_ok_and(|content| content.token == self.content.token)
        };
        // Whoever only looks makes nobody skip.
        let is_last =
            is_last(FlockOperation::NonBlockingLockShared) && is_last(FlockOperation::NonBlockingLockExclusive);
        is_last.then_some(file)
    }

    /// Lets go of the lock, although the job, or what it left behind, still has the descriptor.
    fn unlock(&mut self) {
        if let Some(file) = self.file.take() {
            let _ = flock(&file, FlockOperation::Unlock);
        }
    }
}

impl Held for LocalStore<'_> {
    fn lasts(&self) -> bool {
        !self.hold_end.has_passed()
    }

    fn grant(&self) -> (&[u8], Option<u64>, Binding<'_>) {
        let fence = self.record().and_then(|record| record.number("fence"));
        let binding = self.file.as_ref().map_or(Binding::None, |file| Binding::InheritFd(file.as_fd()));
        (&self.content.token, fence, binding)
    }

    fn release(mut self: Box<Self>, exit: ExitReason) -> Ending {
        let (was_ours, is_last) = self.end(&end_of(exit, Duration::ZERO));
        if random().is_multiple_of(SWEEPS) {
            lockfile::sweep(&self.folder, SWEPT);
        }
        let released = match self.content.grace_left() {
            _ if !was_ours => Released::Lost,
            Some(left) => Released::InGrace(Duration::from_millis(left)),
            None => Released::Free,
        };
        let name = &self.options.name;
        let told = match exit {
            ExitReason::Stopped(StopReason::LockLost) => {
                Err(words!("the lock {} was lost: RELEASE is over", Escaped(name)))
            }
            _ => told(name, released),
        };
        Ending { told, record: self.record().filter(|_| is_last).cloned() }
    }

    fn abandon(mut self: Box<Self>, code: u8) -> Result<(), Line> {
        self.content.grace = (0, 0);
        self.end(&not_begun(code));
        Ok(())
    }
}

/// A local lock lasts as long as its job, so it has to be let go at RELEASE.
impl Renewal for LocalStore<'_> {
    fn schedule(&self) -> Schedule {
        let renew_at = if self.file.is_some() { self.hold_end } else { Instant::NEVER };
        Schedule { renew_at, stop_at: Instant::NEVER, kill_at: Instant::NEVER, hold_end: self.hold_end }
    }

    fn renew(&mut self, _: Instant) -> Renewed {
        self.unlock();
        Renewed::Kept
    }
}

/// The name of the lock's file: the lock's name, percent-encoded but for letters, digits, `-`, `_` and inner dots.
fn file_name(name: &[u8]) -> String {
    let mut text = percent_encoded(name, b"-_.");
    if text.starts_with('.') {
        text.replace_range(..1, "%2E");
    }
    if text.len() > NAME_LIMIT {
        // No half of an encoded byte is left, or the list could not read it.
        let half = (NAME_LIMIT - 2..NAME_LIMIT).find(|&at| text.as_bytes().get(at) == Some(&b'%'));
        text.truncate(half.unwrap_or(NAME_LIMIT));
        text += "~";
        text += &digest(name);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_are_safe_and_differ() {
        assert_eq!(file_name(b"cronlock.ab-c_1"), "cronlock.ab-c_1");
        assert_eq!(file_name(b"../a b\n%"), "%2E.%2Fa%20b%0A%25");
        assert_eq!((file_name(b"."), file_name(b"..")), ("%2E".to_owned(), "%2E.".to_owned()));
        let long = |last: u8| [&[b'/'; 300][..], &[last]].concat();
        assert!(file_name(&long(1)).len() <= 255);
        assert_ne!(file_name(&long(1)), file_name(&long(2)));
        for filler in 0..3 {
            let name = file_name(&[&b"x".repeat(filler)[..], &b"/".repeat(200)].concat());
            assert!(percent_decoded(name.as_bytes()).is_some(), "{name}");
        }
    }
}
