//! While a job runs golock sleeps. Without a lease nothing but the job's end wakes it; with one, only the renewals.

use std::fs;
use std::io::ErrorKind;
use std::process::Command;
use std::time::Duration;

use crate::support::job_tools::{Notes, quoted};
use crate::support::tenant::{STEADY, Tenant, leasing};
use crate::support::wait::holds_within;
use crate::support::watch::{descriptors, is_asleep, wake_ups};
use crate::support::{Proxy, Server, until};

/// What makes a process wake up by itself, or talk.
const DEVICES: [&str; 8] =
    ["connect(", "timerfd_create(", "timer_create(", "setitimer(", "alarm(", "nanosleep(", "clone", "fork("];

/// The system calls that golock makes from when its job is started until it ends.
struct Trace(Vec<String>);

impl Trace {
    /// Runs a job that lasts so long under golock under strace.
    fn of(server: &Server, lease: &str, seconds: &str) -> Self {
        let notes = Notes::new();
        let strace = format!(r#"exec strace -qq -o {} "$0" "$@""#, quoted(&notes.path("trace")));
        leasing(server.port(), lease).prelude(&strace).args(["sleep", seconds]).run().assert_silent(0);
        let trace = notes.read("trace");
        let calls = trace.lines().map(String::from).skip_while(|line| !is_start(line)).skip(1);
        let calls: Vec<_> = calls.take_while(|line| !line.contains("WIFEXITED")).collect();
        assert!(!calls.is_empty(), "no job in {trace}");
        Self(calls)
    }

    fn count(&self, call: &str) -> usize {
        self.0.iter().filter(|line| line.split('"').next().unwrap().contains(call)).count()
    }

    /// How often each of these was used.
    fn devices(&self) -> [usize; DEVICES.len()] {
        DEVICES.map(|device| self.count(device))
    }
}

/// Whether a line of strace's shows the start of a process, by whatever name the C library calls it.
fn is_start(line: &str) -> bool {
    ["clone", "vfork(", "fork("].iter().any(|call| line.starts_with(call))
}

/// Whether a process may trace another here.
pub(crate) fn may_trace() -> bool {
    match Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]).status() {
        Err(error) if error.kind() == ErrorKind::NotFound => panic!("strace is not installed, and the tests need it"),
        status => status.unwrap().success(),
    }
}

#[test]
fn without_a_lease_golock_sleeps_once() {
    if !may_trace() {
        return println!("skipped: no process may trace another here");
    }
    let trace = Trace::of(&Server::start(&[]), "0", "1");
    assert_eq!(trace.count("poll("), 1, "{:#?}", trace.0);
    assert_eq!(trace.devices(), [0; DEVICES.len()], "{:#?}", trace.0);
}

#[test]
fn with_a_lease_golock_wakes_up_for_its_renewals_only() {
    if !may_trace() {
        return println!("skipped: no process may trace another here");
    }
    let trace = Trace::of(&Server::start(&[]), "3", "2.5");
    let renewals = trace.count("connect(");
    // After one, it is at most half a lease to the next, even if the machine is slow and an attempt failed.
    assert!((1..=12).contains(&renewals), "{renewals} renewals in {:#?}", trace.0);
    // In front of each golock sleeps, and each may wait to be connected and for its answer.
    assert!(trace.count("poll(") <= 3 * renewals + 1, "{:#?}", trace.0);
    assert_eq!(trace.devices()[1..], [1, 0, 0, 0, 0, 0, 0], "{:#?}", trace.0);
    assert!((1..=renewals + 1).contains(&trace.count("timerfd_settime(")), "{:#?}", trace.0);
}

#[test]
fn between_two_renewals_golock_is_as_good_as_not_there() {
    let server = Server::start(&[]);
    let proxy = Proxy::start(server.port());
    let tenant = Tenant::start(&leasing(proxy.port(), "9"), STEADY);
    let golock = tenant.golock.pid();
    let renewals = proxy.connections();
    until("a renewal has passed", || proxy.connections() > renewals && proxy.open() == 0);
    until("golock sleeps", || is_asleep(golock));
    let before = wake_ups(golock);
    // The next one comes after three seconds.
    assert!(!holds_within(Duration::from_secs(1), || wake_ups(golock) != before), "golock woke up");
    assert_eq!(fs::read_dir(format!("/proc/{golock}/task")).unwrap().count(), 1);
    // What the job has too, golock was started with. Beyond that it has nothing that leads to others.
    let inherited = descriptors(tenant.job);
    let own = descriptors(golock);
    let is_line = |what: &&String| ["socket:", "pipe:"].iter().any(|kind| what.starts_with(kind));
    let lines = own.iter().filter(is_line).find(|what| !inherited.contains(what));
    assert_eq!(lines, None, "{own:?}");
    tenant.finish();
}
