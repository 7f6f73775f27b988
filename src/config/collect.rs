//! Gathers the values of all settings from the options, the environment and the config file.

use super::table::{IDS, Id, Kind, PREFIX, TABLE};
use super::url::{self, Url};
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
#[derive(Default)]
pub(super) struct Given<'a> {
    pub(super) mode: Mode,
    /// The command and its arguments.
    pub(super) command: &'a [OsString],
    /// Names that look like settings and are none.
    pub(super) unknown: Vec<Vec<u8>>,
    values: Vec<(Id, Vec<u8>, Source)>,
    /// What the numbers, times and switches say, given or by default, in the order of the table.
    numbers: Vec<u64>,
    /// The variables of others that are honoured, and their values.
    variables: Vec<(OsString, OsString)>,
}

impl<'a> Given<'a> {
    /// From `args` without the program's name, and `env`, and the config file that they name.
    pub(super) fn collect(
        args: &'a [OsString],
        env: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, Error> {
        let mut given = Self::default();
        given.read_options(args)?;
        if !matches!(given.mode, Mode::Help | Mode::HelpAll | Mode::Version) {
            for (name, value) in env {
                if HONOURED.iter().any(|honoured| name == *honoured) {
                    given.variables.push((name, value));
                } else {
                    given.offer(name.as_bytes(), value.into_vec(), Source::Environment)?;
                }
            }
            given.read_file()?;
            given.read_numbers()?;
        }
        Ok(given)
    }

    /// Options up to the command; nothing counts behind a call for help.
    fn read_options(&mut self, args: &'a [OsString]) -> Result<(), Error> {
        let mut parser = Parser::from_args(args);
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
                    let id = Id::of_option(name.as_bytes()).ok_or_else(|| usage(arg.unexpected()))?;
                    let value = match (id.row().kind, parser.optional_value()) {
                        (_, Some(value)) => value,
                        (Kind::Switch, None) => "yes".into(),
                        (_, None) => parser.value().map_err(usage)?,
                    };
                    self.put(id, value.into_vec(), Source::Option);
                }
                Arg::Short(_) => return Err(usage(arg.unexpected())),
                Arg::Value(_) => {
                    let behind = parser.raw_args().map_err(usage)?.as_slice().len();
                    self.command = &args[args.len() - behind - 1..];
                    return Ok(());
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

    /// An error names the setting and the value.
    fn read_numbers(&mut self) -> Result<(), Error> {
        self.numbers.reserve_exact(TABLE.len());
        for (setting, &id) in TABLE.iter().zip(IDS) {
            let given = self.slot(id).map_or(setting.default.as_bytes(), |(value, _)| value);
            let Some(number) = value::read(setting, given) else {
                return Err(self.invalid(
                    id,
                    match setting.kind {
                        Kind::Number(..) => "not a number",
                        Kind::Switch => "neither yes nor no",
                        _ => "not a time in seconds, or as 5m, 2h or 1d,",
                    },
                ));
            };
            self.numbers.push(number);
        }
        Ok(())
    }

    /// The error that the value given for `id` is `why`; it shows the value unless that is a secret.
    fn invalid(&self, id: Id, why: &'static str) -> Error {
        let (value, source) = self.slot(id).unwrap_or((b"", &Source::Option));
        Error::Invalid(id, source.clone(), (id.row().kind != Kind::Secret).then(|| value.to_vec()), why)
    }

    fn value(&self, id: Id) -> u64 {
        self.numbers[id.index()]
    }

    /// The number; the table keeps it within `T`.
    pub(super) fn number<T: TryFrom<u64> + Default>(&self, id: Id) -> T {
        self.value(id).try_into().unwrap_or_default()
    }

    pub(super) fn seconds(&self, id: Id) -> Duration {
        Duration::from_secs(self.value(id))
    }

    /// A span that 0 turns off.
    pub(super) fn optional(&self, id: Id) -> Option<Duration> {
        Some(self.seconds(id)).filter(|span| !span.is_zero())
    }

    pub(super) fn switch(&self, id: Id) -> bool {
        self.value(id) != 0
    }

    pub(super) fn key_format(&self) -> Result<KeyFormat, Error> {
        match self.slot(Id::KeyFormat).map(|(value, _)| value) {
            None | Some(b"cronlock") => Ok(KeyFormat::Cronlock),
            Some(b"golock") => Ok(KeyFormat::Golock),
            _ => Err(self.invalid(Id::KeyFormat, "neither cronlock nor golock")),
        }
    }

    /// The host, without the brackets that an IPv6 address may have.
    pub(super) fn host(&self) -> Result<String, Error> {
        let given = self.slot(Id::Host).map_or(Id::Host.row().default.as_bytes(), |(value, _)| value);
        let bare = given.strip_prefix(b"[").and_then(|rest| rest.strip_suffix(b"]")).unwrap_or(given);
        String::from_utf8(bare.to_vec()).map_err(|_| self.invalid(Id::Host, "not UTF-8"))
    }

    pub(super) fn url(&self) -> Result<Option<Url>, Error> {
        let parsed = self.slot(Id::Url).map(|(value, _)| url::parse(value)).transpose();
        parsed.map_err(|why| self.invalid(Id::Url, why))
    }

    pub(super) fn bytes(&self, id: Id) -> Option<Vec<u8>> {
        self.slot(id).map(|(value, _)| value.to_vec())
    }

    pub(super) fn path(&self, id: Id) -> Option<PathBuf> {
        self.slot(id).map(|(value, _)| OsStr::from_bytes(value).into())
    }
}

/// What is wrong with the command line. Lexopt's own words would show a value, which may be a password.
fn usage(error: lexopt::Error) -> Error {
    match error {
        lexopt::Error::MissingValue { option } => Error::Usage(option.unwrap_or_default(), "its value is missing"),
        lexopt::Error::UnexpectedValue { option, .. } => Error::Usage(option, "it takes no value"),
        lexopt::Error::UnexpectedOption(option) => Error::Usage(option, "no such option"),
        _ => Error::Usage(String::new(), "not understood"),
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
