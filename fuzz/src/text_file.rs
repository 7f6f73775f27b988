//! Files for the product to read: without a name, so that nothing is left behind, whatever ends us.

use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

/// A file that is written anew for each input.
pub(crate) struct TextFile {
    file: File,
    path: PathBuf,
}

impl TextFile {
    /// An empty file.
    pub(crate) fn new() -> Self {
        let in_memory = tempfile::tempfile_in("/dev/shm");
        let file = in_memory.or_else(|_| tempfile::tempfile()).expect("a temporary file");
        let path = format!("/dev/fd/{}", file.as_raw_fd()).into();
        Self { file, path }
    }

    /// Where it is, for this process.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Puts `text` in the place of what it held.
    pub(crate) fn write(&mut self, text: &[u8]) {
        self.file.set_len(0).expect("an empty file");
        self.file.rewind().expect("the start of the file");
        self.file.write_all(text).expect("space for the file");
        self.file.rewind().expect("the start of the file");
    }
}
