//! Many golocks with short jobs under a few locks, while Redis is frozen, killed, robbed of its data and of its clients,
//! connections break, and golocks are stopped and killed: no two jobs under one lock overlap, no lock stays, no run is
//! lost to anything but trouble, and nothing is left behind.

mod judge;
mod runs;
mod tally;
mod trouble;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use self::judge::{Round, Testimonies};
use self::runs::{Order, RELEASE, Run, Site, hit, lock_name};
use self::tally::Tally;
use self::trouble::Durable;
use crate::support::soak::{Court, Dice, Host, length, seed, watch_machine};
use crate::support::until;
use crate::support::watch::{birth, inheriting, is_alive};

const HOSTS: usize = 6;
const LOCKS: usize = 3;

/// Lets golocks run in trouble until `end`; every second time it is only on the lines, so that less is excused.
fn chaos(redis: &Durable, site: &Site<'_>, dice: &Dice, calm: bool, end: Instant) -> Round {
    let hosts = [(); HOSTS].map(|()| Host::default());
    let run = |(number, host)| site.keep_running(host, dice, number == 0, end);
    thread::scope(|scope| {
        let running: Vec<_> = hosts.iter().enumerate().map(|host| scope.spawn(move || run(host))).collect();
        let hits = scope.spawn(|| hit(&hosts, dice, end));
        let troubles = if calm { Vec::new() } else { redis.suffer(LOCKS, dice, end) };
        let runs = running.into_iter().flat_map(|host| host.join().unwrap()).collect();
        Round { runs, troubles, hits: hits.join().unwrap(), ..Round::default() }
    })
}

/// The locks that do not end by themselves in time, and the keys that are no locks.
fn leftovers(redis: &Durable) -> Vec<String> {
    let (server, most) = (&redis.server, i64::try_from(RELEASE * 1000).unwrap());
    let names: Vec<_> = (0..LOCKS).map(|lock| format!("cronlock.{}", lock_name(lock))).collect();
    let strange = server.locks().into_iter().filter(|key| !names.iter().any(|name| *key == format!("0:{name}")));
    let endless = names.iter().filter_map(|name| {
        let left = server.pttl(name);
        (left != -2 && !(0..=most).contains(&left)).then(|| format!("{name} stays for {left} ms"))
    });
    strange.map(|key| format!("a key that is no lock: {key}")).chain(endless).collect()
}

/// Runs a golock on each lock at the same time.
fn run_on_each(site: &Site<'_>, order: impl Fn(usize) -> Order + Sync) -> Vec<Run> {
    let run = |lock| site.run(&Host::default(), order(lock));
    thread::scope(|scope| {
        let running = [0, 1, 2].map(|lock| scope.spawn(move || run(lock)));
        running.into_iter().map(|run| run.join().unwrap()).collect()
    })
}

/// With Redis up, and no trouble but what a golock must bear, every lock comes free and is taken again.
fn leave_in_peace(redis: &Durable, site: &Site<'_>, dice: &Dice, round: &mut Round) {
    round.leftovers.extend(leftovers(redis));
    round.runs.extend(run_on_each(site, |lock| Order::peaceful(lock, dice)));
    round.runs.extend(run_on_each(site, |lock| Order::persistent(lock, dice)));
    // Nothing asks for these locks any more, and the last to hold them had no grace.
    round.leftovers.extend(redis.server.locks());
}

/// Chaos until `end`, and then peace.
fn play(redis: &Durable, number: u64, dice: &Dice, end: Instant) -> Round {
    let courts = [(); LOCKS].map(|()| Court::new());
    let name = format!("{}of{number}", redis.server.port());
    let site = Site { port: redis.server.port(), courts: &courts, round: &name };
    let over = AtomicBool::new(false);
    let mut round = thread::scope(|scope| {
        let machine = scope.spawn(|| watch_machine(|| !over.load(Ordering::SeqCst)));
        let mut round = chaos(redis, &site, dice, number % 2 == 1, end);
        leave_in_peace(redis, &site, dice, &mut round);
        over.store(true, Ordering::SeqCst);
        Round { standstills: machine.join().unwrap(), ..round }
    });
    until("the processes of the round are gone", || inheriting(&site.mark()).is_empty());
    round.testimonies = courts.iter().map(Testimonies::of).collect();
    let mut starts = round.testimonies.iter().flat_map(|said| &said.starts);
    assert!(starts.all(|start| birth(start.job).as_ref() != Some(&start.born) || !is_alive(start.job)));
    round
}

#[test]
fn chaos_costs_no_run_but_those_that_meet_it() {
    let (seed, end, began) = (seed(), Instant::now() + length(), Instant::now());
    println!("GOLOCK_SOAK_SEED={seed}");
    let (redis, dice, mut tally) = (Durable::start(), Dice::new(seed), Tally::default());
    for number in 0.. {
        let round = play(&redis, number, &dice, end.min(Instant::now() + dice.span(5000, 8000)));
        let complaints = round.complaints();
        assert!(complaints.is_empty(), "seed {seed}, round {number}:\n{}\n{}", complaints.join("\n"), round.log());
        tally.add(&round);
        if Instant::now() >= end {
            break;
        }
    }
    println!("{:.0} seconds; {tally}", began.elapsed().as_secs_f64());
}
