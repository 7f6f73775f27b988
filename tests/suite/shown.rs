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
        assert_eq!(without_times(&printed), without_times(output), "{}", block.place);
    }
}

/// What is left of a TTL depends on the machine.
fn without_times(text: &str) -> String {
    let mut parts = text.split("ttl=");
    let first = parts.next().unwrap().to_owned();
    parts.fold(first, |text, part| text + "ttl=" + part.trim_start_matches(|c: char| c.is_ascii_digit()))
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
    run_all(&in_man_page("dist/golock.1"), 8);
}
