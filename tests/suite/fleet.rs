//! What DESIGN.md says a golock asks of Redis is what it asks.

use std::fs;

use super::docs::repository;
use crate::support::proxy::Record;
use crate::support::{Golock, Job, Scene, Server, until};

/// The password and the database of the table.
const LOGIN: [(&str, &str); 2] = [("AUTH", "0123456789abcdef"), ("DB", "3")];

/// How many digits the rest of a grace of 40 s has in milliseconds, unless the machine is slow.
const GRACE_DIGITS: usize = 5;

/// How many digits the milliseconds have that pass from the start to the confirmation, or from the job's end to the release.
const ELAPSED_DIGITS: usize = 1;

/// The cells of this row of the table "what is said", without the first.
fn row(title: &str) -> Vec<String> {
    let page = fs::read_to_string(repository("DESIGN.md")).unwrap();
    let (_, table) = page.split_once("<!-- made by benches/fleet: what is said -->").unwrap();
    let row = table.lines().find_map(|line| line.strip_prefix(&format!("| {title} | "))).unwrap();
    row.split(" | ").map(|cell| cell.trim().replace(',', "")).collect()
}

/// The figures in these cells.
fn figures(title: &str, cells: &[usize]) -> Vec<usize> {
    let row = row(title);
    cells.iter().map(|&cell| row[cell].parse().unwrap()).collect()
}

/// Connections, bytes to Redis, and bytes from it, in a line of the table.
const SAID: [usize; 3] = [0, 2, 3];

/// The same of what was recorded.
fn said(records: &[Record]) -> Vec<usize> {
    let bytes = |of: fn(&Record) -> usize| records.iter().map(of).sum();
    vec![records.len(), bytes(|record| record.request.len()), bytes(|record| record.reply.len())]
}

/// Who ran what in the table: a host, a process id, and a program of usual length.
const IDENTITY: &str = "host=web12 pid=31415 program=backup.sh";

/// What was recorded, as if by a run of [`IDENTITY`].
fn of_the_table(mut records: Vec<Record>) -> Vec<Record> {
    let commands = records[0].commands();
    let ours = commands[2].iter().find(|word| word.starts_with("host=")).unwrap();
    for record in &mut records {
        for bytes in [&mut record.request, &mut record.reply] {
            *bytes = String::from_utf8_lossy(bytes).replace(ours, IDENTITY).into();
        }
    }
    records
}

/// A key that is the scene's alone, of 32 bytes.
fn key(scene: &Scene<'_>) -> String {
    format!("{:x>32}", scene.name().trim_start_matches("cronlock."))
}

/// The scene's golock with a name as long as a default one, and the default grace.
fn fleet(scene: &Scene<'_>) -> Golock {
    scene.golock().set("KEY", key(scene)).set("GRACE", "40")
}

/// What was recorded once all connections have ended.
fn ended(scene: &Scene<'_>) -> Vec<Record> {
    until("golock's connections end", || scene.proxy.open() == 0);
    scene.proxy.records()
}

#[test]
fn a_run_and_a_skipped_run_say_what_is_written() {
    let server = Server::start(&[]);
    let scene = Scene::new(&server, Job::exits(0));
    fleet(&scene).run().assert_silent(0);
    let run = ended(&scene);
    // Behind the token of the EVAL that releases.
    let rest = run[1].commands()[0][6].len();
    // Behind who runs what, for how many milliseconds golock has been running; and since when the job has ended.
    let elapsed = run[0].commands()[2][10].len() + run[1].commands()[0][12].len();
    let mut said_by_run = said(&of_the_table(run));
    said_by_run[1] = said_by_run[1] - rest + GRACE_DIGITS - elapsed + 2 * ELAPSED_DIGITS;
    assert_eq!(said_by_run, figures("a run", &SAID));
    // Its grace is not over.
    fleet(&scene).run().assert_silent(200);
    assert_eq!(said(&ended(&scene)[2..]), figures("a run that is skipped", &SAID));
}

#[test]
fn a_run_without_a_record_says_what_is_written() {
    let server = Server::start(&[]);
    let scene = Scene::new(&server, Job::exits(7));
    fleet(&scene).set("RECORD", "0").run().assert_silent(7);
    let run = ended(&scene);
    let rest = run[1].commands()[0][5].len();
    let mut said_by_run = said(&run);
    said_by_run[1] = said_by_run[1] - rest + GRACE_DIGITS;
    assert_eq!(said_by_run, figures("a run without a record", &SAID));
}

#[test]
fn a_login_says_what_is_written() {
    let server = Server::start(&["--requirepass", LOGIN[0].1]);
    let scene = Scene::new(&server, Job::exits(7));
    let golock = LOGIN.iter().fold(fleet(&scene), |golock, (name, value)| golock.set(name, value));
    golock.run().assert_silent(7);
    golock.run().assert_silent(200);
    let [_, _, skipped] = <[Record; 3]>::try_from(ended(&scene)).unwrap();
    let without = figures("a run that is skipped", &SAID);
    let login = figures("each connection, with a login", &SAID[1..]);
    assert_eq!(said(&[skipped]), [1, without[1] + login[0], without[2] + login[1]]);
}

#[test]
fn a_renewal_says_what_is_written() {
    let server = Server::start(&[]);
    let scene = Scene::new(&server, Job::gated(7));
    let running = fleet(&scene).set("LEASE", "9").spawn();
    scene.job.wait_running();
    until("a renewal has been answered", || {
        scene.proxy.records().get(1).is_some_and(|record| !record.reply.is_empty())
    });
    let renewal = scene.proxy.records()[1].clone();
    scene.job.open_gate();
    running.wait().assert_silent(7);
    assert_eq!(said(&[renewal]), figures("a renewal", &SAID));
}

#[test]
fn a_waiter_keeps_its_connection() {
    let server = Server::start(&[]);
    let scene = Scene::new(&server, Job::exits(7));
    let golock = fleet(&scene).set("WAIT", "600");
    let name = format!("cronlock.{}", key(&scene));
    server.set(&name, "2000000000000000000");
    let running = golock.spawn();
    until("it has asked again and again", || server.command_count("set") > 4);
    assert_eq!((row("a second of waiting")[0].as_str(), scene.proxy.connections()), ("one throughout", 1));
    server.query::<()>(&["DEL", &name]);
    running.wait().assert_silent(7);
}
