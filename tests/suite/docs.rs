//! What the README, the man page, the help and the completions say of the settings is what the table in the code says.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use golock::config::TABLE;
use tempfile::TempDir;

use crate::support::Golock;

#[path = "../../dist/completions.rs"]
mod completions;
#[path = "../../dist/man.rs"]
mod man;

/// The long options that are no settings.
const OTHERS: [&str; 6] = ["--status", "--list", "--metrics", "--print-key", "--help", "--version"];

/// The file at this path of the repository.
pub(crate) fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &str) -> String {
    fs::read_to_string(repository(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Of each setting what `part` tells.
fn settings(part: impl Fn(&str, &str) -> String) -> Vec<String> {
    TABLE.iter().map(|setting| part(setting.name, setting.default)).collect()
}

/// Runs a program that a developer may have to install; returns all that it prints.
fn output_of(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{program}, which the tests need: {error}"));
    let printed = [output.stdout, output.stderr].concat();
    let printed = String::from_utf8(printed).unwrap();
    assert!(output.status.success(), "{program} {args:?}: {printed}");
    printed
}

#[test]
fn the_made_files_are_new() {
    let made = [
        ("dist/golock.1", man::page()),
        ("dist/completions/golock.bash", completions::bash()),
        ("dist/completions/_golock", completions::zsh()),
        ("dist/completions/golock.fish", completions::fish()),
    ];
    for (path, text) in made {
        assert!(read(path) == text, "{path} is old: run dist/generate");
        let unfilled = text.split('@').skip(1).any(|rest| rest.starts_with(|c: char| c.is_ascii_uppercase()));
        assert!(!unfilled, "{path} has a place that was not filled");
    }
}

#[test]
fn the_readme_lists_all_settings_with_their_defaults() {
    let readme = read("README.md");
    let (_, table) = readme.split_once("| CRONLOCK_… | Default | Meaning |\n|---|---|---|\n").unwrap();
    let rows = table.lines().take_while(|line| line.starts_with('|')).flat_map(|row| {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let [_, names, default, meaning, ..] = cells[..] else { panic!("{row}") };
        assert!(!meaning.is_empty(), "{row}");
        names.split(", ").map(|name| format!("{name} {default}")).collect::<Vec<_>>()
    });
    assert_eq!(rows.collect::<Vec<_>>(), settings(|name, default| format!("{name} {default}")));
}

#[test]
fn the_man_page_lists_all_settings_with_their_defaults() {
    let page = read("dist/golock.1").replace("\\-", "-");
    let (_, section) = page.split_once("\n.SH SETTINGS\n").unwrap();
    let (section, _) = section.split_once("\n.SH ").unwrap();
    let entries = section.split("\n.TP\n").skip(1).map(|entry| {
        let (head, body) = entry.split_once('\n').unwrap();
        let (option, rest) = head.strip_prefix("\\fB").unwrap().split_once("\\fR").unwrap();
        let variable = rest.split("\\fB").nth(1).unwrap().trim_end_matches("\\fR");
        let default = body.lines().find_map(|line| line.strip_prefix("Default: \\fB")?.strip_suffix("\\fR"));
        format!("{option} {variable} {}", default.unwrap_or_default())
    });
    let expected = settings(|name, default| format!("{} CRONLOCK_{name} {default}", option(name)));
    assert_eq!(entries.collect::<Vec<_>>(), expected);
}

#[test]
fn the_help_lists_all_settings_with_their_defaults() {
    let help = Golock::new(0).args(["--help", "all"]).run();
    assert_eq!((help.code, &*help.stderr), (0, ""));
    let rows = help.stdout.lines().filter_map(|line| {
        let row = line.trim_start();
        let option = row.split(' ').next().filter(|option| option.starts_with("--") && !OTHERS.contains(option))?;
        let default = row.rsplit_once(" [").map_or("", |(_, default)| default.trim_end_matches(']'));
        Some(format!("{option} {default}"))
    });
    assert_eq!(rows.collect::<Vec<_>>(), settings(|name, default| format!("{} {default}", option(name))));
    for other in OTHERS {
        assert!(help.stdout.contains(other), "{other}");
    }
}

fn option(name: &str) -> String {
    format!("--{}", name.to_lowercase().replace('_', "-"))
}

#[test]
fn the_man_page_is_clean() {
    let page = repository("dist/golock.1");
    let page = page.to_str().unwrap();
    assert_eq!(output_of("mandoc", &["-T", "lint", page]), "");
    assert_eq!(output_of("groff", &["-man", "-ww", "-z", page]), "");
}

#[test]
fn the_pages_link_to_what_is_there() {
    for page in ["README.md", "DESIGN.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs/moving.md"] {
        let text = read(page);
        let targets = text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap());
        for target in targets.filter(|target| !target.contains("://")) {
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let beside = repository(page).with_file_name(path);
            let there = if path.is_empty() { repository(page) } else { beside };
            assert!(there.exists(), "{page}: {target}");
            let headings = || fs::read_to_string(&there).unwrap_or_default();
            assert!(anchor.is_empty() || headings().lines().any(|line| slug(line) == anchor), "{page}: {target}");
        }
    }
}

/// The anchor of a heading.
fn slug(line: &str) -> String {
    let Some(heading) = line.strip_prefix('#') else { return String::new() };
    let heading = heading.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
    heading.chars().filter(|c| c.is_alphanumeric() || "-_".contains(*c)).collect()
}

/// Runs this script in bash, where the completion is loaded and `offered WORD...` prints what is offered for the last
/// word, in a folder with the file `ca one.pem` and the folder `certs`. What is offered is returned sorted.
fn in_bash(script: &str) -> Vec<String> {
    const OFFERED: &str =
        "offered() { COMP_WORDS=(golock \"$@\"); COMP_CWORD=$#; _golock; printf '%s\\n' \"${COMPREPLY[@]}\"; }";
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("ca one.pem"), "").unwrap();
    fs::create_dir(folder.path().join("certs")).unwrap();
    let load = format!("source '{}'", repository("dist/completions/golock.bash").display());
    let go = format!("cd '{}'", folder.path().display());
    let printed = output_of("bash", &["--norc", "-uc", &format!("{load}\n{go}\n{OFFERED}\n{script}")]);
    let mut offered: Vec<_> = printed.lines().filter(|line| !line.is_empty()).map(String::from).collect();
    offered.sort();
    offered.dedup();
    offered
}

/// All long options, sorted.
fn options() -> Vec<String> {
    let mut options: Vec<_> = settings(|name, _| option(name)).into_iter().chain(OTHERS.map(String::from)).collect();
    options.sort();
    options
}

#[test]
fn bash_completes_all_options() {
    assert_eq!(in_bash("offered --"), options());
}

#[test]
fn bash_completes_what_stands_where_the_cursor_is() {
    let cases: &[(&str, &[&str])] = &[
        ("--tls-c", &["--tls-ca", "--tls-cert"]),
        ("--tls-ca c", &["ca one.pem", "certs"]),
        ("--tls-ca = ca", &["ca one.pem"]),
        ("--local-dir c", &["certs"]),
        ("--key-format ''", &["cronlock", "golock"]),
        ("--key-format = g", &["golock"]),
        ("--key ''", &[]),
        ("--local = n", &["no"]),
        // The command, which is no option and no value of one.
        ("chgr", &["chgrp"]),
        ("--key --tls -v chgr", &["chgrp"]),
        ("--port = 1 --local = no chgr", &["chgrp"]),
        ("-- chgr", &["chgrp"]),
        // The command's own words.
        ("ls --tls", &[]),
        ("-- --tls", &[]),
        ("--local ls ca", &["ca one.pem"]),
    ];
    for (words, expected) in cases {
        assert_eq!(in_bash(&format!("offered {words}")), *expected, "golock {words}");
    }
}

#[test]
fn zsh_and_fish_read_their_completions() {
    let path = |name: &str| repository("dist/completions").join(name).display().to_string();
    assert_eq!(output_of("zsh", &["-n", &path("_golock")]), "");
    assert_eq!(output_of("fish", &["-n", &path("golock.fish")]), "");
    let load = format!("source '{}'; ", path("golock.fish"));
    let offered = |line: &str| {
        let lines = output_of("fish", &["--no-config", "-c", &format!("{load} complete -C '{line}'")]);
        lines.lines().map(|line| line.split('\t').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(offered("golock --key-format "), ["cronlock", "golock"]);
    assert_eq!(offered("golock ls --tls-"), [""; 0]);
    let mut all = offered("golock --");
    all.sort();
    assert_eq!(all, options());
}
