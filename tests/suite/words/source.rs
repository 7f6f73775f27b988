//! The sentences in golock's source from which its messages are made.

use std::fs;
use std::path::{Path, PathBuf};

use crate::docs::repository;

/// Files in which sentences are no messages, and why.
const NO_MESSAGES: [(&str, &str); 1] = [("config/help.rs", "the help, which is a text of its own")];

/// What stands before a sentence that is no message: reasons of lints, texts that are made for scripts, help.
const NO_MESSAGE: [&str; 13] = [
    "reason = ",
    "format!(",
    "write!(f, ",
    "write!(table, ",
    "writeln!(text, ",
    "compile_error!(",
    "Common, ",
    "Rare, ",
    "join(",
    "format_args!(",
    "split(",
    "split_once(",
    "body.contains(",
];

/// A sentence, with `{}` where a value comes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Sentence(pub(super) String);

impl Sentence {
    /// Whether `line` may be made of it: it holds its parts, in their order.
    pub(super) fn is_in(&self, line: &str) -> bool {
        let mut rest = Some(line);
        for part in self.0.split("{}") {
            rest = rest.and_then(|text| text.split_once(part)).map(|(_, behind)| behind);
        }
        rest.is_some()
    }

    /// Whether there are words in it.
    fn speaks(&self) -> bool {
        self.0.chars().filter(char::is_ascii_alphabetic).count() > 3
    }
}

/// All of them, in this build, without those of unit tests.
pub(super) fn sentences() -> Vec<Sentence> {
    let root = repository("src");
    let mut found: Vec<Sentence> = files(&root).iter().flat_map(|file| in_file(&root, file)).collect();
    found.sort();
    found.dedup();
    found
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn in_file(root: &Path, file: &Path) -> Vec<Sentence> {
    let name = file.strip_prefix(root).unwrap().to_str().unwrap();
    let other_build = if cfg!(feature = "tls") { "net/no_tls" } else { "net/tls" };
    if name.starts_with(other_build) || NO_MESSAGES.iter().any(|(other, _)| *other == name) {
        return Vec::new();
    }
    let text = fs::read_to_string(file).unwrap();
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
    let literals = literals(code).into_iter().filter(|(before, words)| {
        let made = before.ends_with("words!(");
        let is_script = words.contains("call('") || words.starts_with("return ");
        let is_head = words.starts_with(|c: char| c.is_ascii_uppercase()) && name == "report/jobs.rs";
        made || (words.contains(' ') && !is_script && !is_head && !NO_MESSAGE.iter().any(|no| before.ends_with(no)))
    });
    literals.map(|(_, words)| Sentence(words)).filter(Sentence::speaks).collect()
}

/// The string literals of a program, each with what stands before it. White space counts as one space, and behind an
/// opening bracket as none.
fn literals(code: &str) -> Vec<(String, String)> {
    let (mut found, mut before, mut rest) = (Vec::new(), String::new(), code);
    while let Some(first) = rest.chars().next() {
        if rest.starts_with("//") {
            rest = rest.split_once('\n').map_or("", |(_, behind)| behind);
        } else if let Some(length) = character(rest) {
            rest = &rest[length..];
        } else if first == '"' {
            let (words, behind) = string(&rest[1..]);
            if !before.ends_with('b') {
                found.push((before.chars().skip(before.chars().count().saturating_sub(24)).collect(), words));
            }
            rest = behind;
        } else {
            if !first.is_whitespace() {
                before.push(first);
            } else if !before.ends_with(['(', ' ']) {
                before.push(' ');
            }
            rest = &rest[first.len_utf8()..];
        }
    }
    found
}

/// The length of the character literal at the start, if there is one. A lifetime is none.
fn character(text: &str) -> Option<usize> {
    let inner = text.strip_prefix('\'')?;
    if inner.starts_with('\\') {
        return Some(3 + inner[2..].find('\'')?);
    }
    let mut chars = inner.chars();
    let first = chars.next()?;
    chars.as_str().starts_with('\'').then_some(2 + first.len_utf8())
}

/// What a string literal says whose text begins here, and what follows it.
fn string(text: &str) -> (String, &str) {
    let (mut said, mut rest) = (String::new(), text);
    loop {
        let first = rest.chars().next().expect("a literal ends");
        rest = &rest[first.len_utf8()..];
        match first {
            '"' => return (said, rest),
            '\\' => {
                let escaped = rest.chars().next().unwrap();
                rest = &rest[escaped.len_utf8()..];
                match escaped {
                    '\n' => rest = rest.trim_start(),
                    'n' => said.push('\n'),
                    other => said.push(other),
                }
            }
            other => said.push(other),
        }
    }
}

#[test]
fn sentences_are_found_in_a_program() {
    let code = r#"
        //! "not this"
        const REASON: &str = "it is \
            long"; // "nor this"
        match byte { b'"' => words!("a \"quote\" of {}", x), '\'' => words!(
            "broken {}", y) }
        fn f<'a>(x: &'a str) -> Result<(), &'static str> { Err("no \\ way") }
        #[expect(dead_code, reason = "nor that")] const B: &[u8] = b"no text";
    "#;
    let found: Vec<_> = literals(code).into_iter().map(|(_, words)| words).collect();
    assert_eq!(found, ["it is long", "a \"quote\" of {}", "broken {}", "no \\ way", "nor that"]);
    let before: Vec<_> = literals(code).into_iter().map(|(before, _)| before).collect();
    assert!(before[1].ends_with("words!(") && before[2].ends_with("words!(") && before[4].ends_with("reason = "));
}

#[test]
fn a_sentence_is_recognized_in_a_line() {
    let sentence = Sentence("cannot {} {}: it".into());
    assert!(sentence.is_in("golock: cannot open x: it is"));
    assert!(!sentence.is_in("golock: cannot open x"));
    assert!(!sentence.is_in("golock: : it cannot open"));
}
