//! What the documentation shows has been run as written. A block says how: `sh run`, `sh run redis` (with a server of its
//! own), or `sh not run here:` and why; a `text output` block after it is what it prints.

use std::env;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::docs::repository;
use crate::support::Server;
use crate::support::redis::free_port;

/// A block that is shown, and what it is said to print.
#[derive(Debug, Default)]
struct Block {
    place: String,
    kind: String,
    text: String,
    output: Option<String>,
}

/// The blocks of a page in Markdown.
fn in_markdown(path: &str) -> Vec<Block> {
    let page = fs::read_to_string(repository(path)).unwrap();
    let mut blocks: Vec<Block> = Vec::new();
    let mut lines = (1..).zip(page.lines());
    while let Some((number, line)) = lines.next() {
        let place = format!("{path}:{number}");
        assert!(!line.starts_with("    "), "{place}: a block without fences cannot say whether it is run");
        let Some(kind) = line.strip_prefix("```") else { continue };
        let text: String =
            lines.by_ref().take_while(|(_, line)| *line != "```").flat_map(|(_, line)| [line, "\n"]).collect();
        if kind == "text output" {
            blocks.last_mut().unwrap().output = Some(text);
        } else {
            blocks.push(Block { place, kind: kind.to_owned(), text, output: None });
        }
    }
    blocks
}

/// The blocks among the examples of the man page; a comment before each says whether it is run.
fn in_man_page(path: &str) -> Vec<Block> {
    let page = fs::read_to_string(repository(path)).unwrap();
    let (_, examples) = page.split_once("\n.SH EXAMPLES\n").unwrap();
    let (examples, _) = examples.split_once("\n.SH ").unwrap();
    let blocks = examples.split("\n.EX\n").zip(examples.split("\n.EX\n").skip(1));
    let block = |(before, after): (&str, &str)| {
        let kind = before.lines().last().unwrap().strip_prefix(".\\\" ").expect("a comment before .EX");
        let (text, _) = after.split_once(".EE").unwrap();
        let text = text.replace("\\-", "-").replace("\\(aq", "'").replace("\\e", "\\");
        let place = format!("{path}: {}", text.lines().next().unwrap());
        Block { place, kind: format!("sh {kind}"), text, output: None }
    };
    blocks.map(block).collect()
}

/// Runs a block as a user would who pastes it, but in a folder of its own and with locks and a server of its own.
fn run(block: &Block) {
    let server = (block.kind == "sh run redis").then(|| Server::start(&[]));
    let port = server.as_ref().map_or_else(free_port, Server::port);
    let folder = TempDir::new().unwrap();
    let golock = env::var_os("GOLOCK_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_golock").into());
    let programs = folder.path().join("bin");
    fs::create_dir(&programs).unwrap();
    symlink(fs::canonicalize(golock).unwrap(), programs.join("golock")).unwrap();

    let mut path = vec![programs];
    path.extend(env::split_paths(&env::var_os("PATH").unwrap()));
    let printed = folder.path().join("printed");
    let file = File::create(&printed).unwrap();
    let mut shell = Command::new("timeout");
    shell.args(["60", "bash", "--norc", "-euc", &block.text]).current_dir(folder.path()).stdin(Stdio::null());
    for (name, _) in env::vars().filter(|(name, _)| name.starts_with("CRONLOCK_") || name.starts_with("GOLOCK_")) {
        shell.env_remove(name);
    }
    shell
        .env("PATH", env::join_paths(path).unwrap())
        .env("CRONLOCK_CONFIG", "/dev/null")
        .env("CRONLOCK_HOST", "127.0.0.1")
        .env("CRONLOCK_PORT", port.to_string())
        .env("CRONLOCK_RECONNECT_ATTEMPTS", "0")
        .env("CRONLOCK_LOCAL_DIR", folder.path().join("locks"))
        .stdout(file.try_clone().unwrap())
        .stderr(file);
    let status = shell.status().unwrap();

    let printed = fs::read_to_string(printed).unwrap();
    assert!(status.success(), "{}: {status}\n{printed}", block.place);
    if let Some(output) = &block.output {
        assert_eq!(anywhere(&printed), anywhere(output), "{}", block.place);
    }
}

/// A text without what depends on the host and on the time: its name (in the pages it is web1 to web9), process ids, times,
/// spans, and the spaces between the cells of a table.
fn anywhere(text: &str) -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    text.lines().map(|line| line_anywhere(line, &host) + "\n").collect()
}

fn line_anywhere(line: &str, host: &str) -> String {
    let mut words: Vec<String> = Vec::new();
    let mut rest = line.split_whitespace().peekable();
    while let Some(word) = rest.next() {
        let bare = word.trim_end_matches([',', ';', ':', ')']);
        let behind = &word[bare.len()..];
        let (name, value) =
            bare.rsplit_once('=').map_or((String::new(), bare), |(name, value)| (format!("{name}="), value));
        let (open, value) = value.strip_prefix('(').map_or(("", value), |value| ("(", value));
        let is_number = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        let unit = rest.peek().map(|next| next.trim_end_matches([',', ';', ':', ')'])).filter(|_| is_number);
        let shown = match (name.as_str(), unit) {
            ("pid=" | "took=" | "fence=" | "ttl=", _) if is_number => format!("{name}N{behind}"),
            ("", Some("s" | "min" | "h" | "d")) => {
                let unit = rest.next().unwrap_or_default();
                let end = unit.trim_start_matches(|c: char| c.is_ascii_alphabetic());
                match words.last_mut().filter(|word| word.ends_with("SPAN")) {
                    Some(span) => {
                        span.push_str(end);
                        continue;
                    }
                    None => format!("{open}SPAN{end}"),
                }
            }
            _ if is_number && words.last().is_some_and(|word| word == "process") => format!("N{behind}"),
            _ if is_time(value) => format!("{name}{open}TIME{behind}"),
            _ if value == host || is_web(value) => format!("{name}{open}HOST{behind}"),
            _ => word.to_owned(),
        };
        words.push(shown);
    }
    words.join(" ")
}

/// Whether it is a time as golock writes it.
fn is_time(word: &str) -> bool {
    let form: String = word.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    form == "0000-00-00T00:00:00Z"
}

/// Whether it is a host's name in the pages.
fn is_web(word: &str) -> bool {
    word.strip_prefix("web").is_some_and(|digit| digit.len() == 1 && digit.bytes().all(|byte| byte.is_ascii_digit()))
}

#[test]
fn what_depends_on_host_and_time_is_not_compared() {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let shown = "x held ttl=5 host=web1 pid=12 start=2026-11-26T06:02:11Z took=3.004 fence=7 (3 d 2 h), web2, process 4, 1 s ago";
    let printed = format!(
        "x  held ttl=59 host={host} pid=4711 start=2027-01-01T00:00:00Z  took=0.000 fence=12 (59 s), {host}, process 77, 3 h 1 min ago"
    );
    assert_eq!(anywhere(shown), anywhere(&printed));
    assert_eq!(anywhere("exit 3, 2 times: web10"), "exit 3, 2 times: web10\n");
}

/// Runs those that can be run, all at once; at least `least`, lest they be overlooked.
fn run_all(blocks: &[Block], least: usize) {
    let runs = |block: &&Block| match &*block.kind {
        "sh run" | "sh run redis" => true,
        "crontab" => false,
        kind => {
            let why = kind.strip_prefix("sh not run here: ");
            assert!(why.is_some_and(|why| !why.is_empty()), "{}: is {kind:?} to be run?", block.place);
            false
        }
    };
    let wanted: Vec<_> = blocks.iter().filter(runs).collect();
    assert!(wanted.len() >= least, "only {} blocks are run", wanted.len());
    std::thread::scope(|scope| {
        for block in wanted {
            scope.spawn(|| run(block));
        }
    });
}

#[test]
fn the_blocks_of_the_readme_run() {
    run_all(&in_markdown("README.md"), 1);
}

#[test]
fn the_blocks_of_the_other_pages_run() {
    run_all(&in_markdown("docs/moving.md"), 2);
    run_all(&in_markdown("CONTRIBUTING.md"), 0);
    run_all(&in_markdown("CHANGELOG.md"), 0);
}

#[test]
fn the_examples_of_the_man_page_run() {
    run_all(&in_man_page("dist/golock.1"), 6);
}
