//! What a process inherits about signals: golock keeps to it, and hands it on to the job as it found it.

use std::net::{Ipv4Addr, SocketAddr};

use rustix::process::{Pid, Signal, kill_process};
use socket2::{Domain, Socket, Type};

use crate::support::job_tools::{
    EVER, FORWARDED, Notes, WHILE_NOTED, graceless, has_signal, pristine, signals, sleeps, status,
};
use crate::support::watch::{descriptors, is_asleep};
use crate::support::{Golock, Job, Server, each, until};

/// Runs a job that looks at itself while golock is looked at: what each has in `/proc/PID/status`.
fn looks(golock: &Golock, during: impl FnOnce(Pid)) -> (String, String) {
    let notes = Notes::new();
    // cat is not a shell, which would handle signals for itself.
    let look = format!(r#"{WHILE_NOTED}; cat /proc/self/status >"$0/job""#);
    let golock = golock.clone().args(notes.job(&format!(r#": >"$0/ready"; {look}; exit 7"#))).spawn();
    until("the job runs", || notes.path("ready").exists());
    // Until then it may still be starting the job.
    until("golock sleeps", || sleeps(&status(golock.pid())));
    let status = status(golock.pid());
    during(golock.pid());
    notes.write("open", "");
    golock.wait().assert_silent(7);
    (status, notes.read("job"))
}

#[test]
fn a_job_starts_with_nothing_blocked_and_nothing_handled() {
    let server = Server::start(&[]);
    let golock = graceless(server.port()).prelude(&pristine());
    let (_, job) = looks(&golock, |_| ());
    for name in ["SigBlk", "SigCgt", "SigPnd", "ShdPnd"] {
        assert_eq!(signals(&job, name), 0, "{name} in {job}");
    }
    for (name, signal) in FORWARDED.into_iter().chain([("PIPE", Signal::PIPE), ("CHLD", Signal::CHILD)]) {
        assert!(!has_signal(&job, "SigIgn", signal), "{name} is ignored: {job}");
    }
}

#[test]
fn an_inherited_ignore_stays() {
    let server = Server::start(&[]);
    each(&FORWARDED, |&(name, signal)| {
        let golock = graceless(server.port()).set("KEY", name).prelude(&format!("trap '' {name}"));
        let (golock, job) = looks(&golock, |golock| kill_process(golock, signal).unwrap());
        for status in [golock, job] {
            assert!(has_signal(&status, "SigIgn", signal), "{status}");
        }
    });
}

#[test]
fn ignores_that_golock_has_no_use_for_stay_too() {
    let server = Server::start(&[]);
    let (_, job) = looks(&graceless(server.port()).prelude("trap '' ALRM TSTP TTIN TTOU"), |_| ());
    for signal in [Signal::ALARM, Signal::TSTP, Signal::TTIN, Signal::TTOU] {
        assert!(has_signal(&job, "SigIgn", signal), "{signal:?} is not ignored: {job}");
    }
}

#[test]
fn under_nohup_a_hangup_ends_neither_golock_nor_the_job() {
    let server = Server::start(&[]);
    let golock = graceless(server.port()).prelude(r#"exec nohup "$0" "$@""#);
    let (golock, job) = looks(&golock, |golock| kill_process(golock, Signal::HUP).unwrap());
    for status in [golock, job] {
        assert!(has_signal(&status, "SigIgn", Signal::HUP), "{status}");
    }
}

/// Blocks SIGCHLD, which no shell can do.
const BLOCKED: &str =
    r#"exec perl -MPOSIX -e 'sigprocmask(SIG_BLOCK, POSIX::SigSet->new(SIGCHLD)); exec @ARGV' "$0" "$@""#;

#[test]
fn the_end_of_the_job_is_noticed_even_if_nothing_may_announce_it() {
    let server = Server::start(&[]);
    each(&[BLOCKED, "trap '' CHLD"], |prelude| {
        let (_, job) = looks(&graceless(server.port()).set("KEY", prelude).prelude(prelude), |_| ());
        assert_eq!(signals(&job, "SigBlk"), 0, "{job}");
    });
}

#[test]
fn a_job_whose_end_nothing_announces_is_killed_at_its_timeout_all_the_same() {
    let server = Server::start(&[]);
    let job = Job::gated(0);
    let golock = graceless(server.port()).set("TIMEOUT", "1").prelude(BLOCKED).args(job.command());
    golock.run().assert_one_line(202, &["sh", "1 s"]);
}

/// A listener whose queue is full, so that connecting to it does not come to an end, and what fills it.
fn deaf_listener() -> (Socket, Vec<Socket>, u16) {
    let socket = || Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let listener = socket();
    listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let fillers = (0..8).map(|_| socket()).collect::<Vec<_>>();
    for filler in &fillers {
        filler.set_nonblocking(true).unwrap();
        let _ = filler.connect(&address);
    }
    (listener, fillers, address.as_socket().unwrap().port())
}

#[test]
fn a_signal_ends_the_wait_to_be_connected() {
    let (_listener, _fillers, port) = deaf_listener();
    let job = Job::exits(0);
    let golock = graceless(port).set("REDIS_TIMEOUT", EVER).args(job.command()).spawn();
    until("golock waits for its socket", || {
        descriptors(golock.pid()).iter().any(|what| what.starts_with("socket:")) && is_asleep(golock.pid())
    });
    golock.signal(Signal::TERM);
    golock.wait().assert_silent(143);
    assert_eq!(job.runs(), 0);
}
