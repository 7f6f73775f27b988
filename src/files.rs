//! Files that the settings name: read up to a limit, and read again when they are needed.

use crate::text::{Cause, Escaped, Line};
use crate::words;
use rustix::fs::OFlags;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The byte order mark that some editors put in front of a text.
pub const BOM: &[u8] = b"\xef\xbb\xbf";

/// The content of the file at `path`, of any kind: a pipe is read to its end.
pub fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    read_whole(File::open(path)?, limit)
}

fn read_whole(file: File, limit: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    let read = file.take(limit + 1).read_to_end(&mut content)?;
    if u64::try_from(read).is_ok_and(|read| read <= limit) { Ok(content) } else { Err(ErrorKind::FileTooLarge.into()) }
}

/// A file that may be replaced while golock runs, such as a password or a certificate.
#[derive(Debug)]
pub struct Fresh {
    /// The setting that names it.
    name: &'static str,
    path: PathBuf,
    /// What was read last.
    pub content: Vec<u8>,
    limit: u64,
}

impl Fresh {
    /// Reads the file at `path`, of at most `limit` bytes. For a pipe this may wait, and it is the only time that it is
    /// read; so it comes before signals are caught. The words say why it is of no use.
    pub fn read(name: &'static str, path: &Path, limit: u64) -> Result<Self, Line> {
        let content =
            read(path, limit).map_err(|error| words!("{} {}: {}", name, Escaped::path(path), Cause(&error)))?;
        let file = Self { name, path: path.into(), content, limit };
        if file.content.is_empty() { Err(words!("{}: it is empty", file.shown())) } else { Ok(file) }
    }

    /// Its setting and where it is.
    pub fn shown(&self) -> Line {
        words!("{} {}", self.name, Escaped::path(&self.path))
    }

    /// What it holds now, if that can be read without waiting, is not empty, and differs from what was read last.
    pub fn changed(&self) -> Option<Vec<u8>> {
        let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
        let file = OpenOptions::new().read(true).custom_flags(flags).open(&self.path).ok()?;
        file.metadata().ok().filter(std::fs::Metadata::is_file)?;
        read_whole(file, self.limit).ok().filter(|content| !content.is_empty() && *content != self.content)
    }

    /// The same file as it is now.
    #[must_use]
    pub fn renewed(&self) -> Self {
        let content = self.changed().unwrap_or_else(|| self.content.clone());
        Self { name: self.name, path: self.path.clone(), limit: self.limit, content }
    }
}

/// Whether everybody on this host can read the file at `path`.
pub fn is_world_readable(path: &Path) -> bool {
    let has = |path: &Path, right| path.metadata().is_ok_and(|found| found.mode() & right != 0);
    let real = path.canonicalize().unwrap_or_default();
    real.is_file() && has(&real, 0o004) && real.ancestors().skip(1).all(|folder| has(folder, 0o001))
}
