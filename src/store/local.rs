//! Locks on this host alone: the kernel's lock (flock(2)) on a file, which is free again when its holder is gone, however
//! it went. The file holds no more than the time before which the lock stays taken.

use super::{Store, folder};
use crate::clock::{Moment, jittered, milliseconds, unix_milliseconds};
use crate::config::Config;
use crate::job::Keep;
use crate::lock::{Holder, Released, Status, Token, Ttl, digest};
use crate::report::{Event, Story};
use crate::signals::{Cut, Heed, Signals};
use rustix::fs::OFlags;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The longest part of a lock's name that is kept in the name of its file, of the 255 bytes that one may have. What is
/// longer is told apart by its hash.
const NAME_LIMIT: usize = 200;

/// How often a file is tried again when somebody else looks at it, or deletes it, at the same moment, and the pause
/// after each: together about ten seconds, in which whoever only looks is done even on a busy host.
const ROUNDS: u32 = 1000;
const PAUSE: Duration = Duration::from_millis(10);

/// The most that the file of a lock holds.
const CONTENT_LIMIT: u64 = 64;

/// Why a local lock cannot be used.
#[derive(Debug)]
pub enum Error {
    /// Somebody else could tamper with this folder.
    Unsafe(PathBuf, &'static str),
    /// This is no file of a lock.
    Foreign(PathBuf),
    /// The system did not do what is named to this file.
    System(&'static str, PathBuf, io::Error),
}

/// A lock in a file.
pub struct LocalStore<'a> {
    config: &'a Config,
    signals: &'a Signals,
    story: Story,
    folder: PathBuf,
    path: PathBuf,
    token: Token,
    held: Option<File>,
    hold_end: Moment,
    grace_end: Moment,
}

impl<'a> LocalStore<'a> {
    /// The lock that `config` names, in the folder `folder`.
    ///
    /// # Errors
    /// When the folder is not safe.
    pub fn new(config: &'a Config, folder: &Path, signals: &'a Signals, story: Story) -> Result<Self, crate::Error> {
        let system = |error| Error::System("look at", folder.to_owned(), error);
        let folder = folder::plain(folder).map_err(system).map_err(crate::Error::Local)?;
        folder::secure(&folder).map_err(crate::Error::Local)?;
        let path = folder.join(file_name(&config.name));
        let (token, now) = (Token::random(), Moment::now());
        Ok(Self { config, signals, story, folder, path, token, held: None, hold_end: now, grace_end: now })
    }

    fn failed(&self, what: &'static str) -> impl FnOnce(io::Error) -> crate::Error {
        let path = self.path.clone();
        move |error| crate::Error::Local(Error::System(what, path, error))
    }

    /// Takes the kernel's lock; none if another has it.
    fn seize(&self) -> Result<Option<File>, crate::Error> {
        for _ in 0..ROUNDS {
            let file = self.open(true)?;
            match file.try_lock() {
                // A reset may have deleted the file between opening and locking it.
                Ok(()) if is_at(&file, &self.path) => return Ok(Some(file)),
                Ok(()) => continue,
                Err(TryLockError::Error(error)) => return Err(self.failed("lock")(error)),
                Err(TryLockError::WouldBlock) => {}
            }
            match file.try_lock_shared() {
                Ok(()) => {}
                Err(TryLockError::Error(error)) => return Err(self.failed("lock")(error)),
                Err(TryLockError::WouldBlock) => return Ok(None),
            }
            // Nobody holds it: somebody only looks at it, and so did we until here.
            drop(file);
            if self.signals.wait(None, Some(Moment::after(jittered(PAUSE))), Heed::Stops) == Err(Cut::Signal) {
                return Err(self
                    .signals
                    .take()
                    .map_or(crate::Error::Held(self.config.skip_exit), crate::Error::Stopped));
            }
        }
        Err(self.failed("lock")(ErrorKind::TimedOut.into()))
    }

    /// Opens the lock's file. That never waits, and follows no symbolic link.
    fn open(&self, create: bool) -> Result<File, crate::Error> {
        let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits()).unwrap_or(0);
        let mut options = OpenOptions::new();
        let opened = options.read(true).write(create).create(create).mode(0o600).custom_flags(flags).open(&self.path);
        let file = opened.map_err(self.failed("open"))?;
        if file.metadata().is_ok_and(|found| found.is_file()) { Ok(file) } else { Err(self.foreign()) }
    }

    fn foreign(&self) -> crate::Error {
        crate::Error::Local(Error::Foreign(self.path.clone()))
    }

    /// What is left of the grace that `file` notes.
    fn grace_left(&self, file: &File) -> Result<Option<Duration>, crate::Error> {
        let mut text = String::new();
        // What is no text is no lock either.
        let read = file.take(CONTENT_LIMIT + 1).read_to_string(&mut text);
        match read {
            Err(error) if error.kind() != ErrorKind::InvalidData => Err(self.failed("read")(error)),
            read => read.ok().and_then(|_| grace_of(&text).ok()).ok_or_else(|| self.foreign()),
        }
    }

    /// Writes how long the lock stays taken at least, from now; survives our end, whatever it is.
    fn note(&self, file: &File) -> io::Result<()> {
        let grace = milliseconds(self.grace());
        let until = unix_milliseconds() + grace;
        file.set_len(0)?;
        if grace > 0 { file.write_all_at(format!("{until} {grace}\n").as_bytes(), 0) } else { Ok(()) }
    }

    fn grace(&self) -> Duration {
        self.config.grace.min(self.config.release)
    }
}

impl Store for LocalStore<'_> {
    fn acquire(&mut self) -> Result<bool, crate::Error> {
        folder::make(&self.folder).map_err(crate::Error::Local)?;
        let seized = self.seize()?;
        let graced = seized.as_ref().map_or(Ok(None), |file| self.grace_left(file))?;
        let Some(file) = seized.filter(|_| graced.is_none()) else {
            self.story.tell(&Event::Held(self.token.as_bytes()));
            return Ok(false);
        };
        self.note(&file).map_err(self.failed("write"))?;
        self.story.tell(&Event::Acquired(self.config.release));
        self.hold_end = Moment::after(self.config.release);
        self.grace_end = Moment::after(self.grace());
        self.held = Some(file);
        Ok(true)
    }

    fn settle(&mut self) -> Result<(), crate::Error> {
        Ok(())
    }

    fn token(&self) -> &[u8] {
        self.token.as_bytes()
    }

    fn binds(&self) -> bool {
        // Our death frees the lock.
        true
    }

    fn keep(&mut self) -> Option<&mut dyn Keep> {
        Some(self)
    }

    fn give_back(&mut self, _stopped: bool) {
        // Should the grace stay in the file, it is over soon.
        if let Some(file) = self.held.take() {
            let _ = file.set_len(0);
        }
    }

    fn release(&mut self) {
        // A reset may have deleted the file, and another may hold the next one.
        let held = self.held.take().filter(|file| is_at(file, &self.path));
        let released = match (held, self.grace_end.remaining()) {
            (None, _) => Released::Lost,
            (Some(_), None) => Released::Free,
            (Some(_), Some(grace)) => Released::InGrace(grace),
        };
        self.story.tell(&Event::Released(&self.config.name, released));
    }

    fn reset(&mut self) -> Result<(), crate::Error> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(self.failed("delete")(error)),
            _ => Ok(()),
        }
    }

    fn status(&mut self) -> Result<Status, crate::Error> {
        let file = match self.open(false) {
            Err(crate::Error::Local(Error::System(_, _, error))) if error.kind() == ErrorKind::NotFound => {
                return Ok(Status::Free);
            }
            opened => opened?,
        };
        match file.try_lock_shared() {
            Ok(()) => {
                let grace = self.grace_left(&file)?;
                Ok(grace.map_or(Status::Free, |left| Status::Held(Ttl::Seconds(left.as_secs()), Holder::Golock)))
            }
            // As long as its holder lives, at most for RELEASE, which is the holder's to know.
            Err(TryLockError::WouldBlock) => Ok(Status::Held(Ttl::None, Holder::Golock)),
            Err(TryLockError::Error(error)) => Err(self.failed("lock")(error)),
        }
    }
}

/// A local lock lasts as long as its holder lives, so it has to be let go at RELEASE.
impl Keep for LocalStore<'_> {
    fn due(&self) -> Moment {
        if self.held.is_some() { self.hold_end } else { Moment::NEVER }
    }

    fn stop_by(&self) -> Moment {
        Moment::NEVER
    }

    fn gone_by(&self) -> Moment {
        Moment::NEVER
    }

    fn act(&mut self, _: Moment) -> bool {
        self.held = None;
        true
    }

    fn expire(&mut self) {}
}

/// Whether `file` is the one that stands at `path`.
fn is_at(file: &File, path: &Path) -> bool {
    let same = |a: &fs::Metadata, b: &fs::Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
    file.metadata().is_ok_and(|ours| path.symlink_metadata().is_ok_and(|theirs| same(&ours, &theirs)))
}

/// What is left of the grace in `text`; nothing if this is no lock's. A crash leaves any part of one, or zeros instead.
/// A clock that was set back by more than the grace ends it.
fn grace_of(text: &str) -> Result<Option<Duration>, ()> {
    let ours = |byte| matches!(byte, b'0'..=b'9' | b' ' | b'\n' | 0);
    if text.len() > CONTENT_LIMIT.try_into().unwrap_or(usize::MAX) || !text.bytes().all(ours) {
        return Err(());
    }
    let parts = text.strip_suffix('\n').and_then(|line| line.split_once(' '));
    let left = parts.and_then(|(until, grace)| {
        let (until, grace): (u64, u64) = (until.parse().ok()?, grace.parse().ok()?);
        until.checked_sub(unix_milliseconds()).filter(|left| *left > 0 && *left <= grace)
    });
    Ok(left.map(Duration::from_millis))
}

/// The name of the lock's file: the lock's name, percent-encoded but for letters, digits, `-`, `_` and inner dots.
fn file_name(name: &[u8]) -> String {
    let mut encoded = String::new();
    for (at, &byte) in name.iter().enumerate() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') || (byte == b'.' && at > 0) {
            encoded.push(char::from(byte));
        } else {
            encoded.extend([format!("%{byte:02X}")]);
        }
    }
    if encoded.len() > NAME_LIMIT {
        encoded.truncate(NAME_LIMIT);
        encoded.push('~');
        encoded.extend(digest(name).map(char::from));
    }
    encoded
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

    #[test]
    fn the_grace_ends_also_when_the_clock_is_set_back() {
        let now = unix_milliseconds();
        assert!(grace_of(&format!("{} 40000\n", now + 30_000)).unwrap().is_some());
        for over in [format!("{} 40000\n", now + 50_000), format!("{} 40000\n", now - 1)] {
            assert_eq!(grace_of(&over), Ok(None));
        }
    }

    #[test]
    fn parts_of_a_lock_are_free_and_anything_else_is_none() {
        for part in ["", "1", "4102444800000", "4102444800000 41024448", "\0\0\0\0", " \n"] {
            assert_eq!(grace_of(part), Ok(None));
        }
        for foreign in ["x", "1 x\n", "-1 1\n", "{}", &"1".repeat(65)] {
            assert_eq!(grace_of(foreign), Err(()));
        }
    }
}
