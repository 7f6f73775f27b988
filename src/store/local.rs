//! Locks on this host alone: the kernel's lock (flock(2)) on a file. The job inherits its descriptor, so that the lock is
//! held until the job has ended, however golock went; golock unlocks it when the job has ended, and at RELEASE.

use super::lockfile::{self, Content, is_at, is_missing};
use super::{Attempt, Ending, Error, Grant, Held, Listing, LockStore, Why, end_of, folder};
use crate::clock::{Instant, jittered, milliseconds, random, unix_milliseconds};
use crate::interrupt::{Interrupts, WaitError, WakeOn};
use crate::job::{Binding, ExitReason, Renewal, Renewed, Schedule};
use crate::lock::{Entry, LIST_LIMIT, LockOptions, Record, Status, Token, Ttl, digest};
use crate::text;
use crate::text::{Cause, Escaped, Line, Log, Span, percent_decoded};
use crate::words;
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

/// Every so many runs sweep the folder, of which they look at so many files.
const SWEEPS: u64 = 16;
const SWEPT: usize = 200;

/// A lock in a file.
pub struct LocalStore<'a> {
    options: LockOptions,
    folder: PathBuf,
    path: PathBuf,
    prefix: Vec<u8>,
    interrupts: &'a Interrupts,
    log: &'a dyn Log,
}

/// The same, when we have locked it.
struct LocalLock<'a> {
    store: LocalStore<'a>,
    file: File,
    /// What the file says.
    content: Content,
    /// Whether the record in it is ours.
    has_begun: bool,
    hold_end: Instant,
    grace_end: Instant,
    /// Whether RELEASE has come, and the lock was let go.
    is_unlocked: bool,
}

/// What is at a path.
enum Found {
    /// The file, locked by us.
    Locked(File),
    /// The file, locked by another.
    Held(File),
}

impl<'a> LocalStore<'a> {
    /// The lock that `options` names, whose name begins with `prefix`, in the folder `folder`.
    pub fn new(
        options: LockOptions,
        prefix: &[u8],
        folder: &Path,
        interrupts: &'a Interrupts,
        log: &'a dyn Log,
    ) -> Result<Self, Line> {
        let folder = folder::plain(folder).map_err(|error| failed("look at", folder, &error))?;
        folder::secure(&folder)?;
        let path = folder.join(file_name(&options.name));
        Ok(Self { options, folder, path, prefix: prefix.to_vec(), interrupts, log })
    }

    fn failed(&self, what: &'static str) -> impl Fn(io::Error) -> Error {
        let path = self.path.clone();
        move |error| failed(what, &path, &error).into()
    }

    fn foreign(&self) -> Error {
        (words!("{} is not a lock; golock --reset deletes it", Escaped::path(&self.path))).into()
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
            let pause = Instant::after(jittered(PAUSE));
            if self.interrupts.wait(None, pause, WakeOn::Termination) == Err(WaitError::Interrupted)
                && let Some(signal) = self.interrupts.termination()
            {
                return Err(Error { why: Why::Interrupted(signal), left: None });
            }
        }
        Err(self.failed("lock")(ErrorKind::TimedOut.into()))
    }

    fn content(&self, file: &File) -> Result<Content, Error> {
        lockfile::read(file).map_err(self.failed("read"))?.ok_or_else(|| self.foreign())
    }

    /// What is known of the lock whose file is at `path`.
    fn status_of(&self, path: &Path) -> Result<Status, Error> {
        let file = match lockfile::open(path, false) {
            Err(error) if is_missing(&error) => return Ok(Status::default()),
            opened => opened.map_err(self.failed("open"))?.ok_or_else(|| self.foreign())?,
        };
        let held = match file.try_lock_shared() {
            Ok(()) => false,
            Err(TryLockError::WouldBlock) => true,
            Err(TryLockError::Error(error)) => return Err(self.failed("lock")(error)),
        };
        Ok(status(self.content(&file)?, held))
    }
}

/// What `content` says of a lock that is held or not.
fn status(content: Content, held: bool) -> Status {
    let left = content.grace_left();
    let ttl = match left {
        Some(left) if !held => Ttl::Seconds(left.div_ceil(1000)),
        // As long as its job runs, at most for RELEASE, which is the holder's to know.
        _ => Ttl::Unknown,
    };
    let token = if content.token.is_empty() { b"0".repeat(Token::DIGITS) } else { content.token };
    let value = (held || left.is_some()).then_some(token);
    Status { value, ttl, now: Some(unix_milliseconds()), record: content.record }
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
        let (hold_end, grace_end) = (Instant::after(self.options.release), Instant::ZERO);
        let (has_begun, is_unlocked) = (false, false);
        let mut lock = LocalLock { store: *self, file, content, has_begun, hold_end, grace_end, is_unlocked };
        Ok(if lock.begin()? { Attempt::Acquired(Box::new(lock)) } else { Attempt::Served })
    }

    fn status(&mut self) -> Result<Status, Error> {
        self.status_of(&self.path)
    }

    fn list(&mut self) -> Result<Listing, Error> {
        lockfile::sweep(&self.folder, usize::MAX);
        let mut entries = Vec::new();
        let files = match fs::read_dir(&self.folder) {
            Err(error) if is_missing(&error) => None,
            found => Some(found.map_err(|error| failed("list", &self.folder, &error))?),
        };
        for entry in files.into_iter().flatten().flatten().take(LIST_LIMIT) {
            let name = percent_decoded(entry.file_name().as_bytes()).unwrap_or_default();
            // What is not a lock's file is no job either.
            if let Ok(status) = self.status_of(&entry.path())
                && status.record.is_some()
                && name.starts_with(&self.prefix)
            {
                entries.push(Entry { name, status });
            }
        }
        Ok(Listing { entries, note: None })
    }

    fn reset(&mut self) -> Result<bool, Error> {
        match fs::remove_file(&self.path) {
            Err(error) if is_missing(&error) => Ok(false),
            removed => removed.map(|()| true).map_err(self.failed("delete")),
        }
    }

    fn tells_overdue(&mut self) -> bool {
        // A lock's file cannot begin with a dot.
        let path = self.folder.join([".late.", &file_name(&self.options.name)].concat());
        let Ok(Some(file)) = lockfile::open(&path, true) else { return true };
        let told = lockfile::read(&file).ok().flatten().is_some_and(|content| content.is_needed());
        let kept_until = unix_milliseconds() + milliseconds(TOLD);
        !told && lockfile::write(&file, &Content { kept_until, ..Content::default() }).is_ok()
    }
}

impl Held for LocalLock<'_> {
    fn lasts(&self) -> bool {
        !self.hold_end.has_passed()
    }

    fn grant(&self) -> Grant<'_> {
        let fence = self.content.record.as_ref().map(|record| record.fence);
        Grant { token: &self.content.token, fence, binding: Binding::InheritFd(self.file.as_fd()) }
    }

    fn loss(&self) -> Line {
        "RELEASE is over".into()
    }

    fn release(mut self: Box<Self>, exit: ExitReason) -> Ending {
        let was_lost = self.is_unlocked || !is_at(&self.file, &self.store.path);
        let written = if was_lost { Ok(()) } else { self.end(&end_of(exit)) };
        self.unlock();
        if random().is_multiple_of(SWEEPS) {
            lockfile::sweep(&self.store.folder, SWEPT);
        }
        if let Err(error) = written {
            self.store.log.debug(text!("the end of this run is not recorded: {}", Cause(&error)));
        }
        let name = Escaped(&self.store.options.name);
        let lost = || words!("the lock {} was lost before the command ended", name);
        let note = match self.grace_end.remaining() {
            Some(left) => words!("released the lock, with {} of grace left", Span(left)),
            None => "released the lock".into(),
        };
        Ending { trouble: was_lost.then(lost), note, record: self.content.record.filter(|_| !was_lost) }
    }

    fn abandon(mut self: Box<Self>, end: &str) -> Result<(), Line> {
        // Should the grace stay in the file, it is over soon.
        self.content.grace = (0, 0);
        if is_at(&self.file, &self.store.path) {
            let end = crate::lock::End { result: end.into(), success: false };
            let _ = self.end(&end);
        }
        self.unlock();
        Ok(())
    }
}

impl LocalLock<'_> {
    /// Writes that the run begins; false if another one has served for it, and the lock was let go.
    fn begin(&mut self) -> Result<bool, Error> {
        let (options, now) = (&self.store.options, unix_milliseconds());
        if let (Some(started), Some(before)) = (options.tick, &self.content.record) {
            let elapsed = milliseconds(Instant::now().since(started).unwrap_or_default()) + 1;
            if now.checked_sub(before.start).is_some_and(|age| age < elapsed) {
                self.unlock();
                return Ok(false);
            }
        }
        let (grace, record) = (milliseconds(options.grace), options.record.as_ref());
        self.content = Content {
            grace: (now + grace, grace),
            token: Token::random().as_bytes().to_vec(),
            kept_until: record.map_or(0, |record| now + milliseconds(record.keep)),
            record: record.map(|record| Record::begin(self.content.record.as_ref(), &record.run, now)),
        };
        lockfile::write(&self.file, &self.content).map_err(self.store.failed("write"))?;
        self.has_begun = true;
        self.hold_end = Instant::after(options.release);
        self.grace_end = Instant::after(options.grace);
        self.store.log.debug(text!("got the lock, for {} at most", Span(options.release)));
        Ok(true)
    }

    /// Writes the end of the run, or deletes a file that nobody needs any more.
    fn end(&mut self, end: &crate::lock::End) -> io::Result<()> {
        let now = unix_milliseconds();
        if let Some(record) = self.content.record.as_mut().filter(|_| self.has_begun) {
            record.end(end, now);
            self.content.kept_until =
                now + self.store.options.record.as_ref().map_or(0, |record| milliseconds(record.keep));
        }
        if self.content.is_needed() {
            return lockfile::write(&self.file, &self.content);
        }
        lockfile::delete_unneeded(&self.file, &self.store.path, &self.content);
        Ok(())
    }

    /// Lets go of the lock, although the job, or what it left behind, still has the descriptor.
    fn unlock(&mut self) {
        let _ = self.file.unlock();
        self.is_unlocked = true;
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

/// How long nobody else tells that a lock is overdue.
const TOLD: Duration = Duration::from_hours(1);

/// That the system did not do `what` to the file at `path`.
pub(super) fn failed(what: &'static str, path: &Path, error: &io::Error) -> Line {
    words!("cannot {} {}: {}", what, Escaped::path(path), Cause(error))
}

/// The name of the lock's file: the lock's name, percent-encoded but for letters, digits, `-`, `_` and inner dots.
fn file_name(name: &[u8]) -> String {
    let mut text = String::new();
    for (at, &byte) in name.iter().enumerate() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') || (byte == b'.' && at > 0) {
            text.push(char::from(byte));
        } else {
            text.extend([format!("%{byte:02X}")]);
        }
    }
    if text.len() > NAME_LIMIT {
        text.truncate(NAME_LIMIT);
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
    }
}
