//! Settings: `ARGUMENTS^ENVIRONMENT^FILE`; or `=NAME`, and on lines of their own its value as an option, in the
//! environment and in the file; or `@USER`, and on lines of their own password, host, port and database of a URL.

use super::given::{Given, has_secret, text, until_nul};
use golock::config::{Config, Error, Id, Invocation, Kind, PREFIX, Source};
use golock::net::Endpoint;
use std::ffi::OsStr;
use std::time::Duration;

/// The longest span and the longest wait for Redis that the README allows, in seconds.
const LONGEST: u64 = 1_000_000_000;

/// Makes an invocation of any settings.
pub fn config(input: &[u8]) {
    match input.split_first() {
        Some((b'=', text)) => precedence(text),
        Some((b'@', text)) => url(text),
        _ => anything(&Given::read(input)),
    }
}

/// What is accepted is within its range, what is not is named, and secrets are kept.
fn anything(given: &Given<'_>) {
    match given.parse() {
        Ok(invocation) => invocation_config(&invocation).into_iter().for_each(assert_within_range),
        Err(error) => {
            let message = error.to_string();
            assert_named(&error, &message, given);
            assert!(!given.keeps_a_secret() || !has_secret(message.as_bytes()), "a secret is repeated: {message}");
        }
    }
}

fn invocation_config<'i>(invocation: &'i Invocation<'_>) -> Option<&'i Config> {
    match invocation {
        Invocation::Run(config, _)
        | Invocation::Reset(config)
        | Invocation::Status(config)
        | Invocation::PrintKey(config) => Some(config),
        Invocation::Help(_) | Invocation::Version => None,
    }
}

fn assert_within_range(config: &Config) {
    let spans = |least| Duration::from_secs(least)..=Duration::from_secs(LONGEST);
    assert!([config.retry.timeout, config.release].iter().all(|span| spans(1).contains(span)));
    assert!([config.retry.backoff, config.grace, config.wait].iter().all(|span| spans(0).contains(span)));
    assert!(config.retry.attempts <= 1_000_000);
    assert!(config.lease.is_none_or(|lease| spans(3).contains(&lease)));
    assert!([config.limits.timeout, config.limits.kill_after].iter().flatten().all(|span| spans(1).contains(span)));
    assert!(config.server.login.database <= 2_147_483_647);
    assert!(config.server.login.user.is_none() || config.server.login.password.is_some() || config.auth_file.is_some());
    match &config.server.endpoint {
        Endpoint::Tcp(_, port) => assert_ne!(*port, 0),
        Endpoint::Unix(path) => assert!(path.is_absolute()),
    }
}

/// The message of `error` names what was given, where it was given.
fn assert_named(error: &Error, message: &str, given: &Given<'_>) {
    let name = |id: Id| format!("{PREFIX}{}", id.row().name);
    let (named, was_given) = match error {
        Error::Usage(option, _) => (plain_start(option), given.args.iter().any(|arg| is_part(option, arg))),
        Error::NoCommand => ("no command".to_owned(), true),
        Error::Invalid(id, Source::Option, ..) | Error::LocalWith(id) => {
            (format!("--{}", id.row().option()), given.has_option(*id))
        }
        Error::Invalid(id, Source::Environment, ..) => (name(*id), given.has_variable(*id)),
        Error::Invalid(id, Source::File(path, number), ..) => {
            let line = given.line(*number).unwrap_or_default();
            let has_name = line.windows(name(*id).len()).any(|part| part == name(*id).as_bytes());
            (format!("{}:{number}: {}", path.display(), name(*id)), has_name)
        }
        Error::Conflict(one, other) => {
            (format!("{} and {}", name(*one), name(*other)), given.has(*one) && given.has(*other))
        }
        Error::Needs(one, other) => (format!("{} needs {}", name(*one), name(*other)), given.has(*one)),
        Error::FileLine(path, number) => {
            let is_bad = |line: &[u8]| !line.trim_ascii().is_empty() && !line.trim_ascii().starts_with(b"#");
            (format!("{}:{number}: ", path.display()), given.line(*number).is_some_and(is_bad))
        }
        Error::Unreadable(path, _) => (path.display().to_string(), true),
        Error::Sentinel(_) => ("CRONLOCK_USE_SENTINEL".to_owned(), true),
        Error::SocketTls => (name(Id::Tls), given.has(Id::Host) && given.has(Id::Tls)),
    };
    assert!(message.contains(&named), "{named:?} is not named: {message}");
    assert!(was_given, "{named:?} was not given: {message}");
}

/// What of `option` is shown as it is.
fn plain_start(option: &str) -> String {
    option.chars().take_while(|letter| matches!(letter, ' '..='~')).take(100).collect()
}

/// Whether `option`, as lexopt tells it, stands in `arg`.
fn is_part(option: &str, arg: &OsStr) -> bool {
    let letters = option.strip_prefix('-').filter(|rest| rest.chars().count() == 1);
    arg.to_string_lossy().contains(letters.unwrap_or(option))
}

/// The option counts more than the environment, and that more than the file; an empty value is none.
fn precedence(input: &[u8]) {
    let mut lines = input.split(|&byte| byte == b'\n').map(until_nul);
    let Some(id) = lines.next().and_then(Id::named).filter(|&id| id != Id::Config) else { return };
    let [option, variable, line] = [(); 3].map(|()| lines.next().unwrap_or_default());
    if line.contains(&b'\'') {
        return;
    }
    let winner = [option, variable, line].into_iter().find(|value| !value.is_empty()).unwrap_or_default();
    let name = format!("{PREFIX}{}", id.row().name);
    let as_option = |value: &[u8]| [b"--", id.row().option().as_bytes(), b"=", value].concat();
    let (given, alone) = (as_option(option), as_option(winner));
    let file = [name.as_bytes(), b"='", line, b"'\n"].concat();
    let args = |option: &[u8]| [b"--print-key", option, b"true"].map(text).to_vec();
    let all = Given { args: args(&given), env: vec![(name.as_bytes(), variable)], file: Some(&file) };
    let alone = Given { args: args(&alone), ..Given::default() };
    let alone = alone.parse();
    assert_same(&all.parse(), &alone);
    if matches!(id.row().kind, Kind::Time(_)) {
        let value = if winner.is_empty() { id.row().default.as_bytes() } else { winner };
        assert_eq!(time_of(id, &alone), expected_time(id, value), "{}", value.escape_ascii());
    }
}

/// Both are the same but for the place of an error.
fn assert_same(one: &Result<Invocation<'_>, Error>, other: &Result<Invocation<'_>, Error>) {
    match (one, other) {
        (Err(Error::Invalid(id, _, value, why)), Err(Error::Invalid(other_id, _, other_value, other_why))) => {
            assert_eq!((id, value, why), (other_id, other_value, other_why));
        }
        _ => assert_eq!(format!("{one:?}"), format!("{other:?}")),
    }
}

/// What the setting `id`, a span, has come to; zero if it is off.
fn time_of(id: Id, made: &Result<Invocation<'_>, Error>) -> Option<Duration> {
    let config = invocation_config(made.as_ref().ok()?)?;
    let (retry, limits) = (config.retry, config.limits);
    Some(match id {
        Id::RedisTimeout => retry.timeout,
        Id::Backoff => retry.backoff,
        Id::Grace => config.grace,
        Id::Release => config.release,
        Id::Timeout => limits.timeout.unwrap_or_default(),
        Id::KillAfter => limits.kill_after.unwrap_or_default(),
        Id::Lease => config.lease.unwrap_or_default(),
        Id::Wait => config.wait,
        _ => panic!("{id:?} is not known to this check"),
    })
}

/// The README's rules once more: digits with an optional unit, within a range.
fn expected_time(id: Id, value: &[u8]) -> Option<Duration> {
    let text = str::from_utf8(value).ok()?;
    let digits = text.trim_end_matches(|unit: char| !unit.is_ascii_digit());
    let unit = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        _ => return None,
    };
    let is_plain = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
    let number: u128 = digits.parse().ok().filter(|_| is_plain)?;
    let seconds = u64::try_from(number.checked_mul(unit)?).ok().filter(|&seconds| seconds <= LONGEST)?;
    let (least, zero_is_off) = match id {
        Id::RedisTimeout | Id::Release => (1, false),
        Id::Lease => (3, true),
        _ => (0, false),
    };
    ((zero_is_off && seconds == 0) || seconds >= least).then(|| Duration::from_secs(seconds))
}

/// A URL made of its parts gives the same parts.
fn url(input: &[u8]) {
    let mut lines = input.split(|&byte| byte == b'\n');
    let [user, password, host] = [(); 3].map(|()| lines.next().unwrap_or_default());
    let mut number = || str::from_utf8(lines.next().unwrap_or_default()).ok().and_then(|text| text.parse::<u32>().ok());
    let (port, database) = (number().unwrap_or(6379), number().unwrap_or_default());
    let authority = [&encoded(user)[..], ":", &encoded(password), "@", &encoded(host)].concat();
    let url = format!("redis://{authority}:{port}/{database}");
    let args = [&b"--status"[..], b"--key=k", b"--url", url.as_bytes()].map(text).to_vec();
    let given = Given { args, ..Given::default() };
    let made = given.parse();
    let port = u16::try_from(port).unwrap_or_default();
    let is_fit = str::from_utf8(host).is_ok_and(|host| !host.is_empty()) && port != 0 && database <= 2_147_483_647;
    let without_password = !user.is_empty() && password.is_empty();
    if !is_fit || without_password || [user, password, host].iter().any(|part| part.contains(&0)) {
        assert!(matches!(made, Err(Error::Invalid(Id::Url, ..))), "{url} gave {made:?}");
        return;
    }
    let Ok(Invocation::Status(config)) = made else { panic!("{url} gave {made:?}") };
    let server = config.server;
    assert_eq!(server.endpoint, Endpoint::Tcp(String::from_utf8_lossy(host).into_owned(), port), "{url}");
    let some = |part: &[u8]| (!part.is_empty()).then(|| part.to_vec());
    assert_eq!((server.login.user, server.login.password), (some(user), some(password)), "{url}");
    assert_eq!(server.login.database, database, "{url}");
}

/// `part` in percent-encoding, all of it that is not a letter or a digit.
fn encoded(part: &[u8]) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric();
    part.iter().map(|byte| if plain(byte) { char::from(*byte).to_string() } else { format!("%{byte:02x}") }).collect()
}
