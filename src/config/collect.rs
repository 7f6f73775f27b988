//! Gathers the values of all settings from the options, the environment and the config file.

use super::table::{Id, Kind, PREFIX};
use super::{Error, Mode, file, value};
use crate::lock::KeyFormat;
use lexopt::{Arg, Parser};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where cronlock looks too.
const DEFAULT_FILE: &str = "/etc/cronlock.conf";

/// The most that is read of a file of settings or of a password: enough for any, and little even of `/dev/zero`.
pub(super) const FILE_LIMIT: u64 = 64 * 1024;

/// What OpenSSL and Go take for a file of CAs, and where a user's files belong.
const HONOURED: [&str; 2] = ["SSL_CERT_FILE", "HOME"];

/// Where a value was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// On the command line.
    Option,
    /// In the environment.
    Environment,
    /// On this line of this file.
    File(PathBuf, usize),
}

/// The values of all settings that were given, with what else the command line says.
pub(super) struct Given {
    values: Vec<(Id, Vec<u8>, Source)>,
    pub(super) mode: Mode,
    pub(super) command: Vec<OsString>,
    /// Names that look like settings and are none.
    pub(super) unknown: Vec<Vec<u8>>,
    /// The variables of others that are honoured, and their values.
    variables: Vec<(OsString, OsString)>,
}

impl Given {
    /// From `args` without the program's name, and `env`, and the config file that they name.
    pub(super) fn collect(
        args: impl IntoIterator<Item = OsString>,
        env: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, Error> {
        let mut given = Self {
            mode: Mode::Run,
            values: Vec::new(),
            command: Vec::new(),
            unknown: Vec::new(),
            variables: Vec::new(),
        };
        given.read_options(Parser::from_args(args))?;
        if !matches!(given.mode, Mode::Help | Mode::HelpAll | Mode::Version) {
            for (name, value) in env {
                if HONOURED.iter().any(|honoured| name == *honoured) {
                    given.variables.push((name, value));
                } else {
                    given.offer(name.as_bytes(), value.into_vec(), Source::Environment)?;
                }
            }
            given.read_file()?;
        }
        Ok(given)
    }

    fn read_options(&mut self, mut parser: Parser) -> Result<(), Error> {
        let usage = |error: lexopt::Error| Error::Usage(error.to_string());
        while let Some(arg) = parser.next().map_err(usage)? {
            match arg {
                Arg::Short('h') | Arg::Long("help") => {
                    let all = parser.optional_value().or_else(|| parser.try_raw_args()?.next_if(|word| word == "all"));
                    self.mode = if all.is_some_and(|word| word == "all") { Mode::HelpAll } else { Mode::Help };
                    return Ok(());
                }
                Arg::Short('V') | Arg::Long("version") => self.mode = Mode::Version,
                Arg::Long("print-key") => self.mode = Mode::PrintKey,
                Arg::Long("status") => self.mode = Mode::Status,
                Arg::Short('v') => self.put(Id::Verbose, b"yes".to_vec(), Source::Option),
                Arg::Long(name) => {
                    let id = Id::of_option(name).ok_or_else(|| usage(arg.unexpected()))?;
                    let value = match (id.row().kind, parser.optional_value()) {
                        (_, Some(value)) => value,
                        (Kind::Switch, None) => "yes".into(),
                        (_, None) => parser.value().map_err(usage)?,
                    };
                    self.put(id, value.into_vec(), Source::Option);
                }
                Arg::Short(_) => return Err(usage(arg.unexpected())),
                Arg::Value(command) => {
                    self.command = vec![command];
                    self.command.extend(parser.raw_args().map_err(usage)?);
                }
            }
        }
        Ok(())
    }

    /// The file that was named must be there; the default one need not.
    fn read_file(&mut self) -> Result<(), Error> {
        let named = self.path(Id::Config);
        let path = named.clone().unwrap_or_else(|| DEFAULT_FILE.into());
        let text = match read_limited(&path, FILE_LIMIT) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && named.is_none() => return Ok(()),
            read => read.map_err(|error| Error::Unreadable(path.clone(), error))?,
        };
        let assignments = file::parse(&text).map_err(|line| Error::FileLine(path.clone(), line))?;
        // Of two assignments the later counts, and the first that is offered.
        for (line, name, value) in assignments.into_iter().rev() {
            self.offer(name, value, Source::File(path.clone(), line))?;
        }
        Ok(())
    }

    /// Takes a value that counts less than those taken so far.
    fn offer(&mut self, name: &[u8], value: Vec<u8>, source: Source) -> Result<(), Error> {
        let Some(short) = name.strip_prefix(PREFIX.as_bytes()) else { return Ok(()) };
        match Id::named(short) {
            Some(id) if self.slot(id).is_none() => self.put(id, value, source),
            Some(_) => {}
            // Cronlock would ask Sentinel for the server. To lock on another one would let the job run twice.
            None if short == b"USE_SENTINEL" && value == b"yes" => return Err(Error::Sentinel(source)),
            None => self.unknown.push(name.to_vec()),
        }
        Ok(())
    }

    /// An empty value is none.
    fn put(&mut self, id: Id, value: Vec<u8>, source: Source) {
        if !value.is_empty() {
            self.values.retain(|&(known, ..)| known != id);
            self.values.push((id, value, source));
        }
    }

    fn slot(&self, id: Id) -> Option<(&[u8], &Source)> {
        let (_, value, source) = self.values.iter().find(|&&(known, ..)| known == id)?;
        Some((value, source))
    }

    /// The settings that were given on the command line.
    pub(super) fn options(&self) -> impl Iterator<Item = Id> {
        self.values.iter().filter(|(.., source)| *source == Source::Option).map(|&(id, ..)| id)
    }

    /// The value of an honoured variable, unless it is empty.
    pub(super) fn variable(&self, name: &str) -> Option<&OsStr> {
        let (_, value) = self.variables.iter().find(|(known, value)| known == name && !value.is_empty())?;
        Some(value)
    }

    /// Whether a value was given.
    pub(super) fn has(&self, id: Id) -> bool {
        self.slot(id).is_some()
    }

    /// The value or the default, parsed; an error names the setting and, unless it is a secret, the value.
    fn parsed<T>(&self, id: Id, parse: impl FnOnce(&[u8]) -> Result<T, String>) -> Result<T, Error> {
        let (value, source) = match self.slot(id) {
            Some((value, source)) => (value, source.clone()),
            None => (id.row().default.as_bytes(), Source::Option),
        };
        let shown = (id.row().kind != Kind::Secret).then(|| value.to_vec());
        parse(value).map_err(|why| Error::Invalid(id, source, shown, why))
    }

    pub(super) fn number<T: TryFrom<u64>>(&self, id: Id, least: u64, most: u64) -> Result<T, Error> {
        let narrow = |n| T::try_from(n).map_err(|_| "too large".to_owned());
        self.parsed(id, |text| value::number(text, least, most).and_then(narrow))
    }

    pub(super) fn seconds(&self, id: Id, least: u64) -> Result<Duration, Error> {
        self.parsed(id, |text| value::seconds(text, least))
    }

    /// A span that 0 turns off, and that is otherwise at least `least` seconds.
    pub(super) fn optional(&self, id: Id, least: u64) -> Result<Option<Duration>, Error> {
        let parse = |text: &[u8]| match value::seconds(text, 0)? {
            Duration::ZERO => Ok(None),
            _ => value::seconds(text, least).map(Some),
        };
        self.parsed(id, parse)
    }

    pub(super) fn switch(&self, id: Id) -> Result<bool, Error> {
        self.parsed(id, value::switch)
    }

    pub(super) fn key_format(&self) -> Result<KeyFormat, Error> {
        self.parsed(Id::KeyFormat, |text| match text {
            b"cronlock" => Ok(KeyFormat::Cronlock),
            b"golock" => Ok(KeyFormat::Golock),
            _ => Err("neither cronlock nor golock".to_owned()),
        })
    }

    pub(super) fn utf8(&self, id: Id) -> Result<String, Error> {
        self.parsed(id, |text| String::from_utf8(text.to_vec()).map_err(|_| "not UTF-8".to_owned()))
    }

    pub(super) fn url(&self) -> Result<Option<super::url::Url>, Error> {
        if self.has(Id::Url) { self.parsed(Id::Url, super::url::parse).map(Some) } else { Ok(None) }
    }

    pub(super) fn bytes(&self, id: Id) -> Option<Vec<u8>> {
        self.slot(id).map(|(value, _)| value.to_vec())
    }

    pub(super) fn path(&self, id: Id) -> Option<PathBuf> {
        self.slot(id).map(|(value, _)| OsStr::from_bytes(value).into())
    }
}

/// Reads the file at `path`.
///
/// # Errors
/// Also when it has more than `limit` bytes.
pub fn read_limited(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let read = File::open(path)?.take(limit + 1).read_to_end(&mut text)?;
    if u64::try_from(read).is_ok_and(|read| read <= limit) { Ok(text) } else { Err(io::ErrorKind::FileTooLarge.into()) }
}
