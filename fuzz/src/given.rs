//! The settings of one input: `ARGUMENTS^ENVIRONMENT^FILE`, a word or an assignment on each line.

use super::text_file::TextFile;
use golock::config::{Error, Id, Invocation, Kind, PREFIX};
use golock::process::Variables;
use std::cell::RefCell;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// Stands in an input for a secret that nothing may repeat.
const SECRET: &[u8] = b"S3CRET";

/// A config file that is not there.
const ANOTHER_FILE: &str = "/dev/null/not/there";

thread_local! {
    static FILE: RefCell<TextFile> = RefCell::new(TextFile::new());
}

/// Arguments, environment and the text of the config file, if there is one.
#[derive(Default)]
pub(crate) struct Given {
    pub(crate) args: Vec<OsString>,
    pub(crate) env: Vec<(OsString, OsString)>,
    pub(crate) file: Option<Vec<u8>>,
}

impl Given {
    /// Reads an input. It cannot name another config file: that could be any on this host.
    pub(crate) fn read(input: &[u8]) -> Self {
        let mut parts = input.splitn(3, |&byte| byte == b'^');
        let mut lines = || lines(parts.next().unwrap_or_default());
        let args = lines().into_iter().map(until_nul).map(not_another_file).map(text).collect();
        let env = lines().into_iter().filter_map(assignment).map(|(name, value)| (until_nul(name), until_nul(value)));
        let env = env.filter(|(name, _)| !names(Id::Config, name)).map(|(name, value)| (text(name), text(value)));
        Self { args, env: env.collect(), file: parts.next().map(<[u8]>::to_vec) }
    }

    /// What golock makes of it.
    pub(crate) fn parse(&self) -> Result<Invocation<'_>, Error> {
        FILE.with_borrow_mut(|file| {
            file.write(self.file.as_deref().unwrap_or_default());
            let config = self.file.as_ref().map_or(OsStr::new("/dev/null"), |_| file.path().as_os_str());
            let config = (format!("{PREFIX}CONFIG").into(), config.to_owned());
            Invocation::parse(&self.args, &Variables::new(self.env.iter().cloned().chain([config])))
        })
    }

    /// The config files that a message can name.
    pub(crate) fn files() -> [String; 3] {
        let file = FILE.with_borrow(|file| file.path().display().to_string());
        [file, ANOTHER_FILE.to_owned(), "/dev/null".to_owned()]
    }

    /// The names and values in the file, by a glance at each line; an empty name where there is no assignment.
    pub(crate) fn file_lines(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let text = self.file.iter().map(|text| text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text));
        let lines = text.flat_map(|text| text.split(|&byte| byte == b'\n')).map(<[u8]>::trim_ascii);
        lines.map(|line| {
            let exported =
                line.strip_prefix(b"export").filter(|rest| rest.starts_with(b" ") || rest.starts_with(b"\t"));
            assignment(exported.unwrap_or(line).trim_ascii_start())
                .filter(|(name, _)| !name.is_empty())
                .unwrap_or((b"", line))
        })
    }

    /// Whether the secret stands in it, and nowhere but in values that are secrets, or of no setting.
    pub(crate) fn keeps_a_secret(&self) -> bool {
        let (mut found, mut before) = (false, None);
        for arg in self.args.iter().map(|arg| arg.as_bytes()) {
            // What follows an option that needs a value is its value, whatever it looks like.
            let secret = before.map_or_else(|| is_secret_option(arg), is_secret_option);
            found |= has_secret(arg);
            if has_secret(arg) && !secret {
                return false;
            }
            before = before.is_none().then_some(arg).filter(|arg| needs_value(arg));
        }
        let env = self.env.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        for (name, value) in env.chain(self.file_lines()) {
            found |= has_secret(value);
            if has_secret(name) || (has_secret(value) && is_shown(name, value)) {
                return false;
            }
        }
        found
    }
}

/// Whether the secret stands in `text`.
pub(crate) fn has_secret(text: &[u8]) -> bool {
    text.windows(SECRET.len()).any(|part| part == SECRET)
}

/// `bytes` as far as the system hands them over.
pub(crate) fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|&byte| byte == 0).next().unwrap_or_default()
}

/// `bytes` as the system hands them over.
pub(crate) fn text(bytes: &[u8]) -> OsString {
    OsStr::from_bytes(bytes).to_owned()
}

/// The lines of `text`, of which the first and the last may be left out if they are empty.
fn lines(text: &[u8]) -> Vec<&[u8]> {
    let text = text.strip_prefix(b"\n").unwrap_or(text);
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    if text.is_empty() { Vec::new() } else { text.split(|&byte| byte == b'\n').collect() }
}

/// The name and the value of an assignment.
pub(crate) fn assignment(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let equals = line.iter().position(|&byte| byte == b'=')?;
    Some((&line[..equals], &line[equals + 1..]))
}

/// Whether `name` is the variable of `id`.
fn names(id: Id, name: &[u8]) -> bool {
    name.strip_prefix(PREFIX.as_bytes()) == Some(id.row().name.as_bytes())
}

fn not_another_file(arg: &[u8]) -> &[u8] {
    let named = arg == b"--config" || arg.starts_with(b"--config=");
    if named { b"--config=/dev/null/not/there" } else { arg }
}

fn needs_value(arg: &[u8]) -> bool {
    let id = arg.strip_prefix(b"--").and_then(Id::of_option);
    id.is_some_and(|id| id.row().kind != Kind::Switch)
}

/// Whether a message may show the `value` of the variable `name`. A URL as HOST is a slip, which may hold a password.
fn is_shown(name: &[u8], value: &[u8]) -> bool {
    let id = name.strip_prefix(PREFIX.as_bytes()).and_then(Id::named);
    id.is_some_and(|id| id.row().kind != Kind::Secret && !(id == Id::Host && is_url(value)))
}

fn is_secret_option(arg: &[u8]) -> bool {
    let is_one = |option: &&[u8]| arg == *option || arg.starts_with(&[option, &b"="[..]].concat());
    [&b"--auth"[..], b"--url"].iter().any(is_one) || arg.strip_prefix(b"--host=").is_some_and(is_url)
}

/// Whether it may hold a password: a URL, or its part behind the scheme.
fn is_url(value: &[u8]) -> bool {
    value.windows(3).any(|part| part == b"://") || value.contains(&b'@')
}
