//! What golock says of settings that make no sense: it names what was given, in the form in which it was given.

use super::given::Given;
use super::shown::assert_line;
use golock::config::{Id, PREFIX};
use golock::text::Escaped;
use std::os::unix::ffi::OsStrExt;

/// The options that are not settings.
const OTHERS: [&str; 6] = ["help", "version", "print-key", "status", "list", "metrics"];

/// What is said of no setting.
const GENERAL: [&str; 5] = [
    "no command given",
    "it needs a command or --key",
    "the options: not understood",
    "--list and --metrics take no command",
    "--reset does nothing beside --status, --list, --metrics or --print-key",
];

/// Something that was given, as a message shows it.
struct Place {
    shown: String,
    /// The name without its dashes, or the variable's.
    name: Vec<u8>,
    form: Form,
}

/// How it was given.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Option,
    Variable,
    Line,
}

/// Asserts that `message` is one line that begins with something of `given`, and that what it says of it is so.
pub(crate) fn assert_true(message: &str, given: &Given) {
    assert_line(message);
    let places = places(given);
    let is_so = GENERAL.iter().any(|general| message.starts_with(general))
        || is_about_a_file(message, given)
        // What was given may hold the words of a message.
        || found(message, &places).any(|(place, rest)| is_so(place, rest, &places));
    assert!(is_so, "nothing that was given is like that: {message}");
}

/// Whether `rest` says something of `place` that is so.
fn is_so(place: &Place, rest: &str, places: &[Place]) -> bool {
    if let Some(other) = rest.strip_prefix(" and ") {
        // Of two in different places the stronger one would count.
        let excludes = |(other, rest): (&Place, &str)| rest == " exclude each other" && place.form == other.form;
        return found(other, places).any(excludes);
    }
    if let Some(other) = rest.strip_prefix(" needs ") {
        // In the form in which the one was given that needs it.
        let is_setting = match place.form {
            Form::Option => other.strip_prefix("--").is_some_and(|option| Id::of_option(option.as_bytes()).is_some()),
            _ => other.strip_prefix(PREFIX).is_some_and(|short| Id::named(short.as_bytes()).is_some()),
        };
        let url = other.strip_prefix("TLS: write rediss:// in ");
        return is_setting || url.is_some_and(|url| found(url, places).any(|(_, rest)| rest.is_empty()));
    }
    match rest.strip_prefix(": ") {
        Some(why) => is_why(why, place),
        None => rest == " means nothing to a local lock" && place.form == Form::Option,
    }
}

/// Whether the setting that is meant exists, and the one that was given does not.
fn is_why(why: &str, place: &Place) -> bool {
    let short = place.name.strip_prefix(PREFIX.as_bytes());
    if let Some(hint) = why.strip_prefix("no such setting; ") {
        let meant = hint.strip_suffix('?').and_then(|hint| hint.strip_prefix(PREFIX));
        let is_there = meant.is_some_and(|meant| Id::named(meant.as_bytes()).is_some());
        let is_given = short.and_then(Id::named).is_some() || place.form == Form::Option;
        return !is_given && (is_there || hint == "see golock --help all");
    }
    if let Some(hint) = why.strip_prefix("no such option; ") {
        let meant = hint.strip_suffix('?').and_then(|hint| hint.strip_prefix("--"));
        let is_there = |meant: &str| OTHERS.contains(&meant) || Id::of_option(meant.as_bytes()).is_some();
        let is_given = Id::of_option(&place.name).is_some() || place.form != Form::Option;
        return !is_given && (meant.is_some_and(is_there) || hint == "see golock --help");
    }
    let is_refused = |short: &[u8]| [&b"LOCAL_VIP"[..], b"USE_SENTINEL"].contains(&short);
    let is_known = short.is_some_and(|short| Id::named(short).is_some() || is_refused(short));
    !why.is_empty() && (is_known || place.form == Form::Option)
}

/// Whether `message` is about the config file as a whole, or about a line of it that is not an assignment.
fn is_about_a_file(message: &str, given: &Given) -> bool {
    if Given::files().iter().any(|path| message.starts_with(&format!("CONFIG {path}: "))) {
        return true;
    }
    let about = |path: &String| message.strip_prefix(&format!("{path}:"));
    let Some(rest) = Given::files().iter().find_map(about) else { return false };
    let Some((number, _)) = rest.split_once(": not a plain NAME=value") else { return false };
    // A value that is shown may hold the words.
    let Ok(number) = number.parse::<usize>() else { return false };
    let line = number.checked_sub(1).and_then(|number| given.file_lines().nth(number));
    let (name, value) = line.unwrap_or_else(|| panic!("there is no such line: {message}"));
    assert!(!name.is_empty() || !(value.is_empty() || value.starts_with(b"#")), "there is nothing on it: {message}");
    true
}

/// Those of `places` that `text` begins with, and what follows.
fn found<'t, 'p>(text: &'t str, places: &'p [Place]) -> impl Iterator<Item = (&'p Place, &'t str)> {
    places.iter().filter_map(move |place| Some((place, text.strip_prefix(&place.shown)?)))
}

fn places(given: &Given) -> Vec<Place> {
    let mut places: Vec<_> = given.args.iter().flat_map(|arg| options(&arg.to_string_lossy())).collect();
    for name in given.env.iter().map(|(name, _)| name.as_bytes()) {
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
