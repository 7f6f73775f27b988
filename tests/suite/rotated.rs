//! Secrets are read when they are needed: a password that is rotated while the job runs neither leaves the lock nor ends a
//! leased job, and a file that makes its reader wait does not make golock deaf.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use rustix::process::Signal;

use crate::support::job_tools::{Notes, UNIGNORED, graceless};
use crate::support::proxy::Record;
use crate::support::resp::Words;
use crate::support::scripted::{read_commands, send};
use crate::support::{Golock, Job, Scene, Scripted, Server, each, until};

const OLD: &str = "the old password";
const NEW: &str = "the new password";

/// A server that has the old password, and a file that holds it.
struct Vault {
    server: Server,
    notes: Notes,
}

impl Vault {
    fn new() -> Self {
        let vault = Self { server: Server::start(&["--requirepass", OLD]), notes: Notes::new() };
        vault.write(OLD);
        vault
    }

    fn file(&self) -> PathBuf {
        self.notes.path("password")
    }

    fn write(&self, password: &str) {
        self.notes.write("password", format!("{password}\n"));
        // Nobody else may read it, or golock says so.
        assert!(Command::new("chmod").arg("600").arg(self.file()).status().unwrap().success());
    }

    fn rotate(&self) {
        self.server.query::<()>(&["CONFIG", "SET", "requirepass", NEW]);
    }
}

/// golock in the scene, with the password of this file.
fn golock(scene: &Scene<'_>, file: &Path, lease: &str) -> Golock {
    scene.golock().set("AUTH_FILE", file).set("LEASE", lease)
}

/// The passwords that were tried on the connections from the one of index `first` on.
fn tried(scene: &Scene<'_>, first: usize) -> Vec<String> {
    until("golock's connections end", || scene.proxy.open() == 0);
    let commands = scene.proxy.records()[first..].iter().flat_map(Record::commands).collect::<Vec<_>>();
    commands.iter().filter(|words| words[0] == "AUTH").map(|words| words[1].clone()).collect()
}

/// Waits until the lease has been renewed on the connection of this index, or a later one.
fn wait_renewed(scene: &Scene<'_>, index: usize) {
    let renewed = |record: &Record| String::from_utf8_lossy(&record.reply).contains("\r\n$19\r\n");
    until("the lease is renewed", || scene.proxy.records().iter().skip(index).any(renewed));
}

#[test]
fn a_password_that_is_rotated_during_the_job_releases_and_renews() {
    each(&["0", "9"], |&lease| {
        let vault = Vault::new();
        let scene = Scene::new(&vault.server, Job::gated(7));
        let running = golock(&scene, &vault.file(), lease).spawn();
        scene.job.wait_running();
        vault.rotate();
        vault.write(NEW);
        let known = scene.proxy.connections();
        if lease != "0" {
            wait_renewed(&scene, known);
        }
        scene.job.open_gate();
        running.wait().assert_silent(7);
        scene.assert_released();
        let tried = tried(&scene, known.max(2));
        assert!(tried.iter().all(|password| password == NEW), "{tried:?}");
    });
}

#[test]
fn a_file_that_is_written_before_the_server_changes_does_no_harm() {
    each(&["0", "9"], |&lease| {
        let vault = Vault::new();
        let scene = Scene::new(&vault.server, Job::gated(7));
        let running = golock(&scene, &vault.file(), lease).spawn();
        scene.job.wait_running();
        vault.write(NEW);
        if lease != "0" {
            wait_renewed(&scene, 1);
        }
        scene.job.open_gate();
        // The server refuses the new password, and the one that has worked still does.
        running.wait().assert_silent(7);
        scene.assert_released();
        assert_eq!(tried(&scene, 1)[..2], [NEW, OLD]);
    });
}

/// A replica that is promoted may have the password of before: passwords are not replicated.
#[test]
fn a_server_that_has_the_password_of_before_again_gets_it() {
    let vault = Vault::new();
    let scene = Scene::new(&vault.server, Job::gated(7));
    let running = golock(&scene, &vault.file(), "9").set("RECONNECT_ATTEMPTS", "5").spawn();
    scene.job.wait_running();
    vault.write(NEW);
    vault.rotate();
    let known = scene.proxy.connections();
    wait_renewed(&scene, known);
    vault.server.query::<()>(&["CONFIG", "SET", "requirepass", OLD]);
    scene.job.open_gate();
    running.wait().assert_silent(7);
    scene.assert_released();
    assert_eq!(tried(&scene, known).last().unwrap(), OLD);
}

/// The file is ahead of all servers, and the one that is promoted is behind: each of the three is tried.
#[test]
fn of_three_passwords_each_is_tried() {
    let vault = Vault::new();
    let scene = Scene::new(&vault.server, Job::gated(7));
    let running = golock(&scene, &vault.file(), "9").set("RECONNECT_ATTEMPTS", "5").spawn();
    scene.job.wait_running();
    vault.write(NEW);
    vault.rotate();
    let known = scene.proxy.connections();
    wait_renewed(&scene, known);
    vault.write("not known anywhere yet");
    vault.server.query::<()>(&["CONFIG", "SET", "requirepass", OLD]);
    scene.job.open_gate();
    running.wait().assert_silent(7);
    scene.assert_released();
}

/// Who waits has been let in: that its password is refused once does not end the wait.
#[test]
fn a_rotation_during_a_wait_is_waited_for() {
    let vault = Vault::new();
    let scene = Scene::new(&vault.server, Job::exits(7));
    vault.server.query::<()>(&["SET", &scene.name(), "1234567890123456789"]);
    let waiting = golock(&scene, &vault.file(), "0").set("WAIT", "1h").set("RECONNECT_ATTEMPTS", "50").spawn();
    until("golock waits", || scene.proxy.records().iter().flat_map(Record::commands).count() > 2);
    vault.rotate();
    vault.server.query::<()>(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    let refused = |record: &Record| String::from_utf8_lossy(&record.reply).contains("-WRONGPASS");
    until("golock is refused", || scene.proxy.records().iter().any(refused));
    vault.write(NEW);
    vault.server.query::<()>(&["DEL", &scene.name()]);
    waiting.wait().assert_silent(7);
    scene.assert_released();
}

/// As in a cluster: the server that names the node is asked again as well, and has let golock in, too.
#[test]
fn a_rotation_during_a_wait_is_waited_for_behind_a_redirection() {
    let vault = Vault::new();
    let node = vault.server.port();
    let home = Scripted::start(move |index, client| {
        let password = if index == 0 { OLD } else { NEW };
        let answer = |words: &Words| match &words[0][..] {
            "AUTH" if words[1] == password => "+OK\r\n".to_owned(),
            "AUTH" => "-WRONGPASS x\r\n".to_owned(),
            _ => format!("-MOVED 1 127.0.0.1:{node}\r\n"),
        };
        loop {
            let commands = read_commands(client, 1);
            if commands.is_empty() || !send(client, commands.iter().map(answer).collect::<String>()) {
                return;
            }
        }
    });
    let (name, job) = ("cronlock.moved", Job::exits(7));
    vault.server.query::<()>(&["SET", name, "1234567890123456789"]);
    let golock = Golock::new(home.port()).set("KEY", "moved").set("GRACE", "0").set("RECONNECT_BACKOFF", "0");
    let golock = golock.set("AUTH_FILE", vault.file()).set("WAIT", "1h").set("RECONNECT_ATTEMPTS", "10000");
    let waiting = golock.args(job.command()).spawn();
    until("golock waits", || !vault.server.query::<String>(&["INFO", "commandstats"]).contains("cmdstat_set:calls=1,"));
    vault.rotate();
    vault.server.query::<()>(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    until("golock is refused by both", || home.connections() > 2);
    vault.write(NEW);
    vault.server.query::<()>(&["DEL", name]);
    waiting.wait().assert_silent(7);
    assert_eq!((job.runs(), vault.server.get(name)), (1, None));
}

#[test]
fn a_server_that_changes_before_the_file_is_asked_again() {
    let vault = Vault::new();
    let scene = Scene::new(&vault.server, Job::gated(7));
    let running =
        golock(&scene, &vault.file(), "0").set("RECONNECT_ATTEMPTS", "50").set("RECONNECT_BACKOFF", "1").spawn();
    scene.job.wait_running();
    vault.rotate();
    scene.job.open_gate();
    until("golock has been refused", || scene.proxy.connections() > 2);
    vault.write(NEW);
    running.wait().assert_silent(7);
    scene.assert_released();
}

#[test]
fn a_file_that_is_gone_or_of_no_use_is_not_missed() {
    let ways: [fn(&Path); 4] = [
        |file| fs::remove_file(file).unwrap(),
        |file| fs::write(file, "").unwrap(),
        |file| fs::write(file, vec![b'x'; 1 << 20]).unwrap(),
        |file| {
            fs::remove_file(file).unwrap();
            fs::create_dir(file).unwrap();
        },
    ];
    let numbered: Vec<usize> = (0..ways.len()).collect();
    each(&numbered, |&way| {
        let vault = Vault::new();
        let scene = Scene::new(&vault.server, Job::gated(7));
        let running = golock(&scene, &vault.file(), "0").spawn();
        scene.job.wait_running();
        ways[way](&vault.file());
        scene.job.open_gate();
        running.wait().assert_silent(7);
        scene.assert_released();
    });
}

fn fifo(notes: &Notes) -> PathBuf {
    let path = notes.path("fifo");
    assert!(Command::new("mkfifo").arg("-m").arg("600").arg(&path).status().unwrap().success());
    path
}

#[test]
fn a_pipe_that_says_nothing_does_not_make_golock_deaf() {
    each(&[Signal::TERM, Signal::HUP], |&signal| {
        let (server, notes) = (Server::start(&[]), Notes::new());
        let golock = graceless(server.port()).set("AUTH_FILE", fifo(&notes)).args(["true"]);
        // Under nohup SIGHUP would be ignored until then.
        let up = r#"sh -c ': >"$0"; exec "$@"'"#;
        let prelude = format!(r#"exec {UNIGNORED} {up} '{}' "$0" "$@""#, notes.path("up").display());
        let running = golock.prelude(&prelude).spawn();
        notes.wait_for("up", |_| notes.path("up").exists());
        running.signal(signal);
        // It dies of it, or says that it does: no signal is caught as yet.
        let code = running.wait().code;
        assert!([-signal.as_raw(), 128 + signal.as_raw()].contains(&code), "{code}");
        assert_eq!(server.connections_received(), 0);
    });
}

#[test]
fn a_pipe_is_read_once_and_serves_for_all_connections() {
    each(&["0", "9"], |&lease| {
        let server = Server::start(&["--requirepass", OLD]);
        let (notes, scene) = (Notes::new(), Scene::new(&server, Job::gated(7)));
        let path = fifo(&notes);
        thread::scope(|scope| {
            // Opening it waits for its reader.
            scope.spawn(|| fs::write(&path, format!("{OLD}\n")).unwrap());
            let running = golock(&scene, &path, lease).spawn();
            scene.job.wait_running();
            if lease != "0" {
                wait_renewed(&scene, 1);
            }
            scene.job.open_gate();
            running.wait().assert_silent(7);
        });
        scene.assert_released();
    });
}

/// Passes each write on and its answer back, and hangs up behind a refused password, although more was asked.
fn hang_up_on_refusal(mut client: &TcpStream, port: u16) {
    let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    let mut bytes = vec![0; 1 << 16];
    while let Ok(length @ 1..) = client.read(&mut bytes) {
        server.write_all(&bytes[..length]).unwrap();
        let Ok(length @ 1..) = server.read(&mut bytes) else { return };
        let refusal =
            bytes[..length].starts_with(b"-").then(|| bytes.iter().position(|&byte| byte == b'\n').unwrap() + 1);
        if client.write_all(&bytes[..refusal.unwrap_or(length)]).is_err() || refusal.is_some() {
            return;
        }
    }
}

#[test]
fn a_password_that_is_refused_by_hanging_up_is_not_the_only_one() {
    let vault = Vault::new();
    let (port, job) = (vault.server.port(), Job::gated(7));
    let line = Scripted::start(move |_, client| hang_up_on_refusal(client, port));
    // Behind AUTH stands a SELECT that is not answered.
    let golock = graceless(line.port()).set("KEY", "hung").set("DB", "1").set("AUTH_FILE", vault.file());
    let running = golock.args(job.command()).spawn();
    job.wait_running();
    // The file comes before the server.
    vault.write(NEW);
    job.open_gate();
    running.wait().assert_silent(7);
    assert_eq!(vault.server.locks(), [""; 0]);
}
