//! Every message that golock has, provoked: one line that names the job or the lock, fits into a log, and holds neither a
//! secret nor a control character. A message that nothing here provokes is found by reading the source.

mod scenes;
mod servers;
mod source;
#[cfg(feature = "tls")]
mod tls;

use self::scenes::{PASSWORD, Told};
use self::source::{Sentence, sentences};
use crate::support::each;

/// The longest line.
const LIMIT: usize = 399;

/// A part of this length gives a password away.
const TELLING: usize = 6;

/// Messages that cannot be provoked from outside, and why.
const UNPROVOKED: &[(&str, &str)] = &[
    ("cannot catch signals: {}", "the system has no descriptor left for us, but had some for the rest"),
    ("cannot wait for the command: {}; its lock stays", "waitpid(2) fails for a child of our own"),
    ("interrupted by a signal", "whoever is interrupted says how it ended, or is silent"),
    ("redis did not answer", "there is a last answer, or its error"),
    ("and no signal reached it: it runs as another user", "only root can make such a job (kill_after.rs)"),
    ("{} had to end after {} s, {}", "the same"),
    ("{}; it had to end, {}", "the same"),
    ("these are not all jobs: the database is too large", "there would have to be 100,000 of them"),
    ("not understood", "lexopt has no other errors where values are bytes"),
    ("the options", "the same"),
];

/// What a line that is about no job in particular begins with.
const NAMELESS: &[&str] = &[
    "golock: no command given",
    "golock: it needs a command or --key",
    "golock: these are the jobs of one node",
    "golock: cannot print",
    "golock: cannot list ",
    // What stands behind it may be a password.
    "golock: A= did not run",
    "golock: redis:// did not run",
    // Of an option that is not understood: what follows it may be anything.
    "golock: --",
    "golock: -x",
];

/// What is wrong with a line of golock's own.
fn wrong(line: &str) -> Option<&'static str> {
    let gives_away = PASSWORD.as_bytes().windows(TELLING).any(|part| line.contains(&*String::from_utf8_lossy(part)));
    let is_named = ["backup.sh", "cronlock."].iter().any(|name| line.contains(name));
    match line {
        _ if line.len() > LIMIT => Some("it is too long"),
        _ if !line.bytes().all(|byte| matches!(byte, b' '..=b'~')) => Some("it is not plain"),
        _ if gives_away => Some("it gives the password away"),
        _ if !is_named && !NAMELESS.iter().any(|start| line.starts_with(start)) => Some("it names no job and no lock"),
        _ => None,
    }
}

#[test]
fn every_message_is_provoked_and_has_its_form() {
    let told = std::sync::Mutex::new(Vec::<Told>::new());
    each(scenes::ALL, |(_, scene)| {
        let done = scene();
        told.lock().unwrap().extend(done);
    });
    let told = told.into_inner().unwrap();
    let lines: Vec<&str> = told.iter().flat_map(|told| told.stderr.lines()).collect();
    let golocks = lines.iter().filter(|line| line.starts_with("golock: "));
    let mut formless: Vec<_> = golocks.filter_map(|line| Some((wrong(line)?, *line))).collect();
    formless.sort_unstable();
    formless.dedup();
    let shown: Vec<&str> = told.iter().flat_map(|told| told.stdout.lines()).collect();
    let is_told = |sentence: &Sentence| lines.iter().chain(&shown).any(|line| sentence.is_in(line));
    let is_excepted = |sentence: &Sentence| UNPROVOKED.iter().any(|(words, _)| sentence.0 == *words);
    let sentences = sentences();
    assert!(sentences.len() > 100, "only {} sentences were found", sentences.len());
    let silent: Vec<_> = sentences.iter().filter(|sentence| !is_told(sentence) && !is_excepted(sentence)).collect();
    let idle: Vec<_> = UNPROVOKED
        .iter()
        .filter(|(words, _)| !sentences.iter().any(|sentence| sentence.0 == *words && !is_told(sentence)))
        .collect();
    assert!(
        formless.is_empty() && silent.is_empty() && idle.is_empty(),
        "lines without their form: {formless:#?}; sentences that nothing provokes: {silent:#?}; no exceptions: {idle:#?}"
    );
}
