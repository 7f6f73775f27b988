use crate::text::{Escaped, Line};
use crate::words;
use rustix::fs::{Access, access};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Where execvp(3) looks without a PATH.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// Why a command cannot be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExecError {
    /// There is no such file.
    NotFound,
    /// There is something, but not a file that we may execute.
    NotExecutable,
}

impl ExecError {
    /// What the system's refusal to run a command says of it, as env(1) and timeout(1) judge; `None` if the system only
    /// lacks room for another process, or if the error is not the system's.
    pub fn of(error: &io::Error) -> Option<Self> {
        match error.raw_os_error().map(Errno::from_raw_os_error) {
            None | Some(Errno::AGAIN | Errno::NOMEM | Errno::MFILE | Errno::NFILE) => None,
            Some(Errno::NOENT) => Some(Self::NotFound),
            _ => Some(Self::NotExecutable),
        }
    }

    /// Why `command` cannot be run, with a hint at what was probably meant.
    pub fn words(self, command: &OsStr) -> Line {
        let line = first_word(command);
        let word = line.unwrap_or(command.as_bytes());
        let harmless = harmless(word);
        let (why, hint) = match (self, harmless) {
            (Self::NotFound, Some(part)) if part.ends_with(b"/") => ("not found", "; a server is named by --url URL"),
            (Self::NotFound, Some(_)) => ("not found", "; a variable is set by env NAME=VALUE COMMAND"),
            (Self::NotFound, None) if line.is_some() => ("not found", "; a shell's line is run by sh -c"),
            (Self::NotFound, None) => ("not found", ""),
            (Self::NotExecutable, _) => ("not executable", ""),
        };
        words!("{}: {}{}", Escaped(harmless.unwrap_or(word)), why, hint)
    }
}

/// The name and the equals sign, if `command` begins as the assignment of a variable does, or the scheme, if it is a URL:
/// what is behind may be a password.
fn harmless(command: &[u8]) -> Option<&[u8]> {
    let end = command.iter().position(|byte| !byte.is_ascii_alphanumeric() && *byte != b'_').filter(|end| *end > 0)?;
    let mark = [&b"="[..], b"://"].into_iter().find(|mark| command[end..].starts_with(mark))?;
    Some(&command[..end + mark.len()])
}

/// The first word of `command`, if it looks like a line for a shell and is no file: a password may follow.
fn first_word(command: &OsStr) -> Option<&[u8]> {
    let (bytes, is_end) = (command.as_bytes(), |byte: &u8| b" \t\n;|&<>$`(){}".contains(byte));
    let is_line = bytes.iter().any(is_end) && !Path::new(command).exists();
    bytes.split(is_end).find(|word| !word.is_empty()).filter(|_| is_line)
}

/// The base name of a command; of a line for a shell, that of its first word.
pub fn base_name(command: &OsStr) -> &[u8] {
    let path = first_word(command).unwrap_or(command.as_bytes());
    let base = path.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
    harmless(path).unwrap_or(base)
}

/// Finds `command` as execvp(3) does: in the folders of `path` unless it holds a slash; the first one that can be
/// executed.
pub fn find(command: &OsStr, path: Option<OsString>) -> Result<PathBuf, ExecError> {
    if command.as_bytes().contains(&b'/') {
        return judge(command.into());
    }
    let path = path.unwrap_or_else(|| DEFAULT_PATH.into());
    let mut worst = ExecError::NotFound;
    for folder in path.as_bytes().split(|&byte| byte == b':').filter(|_| !command.is_empty()) {
        // An empty folder is the present one; the slash keeps the candidate from being searched for again.
        let folder = if folder.is_empty() { Path::new(".") } else { Path::new(OsStr::from_bytes(folder)) };
        match judge(folder.join(command)) {
            Ok(found) => return Ok(found),
            Err(ExecError::NotExecutable) => worst = ExecError::NotExecutable,
            Err(ExecError::NotFound) => {}
        }
    }
    Err(worst)
}

fn judge(candidate: PathBuf) -> Result<PathBuf, ExecError> {
    match candidate.metadata() {
        Ok(found) if found.is_file() && access(&candidate, Access::EXEC_OK).is_ok() => Ok(candidate),
        Ok(_) => Err(ExecError::NotExecutable),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(ExecError::NotExecutable),
        Err(_) => Err(ExecError::NotFound),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_first_executable_file_on_the_path_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (folder.path().join("1"), folder.path().join("2"));
        for (place, mode) in [(&first, 0o644), (&second, 0o755)] {
            fs::create_dir(place).unwrap();
            fs::write(place.join("tool"), "").unwrap();
            fs::set_permissions(place.join("tool"), fs::Permissions::from_mode(mode)).unwrap();
        }
        let path = |folders: &[&Path]| std::env::join_paths(folders).ok();
        let tool = OsStr::new("tool");
        assert_eq!(find(tool, path(&[folder.path(), &first, &second])), Ok(second.join("tool")));
        assert_eq!(find(tool, path(&[folder.path(), &first])), Err(ExecError::NotExecutable));
        assert_eq!(find(tool, path(&[folder.path()])), Err(ExecError::NotFound));
        assert_eq!(
            find(OsStr::new("1"), path(&[folder.path()])),
            Err(ExecError::NotExecutable),
            "a folder is no command"
        );
        assert_eq!(find(second.join("tool").as_os_str(), None), Ok(second.join("tool")));
        assert_eq!(find(OsStr::new(""), path(&[&second])), Err(ExecError::NotFound));
        assert!(find(OsStr::new("sh"), None).is_ok());
    }
}
