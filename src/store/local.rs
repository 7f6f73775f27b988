//! Locks on this host alone: the kernel's lock (flock(2)) on a file. The job inherits its descriptor, so that the lock is
//! held until the job has ended, however golock went; golock unlocks it when the job has ended, and at RELEASE.

use super::lockfile::{self, Content, is_at};
use super::{Attempt, Ending, Error, Held, LockStore, end_of, folder, not_begun};
use crate::clock::{Instant, jittered, milliseconds, random, unix_milliseconds};
use crate::interrupt::{Interrupts, WaitError, WakeOn};
use crate::job::{Binding, ExitReason, Renewal, Renewed, Schedule};
use crate::lock::{End, Entry, LIST_LIMIT, LockOptions, Record, Status, Token, Ttl, digest};
use crate::text::{Cause, Escaped, Line, Log, Span, percent_decoded};
use crate::{text, words};
use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
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

/// One of so many runs sweeps the folder, of which it looks at so many files.
const SWEEPS: u64 = 16;
const SWEPT: usize = 200;

/// How long nobody else tells that a lock is overdue.
const TOLD: Duration = Duration::from_hours(1);

/// A lock in a file.
pub struct LocalStore<'a> {
    options: LockOptions,
    prefix: &'a [u8],
    folder: PathBuf,
    path: PathBuf,
    interrupts: &'a Interrupts,
    log: &'a dyn Log,
}

/// The same, when we have locked it.
struct LocalLock<'a> {
    store: LocalStore<'a>,
    file: File,
    content: Content,
    hold_end: Instant,
    /// Whether RELEASE has come, and the lock was let go.
    is_unlocked: bool,
}

/// What is at a path: the file, locked by us or by another.
enum Found {
    Locked(File),
    Held(File),
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
        let folder = folder::plain(folder).map_err(|error| folder::failed("look at", folder, &error))?;
        folder::secure(&folder)?;
        let path = folder.join(file_name(&options.name));
        Ok(Self { options, prefix, folder, path, interrupts, log })
    }

    fn failed(&self, what: &'static str) -> impl Fn(io::Error) -> Error {
        move |error| folder::failed(what, &self.path, &error).into()
    }

    fn foreign(&self) -> Error {
        words!("{} is not a lock; golock --reset deletes it", Escaped::path(&self.path)).into()
    }

    /// Takes the kernel's lock, if no other has it.
    fn lock(&self) -> Result<Found, Error> {
        for _ in 0..ROUNDS {
            let file = lockfile::open(&self.path, true).map_err(self.failed("open"))?.ok_or_else(|| self.foreign())?;
            match file.try_lock() {
                // A reset or a sweep may have deleted the file between opening and locking it.
                Ok(()) if is_at(&file, &self.path) => return Ok(Found::Locked(file)),
                Ok(()) => continue,
                Err(TryLockError::Error(error)) => return Err(self.failed("lock")(error)),
                Err(TryLockError::WouldBlock) => {}
            }
            match file.try_lock_shared() {
                Ok(()) => {}
                Err(TryLockError::Error(error)) => return Err(self.failed("lock")(error)),
                Err(TryLockError::WouldBlock) => return Ok(Found::Held(file)),
            }
            // Nobody holds it: somebody only looks at it, and so did we until here.
            drop(file);
            self.pause()?;
        }
        Err(self.failed("lock")(ErrorKind::TimedOut.into()))
    }

    /// Leaves others some time.
    fn pause(&self) -> Result<(), Error> {
        let pause = Instant::after(jittered(PAUSE));
        if self.interrupts.wait(None, pause, WakeOn::Termination) == Err(WaitError::Interrupted)
            && let Some(signal) = self.interrupts.termination()
        {
            return Err(Error::Interrupted(signal, None));
        }
        Ok(())
    }

    fn content(&self, file: &File) -> Result<Content, Error> {
        lockfile::read(file).map_err(self.failed("read"))?.ok_or_else(|| self.foreign())
    }

    /// What is known of the lock whose file is at `path`.
    fn status_of(&self, path: &Path) -> Result<Status, Error> {
        let file = match lockfile::open(path, false) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Status::default()),
            opened => opened.map_err(self.failed("open"))?.ok_or_else(|| self.foreign())?,
        };
        let is_held = match file.try_lock_shared() {
            Err(TryLockError::Error(error)) => return Err(self.failed("lock")(error)),
            tried => tried.is_err(),
        };
        Ok(status(self.content(&file)?, is_held))
    }
}

/// What `content` says of a lock that is held by a job, or not.
fn status(content: Content, is_held: bool) -> Status {
    let left = content.grace_left();
    let is_taken = is_held || left.is_some();
    // A job keeps it as long as it runs, at most for RELEASE, which is the holder's to know.
    let ttl = left.filter(|_| !is_held).map_or(Ttl::Unknown, |left| Ttl::Seconds(left.div_ceil(1000)));
    let token = if content.token.is_empty() { b"0".repeat(Token::DIGITS) } else { content.token };
    let (value, now) = (is_taken.then_some(token), Some(unix_milliseconds()));
    Status { value, ttl, now, record: content.record, is_over: !is_held }
}

impl<'a> LockStore<'a> for LocalStore<'a> {
    fn acquire(self: Box<Self>) -> Result<Attempt<'a>, Error> {
        folder::make(&self.folder)?;
        let file = match self.lock()? {
            Found::Locked(file) => file,
            Found::Held(file) => {
                let content = lockfile::read(&file).ok().flatten().unwrap_or_default();
                return Ok(Attempt::Busy(self, status(content, true)));
            }
        };
        let content = self.content(&file)?;
        if content.grace_left().is_some() {
            return Ok(Attempt::Busy(self, status(content, false)));
        }
        let (hold_end, now) = (Instant::after(self.options.release), unix_milliseconds());
        let age = content.record.as_ref().and_then(|before| now.checked_sub(before.number("start")?));
        let since = self.options.tick.map(|start| milliseconds(Instant::now().since(start).unwrap_or_default()));
        if age.zip(since).is_some_and(|(age, since)| age <= since) {
            return Ok(Attempt::Served);
        }
        let mut lock = LocalLock { store: *self, file, content, hold_end, is_unlocked: false };
        lock.begin(now)?;
        Ok(Attempt::Acquired(Box::new(lock)))
    }

    fn status(&mut self) -> Result<Status, Error> {
        self.status_of(&self.path)
    }

    fn list(&mut self) -> Result<(Vec<Entry>, Option<&'static str>), Error> {
        lockfile::sweep(&self.folder, usize::MAX);
        let files = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(folder::failed("list", &self.folder, &error).into());
            }
            found => found.into_iter().flatten().flatten().take(LIST_LIMIT),
        };
        let entry = |file: fs::DirEntry| {
            let name = percent_decoded(file.file_name().as_bytes())?;
            // What is not a lock's file is not a job either.
            let status = self.status_of(&file.path()).ok().filter(|status| status.record.is_some())?;
            name.starts_with(self.prefix).then_some(Entry { name, status })
        };
        Ok((files.filter_map(entry).collect(), None))
    }

    fn reset(&mut self) -> Result<bool, Error> {
        for _ in 0..ROUNDS {
            match lockfile::remove(None, &self.path) {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.pause()?,
                removed => return removed.map_err(self.failed("delete")),
            }
        }
        Err(self.failed("delete")(ErrorKind::TimedOut.into()))
    }

    fn tells_overdue(&mut self) -> bool {
        // A lock's file cannot begin with a dot.
        let path = self.folder.join([".late.", &file_name(&self.options.name)].concat());
        let Ok(Some(file)) = lockfile::open(&path, true) else { return true };
        if file.try_lock().is_err() {
            return false;
        }
        let told = lockfile::read(&file).ok().flatten().is_some_and(|content| content.is_needed());
        let kept_until = unix_milliseconds() + milliseconds(TOLD);
        !told && lockfile::write(&file, &Content { kept_until, ..Content::default() }).is_ok()
    }
}

impl LocalLock<'_> {
    /// Writes that the run begins `now`.
    fn begin(&mut self, now: u64) -> Result<(), Error> {
        let LockOptions { grace, record, release, .. } = &self.store.options;
        let (grace, token) = (milliseconds(*grace), Token::random().as_bytes().to_vec());
        let kept_until = record.as_ref().map_or(0, |record| now + milliseconds(record.keep));
        let before = self.content.record.take();
        let record = record.as_ref().map(|record| Record::begin(before.as_ref(), &record.run, now));
        self.content = Content { grace: (now + grace, grace), token, kept_until, record };
        self.store.log.debug(text!("got the lock, for {} at most", Span(*release)));
        lockfile::write(&self.file, &self.content).map_err(self.store.failed("write"))
    }

    /// Writes the end of the run, or deletes a file that nobody needs any more, and lets go of the lock, although the job,
    /// or what it left behind, still has the descriptor. False if it was not ours any more.
    fn end(&mut self, end: &End) -> bool {
        let (now, keep) = (unix_milliseconds(), self.store.options.record.as_ref().map(|record| record.keep));
        let is_ours = !self.is_unlocked && is_at(&self.file, &self.store.path);
        if let Some((record, keep)) = self.content.record.as_mut().zip(keep) {
            *record = record.ended(end, now);
            self.content.kept_until = now + milliseconds(keep);
        }
        let done = match self.content.is_needed() {
            _ if !is_ours => Ok(()),
            true => lockfile::write(&self.file, &self.content),
            // Where another is about to delete something, the next sweep finds it.
            false => lockfile::remove(Some(&self.file), &self.store.path).map(|_| ()),
        };
        self.unlock();
        if let Err(error) = done {
            self.store.log.debug(text!("the end of this run is not recorded: {}", Cause(&error)));
        }
        is_ours
    }

    fn unlock(&mut self) {
        let _ = self.file.unlock();
        self.is_unlocked = true;
    }
}

impl Held for LocalLock<'_> {
    fn lasts(&self) -> bool {
        !self.hold_end.has_passed()
    }

    fn grant(&self) -> (&[u8], Option<u64>, Binding<'_>) {
        let fence = self.content.record.as_ref().and_then(|record| record.number("fence"));
        (&self.content.token, fence, Binding::InheritFd(self.file.as_fd()))
    }

    fn release(mut self: Box<Self>, exit: ExitReason) -> Ending {
        let was_ours = self.end(&end_of(exit));
        if random().is_multiple_of(SWEEPS) {
            lockfile::sweep(&self.store.folder, SWEPT);
        }
        let told = match self.content.grace_left().map(Duration::from_millis) {
            _ if !was_ours => {
                let name = Escaped(&self.store.options.name);
                Err(words!("the lock {} was lost before the command ended", name))
            }
            Some(left) => Ok(words!("released the lock, with {} of grace left", Span(left))),
            None => Ok("released the lock".into()),
        };
        Ending { told, record: self.content.record.filter(|_| was_ours) }
    }

    fn abandon(mut self: Box<Self>, code: u8) -> Result<(), Line> {
        self.content.grace = (0, 0);
        self.end(&not_begun(code));
        Ok(())
    }
}

/// A local lock lasts as long as its job, so it has to be let go at RELEASE.
impl Renewal for LocalLock<'_> {
    fn schedule(&self) -> Schedule {
        let renew_at = if self.is_unlocked { Instant::NEVER } else { self.hold_end };
        Schedule { renew_at, stop_at: Instant::NEVER, kill_at: Instant::NEVER, hold_end: self.hold_end }
    }

    fn renew(&mut self, _: Instant) -> Renewed {
        self.unlock();
        Renewed::Kept
    }
}

/// The name of the lock's file: the lock's name, percent-encoded but for letters, digits, `-`, `_` and inner dots.
fn file_name(name: &[u8]) -> String {
    let mut text = String::new();
    for (at, &byte) in name.iter().enumerate() {
        match byte {
            b'-' | b'_' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => text.push(char::from(byte)),
            b'.' if at > 0 => text.push('.'),
            _ => text.extend([format!("%{byte:02X}")]),
        }
    }
    if text.len() > NAME_LIMIT {
        // No half of an encoded byte is left, or the list could not read it.
        let half = (NAME_LIMIT - 2..NAME_LIMIT).find(|&at| text.as_bytes().get(at) == Some(&b'%'));
        text.truncate(half.unwrap_or(NAME_LIMIT));
        text.push('~');
        text.extend(digest(name).map(char::from));
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
