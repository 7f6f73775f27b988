//! The folder of the local locks. Only we and root may be able to put another in its place, because two jobs that look
//! for their lock in two folders run at the same time.

use crate::text::{Cause, Escaped, Line};
use crate::words;
use rustix::process::geteuid;
use std::ffi::OsStr;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// The path of `folder` without a slash or a dot at its end, which would hide that it is a symbolic link.
pub(super) fn plain(folder: &Path) -> PathBuf {
    let mut text = folder.as_os_str().as_bytes();
    while let Some(rest) = text.strip_suffix(b"/").or_else(|| text.strip_suffix(b"/.")) {
        text = rest;
    }
    Path::new(if text.is_empty() { OsStr::new("/") } else { OsStr::from_bytes(text) }).into()
}

/// Makes `folder` for us alone, if it is not there.
pub(super) fn make(folder: &Path) -> Result<(), Line> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|error| failed("make", folder, &error))?;
    secure(folder)
}

/// Refuses a `folder` that another user could use against us. One that is not there yet is judged by the folder that it
/// is made in.
pub(super) fn secure(folder: &Path) -> Result<(), Line> {
    if let Ok(found) = folder.symlink_metadata() {
        let why = match found.mode() {
            _ if found.is_symlink() => Some("a symbolic link"),
            _ if found.uid() != geteuid().as_raw() => Some("another user's"),
            mode if mode & 0o022 != 0 => Some("writable by others"),
            _ => None,
        };
        if let Some(why) = why {
            return Err(not_safe(folder, why));
        }
    }
    let there = folder.ancestors().find(|path| path.symlink_metadata().is_ok()).unwrap_or(folder);
    let real = there.canonicalize().map_err(|error| failed("look at", there, &error))?;
    there.ancestors().chain(real.ancestors()).try_for_each(trust)
}

/// Refuses a folder, or a symbolic link, on the way to ours that its owner could replace by another, or that anybody
/// could; the sticky bit forbids that.
fn trust(path: &Path) -> Result<(), Line> {
    let found = path.symlink_metadata().map_err(|error| failed("look at", path, &error))?;
    let why = match found.uid() {
        uid if uid != 0 && uid != geteuid().as_raw() => "another user's",
        _ if !found.is_symlink() && found.mode() & 0o1002 == 0o002 => "writable by everybody",
        _ => return Ok(()),
    };
    Err(not_safe(path, why))
}

fn not_safe(path: &Path, why: &'static str) -> Line {
    words!("not safe for local locks: {} is {}", Escaped::path(path), why)
}

/// That the system did not do `what` to the file at `path`.
pub(super) fn failed(what: &'static str, path: &Path, error: &io::Error) -> Line {
    words!("cannot {} {}: {}", what, Escaped::path(path), Cause(error))
}
