//! Jobs under one lock never run at the same time, whatever happens to Redis; and where a golock was stopped past its
//! lease, only until it goes on.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use rustix::process::Signal;

use crate::support::job_tools::Notes;
use crate::support::soak::{Court, Dice, Host, Overlap, Standstill, length, pass, seed, watch_machine};
use crate::support::tenant::{NAME, STEADY, STUBBORN, Tenant, job, leasing};
use crate::support::watch::{is_alive, uptime};
use crate::support::{Done, Server, until};

/// The lease: as short as it may be, so that much happens in a short time.
const LEASE: &str = "3";

/// The time in which a job that was told to end may still do so, at the end of which it is gone. A golock that stood still
/// for less has no excuse.
const MARGIN: f64 = 3.0 / 12.0;

/// What befalls Redis until `end`: it is frozen for a moment or for longer than a lease, or loses its clients.
fn trouble_redis(server: &Server, dice: &Dice, end: Instant) {
    while Instant::now() < end {
        pass(dice.span(50, 1500), end);
        match dice.below(6) {
            0 => {
                let _: i64 = server.query(&["CLIENT", "KILL", "TYPE", "normal"]);
            }
            kind => {
                server.stop();
                pass(if kind == 1 { dice.span(3000, 5000) } else { dice.span(10, 1000) }, end);
                server.cont();
            }
        }
    }
}

/// Stops golocks until `end`, for a moment or for longer than a lease; returns when each could do nothing.
fn stop_golocks(hosts: &[Host], dice: &Dice, end: Instant) -> Vec<Standstill> {
    let mut stops = Vec::new();
    while Instant::now() < end {
        pass(dice.span(10, 500), end);
        let host = &hosts[dice.index(hosts.len())];
        let from = uptime();
        if let Some(golock) = host.signal(Signal::STOP, None) {
            pass(if dice.below(2) == 0 { dice.span(4000, 6000) } else { dice.span(10, 1000) }, end);
            host.signal(Signal::CONT, Some(golock));
            stops.push(Standstill { golock: Some(golock.as_raw_nonzero().get()), from, to: uptime() });
        }
    }
    stops
}

/// Runs one golock after the other until `end`, and returns how they ended.
fn keep_running(host: &Host, server: &Server, court: &Court, dice: &Dice, end: Instant) -> Vec<Done> {
    let mut ends = Vec::new();
    while Instant::now() < end {
        let span = if dice.below(6) == 0 { dice.span(3000, 8000) } else { dice.span(0, 300) };
        let span = span.min(end.saturating_duration_since(Instant::now()));
        let wait = if dice.below(2) == 0 { "0" } else { "2" };
        ends.push(host.run(&leasing(server.port(), LEASE).set("WAIT", wait).args(court.job(span, 0))));
        pass(dice.span(10, 100), end);
    }
    ends
}

/// What came of a soak.
struct Verdict {
    court: Court,
    ends: Vec<Done>,
    stops: Vec<Standstill>,
}

/// Lets all hosts run, with trouble for Redis and, if `stopping`, for the golocks themselves.
fn soak(dice: &Dice, stopping: bool) -> Verdict {
    let (server, court) = (Server::start(&[]), Court::new());
    let (hosts, end, over) = ([(); 4].map(|()| Host::default()), Instant::now() + length(), AtomicBool::new(false));
    let run = |host| keep_running(host, &server, &court, dice, end);
    let (ends, stops) = thread::scope(|scope| {
        let machine = scope.spawn(|| watch_machine(|| !over.load(Ordering::SeqCst)));
        let stopper = stopping.then(|| scope.spawn(|| stop_golocks(&hosts, dice, end)));
        let running: Vec<_> = hosts.iter().map(|host| scope.spawn(move || run(host))).collect();
        trouble_redis(&server, dice, end);
        let ends = running.into_iter().flat_map(|host| host.join().unwrap()).collect();
        over.store(true, Ordering::SeqCst);
        let stops = stopper.map_or_else(Vec::new, |stopper| stopper.join().unwrap());
        (ends, [stops, machine.join().unwrap()].concat())
    });
    Verdict { court, ends, stops }
}

impl Verdict {
    /// Asserts that no two jobs ever ran at the same time without an excuse, and that golock said what it had to. Returns
    /// a summary.
    #[track_caller]
    fn assert_sound(&self) -> String {
        let explained = |overlap: &Overlap| self.stops.iter().any(|stop| stop.explains(overlap, MARGIN));
        let (excused, others): (Vec<_>, Vec<_>) = self.court.overlaps().into_iter().partition(explained);
        assert!(others.is_empty(), "{others:#?} among {:#?}", self.stops);
        for done in &self.ends {
            let lines = done.stderr.lines().count();
            assert!([0, 200, 201].contains(&done.code) && lines <= 1 && (done.code != 201 || lines == 1), "{done:?}");
        }
        let [done, skipped, failed] = [0, 200, 201].map(|code| self.ends.iter().filter(|end| end.code == code).count());
        assert!(done > 0);
        format!(
            "{} jobs started; {done} golocks did theirs, {skipped} skipped, {failed} failed or lost their lease\n\
            {} overlaps with a job whose golock stood still: {excused:?}",
            self.court.starts().len(),
            excused.len(),
        )
    }
}

#[test]
fn jobs_never_overlap_whatever_happens_to_redis() {
    let seed = seed();
    println!("GOLOCK_SOAK_SEED={seed}");
    println!("{}", soak(&Dice::new(seed), false).assert_sound());
}

#[test]
fn jobs_overlap_only_while_a_golock_is_stopped() {
    let seed = seed();
    println!("GOLOCK_SOAK_SEED={seed}");
    println!("{}", soak(&Dice::new(seed), true).assert_sound());
}

#[test]
fn the_job_of_a_stopped_golock_runs_on_past_its_lease_until_golock_goes_on() {
    let server = Server::start(&[]);
    let first = Tenant::start(&leasing(server.port(), LEASE), STUBBORN);
    let notes = Notes::new();
    let second = leasing(server.port(), "60").set("WAIT", "60").args(job(&notes, STEADY)).spawn();
    first.golock.signal(Signal::STOP);
    let job = notes.pid("pid");
    // Nobody is there to stop the first: this is what no lock can prevent.
    assert!(first.lives() && is_alive(job));
    let token = server.get(NAME);
    first.golock.signal(Signal::CONT);
    until("the first job is killed", || !first.lives());
    first.golock.wait().assert_one_line(201, &[NAME]);
    assert_eq!(server.get(NAME), token);
    notes.write("open", "");
    second.wait().assert_silent(7);
}
