//! What golock says of settings that make no sense: it names what was given, in the form in which it was given.

use super::given::Given;
use super::shown::assert_line;
use golock::config::{Id, PREFIX, TABLE};
use golock::text::Escaped;
use std::os::unix::ffi::OsStrExt;

/// The options that are not settings.
const OTHERS: [&str; 6] = ["help", "version", "print-key", "status", "list", "metrics"];

/// What is said of no setting.
const GENERAL: [&str; 3] = ["no command given", "it needs a command or --key", "the options: not understood"];

/// Something that was given, as a message shows it.
#[derive(Debug)]
struct Place {
    shown: String,
    /// The name without its dashes, or the variable's.
    name: Vec<u8>,
    form: Form,
}

/// How it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Option,
    Variable,
    Line,
}

/// Asserts that `message` is one line that begins with something of `given`, and that what it says of it is so.
pub(crate) fn assert_true(message: &str, given: &Given) {
    assert_line(message);
    if GENERAL.iter().any(|general| message.starts_with(general)) || is_about_a_file(message, given) {
        return;
    }
    let places = places(given);
    let (place, rest) = found(message, &places).unwrap_or_else(|| panic!("nothing given is named: {message}"));
    if let Some(other) = rest.strip_prefix(" and ") {
        let (other, rest) = found(other, &places).unwrap_or_else(|| panic!("only one is named: {message}"));
        assert_eq!(rest, " exclude each other");
        assert_eq!(place.form, other.form, "the stronger one counts: {message}");
    } else if let Some(other) = rest.strip_prefix(" needs ") {
        let is_one = |name: &str| other.strip_prefix(PREFIX).is_some_and(|short| short == name);
        let is_url = other.strip_prefix("TLS: write rediss:// in ").is_some_and(|url| found(url, &places).is_some());
        assert!(is_url || TABLE.iter().any(|row| is_one(row.name)), "{message}");
    } else if let Some(why) = rest.strip_prefix(": ") {
        assert_why(why, place, message);
    } else {
        assert!(rest == " means nothing to a local lock" && place.form == Form::Option, "{message}");
    }
}

/// The setting that is meant exists, and the one that was given does not.
fn assert_why(why: &str, place: &Place, message: &str) {
    let short = place.name.strip_prefix(PREFIX.as_bytes());
    if let Some(hint) = why.strip_prefix("no such setting; ") {
        assert!(short.and_then(Id::named).is_none() && place.form != Form::Option, "there is: {message}");
        let meant = hint.strip_suffix('?').and_then(|hint| hint.strip_prefix(PREFIX));
        let is_there = meant.is_some_and(|meant| Id::named(meant.as_bytes()).is_some());
        assert!(is_there || hint == "see golock --help all", "{message}");
    } else if let Some(hint) = why.strip_prefix("no such option; ") {
        assert!(Id::of_option(&place.name).is_none() && place.form == Form::Option, "there is: {message}");
        let meant = hint.strip_suffix('?').and_then(|hint| hint.strip_prefix("--"));
        let is_there = |meant: &str| OTHERS.contains(&meant) || Id::of_option(meant.as_bytes()).is_some();
        assert!(meant.is_some_and(is_there) || hint == "see golock --help", "{message}");
    } else {
        let is_known = match place.form {
            Form::Option => true,
            // That of a fork of cronlock, or ours.
            _ => short.is_some_and(|short| {
                Id::named(short).is_some() || [&b"LOCAL_VIP"[..], b"USE_SENTINEL"].contains(&short)
            }),
        };
        assert!(is_known && !why.is_empty(), "{message}");
    }
}

/// Whether `message` is about the config file as a whole, or about a line of it that is not an assignment.
fn is_about_a_file(message: &str, given: &Given) -> bool {
    let about = |path: &String| message.strip_prefix(&format!("{path}:"));
    let Some(rest) = Given::files().iter().find_map(about) else { return false };
    if rest.starts_with(' ') {
        return true;
    }
    let Some((number, _)) = rest.split_once(": not a plain NAME=value") else { return false };
    let line = number.parse::<usize>().ok().and_then(|number| given.file_lines().nth(number.checked_sub(1)?));
    let (name, value) = line.unwrap_or_else(|| panic!("there is no such line: {message}"));
    assert!(!name.is_empty() || !(value.is_empty() || value.starts_with(b"#")), "there is nothing on it: {message}");
    true
}

/// The longest of `places` that `text` begins with, and what follows it.
fn found<'t, 'p>(text: &'t str, places: &'p [Place]) -> Option<(&'p Place, &'t str)> {
    let rest = |place: &'p Place| Some((place, text.strip_prefix(&place.shown)?));
    places.iter().filter_map(rest).min_by_key(|(_, rest)| rest.len())
}

fn places(given: &Given) -> Vec<Place> {
    let mut places: Vec<_> = given.args.iter().flat_map(|arg| options(&arg.to_string_lossy())).collect();
    for name in given.env.iter().map(|(name, _)| name.as_bytes()).filter(|name| name.starts_with(PREFIX.as_bytes())) {
        places.push(Place { shown: Escaped(name).to_string(), name: name.to_vec(), form: Form::Variable });
    }
    let [file, ..] = Given::files();
    for (number, (name, _)) in (1..).zip(given.file_lines()) {
        let shown = format!("{file}:{number}: {}", Escaped(name));
        places.push(Place { shown, name: name.to_vec(), form: Form::Line });
    }
    places
}

/// The options that the word `arg` can be: a long one, or letters behind a dash.
fn options(arg: &str) -> Vec<Place> {
    let option = |dashes: &str, name: &str| Place {
        shown: format!("{dashes}{}", Escaped(name.as_bytes())),
        name: name.into(),
        form: Form::Option,
    };
    match (arg.strip_prefix("--"), arg.strip_prefix('-')) {
        (Some(long), _) => vec![option("--", long.split('=').next().unwrap_or_default())],
        (_, Some(letters)) => {
            let verbose = letters.contains('v').then(|| option("--", "verbose"));
            let letters = letters.chars().map(|letter| option("-", letter.encode_utf8(&mut [0; 4])));
            letters.chain(verbose).collect()
        }
        _ => Vec::new(),
    }
}
