//! With a lease the job is bound to golock: it dies with it. The first stage that does this leaves no other trace.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::process::Command;
use std::time::Duration;

use rustix::process::{Signal, getpid};

use crate::support::job_tools::{Notes, graceless, pristine};
use crate::support::tenant::{NAME, STEADY, Tenant, job, leasing};
use crate::support::wait::holds_within;
use crate::support::watch::{children, is_alive, mentioning};
use crate::support::{Done, Golock, Server, each, until};

#[test]
fn when_golock_is_killed_the_job_is_gone_before_another_host_can_have_the_lock() {
    let server = Server::start(&[]);
    let first = Tenant::start(&leasing(server.port(), "3"), STEADY);
    let second = Notes::new();
    let look = format!(r#"kill -0 {} && echo overlap >"$0/overlap"; exit 7"#, first.job);
    let waiting = leasing(server.port(), "3").set("WAIT", "60").args(second.job(&look)).spawn();
    first.golock.signal(Signal::KILL);
    assert!(server.pttl(NAME) <= 3000, "the lock stays for {} ms", server.pttl(NAME));
    until("the job is gone", || !first.lives());
    let done = waiting.wait();
    assert_eq!(done.code, 7, "{done:?}");
    assert!(!second.path("overlap").exists());
}

#[test]
fn without_a_lease_the_job_outlives_a_golock_that_is_killed() {
    let server = Server::start(&[]);
    let tenant = Tenant::start(&leasing(server.port(), "0"), STEADY);
    tenant.golock.signal(Signal::KILL);
    let job = tenant.job;
    assert_eq!(tenant.golock.wait().code, -Signal::KILL.as_raw());
    assert!(is_alive(job));
    tenant.notes.write("open", "");
    until("the job ends", || !is_alive(job));
}

#[test]
fn whenever_golock_is_killed_nothing_of_its_job_remains() {
    let server = Server::start(&[]);
    for attempt in 0..40 {
        let notes = Notes::new();
        let running = leasing(server.port(), "60").set("KEY", attempt.to_string()).args(job(&notes, STEADY)).spawn();
        let key = format!("cronlock.{attempt}");
        until("golock has the lock", || server.get(&key).is_some());
        // From here to the job it is one more exchange, a fork and two execs: some milliseconds.
        holds_within(Duration::from_micros(250 * attempt), || notes.path("pid").exists());
        running.signal(Signal::KILL);
        let folder = notes.folder();
        until("all processes are gone", || mentioning(folder.to_str().unwrap()).is_empty());
    }
}

#[test]
fn a_first_stage_whose_golock_is_gone_runs_nothing() {
    let stage = |parent: &str| Golock::new(0).args(["--stage-of", parent, "/bin/sh", "sh", "-c", "echo ran; exit 7"]);
    let ours = stage(&getpid().to_string()).run();
    assert_eq!((ours.code, &*ours.stdout), (7, "ran\n"), "{ours:?}");
    each(&["1073741824", "0", "-1", "x", ""], |parent| {
        let done = stage(parent).run();
        assert!(done.code != 0 && done.code != 7 && done.stdout.is_empty(), "{done:?}");
    });
}

/// The first stage takes a few words more than the command alone.
#[test]
fn a_command_that_fits_only_without_the_first_stage_does_not_run_unbound() {
    let server = Server::start(&[]);
    let run = |lease: &str, size: usize| {
        let (words, long) = (["sh", "-c", "exit 7", "sh"], vec!["x".repeat(size / 2); 2]);
        // A quarter of this is for the words and the environment.
        leasing(server.port(), lease).prelude("ulimit -s 1024").args(words).args(long).run()
    };
    let (mut fits, mut exceeds) = (0_usize, 1 << 18);
    while exceeds - fits > 2 {
        let size = fits.midpoint(exceeds);
        *(if run("00", size).code == 7 { &mut fits } else { &mut exceeds }) = size;
    }
    run("60", fits).assert_one_line(126, &["sh did not run: cannot start ", "too long"]);
    assert_eq!(server.locks(), [""; 0]);
}

/// There golock cannot start itself.
#[test]
fn without_proc_a_job_runs_though_unbound() {
    let possible = Command::new("unshare").args(["-m", "mount", "-t", "tmpfs", "none", "/proc"]).output();
    if !possible.is_ok_and(|done| done.status.success()) {
        return println!("not tested: there is no right to mount");
    }
    let server = Server::start(&[]);
    let hidden = r#"exec unshare -m sh -c 'mount -t tmpfs none /proc && exec "$0" "$@"' "$0" "$@""#;
    leasing(server.port(), "60").prelude(hidden).args(["sh", "-c", "exit 7"]).run().assert_silent(7);
    assert_eq!(server.locks(), [""; 0]);
}

/// There golock's process group has no number, nor has its parent.
#[test]
fn in_a_pid_namespace_of_its_own_a_job_runs_as_elsewhere() {
    let inside = ["-pf", "--mount-proc"];
    if !Command::new("unshare").args(inside).arg("true").output().is_ok_and(|done| done.status.success()) {
        return println!("not tested: there is no right to a namespace");
    }
    let server = Server::start(&[]);
    each(&["0", "60"], |lease| {
        let golock = leasing(server.port(), lease)
            .set("KEY", lease)
            .prelude(&format!(r#"exec unshare {} "$0" "$@""#, inside.join(" ")));
        golock.args(["sh", "-c", "exit 7"]).run().assert_silent(7);
    });
    assert_eq!(server.locks(), [""; 0]);
}

#[test]
fn the_job_is_the_only_child_of_golock() {
    let server = Server::start(&[]);
    let tenant = Tenant::start(&leasing(server.port(), "60"), STEADY);
    assert_eq!(children(tenant.golock.pid()), [tenant.job]);
    let line = fs::read_to_string(format!("/proc/{}/cmdline", tenant.job)).unwrap();
    assert!(line.starts_with("sh\0-c\0"), "{line:?}");
    assert_eq!(fs::read_link(format!("/proc/{}/exe", tenant.job)).unwrap(), fs::canonicalize("/bin/sh").unwrap());
    tenant.finish();
}

/// A golock with a lease, and one without.
fn both(server: &Server, prepare: impl Fn(Golock) -> Golock) -> [Done; 2] {
    ["60", "0"].map(|lease| prepare(graceless(server.port()).set("KEY", lease).set("LEASE", lease)).run())
}

#[track_caller]
fn assert_same([with, without]: &[Done; 2]) {
    assert_eq!((with.code, &with.stdout, &with.stderr), (without.code, &without.stdout, &without.stderr));
}

#[test]
fn every_command_starts_and_ends_as_without_a_lease() {
    let server = Server::start(&[]);
    let notes = Notes::new();
    let file = |name: &str, text: &str| notes.executable(name, text).into_os_string();
    let shell =
        |script: &str| vec![OsString::from("sh"), "-c".into(), script.into(), "zero".into(), "".into(), "a b".into()];
    notes.write("text", "#!/bin/sh\n");
    let commands: Vec<Vec<OsString>> = vec![
        shell("exit 0"),
        shell("exit 255"),
        shell("kill -KILL $$"),
        shell(r#"echo "$0" "$#" "$1" "$2"; echo error >&2; exit 7"#),
        shell("pwd -P; umask; ulimit -n; ls /proc/self/fd"),
        shell("read line; echo $?"),
        vec!["cat".into(), "/proc/self/cmdline".into()],
        vec![file("script", "echo \"$0\" \"$#\" \"$1\"\nexit 7\n"), "".into(), "-c".into()],
        vec![file("perl", "#!/usr/bin/perl\nprint \"$0 @ARGV\"; exit 7\n"), "a".into()],
        vec![file("nowhere", "#!/nonexistent/interpreter\n")],
        vec![notes.path("text").into()],
        vec![notes.path("missing").into()],
        vec!["/".into()],
        vec!["golock-test-no-such-command".into()],
    ];
    each(&commands, |words| {
        let prefix = format!("{words:?}");
        let done = both(&server, |golock| golock.set("GRACE", "40").set("PREFIX", &prefix).args(words));
        assert_same(&done);
        // What could not be started leaves no grace.
        let is_held = ["60", "0"].map(|key| server.get(&format!("{prefix}{key}")).is_some());
        assert_eq!(is_held, [!matches!(done[0].code, 126 | 127); 2], "{done:?}");
    });
}

#[test]
fn the_job_inherits_what_it_inherits_without_a_lease() {
    let server = Server::start(&[]);
    for prelude in [&pristine(), "trap '' HUP USR1 ALRM", "exec <&- >&- 2>&-"] {
        let looks = ["60", "0"].map(|lease| {
            let notes = Notes::new();
            // grep is not a shell, which would handle signals for itself.
            let look = r#"grep "^Sig[BIC]" /proc/self/status >"$0/signals"; env >"$0/env"; ls /proc/self/fd >"$0/fd""#;
            leasing(server.port(), lease).prelude(prelude).args(notes.job(look)).run().assert_silent(0);
            let env = notes.lines("env", 1).into_iter().map(|line| line.replace(notes.folder().to_str().unwrap(), ""));
            let own = ["CRONLOCK_LEASE=", "GOLOCK_TOKEN=", "GOLOCK_FENCE="];
            let env = env.filter(|line| !own.iter().any(|name| line.starts_with(name)));
            (notes.lines("signals", 3), env.collect::<BTreeSet<_>>(), notes.lines("fd", 1))
        });
        assert_eq!(looks[0], looks[1]);
    }
}
