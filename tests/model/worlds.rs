//! The worlds that are explored.

use crate::mutation::Mutation;
use crate::redis::Rules;
use crate::world::{Budget, History, Predecessor, Setting};

/// Nothing happens.
const PEACE: Budget = Budget {
    delays: 0,
    losses: 0,
    strays: 0,
    crashes: 0,
    signals: 0,
    resets: 0,
    flushes: 0,
    steps: 0,
    refusals: 0,
    bans: 0,
    outages: 0,
    suspends: 0,
    timeouts: 0,
};

const RULES: Rules = Rules { scripts: true, time: true, room: true };

pub(crate) const PLAIN: Setting = Setting {
    name: "two hosts",
    hosts: 2,
    together: false,
    alike: false,
    release: 3,
    grace: 2,
    lease: None,
    once: false,
    history: History::Off,
    tries: 2,
    rules: RULES,
    predecessor: Predecessor::None,
    skews: [0; 3],
    budget: PEACE,
    tick: 1000,
    horizon: 4000,
    mutation: None,
};

const ALONE: Setting =
    Setting { name: "one host, three tries", hosts: 1, tries: 3, once: true, history: History::New, ..PLAIN };

const THREE: Setting = Setting { name: "three hosts", hosts: 3, ..PLAIN };

/// What is lost is not sent again.
const NO_RETRIES: Setting = Setting { name: "two hosts, no reconnects", tries: 1, ..PLAIN };

const WITHOUT_SCRIPTS: Setting =
    Setting { name: "two hosts, a server without EVAL", rules: Rules { scripts: false, ..RULES }, ..PLAIN };

/// The shortest lease.
const LEASE: Setting =
    Setting { name: "two hosts, leases", lease: Some(3), release: 4, tick: 500, horizon: 4500, ..PLAIN };

const LEASE_WITHOUT_SCRIPTS: Setting =
    Setting { name: "two hosts, leases, a server without EVAL", rules: Rules { scripts: false, ..RULES }, ..LEASE };

/// The lock of a cronlock that has crashed; another cronlock may come, too. The hosts' clocks differ.
const ABANDONED: Setting = Setting {
    name: "two hosts, a predecessor's lock, a cronlock",
    predecessor: Predecessor::Abandoned,
    skews: [2, -2, 0],
    ..PLAIN
};

/// A golock (Go) that runs, and whose value has passed for the first host.
const RUNNING: Setting = Setting {
    name: "two hosts, a golock (Go) that runs",
    predecessor: Predecessor::Running,
    skews: [3, -3, 0],
    ..PLAIN
};

/// Cron starts both hosts at once, and no grace keeps the second one from running.
const TICK: Setting =
    Setting { name: "two hosts, one tick", together: true, once: true, history: History::New, grace: 0, ..PLAIN };

const AFTER: Setting =
    Setting { name: "two hosts, one tick, a run shortly before", history: History::Before(1000), ..TICK };

const ALIKE: Setting = Setting { name: "two hosts of the same name, one tick", alike: true, ..TICK };

/// Each host is started when it likes.
const APART: Setting = Setting { name: "two hosts, each with a tick of its own", together: false, ..TICK };

const LEASE_APART: Setting = Setting {
    name: "two hosts, leases, each with a tick of its own",
    lease: Some(3),
    release: 4,
    tick: 500,
    horizon: 4500,
    ..APART
};

const UNRECORDED: Setting =
    Setting { name: "two hosts, one tick, no record, a grace", history: History::Off, grace: 2, ..TICK };

const TIMELESS: Setting =
    Setting { name: "two hosts, one tick, no TIME, a grace", rules: Rules { time: false, ..RULES }, grace: 2, ..TICK };

const FULL: Setting = Setting {
    name: "two hosts, one tick, no room for the record, a grace",
    rules: Rules { room: false, ..RULES },
    grace: 2,
    ..TICK
};

/// All run one after the other, and each is numbered.
const NUMBERED: Setting =
    Setting { name: "two hosts, numbered", history: History::New, grace: 0, horizon: 3000, ..PLAIN };

/// Time passes in steps that are shorter than what a start can do with.
const FINE: Setting =
    Setting { name: "two hosts, small steps", tick: 100, horizon: 700, once: true, history: History::New, ..PLAIN };

fn lost(losses: u8) -> Budget {
    Budget { losses, ..PEACE }
}

const LATE: Budget = Budget { delays: 1, ..PEACE };
const STRAY: Budget = Budget { strays: 1, ..PEACE };
const CRASH: Budget = Budget { crashes: 1, ..PEACE };
const SIGNAL: Budget = Budget { signals: 1, ..PEACE };
const RESET: Budget = Budget { resets: 1, ..PEACE };
const FLUSH: Budget = Budget { flushes: 1, ..PEACE };
const STEP: Budget = Budget { steps: 1, ..PEACE };
const REFUSAL: Budget = Budget { refusals: 1, ..PEACE };
const BAN: Budget = Budget { bans: 1, ..PEACE };
const OUTAGE: Budget = Budget { outages: 1, ..PEACE };
const SUSPEND: Budget = Budget { suspends: 1, ..PEACE };
const TIMEOUT: Budget = Budget { timeouts: 1, ..PEACE };

/// A loss, and a request that arrives late.
const CROSSED: Budget = Budget { losses: 1, strays: 1, ..PEACE };

/// What is no record: nothing, a pattern, half of one, one with a number that is too great, one with words for numbers, and
/// what is not even text.
const GARBAGE: [&str; 6] = [
    "",
    "%d+%s*",
    "fence=5 host=h pid=1 program=p start=1700000000001 end= result= ok= failed=0",
    "fence=99999999999999999999 host=h pid=1 program=p start=1700000000001 end= result= ok= failed=0 first=1",
    "fence=5 host=h pid=1 program=p start=-1 end=x result= ok= failed=0 first=1",
    "(a list)",
];

fn garbage(text: &'static str) -> Setting {
    Setting { name: "two hosts, one tick, garbage in the record", history: History::Garbage(text), ..TICK }
}

/// A place with each of these budgets, and so many delays besides.
fn with(place: Setting, delays: u8, budgets: &[Budget]) -> Vec<Setting> {
    budgets.iter().map(|&budget| Setting { budget: Budget { delays, ..budget }, ..place }).collect()
}

/// Worlds in which something happens once, and something is late: for every change of the code.
fn small() -> Vec<Setting> {
    let alone = [lost(3), CROSSED, Budget { losses: 1, signals: 2, ..PEACE }, Budget { refusals: 1, ..lost(1) }];
    let every = [PEACE, lost(1), STRAY, CRASH, SIGNAL, RESET];
    let unusual = [REFUSAL, BAN, OUTAGE];
    let places = [
        with(ALONE, 1, &alone),
        with(PLAIN, 1, &[&every[..], &unusual, &[SUSPEND, TIMEOUT]].concat()),
        with(NO_RETRIES, 0, &[lost(2), STRAY]),
        with(WITHOUT_SCRIPTS, 0, &every[1..]),
        with(WITHOUT_SCRIPTS, 1, &[PEACE, CRASH]),
        with(RUNNING, 0, &every[1..]),
        with(RUNNING, 1, &[PEACE, CRASH]),
        with(ABANDONED, 0, &every[1..]),
        with(ABANDONED, 1, &[PEACE]),
        with(LEASE, 0, &[lost(1), CRASH, SIGNAL, OUTAGE, SUSPEND, TIMEOUT]),
        with(LEASE, 1, &[PEACE]),
        with(THREE, 0, &[PEACE]),
        with(TICK, 1, &every),
        with(AFTER, 1, &[PEACE, lost(1), SIGNAL]),
        with(ALIKE, 1, &[PEACE]),
        with(APART, 0, &[STEP, FLUSH]),
        with(UNRECORDED, 1, &[&every[..], &unusual].concat()),
        with(TIMELESS, 1, &[lost(1)]),
        with(FULL, 1, &[lost(1)]),
        with(NUMBERED, 1, &[lost(1), STRAY, FLUSH, STEP]),
        with(FINE, 1, &[PEACE]),
        GARBAGE.into_iter().flat_map(|text| with(garbage(text), 1, &[PEACE])).collect(),
    ];
    places.concat()
}

/// Those in which several things happen, or three hosts meet: for the slower proofs.
fn large() -> Vec<Setting> {
    let every = [lost(1), STRAY, SIGNAL, RESET, REFUSAL, BAN, OUTAGE];
    let stopped = Budget { losses: 1, signals: 1, ..PEACE };
    let ticks = [lost(2), stopped, CROSSED, Budget { strays: 2, ..PEACE }];
    let three = |place: Setting, name: &'static str| Setting { hosts: 3, name, ..place };
    let places = [
        with(ALONE, 1, &[Budget { bans: 1, outages: 1, ..lost(1) }, Budget { strays: 1, signals: 2, ..lost(1) }]),
        with(PLAIN, 0, &[Budget { losses: 2, crashes: 1, ..STRAY }, Budget { signals: 1, resets: 1, ..CROSSED }]),
        with(PLAIN, 2, &[lost(1), STRAY]),
        with(WITHOUT_SCRIPTS, 1, &every[..4]),
        with(WITHOUT_SCRIPTS, 0, &[CROSSED, OUTAGE]),
        with(RUNNING, 1, &every),
        with(ABANDONED, 0, &every[4..]),
        with(ABANDONED, 1, &[CRASH, lost(1), STRAY]),
        with(
            LEASE,
            0,
            &[STRAY, RESET, REFUSAL, BAN, Budget { crashes: 1, ..lost(1) }, Budget { suspends: 1, ..lost(1) }],
        ),
        with(LEASE, 1, &[lost(1), SUSPEND]),
        with(LEASE_WITHOUT_SCRIPTS, 0, &[PEACE, lost(1), CRASH, SIGNAL]),
        with(TICK, 1, &[&every[4..], &ticks].concat()),
        with(TICK, 2, &[PEACE, lost(1), SIGNAL]),
        with(AFTER, 1, &[&every[1..], &ticks].concat()),
        with(AFTER, 2, &[PEACE, lost(1), SIGNAL]),
        with(ALIKE, 1, &[lost(1), STRAY]),
        with(APART, 2, &[PEACE, lost(1)]),
        with(APART, 1, &[CROSSED, RESET, STEP, FLUSH]),
        with(LEASE_APART, 0, &[PEACE, LATE, lost(1), STRAY, SIGNAL, OUTAGE]),
        with(UNRECORDED, 1, &[CROSSED]),
        with(UNRECORDED, 2, &[lost(1)]),
        with(TIMELESS, 1, &[CROSSED]),
        with(NUMBERED, 1, &[Budget { steps: 1, ..FLUSH }, CROSSED]),
        with(FINE, 1, &[lost(1), SIGNAL]),
        with(THREE, 0, &[lost(1), STRAY, CRASH, SIGNAL, RESET]),
        with(THREE, 1, &[PEACE]),
        with(three(TICK, "three hosts, one tick"), 0, &[PEACE, lost(1), STRAY, SIGNAL]),
        with(three(TICK, "three hosts, one tick"), 1, &[PEACE]),
        with(three(NUMBERED, "three hosts, numbered"), 0, &[PEACE, lost(1), FLUSH]),
        with(three(ABANDONED, "three hosts, a predecessor's lock, a cronlock"), 0, &[PEACE]),
    ];
    places.concat()
}

/// With `GOLOCK_MODEL=large` also those that take minutes.
pub(crate) fn all() -> Vec<Setting> {
    let is_large = std::env::var("GOLOCK_MODEL").is_ok_and(|size| size == "large");
    if is_large { [small(), large()].concat() } else { small() }
}

/// A world for each mutation in which it must be found.
pub(crate) fn mutated() -> Vec<Setting> {
    let places = [
        (Mutation::ReleaseWithoutCompare, PLAIN, lost(1)),
        (Mutation::OwnershipBySet, PLAIN, lost(1)),
        (Mutation::TakeOverWithoutCompare, ABANDONED, PEACE),
        (Mutation::TakeOverWithTtl, RUNNING, PEACE),
        (Mutation::RetryOfTheUnrepeatable, WITHOUT_SCRIPTS, lost(1)),
        (Mutation::RenewalWithoutCompare, LEASE, RESET),
        (Mutation::LockWithoutTtl, PLAIN, PEACE),
        (Mutation::ReleaseAtTheLastMoment, Setting { tick: 500, ..WITHOUT_SCRIPTS }, LATE),
        (Mutation::ReleaseLengthens, PLAIN, LATE),
        (Mutation::RenewalBeyondRelease, LEASE, PEACE),
        (Mutation::CountedFromAnswer, PLAIN, LATE),
        (Mutation::GraceOnce, ALONE, lost(1)),
        (Mutation::NoConfirm, PLAIN, LATE),
        (Mutation::NoLastLook, PLAIN, PEACE),
        (Mutation::FearForgotten, ALONE, Budget { losses: 1, refusals: 1, ..PEACE }),
        (Mutation::NoGiveBack, ALONE, lost(3)),
        (Mutation::SecondSignal, ALONE, Budget { signals: 2, ..PEACE }),
        (Mutation::NumberTwice, NUMBERED, STEP),
        (Mutation::NumberByClock, NUMBERED, STEP),
        (Mutation::RecordedAgain, NUMBERED, lost(1)),
        (Mutation::RunsAgain, NUMBERED, STRAY),
        (Mutation::RenewsAfterEnd, LEASE_APART, STRAY),
        (Mutation::OwnRunServes, TICK, LATE),
        (Mutation::NamesakeIsOwn, ALIKE, PEACE),
        (Mutation::VoidServes, TICK, SIGNAL),
        (Mutation::ElapsedOnce, TICK, LATE),
        (Mutation::NoDoubt, TICK, LATE),
        (Mutation::DoubtProlongs, AFTER, Budget { delays: 1, strays: 1, ..PEACE }),
        (Mutation::DoubtEndsLook, AFTER, LATE),
        (Mutation::FutureServes, APART, STEP),
        (Mutation::LateUnrecorded, UNRECORDED, PEACE),
        (Mutation::RecordFailsLock, garbage(GARBAGE[5]), PEACE),
        (Mutation::EndedAgain, ALONE, lost(1)),
        (Mutation::EndsAnother, NUMBERED, STRAY),
        (Mutation::GarbageServes, garbage(GARBAGE[3]), PEACE),
        (Mutation::RenewalShortens, Setting { grace: 4, ..LEASE }, STRAY),
        (Mutation::ResumedUnseen, LEASE, Budget { suspends: 1, ..PEACE }),
    ];
    places.map(|(mutation, place, budget)| Setting { mutation: Some(mutation), budget, ..place }).to_vec()
}
