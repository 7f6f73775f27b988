//! The file of a local lock: the kernel's lock on it says who holds it, and its content says until when it stays taken
//! after that, and who ran under it.

use crate::clock::{random, unix_milliseconds};
use crate::lock::{LIST_LIMIT, Record, Token};
use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The most that the file of a lock holds.
const LIMIT: usize = 4096;

/// What a lock's file says in two lines: `GRACE-END GRACE TOKEN KEPT-UNTIL`, times in milliseconds, and the record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Content {
    /// When the grace ends, and how long it is: a clock that was set back by more than that ends it.
    pub(super) grace: (u64, u64),
    pub(super) token: Vec<u8>,
    /// Until when the file is kept for its record's sake.
    pub(super) kept_until: u64,
    pub(super) record: Option<Record>,
}

impl Content {
    /// Reads `text`; `None` if it is not that of a lock's file. A crash leaves any part of one, or zeros instead.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let mut lines = text.split_inclusive(|&byte| byte == b'\n');
        let (first, second) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
        if text.len() > LIMIT || !first.iter().all(|byte| matches!(byte, b'0'..=b'9' | b' ' | b'\n' | 0)) {
            return None;
        }
        // Without its end, a line may be part of another one.
        let mut words = first.strip_suffix(b"\n").unwrap_or_default().split(|&byte| byte == b' ');
        let mut word = || words.next().unwrap_or_default();
        let (grace, token) = ((number(word()), number(word())), word().into());
        let (kept_until, record) = (number(word()), second.strip_suffix(b"\n").and_then(Record::parse));
        Some(Self { grace, token, kept_until, record })
    }

    pub(super) fn text(&self) -> Vec<u8> {
        let ((until, length), kept_until) = (self.grace, self.kept_until);
        let record = self.record.as_ref().map_or(&b""[..], Record::line);
        let start = format!("{until} {length} ");
        [start.as_bytes(), &self.token, format!(" {kept_until}\n").as_bytes(), record, b"\n"].concat()
    }

    /// The milliseconds that are left of the grace.
    pub(super) fn grace_left(&self) -> Option<u64> {
        let (until, length) = self.grace;
        until.checked_sub(unix_milliseconds()).filter(|left| *left > 0 && *left <= length)
    }

    /// Whether a golock has written it, and nobody else a number or two, or nothing.
    fn is_ours(&self) -> bool {
        self.token.len() == Token::DIGITS
    }

    /// Whether the file is still needed.
    pub(super) fn is_needed(&self) -> bool {
        self.grace_left().is_some() || self.kept_until > unix_milliseconds()
    }
}

fn number(digits: &[u8]) -> u64 {
    std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

/// Opens the file at `path`. That never waits, and follows no symbolic link. `InvalidData` if it is not a plain file.
pub(super) fn open(path: &Path, create: bool) -> io::Result<File> {
    let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits()).unwrap_or(0);
    let mut options = OpenOptions::new();
    let file = options.read(true).write(create).create(create).mode(0o600).custom_flags(flags).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(ErrorKind::InvalidData.into()) }
}

/// Locks `file` as `how` says; false if another's lock forbids it.
pub(super) fn lock(file: &File, how: FlockOperation) -> io::Result<bool> {
    match flock(file, how) {
        Err(Errno::WOULDBLOCK) => Ok(false),
        locked => Ok(locked.map(|()| true)?),
    }
}

/// What `file` says; `InvalidData` if it is not a lock's.
pub(super) fn read(file: &File) -> io::Result<Content> {
    let mut text = vec![0; LIMIT + 1];
    let length = file.read_at(&mut text, 0)?;
    Content::parse(&text[..length]).ok_or(ErrorKind::InvalidData.into())
}

/// Writes `content` over what `file` says: a crash in between leaves the new first line, or the old one.
pub(super) fn write(file: &File, content: &Content) -> io::Result<()> {
    let text = content.text();
    file.write_all_at(&text, 0)?;
    file.set_len(u64::try_from(text.len()).unwrap_or(u64::MAX))
}

/// Whether `file` is the one that stands at `path`. A reset may have deleted it, and another may hold the next one.
pub(super) fn is_at(file: &File, path: &Path) -> bool {
    let (ours, theirs) = (file.metadata(), path.symlink_metadata());
    ours.is_ok_and(|ours| theirs.is_ok_and(|theirs| (ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino())))
}

/// Whoever deletes or replaces has a lock on the folder, so that it does so to what it has looked at. `WouldBlock` if
/// another is about to.
fn guard(path: &Path) -> io::Result<File> {
    let folder = File::open(path.parent().unwrap_or(path))?;
    if lock(&folder, FlockOperation::NonBlockingLockExclusive)? {
        Ok(folder)
    } else {
        Err(ErrorKind::WouldBlock.into())
    }
}

/// Puts a new file, which nobody has locked, in the place of the one at `path`, with its record if it has one; whether there
/// was one. Where that is impossible, it only deletes.
pub(super) fn reset(path: &Path) -> io::Result<bool> {
    let _folder = guard(path)?;
    let known = open(path, false).and_then(|file| read(&file)).ok().filter(|content| content.record.is_some());
    // A lock's file cannot begin with a dot.
    let new = path.with_file_name(".new");
    let replace = |content| write(&open(&new, true)?, &content).and_then(|()| fs::rename(&new, path));
    if known.is_some_and(|content| replace(Content { grace: (0, 0), ..content }).is_ok()) {
        return Ok(true);
    }
    let _ = fs::remove_file(&new);
    match fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        removed => removed.map(|()| true),
    }
}

/// Deletes `file` if it stands at `path`.
pub(super) fn remove(file: &File, path: &Path) -> io::Result<()> {
    let _folder = guard(path)?;
    if is_at(file, path) { fs::remove_file(path) } else { Ok(()) }
}

/// What is in `folder`, but not more than is listed.
pub(super) fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    Ok(fs::read_dir(folder)?.take(LIST_LIMIT).flatten().map(|entry| entry.path()).collect())
}

/// Deletes the files of golock's in `folder` that are no longer needed, looking at `most` of them from any on. Whoever has one of them
/// open checks, after locking it, that it still stands there; who finds it shared, as here, tries again and does not skip.
pub(super) fn sweep(folder: &Path, most: usize) {
    let mut files = files(folder).unwrap_or_default();
    let start = usize::try_from(random() >> 33).unwrap_or(0) % files.len().max(1);
    files.rotate_left(start);
    for path in files.into_iter().take(most) {
        if let Ok(file) = open(&path, false)
            && lock(&file, FlockOperation::NonBlockingLockShared).is_ok_and(|shared| shared)
            && read(&file).is_ok_and(|content| content.is_ours() && !content.is_needed())
        {
            let _ = remove(&file, &path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(grace: (u64, u64)) -> Content {
        Content { grace, token: b"1234567890123456789".to_vec(), kept_until: 7, record: None }
    }

    #[test]
    fn what_is_written_is_read() {
        let run = crate::lock::Run { host: b"h".to_vec(), pid: 1, program: b"p q".to_vec() };
        let record = Some(Record::begin(None, &run, 1000));
        for written in [content((1, 2)), Content { record, ..content((0, 0)) }] {
            assert_eq!(Content::parse(&written.text()), Some(written));
        }
    }

    #[test]
    fn the_grace_ends_also_when_the_clock_is_set_back() {
        let now = unix_milliseconds();
        assert!(content((now + 30_000, 40_000)).grace_left().is_some());
        for over in [(now + 50_000, 40_000), (now - 1, 40_000)] {
            assert_eq!(content(over).grace_left(), None);
        }
    }

    #[test]
    fn parts_of_a_lock_are_free_and_anything_else_is_not_a_lock() {
        for part in ["", "1", "4102444800000", "4102444800000 41024448", "\0\0\0\0", " \n", "1 2 3 4\nfence=1 ho"] {
            let content = Content::parse(part.as_bytes()).expect(part);
            assert_eq!((content.grace_left(), content.record), (None, None), "{part}");
        }
        for foreign in ["x", "1 x\n", "-1 1\n", "{}", &"1".repeat(5000)] {
            assert_eq!(Content::parse(foreign.as_bytes()), None, "{foreign}");
        }
    }
}
