//! On a terminal the job stays in the foreground, where it can read and where the keyboard's signals reach it.

use std::fs::File;
use std::io::Write;

use rustix::process::{Signal, getpgid};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::support::job_tools::{Notes, UNIGNORED, WHILE_NOTED, graceless};
use crate::support::successor::take_over;
use crate::support::tenant::{NAME, OBEDIENT, Tenant, leasing};
use crate::support::{Golock, Server, each};

/// The end of a terminal at which somebody types.
struct Keyboard {
    master: File,
    terminal: String,
}

impl Keyboard {
    fn new() -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let terminal = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        Self { master: master.into(), terminal }
    }

    fn hit(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    /// golock in the foreground of this terminal. The first that a leader of a session without a terminal opens
    /// becomes its own.
    fn before(&self, golock: Golock) -> Golock {
        golock.prelude(&format!(r#"exec {UNIGNORED} setsid sh -c 'exec <{}; exec "$0" "$@"' "$0" "$@""#, self.terminal))
    }
}

#[test]
fn the_job_reads_from_the_terminal() {
    each(&["0", "60"], |lease| {
        let server = Server::start(&[]);
        let mut keyboard = Keyboard::new();
        let notes = Notes::new();
        let job = notes.job(r#"echo $$ >"$0/pid"; read line; echo "read $line"; exit 7"#);
        let running = keyboard.before(graceless(server.port())).set("LEASE", lease).args(job).spawn();
        assert_eq!(getpgid(Some(notes.pid("pid"))).unwrap(), getpgid(Some(running.pid())).unwrap());
        keyboard.hit("this\n");
        let done = running.wait();
        assert_eq!((done.code, &*done.stdout, &*done.stderr), (7, "read this\n", ""));
        assert_eq!(server.locks(), [""; 0]);
    });
}

#[test]
fn the_keyboards_interrupt_ends_the_job_and_frees_the_lock() {
    each(&["0", "60"], |lease| {
        let server = Server::start(&[]);
        let mut keyboard = Keyboard::new();
        let notes = Notes::new();
        let job = notes.job(r#": >"$0/up"; read line"#);
        let running = keyboard.before(graceless(server.port())).set("LEASE", lease).args(job).spawn();
        notes.wait_for("up", |_| notes.path("up").exists());
        keyboard.hit("\x03");
        running.wait().assert_silent(130);
        assert_eq!(server.locks(), [""; 0]);
    });
}

#[test]
fn on_a_terminal_signals_and_the_timeout_are_for_the_job_alone() {
    let server = Server::start(&[]);
    let keyboard = Keyboard::new();
    let notes = Notes::new();
    let job = notes.job(&format!(r#"trap 'exit 7' TERM; : >"$0/up"; {WHILE_NOTED}"#));
    let running = keyboard.before(graceless(server.port())).args(job).spawn();
    notes.wait_for("up", |_| notes.path("up").exists());
    running.signal(Signal::TERM);
    running.wait().assert_silent(7);
    let golock = keyboard.before(graceless(server.port())).set("TIMEOUT", "1");
    golock.args(["sh", "-c", "read line"]).run().assert_one_line(202, &["sh", "1 s"]);
    assert_eq!(server.locks(), [""; 0]);
}

#[test]
fn on_a_terminal_the_job_is_stopped_too_when_its_lease_is_lost() {
    let server = Server::start(&[]);
    let keyboard = Keyboard::new();
    let tenant = Tenant::start(&keyboard.before(leasing(server.port(), "3")), OBEDIENT);
    take_over(&server, NAME);
    tenant.golock.wait().assert_one_line(201, &[NAME, "lost"]);
    assert_eq!(tenant.notes.read("log"), "TERM\n");
}
