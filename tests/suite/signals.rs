//! Signals to golock: the job gets them, and golock stays until it can release the lock. Before there is a job they end
//! golock, which leaves no lock behind.

use std::time::Duration;

use rustix::fs::Mode;
use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::job_tools::{EVER, FORWARDED, Notes, WHILE_NOTED, graceless, pristine, quoted};
use crate::support::scripted::{drain, read_commands};
use crate::support::wait::holds_within;
use crate::support::watch::{is_asleep, wake_ups};
use crate::support::{Action, Direction, Fault, Golock, Job, Running, Scene, Scripted, Server, each, until};

/// golock has come to the point where nothing but a signal moves it on.
const STALLED: Fault = Fault { direction: Direction::Reply, at: 0, action: Action::Stall };

/// How long a golock that waits for something else is watched.
const STILL: Duration = Duration::from_millis(300);

/// golock that would wait for Redis for ever.
fn steadfast(golock: Golock) -> Golock {
    golock.set("REDIS_TIMEOUT", EVER)
}

#[test]
fn a_signal_reaches_the_whole_group() {
    let server = Server::start(&[]);
    each(&FORWARDED, |&(name, signal)| {
        let notes = Notes::new();
        // A shell in the background would ignore some of the signals: the grandchild is in the foreground, and its
        // parent's trap waits until it has ended.
        let grandchild =
            format!(r#"trap "echo grandchild >>'$0/log'; exit" {name}; : >"$0/ready"; {WHILE_NOTED}; exit 1"#);
        let job = format!(
            r#"exec 2>"$0/err"; trap 'echo job >>"$0/log"; exit 7' {name}; sh -c '{}' "$0"; exit 1"#,
            grandchild.replace('\'', r"'\''")
        );
        let golock = graceless(server.port()).prelude(&pristine()).args(notes.job(&job)).spawn();
        until("the grandchild is ready", || notes.path("ready").exists());
        golock.signal(signal);
        golock.wait().assert_silent(7);
        assert_eq!(notes.read("log"), "grandchild\njob\n");
    });
    assert_eq!(server.locks(), [""; 0]);
}

#[test]
fn a_job_that_dies_of_a_forwarded_signal_says_so() {
    let server = Server::start(&[]);
    each(&FORWARDED, |&(_, signal)| {
        let scene = Scene::new(&server, Job::gated(0));
        let golock = scene.golock().prelude(&pristine()).spawn();
        scene.job.wait_running();
        golock.signal(signal);
        assert_eq!(golock.wait().code, 128 + signal.as_raw());
        scene.assert_released();
    });
}

#[test]
fn golock_holds_the_lock_for_as_long_as_a_signalled_job_needs() {
    let server = Server::start(&[]);
    let notes = Notes::new();
    let job = format!(r#"exec 2>"$0/err"; trap 'echo >>"$0/log"' TERM; : >"$0/ready"; {WHILE_NOTED}; exit 7"#);
    let golock = graceless(server.port()).set("KEY", "patient").args(notes.job(&job)).spawn();
    until("the job is ready", || notes.path("ready").exists());
    for count in [1, 2] {
        golock.signal(Signal::TERM);
        notes.lines("log", count);
        assert!(server.get("cronlock.patient").is_some());
    }
    notes.write("open", "");
    golock.wait().assert_silent(7);
    assert_eq!((notes.lines("log", 2).len(), server.get("cronlock.patient")), (2, None));
}

#[test]
fn a_signal_for_the_job_does_not_cut_the_release_short() {
    let server = Server::start(&[]);
    let broken = Fault { direction: Direction::Request, at: 0, action: Action::Close };
    let scene = Scene::new(&server, Job::gated(0)).fault(1, broken).fault(2, broken);
    let golock = scene.golock().set("RECONNECT_BACKOFF", "1").spawn();
    scene.job.wait_running();
    golock.signal(Signal::TERM);
    assert_eq!(golock.wait().code, 143);
    assert_eq!(scene.proxy.connections(), 4);
    scene.assert_released();
}

#[test]
fn a_signal_ends_the_wait_to_release() {
    each(&FORWARDED, |&(_, signal)| {
        let server = Server::start(&[]);
        let scene = Scene::new(&server, Job::gated(7));
        let golock = scene.golock().set("RECONNECT_BACKOFF", EVER).prelude(&pristine()).spawn();
        scene.job.wait_running();
        server.kill();
        scene.job.open_gate();
        until("golock has tried twice to release", || scene.proxy.connections() >= 3);
        golock.signal(signal);
        golock.wait().assert_one_line(7, &[&scene.name()]);
    });
}

/// golock, stopped by this signal before it has a job, ends with its code.
fn stop(golock: &Running, signal: Signal) -> i32 {
    golock.signal(signal);
    128 + signal.as_raw()
}

#[test]
fn a_lock_that_may_have_been_taken_is_given_back() {
    let server = Server::start(&[]);
    each(&FORWARDED, |&(_, signal)| {
        let scene = Scene::new(&server, Job::exits(0)).fault(0, STALLED);
        let golock = steadfast(scene.golock()).set("GRACE", "40").prelude(&pristine()).spawn();
        until("the reply is held back", || scene.proxy.records().first().is_some_and(|record| record.broken));
        assert!(server.get(&scene.name()).is_some());
        let code = stop(&golock, signal);
        golock.wait().assert_silent(code);
        scene.assert_not_run();
        assert_eq!(server.get(&scene.name()), None);
    });
}

#[test]
fn the_lock_of_another_is_not_given_back() {
    let server = Server::start(&[]);
    let scene = Scene::new(&server, Job::exits(0)).fault(0, STALLED);
    server.set(&scene.name(), "1999999999123456789");
    let golock = steadfast(scene.golock()).spawn();
    until("the reply is held back", || scene.proxy.records().first().is_some_and(|record| record.broken));
    let code = stop(&golock, Signal::TERM);
    assert_eq!(golock.wait().code, code);
    scene.assert_not_run();
    assert_eq!(server.get(&scene.name()).as_deref(), Some("1999999999123456789"));
}

#[test]
fn a_second_signal_ends_giving_back_to_a_silent_server() {
    let server = Scripted::start(|_, stream| drain(stream));
    let job = Job::exits(0);
    let golock = steadfast(graceless(server.port())).set("KEY", "silent").args(job.command()).spawn();
    for connections in [1, 2] {
        until("golock is connected", || server.connections() == connections);
        golock.signal(Signal::TERM);
    }
    golock.wait().assert_one_line(143, &["cronlock.silent"]);
    assert_eq!(job.runs(), 0);
}

#[test]
fn giving_back_to_a_silent_server_ends_by_itself() {
    let server = Scripted::start(|_, stream| drain(stream));
    let job = Job::exits(0);
    let golock = graceless(server.port()).set("REDIS_TIMEOUT", "1").args(job.command()).spawn();
    until("golock is connected", || server.connections() == 1);
    golock.signal(Signal::TERM);
    assert_eq!(golock.wait().code, 143);
    assert_eq!(job.runs(), 0);
}

#[test]
fn a_signal_ends_the_wait_to_reconnect() {
    // The first one hangs up when it has read the request, the second is no server at all.
    let server = Scripted::start(|_, stream| drop(read_commands(stream, 1)));
    let nobody = crate::support::redis::free_port();
    each(&[server.port(), nobody], |&port| {
        let (job, notes) = (Job::exits(0), Notes::new());
        let golock = graceless(port).set("RECONNECT_BACKOFF", EVER).set("VERBOSE", "yes").args(job.command());
        let golock = golock.prelude(&notes.stderr_into("err")).spawn();
        notes.wait_for("err", |text| text.matches("trying again").count() == 2);
        let code = stop(&golock, Signal::TERM);
        golock.wait().assert_silent(code);
        assert_eq!(job.runs(), 0);
    });
}

/// As behind a pager that nobody looks at any more.
#[test]
fn a_print_that_nobody_reads_does_not_outlive_a_signal() {
    let server = Server::start(&[]);
    let local = TempDir::new().unwrap();
    let asks = [vec!["--status", "--key=k"], vec!["--list"], vec!["--metrics"], vec!["--local", "--list"]];
    each(&asks, |words| {
        for signal in [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT] {
            let notes = Notes::new();
            let pipe = notes.path("pipe");
            rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, Mode::from(0o600)).unwrap();
            // A pipe takes 64 KiB.
            let fill = format!("exec 1<>{}; head -c 65536 /dev/zero; {}", quoted(&pipe), pristine());
            let golock = Golock::new(server.port()).set("LOCAL_DIR", local.path().join("locks")).args(words);
            let running = golock.prelude(&fill).spawn();
            // Before it prints it ends by itself.
            until("golock stands still", || {
                let before = wake_ups(running.pid());
                is_asleep(running.pid()) && !holds_within(STILL, || wake_ups(running.pid()) != before)
            });
            running.signal(signal);
            let code = running.wait().code;
            assert!(code == -signal.as_raw() || code == 128 + signal.as_raw(), "{code}");
        }
    });
}
