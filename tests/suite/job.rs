//! The job's end is golock's: exit codes, deaths by signal, and the end that TIMEOUT makes.

use std::ffi::OsString;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::process::Command;

use rustix::fs::{Mode, OFlags, open};
use rustix::process::Signal;

use crate::support::job_tools::{EVER, Notes, WHILE_NOTED, binary, graceless, pristine, quoted};
use crate::support::{Server, each, until};

/// As many as run at a time.
const BATCH: usize = 32;

#[test]
fn every_exit_code_comes_through() {
    let server = Server::start(&[]);
    let codes: Vec<i32> = (0..256).collect();
    for batch in codes.chunks(BATCH) {
        each(batch, |code| {
            graceless(server.port()).args(["sh", "-c", &format!("exit {code}")]).run().assert_silent(*code);
        });
    }
    assert_eq!(server.locks(), [""; 0]);
}

#[test]
fn every_death_by_signal_comes_through() {
    const DEADLY: [Signal; 15] = [
        Signal::HUP,
        Signal::INT,
        Signal::QUIT,
        Signal::ILL,
        Signal::TRAP,
        Signal::ABORT,
        Signal::BUS,
        Signal::FPE,
        Signal::KILL,
        Signal::USR1,
        Signal::SEGV,
        Signal::USR2,
        Signal::PIPE,
        Signal::ALARM,
        Signal::TERM,
    ];
    let server = Server::start(&[]);
    each(&DEADLY, |signal| {
        let number = signal.as_raw();
        let golock = graceless(server.port()).prelude(&pristine()).args(["sh", "-c", &format!("kill -{number} $$")]);
        golock.run().assert_silent(128 + number);
    });
    assert_eq!(server.locks(), [""; 0]);
}

#[test]
fn an_end_that_looks_like_a_timeout_is_none() {
    let server = Server::start(&[]);
    each(&[("exit 137", 137), ("kill -KILL $$", 137), ("exit 202", 202), ("exit 124", 124)], |&(job, code)| {
        graceless(server.port()).set("TIMEOUT", EVER).args(["sh", "-c", job]).run().assert_silent(code);
    });
}

#[test]
fn a_job_that_takes_too_long_is_killed_whatever_it_handles() {
    let server = Server::start(&[]);
    each(&["0", "40"], |grace| {
        let notes = Notes::new();
        let job = notes.job(&format!("trap '' HUP INT QUIT TERM; {WHILE_NOTED}"));
        let golock = graceless(server.port()).set("KEY", grace).set("GRACE", grace).set("TIMEOUT", "1").args(job);
        golock.run().assert_one_line(202, &["sh", "1 s"]);
        assert_eq!(server.get(&format!("cronlock.{grace}")).is_some(), *grace == "40");
    });
}

/// A pipe with a name, which shows whether a process that writes to it is still there.
struct Lifeline(File);

impl Lifeline {
    fn new(notes: &Notes, note: &str) -> Self {
        let path = notes.path(note);
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        Self(open(&path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty()).unwrap().into())
    }

    fn is_cut(&self) -> bool {
        match (&self.0).read(&mut [0]) {
            Ok(0) => true,
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            other => panic!("a lifeline says {other:?}"),
        }
    }
}

/// Each descendant holds a lifeline until it ends, and has told that it does; the stray has left the group.
fn family(notes: &Notes) -> Vec<OsString> {
    let hold = |line: &str, told: &str| format!(r#"sh -c 'exec 8>"$0/{line}"; : >"$0/{told}"; {WHILE_NOTED}' "$0""#);
    let stray = format!("perl -MPOSIX -e 'POSIX::setsid(); exec @ARGV' {} &", hold("stray", "1"));
    notes.job(&format!("{stray} {} & {}", hold("group", "2"), hold("group", "3")))
}

#[test]
fn at_the_timeout_the_whole_group_is_killed_and_nobody_else() {
    let server = Server::start(&[]);
    // A slow machine needs the longer ones until all are there.
    for timeout in ["1", "5", "25"] {
        let notes = Notes::new();
        let [group, stray] = ["group", "stray"].map(|note| Lifeline::new(&notes, note));
        let golock = graceless(server.port()).set("TIMEOUT", timeout).args(family(&notes));
        golock.run().assert_one_line(202, &["sh", &format!("{timeout} s")]);
        assert_eq!(server.locks(), [""; 0]);
        until("the whole group is gone", || group.is_cut());
        if ["1", "2", "3"].iter().all(|told| notes.path(told).exists()) {
            assert!(!stray.is_cut());
            notes.write("open", "");
            return until("the stray is gone", || stray.is_cut());
        }
    }
    panic!("the job never came to its point");
}

#[test]
fn what_the_job_leaves_behind_does_not_hold_golock_up() {
    let server = Server::start(&[]);
    let notes = Notes::new();
    let line = Lifeline::new(&notes, "line");
    let child = format!(r#"sh -c 'exec 8>"$0/line"; : >"$0/ready"; {WHILE_NOTED}' "$0" &"#);
    let job = format!(r#"{child} while [ ! -e "$0/ready" ]; do sleep 0.02; done; exit 7"#);
    graceless(server.port()).args(notes.job(&job)).run().assert_silent(7);
    assert!(!line.is_cut());
    notes.write("open", "");
    until("the child is gone", || line.is_cut());
}

#[test]
fn a_child_that_golock_was_born_with_is_not_taken_for_the_job() {
    let server = Server::start(&[]);
    let notes = Notes::new();
    // The shell becomes golock, and its children golock's: one ends before the job, one while it runs.
    let child = format!(r#"(sh -c '{WHILE_NOTED}; : >"$0/gone"' {}; exit 4) & :"#, quoted(&notes.folder()));
    let running = graceless(server.port()).prelude(&format!("(exit 3) & {child}"));
    let job = r#": >"$0/up"; while [ -d "$0" ] && [ ! -e "$0/end" ]; do sleep 0.02; done; exit 7"#;
    let running = running.args(notes.job(job)).spawn();
    until("the job runs", || notes.path("up").exists());
    notes.write("open", "");
    until("the child ends", || notes.path("gone").exists());
    notes.write("end", "");
    running.wait().assert_silent(7);
}

#[test]
fn the_job_knows_its_lock() {
    let server = Server::start(&[]);
    let notes = Notes::new();
    let job = format!(r#"echo "$GOLOCK_KEY" >"$0/key"; echo "$GOLOCK_TOKEN" >"$0/token"; {WHILE_NOTED}"#);
    let golock = graceless(server.port()).set("PREFIX", "it's ").set("KEY", "$(mine)").args(notes.job(&job));
    let running = golock.env("GOLOCK_KEY", "not mine").env("GOLOCK_TOKEN", "not mine").spawn();
    let token = notes.lines("token", 1);
    assert_eq!(notes.lines("key", 1), ["it's $(mine)"]);
    assert_eq!(server.get("it's $(mine)"), Some(token[0].clone()));
    notes.write("open", "");
    running.wait().assert_silent(0);
}

#[test]
fn a_nested_golock_has_a_lock_of_its_own() {
    let server = Server::start(&[]);
    let tell = r#"echo "$GOLOCK_KEY""#;
    let nested = format!(r#"{tell}; "$0" --key inner sh -c '{tell}; exit 7'; code=$?; {tell}; exit $code"#);
    let done = graceless(server.port()).args(["--key", "outer", "sh", "-c", &nested]).args([binary()]).run();
    assert_eq!((done.code, &*done.stdout), (7, "cronlock.outer\ncronlock.inner\ncronlock.outer\n"), "{done:?}");
    assert_eq!(server.locks(), [""; 0]);
}

#[test]
fn a_job_cannot_run_under_its_own_lock() {
    let server = Server::start(&[]);
    // It would be skipped for ever, or wait for itself.
    for wait in ["0", "1000000"] {
        let golock = graceless(server.port()).set("KEY", "same").set("WAIT", wait);
        golock
            .args([binary()])
            .args(["sh", "-c", "exit 7"])
            .run()
            .assert_one_line(201, &["sh did not run", "same", "KEY"]);
    }
    assert_eq!(server.locks(), [""; 0]);
}
