//! The settings of one input: `ARGUMENTS^ENVIRONMENT^FILE`, a word or an assignment on each line.

use super::text_file::TextFile;
use golock::config::{Error, Id, Invocation, Kind, PREFIX};
use std::cell::RefCell;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// Stands in an input for a secret that nothing may repeat.
const SECRET: &[u8] = b"S3CRET";

thread_local! {
    static FILE: RefCell<TextFile> = RefCell::new(TextFile::new());
}

/// Arguments, environment and the text of the config file, if there is one.
#[derive(Default)]
pub(crate) struct Given<'a> {
    pub(crate) args: Vec<OsString>,
    pub(crate) env: Vec<(&'a [u8], &'a [u8])>,
    pub(crate) file: Option<&'a [u8]>,
}

impl<'a> Given<'a> {
    /// Reads an input. Another config file than that of the input is not to be named: it could be any on this host.
    pub(crate) fn read(input: &'a [u8]) -> Self {
        let mut parts = input.splitn(3, |&byte| byte == b'^');
        let mut lines = || lines(parts.next().unwrap_or_default());
        let args = lines().into_iter().map(until_nul).map(not_another_file).map(text).collect();
        let env = lines().into_iter().filter_map(assignment).map(|(name, value)| (until_nul(name), until_nul(value)));
        let env = env.filter(|(name, _)| !names(Id::Config, name)).collect();
        Self { args, env, file: parts.next() }
    }

    /// What golock makes of it.
    pub(crate) fn parse(&self) -> Result<Invocation<'_>, Error> {
        FILE.with_borrow_mut(|file| {
            file.write(self.file.unwrap_or_default());
            let config = self.file.map_or(OsStr::new("/dev/null"), |_| file.path().as_os_str());
            let env = self.env.iter().map(|&(name, value)| (text(name), text(value)));
            let env = env.chain([(format!("{PREFIX}CONFIG").into(), config.to_owned())]);
            Invocation::parse(&self.args, env)
        })
    }

    /// Line `number` of the file.
    pub(crate) fn line(&self, number: usize) -> Option<&'a [u8]> {
        self.file?.split(|&byte| byte == b'\n').nth(number.checked_sub(1)?)
    }

    /// Whether an argument can be the option of `id`.
    pub(crate) fn has_option(&self, id: Id) -> bool {
        let option = format!("--{}", id.row().option());
        let short = |arg: &[u8]| id == Id::Verbose && arg.starts_with(b"-") && arg.contains(&b'v');
        self.args.iter().map(|arg| arg.as_bytes()).any(|arg| arg.starts_with(option.as_bytes()) || short(arg))
    }

    /// Whether the environment has a value for `id`.
    pub(crate) fn has_variable(&self, id: Id) -> bool {
        self.env.iter().any(|(name, _)| names(id, name))
    }

    /// Whether `id` can come from anywhere.
    pub(crate) fn has(&self, id: Id) -> bool {
        let line = |text: &[u8]| text.windows(id.row().name.len()).any(|part| part == id.row().name.as_bytes());
        self.has_option(id) || self.has_variable(id) || self.file.is_some_and(line)
    }

    /// Whether the secret stands in it, and nowhere but in values that are secrets.
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
        let file = self.file.into_iter().flat_map(lines).map(|line| line.strip_prefix(b"export ").unwrap_or(line));
        for (name, value) in self.env.iter().copied().chain(file.map(|line| assignment(line).unwrap_or((line, b"")))) {
            found |= has_secret(value);
            if has_secret(name) || (has_secret(value) && !names(Id::Auth, name) && !names(Id::Url, name)) {
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

fn assignment(line: &[u8]) -> Option<(&[u8], &[u8])> {
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

fn is_secret_option(arg: &[u8]) -> bool {
    [&b"--auth"[..], b"--url"].iter().any(|option| arg == *option || arg.starts_with(&[option, &b"="[..]].concat()))
}
