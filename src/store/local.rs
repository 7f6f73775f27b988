//! Locks on this host alone: the kernel's lock (flock(2)) on a file, which is free again when its holder is gone, however
//! it went. The file holds no more than the time before which the lock stays taken.

use super::Store;
use crate::clock::{Moment, unix_milliseconds};
use crate::config::Config;
use crate::job::Keep;
use crate::lock::{Holder, Released, Status, Token, Ttl, digest};
use crate::report::{Event, Story};
use rustix::fs::OFlags;
use rustix::process::geteuid;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The longest part of a lock's name that is kept in the name of its file, of the 255 bytes that one may have. What is
/// longer is told apart by its hash.
const NAME_LIMIT: usize = 200;

/// How often a file is opened and tried again when somebody else looks at it, or deletes it, at the same moment.
const ROUNDS: u32 = 100;

/// The most that a lock's file holds.
const CONTENT_LIMIT: u64 = 64;

/// Why a local lock cannot be used.
#[derive(Debug)]
pub enum Error {
    /// Somebody else could tamper with this folder.
    Unsafe(PathBuf, &'static str),
    /// The system did not do what is named to this file.
    System(&'static str, PathBuf, io::Error),
}

/// A lock in a file.
pub struct LocalStore<'a> {
    config: &'a Config,
    story: Story,
    path: PathBuf,
    token: Token,
    held: Option<File>,
    hold_end: Moment,
    grace_end: Moment,
}

impl<'a> LocalStore<'a> {
    /// The lock that `config` names, in the folder `folder`, which is made if it is not there.
    ///
    /// # Errors
    /// When there is no folder, or none that is safe.
    pub fn new(config: &'a Config, folder: &Path, story: Story) -> Result<Self, crate::Error> {
        secure(folder).map_err(crate::Error::Local)?;
        let path = folder.join(file_name(&config.name));
        let (token, now) = (Token::random(), Moment::now());
        Ok(Self { config, story, path, token, held: None, hold_end: now, grace_end: now })
    }

    fn failed(&self, what: &'static str) -> impl FnOnce(io::Error) -> crate::Error {
        let path = self.path.clone();
        move |error| crate::Error::Local(Error::System(what, path, error))
    }

    /// Takes the kernel's lock; none if another has it.
    fn seize(&self) -> io::Result<Option<File>> {
        for _ in 0..ROUNDS {
            let file = open(&self.path, true)?;
            match file.try_lock() {
                // A reset may have deleted the file between opening and locking it.
                Ok(()) if is_at(&file, &self.path) => return Ok(Some(file)),
                Ok(()) => {}
                Err(TryLockError::Error(error)) => return Err(error),
                Err(TryLockError::WouldBlock) => match file.try_lock_shared() {
                    // Nobody holds it: somebody only looks at it.
                    Ok(()) => {}
                    Err(TryLockError::Error(error)) => return Err(error),
                    Err(TryLockError::WouldBlock) => return Ok(None),
                },
            }
        }
        Ok(None)
    }

    /// Writes how long the lock stays taken at least, from now; survives our end, whatever it is.
    fn note(&self, mut file: &File) -> io::Result<()> {
        let grace = self.grace().as_millis();
        let until = u128::from(unix_milliseconds()) + grace;
        file.set_len(0)?;
        if grace > 0 { file.write_all(format!("{until} {grace}\n").as_bytes()) } else { Ok(()) }
    }

    fn grace(&self) -> Duration {
        self.config.grace.min(self.config.release)
    }
}

impl Store for LocalStore<'_> {
    fn acquire(&mut self) -> Result<bool, crate::Error> {
        let Some(file) = self.seize().map_err(self.failed("lock"))? else {
            self.story.tell(&Event::Held(self.token.as_bytes()));
            return Ok(false);
        };
        if grace_left(&file).map_err(self.failed("read"))?.is_some() {
            self.story.tell(&Event::Held(self.token.as_bytes()));
            return Ok(false);
        }
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

    fn give_back(&mut self) {
        // Should the grace stay in the file, it is over soon.
        if let Some(file) = self.held.take() {
            let _ = file.set_len(0);
        }
    }

    fn release(&mut self) {
        let released = match (self.held.take(), self.grace_end.remaining()) {
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
        let file = match open(&self.path, false) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Status::Free),
            opened => opened.map_err(self.failed("open"))?,
        };
        match file.try_lock_shared() {
            Ok(()) => {
                let grace = grace_left(&file).map_err(self.failed("read"))?;
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

/// Makes `folder` for us alone, or refuses one that another user could use against us.
fn secure(folder: &Path) -> Result<(), Error> {
    let failed = |what| move |error| Error::System(what, folder.to_owned(), error);
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed("make"))?;
    let found = folder.symlink_metadata().map_err(failed("look at"))?;
    if found.file_type().is_symlink() {
        return Err(Error::Unsafe(folder.to_owned(), "a symbolic link"));
    }
    if found.uid() != geteuid().as_raw() {
        return Err(Error::Unsafe(folder.to_owned(), "another user's"));
    }
    if found.mode() & 0o022 != 0 {
        return Err(Error::Unsafe(folder.to_owned(), "writable by others"));
    }
    // Who may write to a folder above it may put another in its place, unless the sticky bit forbids it.
    let real = folder.canonicalize().map_err(failed("look at"))?;
    let exposed = |path: &&Path| path.metadata().is_ok_and(|found| found.mode() & 0o1002 == 0o002);
    match real.ancestors().skip(1).find(exposed) {
        Some(above) => Err(Error::Unsafe(above.to_owned(), "writable by everybody")),
        None => Ok(()),
    }
}

fn open(path: &Path, create: bool) -> io::Result<File> {
    let flags = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or(0);
    OpenOptions::new().read(true).write(create).create(create).mode(0o600).custom_flags(flags).open(path)
}

/// Whether `file` is the one that stands at `path`.
fn is_at(file: &File, path: &Path) -> bool {
    let same = |a: &fs::Metadata, b: &fs::Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
    file.metadata().is_ok_and(|ours| path.symlink_metadata().is_ok_and(|theirs| same(&ours, &theirs)))
}

/// What is left of the grace that `file` notes. A clock that was set back by more than the grace ends it.
fn grace_left(mut file: &File) -> io::Result<Option<Duration>> {
    let mut text = String::new();
    file.rewind()?;
    if file.take(CONTENT_LIMIT).read_to_string(&mut text).is_err() {
        return Ok(None);
    }
    let parts =
        text.trim_end().split_once(' ').and_then(|(until, grace)| Some((until.parse().ok()?, grace.parse().ok()?)));
    let left = parts.map_or(0, |(until, grace): (u64, u64)| {
        Some(until.saturating_sub(unix_milliseconds())).filter(|left| *left <= grace).unwrap_or(0)
    });
    Ok(Some(Duration::from_millis(left)).filter(|left| !left.is_zero()))
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
        let file = |text: &str| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(text.as_bytes()).unwrap();
            file
        };
        let now = unix_milliseconds();
        assert!(grace_left(&file(&format!("{} 40000\n", now + 30_000))).unwrap().is_some());
        assert_eq!(grace_left(&file(&format!("{} 40000\n", now + 50_000))).unwrap(), None);
        assert_eq!(grace_left(&file(&format!("{} 40000\n", now - 1))).unwrap(), None);
        for nonsense in ["", "x", "1", "x y", "9999999999999999999999 1"] {
            assert_eq!(grace_left(&file(nonsense)).unwrap(), None);
        }
    }
}
