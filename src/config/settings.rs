//! Gathers the values of all settings from the options, the environment and the config file. The stronger source wins, in
//! this order, also between settings that exclude each other; an empty value unsets what a weaker source says.

use super::table::{FOREIGN, Id, Kind, LONGEST, PREFIX, Setting, TABLE, likely, slips};
use super::{file, url};
use crate::files::{self, BOM};
use crate::process::Variables;
use crate::text::{Cause, Escaped, Line};
use crate::words;
use lexopt::{Arg, Parser};
use std::ffi::{OsStr, OsString};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where cronlock looks too.
const DEFAULT_FILE: &str = "/etc/cronlock.conf";

/// The most that is read of a config file: enough for any, and little even of `/dev/zero`.
const FILE_LIMIT: u64 = 64 * 1024;

/// What is done with a lock, or with all of them, where no command is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum LockAction {
    Reset,
    Status,
    List,
    Metrics,
}

/// What is to be done, according to the options.
#[derive(Clone, Copy, Default)]
pub(super) enum Action {
    #[default]
    Run,
    Lock(LockAction),
    PrintKey,
    /// Of all settings, or of the common ones.
    Help(bool),
    Version,
}

/// The options that are not settings.
const ACTIONS: [(&str, Action); 6] = [
    ("help", Action::Help(false)),
    ("version", Action::Version),
    ("print-key", Action::PrintKey),
    ("status", Action::Lock(LockAction::Status)),
    ("list", Action::Lock(LockAction::List)),
    ("metrics", Action::Lock(LockAction::Metrics)),
];

/// Where a value was given; the stronger source is the larger one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Source {
    File,
    Environment,
    Option,
}

/// A value that was given.
struct Given {
    id: Id,
    value: Vec<u8>,
    source: Source,
    /// The setting in the form in which it was given, and where.
    place: Line,
    /// Whether a URL says it.
    by_url: bool,
}

/// The values of all settings that were given, with what else the command line says.
#[derive(Default)]
pub(super) struct Settings<'a> {
    pub(super) action: Action,
    /// The command and its arguments.
    pub(super) command: &'a [OsString],
    /// What VERBOSE tells of them.
    pub(super) notes: Vec<Line>,
    given: Vec<Given>,
}

impl<'a> Settings<'a> {
    /// Options up to the command; nothing counts after a call for help. After an unknown option that resembles a known
    /// one, the command is still looked for, so that the error can name it.
    pub(super) fn read_options(&mut self, args: &'a [OsString]) -> Result<(), Line> {
        let (mut parser, mut outcome) = (Parser::from_args(args), Ok(()));
        while let Some(arg) = parser.next().map_err(|error| usage(&error))? {
            match arg {
                Arg::Short('h') | Arg::Long("help") => {
                    let all = parser.optional_value().or_else(|| parser.try_raw_args()?.next_if(|word| word == "all"));
                    self.action = Action::Help(all.is_some_and(|word| word == "all"));
                    return Ok(());
                }
                Arg::Short('V') => self.action = Action::Version,
                Arg::Short('v') => self.put_option(Id::Verbose, b"yes"),
                Arg::Long(name) => {
                    if let Some((_, action)) = ACTIONS.iter().find(|(known, _)| *known == name) {
                        if !matches!(self.action, Action::Run) {
                            outcome = outcome.and(Err(words!("--{}: one action at a time", Escaped(name.as_bytes()))));
                        }
                        self.action = *action;
                        continue;
                    }
                    let mut id = Id::of_option(name.as_bytes());
                    if id.is_none() {
                        let (meant, why) = unknown_option(name);
                        (id, outcome) = (meant, outcome.and(Err(why)));
                    }
                    let Some(id) = id else { return outcome };
                    let value = match (id.row().kind, parser.optional_value()) {
                        (_, Some(value)) => value,
                        (Kind::Switch, None) => "yes".into(),
                        (_, None) => parser.value().map_err(|error| usage(&error))?,
                    };
                    self.put_option(id, value.as_bytes());
                }
                Arg::Short(_) => return outcome.and(Err(usage(&arg.unexpected()))),
                Arg::Value(_) => {
                    let behind = parser.raw_args().map_err(|error| usage(&error))?.as_slice().len();
                    self.command = &args[args.len() - behind - 1..];
                    return outcome;
                }
            }
        }
        outcome
    }

    /// Of two options the last counts.
    fn put_option(&mut self, id: Id, value: &[u8]) {
        let place = words!("--{}", Escaped(id.row().option().as_bytes()));
        self.put(Given { id, value: value.to_vec(), source: Source::Option, place, by_url: false });
    }

    fn put(&mut self, given: Given) {
        self.remove(given.id);
        self.given.push(given);
    }

    fn remove(&mut self, id: Id) {
        self.given.retain(|given| given.id != id);
    }

    /// The variables that are ours.
    pub(super) fn read_environment(&mut self, env: &Variables) -> Result<(), Line> {
        for (name, value) in env.iter() {
            if let Some(short) = name.strip_prefix(PREFIX.as_bytes()) {
                self.offer(short, value, Source::Environment, words!("{}", Escaped(name)))?;
            } else if let Some(meant) = meant_by(name, value) {
                return Err(words!("{}: no such setting; {}{}?", Escaped(name), PREFIX, meant));
            }
        }
        Ok(())
    }

    /// The file that was named must be there; the default one need not. A setting without its prefix is a slip; other names
    /// may be there for whoever else sources the file.
    pub(super) fn read_file(&mut self) -> Result<(), Line> {
        let named = self.path(Id::Config);
        let path = named.clone().unwrap_or_else(|| DEFAULT_FILE.into());
        let shown = Escaped::path(&path);
        let text = match files::read(&path, FILE_LIMIT) {
            Err(error) if error.kind() == ErrorKind::NotFound && named.is_none() => return Ok(()),
            read => read.map_err(|error| words!("CONFIG {}: {}", shown, Cause(&error)))?,
        };
        let text = text.strip_prefix(BOM).unwrap_or(&text);
        let bad = |line| words!("{}:{}: not a plain NAME=value (single quotes keep any value plain)", shown, line);
        // Of two assignments the later counts; backwards, it is offered first, and the first one offered is taken.
        for (line, name, value) in file::parse(text).map_err(bad)?.into_iter().rev() {
            let place = words!("{}:{}: {}", shown, line, Escaped(name));
            match name.strip_prefix(PREFIX.as_bytes()) {
                Some(b"CONFIG") => self.notes.push(words!("{}: a config file names no other, ignored", place)),
                Some(short) => self.offer(short, value, Source::File, place)?,
                None => {
                    let bare = Id::named(name).map(|id| id.row().name);
                    if let Some(meant) = bare.or_else(|| meant_by(name, value)) {
                        return Err(words!("{}: no such setting; {}{}?", place, PREFIX, meant));
                    }
                }
            }
        }
        Ok(())
    }

    /// Takes a value that counts less than those taken so far.
    fn offer(&mut self, short: &[u8], value: &[u8], source: Source, place: Line) -> Result<(), Line> {
        if let Some(id) = Id::named(short) {
            let holds_another = |rest: &[u8]| rest[0].is_ascii_whitespace() && rest[1..].starts_with(PREFIX.as_bytes());
            if value.windows(PREFIX.len() + 1).any(holds_another) {
                // A line of a crontab is one variable. What it holds may be a password.
                return Err(words!("{}: another setting stands in its value; each has a line of its own", place));
            }
            if self.slot(id).is_none() {
                self.put(Given { id, value: value.to_vec(), source, place, by_url: false });
            }
            return Ok(());
        }
        let is_named =
            |name: &str| short == name.as_bytes() || name.ends_with('_') && short.starts_with(name.as_bytes());
        if let Some((_, refused, why)) = FOREIGN.iter().find(|(name, ..)| is_named(name)) {
            let is_refused = !value.is_empty() && (refused.is_empty() || value == refused.as_bytes());
            if is_refused && !why.is_empty() {
                return Err(words!("{}: {}", place, *why));
            }
            self.notes.push(words!("{}: not needed, ignored", place));
            return Ok(());
        }
        Err(match likely(&short.to_ascii_uppercase(), TABLE.iter().map(|row| row.name)) {
            Some(name) => words!("{}: no such setting; {}{}?", place, PREFIX, name),
            None => words!("{}: no such setting; see golock --help all", place),
        })
    }

    fn slot(&self, id: Id) -> Option<&Given> {
        self.given.iter().find(|given| given.id == id)
    }

    /// An empty value is none.
    fn value(&self, id: Id) -> Option<&Given> {
        self.slot(id).filter(|given| !given.value.is_empty())
    }

    pub(super) fn has(&self, id: Id) -> bool {
        self.value(id).is_some()
    }

    pub(super) fn source(&self, id: Id) -> Option<Source> {
        self.value(id).map(|given| given.source)
    }

    pub(super) fn is_by_url(&self, id: Id) -> bool {
        self.slot(id).is_some_and(|given| given.by_url)
    }

    /// The settings that have a value from the command line.
    pub(super) fn options(&self) -> impl Iterator<Item = Id> {
        let is_option = |given: &&Given| given.source == Source::Option && !given.by_url && !given.value.is_empty();
        self.given.iter().filter(is_option).map(|given| given.id)
    }

    /// The setting in the form in which it was given, and where.
    pub(super) fn place(&self, id: Id) -> Line {
        self.slot(id).map_or_else(|| words!("{}{}", PREFIX, id.row().name), |given| given.place.clone())
    }

    /// `other` as it would be given where `id` was.
    pub(super) fn alike(&self, id: Id, other: Id) -> Line {
        match self.source(id) {
            Some(Source::Option) => words!("--{}", Escaped(other.row().option().as_bytes())),
            _ => words!("{}{}", PREFIX, other.row().name),
        }
    }

    /// The config file, if a secret stands in it.
    pub(super) fn secret_file(&self) -> Option<PathBuf> {
        let is_there = self.source(Id::Auth) == Some(Source::File);
        is_there.then(|| self.path(Id::Config).unwrap_or_else(|| DEFAULT_FILE.into()))
    }

    /// Of two settings that exclude each other, the weaker one counts as not given; equally strong, they are an error.
    pub(super) fn exclude(&mut self, one: Id, other: Id) -> Result<(), Line> {
        let (Some(first), Some(second)) = (self.source(one), self.source(other)) else { return Ok(()) };
        if first == second {
            return Err(words!("{} and {} exclude each other", self.place(one), self.place(other)));
        }
        self.remove(if first > second { other } else { one });
        Ok(())
    }

    /// Puts what a URL says in the place of the settings that it stands for. A stronger HOST is another server, for which
    /// nothing of the URL counts; any other stronger setting counts for this server.
    pub(super) fn read_url(&mut self) -> Result<(), Line> {
        self.exclude(Id::Url, Id::Host)?;
        let Some(source) = self.source(Id::Url) else { return Ok(()) };
        // A stronger one that is empty unsets HOST, and not the URL: what that says must not end up on this host.
        self.remove(Id::Host);
        for part in [Id::Port, Id::User, Id::Auth, Id::AuthFile, Id::Db, Id::Tls] {
            if self.source(part) <= Some(source) {
                self.exclude(Id::Url, part)?;
            }
        }
        let Some(url) = self.bytes(Id::Url) else { return Ok(()) };
        for (id, value) in url::parse(url).map_err(|why| self.invalid(Id::Url, why))? {
            if self.slot(id).is_none_or(|given| given.source <= source) {
                self.put(Given { id, value, source, place: self.place(Id::Url), by_url: true });
            }
        }
        Ok(())
    }

    /// Looks at all numbers, times and switches.
    pub(super) fn check_numbers(&self) -> Result<(), Line> {
        let is_bad = |row: &&Setting| self.value(row.id).is_some_and(|given| row.number(&given.value).is_none());
        let Some(row) = TABLE.iter().find(is_bad) else { return Ok(()) };
        let why = match row.kind {
            Kind::Switch => "neither yes nor no",
            Kind::Number(..) => "not a number",
            _ => "not a time in seconds, or as 90s, 5m, 1h30m or 2d,",
        };
        Err(self.invalid(row.id, why))
    }

    /// That the value given for `id` is `why`; it is shown unless it is a secret, or another setting may stand in it.
    pub(super) fn invalid(&self, id: Id, why: &'static str) -> Line {
        if id.row().kind == Kind::Secret || self.text(id).contains(&b'=') {
            return words!("{}: {}", self.place(id), why);
        }
        let range = match id.row().kind {
            Kind::Number(least, most) => words!(" from {} to {}", least, most),
            Kind::Time(least) => words!(" from {} s to {} days", least, LONGEST / 86400),
            _ => Line::default(),
        };
        words!("{}: \"{}\" is {}{}", self.place(id), Escaped(self.text(id)), why, range)
    }

    /// The value, or the default one.
    pub(super) fn text(&self, id: Id) -> &[u8] {
        self.bytes(id).unwrap_or(id.row().default.as_bytes())
    }

    /// The number; the table keeps it within `T`.
    pub(super) fn number<T: TryFrom<u64> + Default>(&self, id: Id) -> T {
        id.row().number(self.text(id)).and_then(|number| number.try_into().ok()).unwrap_or_default()
    }

    pub(super) fn seconds(&self, id: Id) -> Duration {
        Duration::from_secs(self.number(id))
    }

    /// A span that 0 turns off.
    pub(super) fn optional(&self, id: Id) -> Option<Duration> {
        Some(self.seconds(id)).filter(|span| !span.is_zero())
    }

    pub(super) fn switch(&self, id: Id) -> bool {
        self.number::<u64>(id) != 0
    }

    pub(super) fn bytes(&self, id: Id) -> Option<&[u8]> {
        self.value(id).map(|given| &given.value[..])
    }

    pub(super) fn path(&self, id: Id) -> Option<PathBuf> {
        self.bytes(id).map(|value| Path::new(OsStr::from_bytes(value)).into())
    }
}

/// The setting whose name stands behind what is almost our prefix, or behind golock's own name, if the value is one that it
/// takes: others have variables, too. KEY is what a job finds there.
fn meant_by(name: &[u8], value: &[u8]) -> Option<&'static str> {
    let is_meant = |row: &&Setting| {
        let Some(end) = name.len().checked_sub(row.name.len()) else { return false };
        if value.is_empty() || !name[end..].eq_ignore_ascii_case(row.name.as_bytes()) {
            return false;
        }
        let start = name[..end].strip_suffix(b"_").unwrap_or(&name[..end]).to_ascii_uppercase();
        let is_own = start == b"GOLOCK" && row.id != Id::Key;
        // CRON_LOCK_ may be anybody's.
        let is_slip = start.iter().all(u8::is_ascii_uppercase) && slips(&start, b"CRONLOCK", 1) <= 1;
        let is_url = || [&b"redis"[..], b"valkey"].iter().any(|scheme| value.starts_with(scheme));
        (is_own || is_slip) && row.number(value).is_some() && (row.id != Id::Url || is_url())
    };
    TABLE.iter().find(is_meant).map(|row| row.name)
}

/// The setting that the unknown option `name` resembles, so that its value can be skipped, and what is wrong.
fn unknown_option(name: &str) -> (Option<Id>, Line) {
    let options: Vec<_> = TABLE.iter().map(Setting::option).collect();
    let known = options.iter().map(String::as_str).chain(ACTIONS.iter().map(|(name, _)| *name));
    let shown = Escaped(name.as_bytes());
    match likely(name.as_bytes(), known) {
        Some(option) => {
            let why = words!("--{}: no such option; --{}?", shown, Escaped(option.as_bytes()));
            (Id::of_option(option.as_bytes()), why)
        }
        None => (None, words!("--{}: no such option; see golock --help", shown)),
    }
}

/// What is wrong with the command line. Lexopt's own words would show a value, which may be a password.
fn usage(error: &lexopt::Error) -> Line {
    let (option, why) = match error {
        lexopt::Error::MissingValue { option: Some(option) } => (option.as_str(), "its value is missing"),
        lexopt::Error::UnexpectedValue { option, .. } => (option.as_str(), "it takes no value"),
        lexopt::Error::UnexpectedOption(option) => (option.as_str(), "no such option"),
        _ => ("the options", "not understood"),
    };
    words!("{}: {}; see golock --help", Escaped(option.as_bytes()), why)
}
