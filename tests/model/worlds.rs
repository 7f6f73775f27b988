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

const STRAY: Budget = Budget { strays: 1, ..PEACE };
const CRASH: Budget = Budget { crashes: 1, ..PEACE };
const SIGNAL: Budget = Budget { signals: 1, ..PEACE };
const RESET: Budget = Budget { resets: 1, ..PEACE };
const FLUSH: Budget = Budget { flushes: 1, ..PEACE };
const STEP: Budget = Budget { steps: 1, ..PEACE };
const REFUSAL: Budget = Budget { refusals: 1, ..PEACE };
const BAN: Budget = Budget { bans: 1, ..PEACE };
const OUTAGE: Budget = Budget { outages: 1, ..PEACE };

const GARBAGE: [&str; 6] = [
    "",
    "%d+%s*",
    "fence=5 host=h pid=1 program=p start=1700000000001 end= result= ok= failed=0",
    "fence=99999999999999999999 host=h pid=1 program=p start=1700000000001 end= result= ok= failed=0 first=1",
    "fence=5 host=h pid=1 program=p start=-1 end=x result= ok= failed=0 first=1",
    "(a list)",
];

fn with(place: Setting, budgets: &[Budget]) -> Vec<Setting> {
    budgets.iter().map(|budget| Setting { budget: *budget, ..place }).collect()
}

fn delayed(worlds: Vec<Setting>) -> Vec<Setting> {
    worlds.into_iter().map(|world| Setting { budget: Budget { delays: 1, ..world.budget }, ..world }).collect()
}

pub(crate) fn all() -> Vec<Setting> {
    let every = [PEACE, LATE, lost(1), STRAY, CRASH, SIGNAL, RESET, REFUSAL, BAN, OUTAGE];
    let mut all = Vec::new();
    all.extend(delayed(with(
        ALONE,
        &[
            Budget { losses: 3, ..PEACE },
            Budget { losses: 1, strays: 1, ..PEACE },
            Budget { losses: 1, signals: 2, ..PEACE },
            Budget { losses: 1, refusals: 1, ..PEACE },
            Budget { losses: 1, bans: 1, outages: 1, ..PEACE },
        ],
    )));
    all.extend(delayed(with(PLAIN, &every)));
    all.extend(with(NO_RETRIES, &[lost(2), STRAY]));
    all.extend(delayed(with(WITHOUT_SCRIPTS, &every)));
    all.extend(delayed(with(RUNNING, &every)));
    all.extend(with(ABANDONED, &every));
    all.extend(with(LEASE, &every));
    all.extend(with(LEASE, &[Budget { suspends: 1, ..PEACE }, Budget { timeouts: 1, ..PEACE }]));
    all.extend(with(PLAIN, &[Budget { suspends: 1, ..PEACE }, Budget { timeouts: 1, ..PEACE }]));
    all.extend(with(LEASE_WITHOUT_SCRIPTS, &every));
    all.extend(with(THREE, &[PEACE]));
    all.extend(delayed(with(TICK, &every)));
    all.extend(delayed(with(AFTER, &every)));
    all.extend(delayed(with(ALIKE, &every)));
    all.extend(delayed(with(UNRECORDED, &every)));
    all.extend(delayed(with(TIMELESS, &[lost(1)])));
    all.extend(delayed(with(FULL, &[lost(1)])));
    all.extend(delayed(with(NUMBERED, &[lost(1), STRAY, FLUSH, STEP, Budget { flushes: 1, steps: 1, ..PEACE }])));
    all.extend(delayed(with(FINE, &[PEACE, lost(1), SIGNAL])));
    for garbage in GARBAGE {
        all.extend(delayed(with(
            Setting { name: "two hosts, one tick, garbage in the record", history: History::Garbage(garbage), ..TICK },
            &[PEACE],
        )));
    }
    if std::env::var("MODEL_TRY").is_ok() {
        all.clear();
        let late2 = |budget: Budget| Budget { delays: 2, ..budget };
        all.extend(with(
            TICK,
            &[
                late2(PEACE),
                late2(lost(1)),
                late2(SIGNAL),
                Budget { losses: 1, strays: 1, ..PEACE },
                Budget { losses: 1, signals: 1, delays: 1, ..PEACE },
                Budget { losses: 2, delays: 1, ..PEACE },
                Budget { strays: 2, ..PEACE },
            ],
        ));
        all.extend(with(
            AFTER,
            &[
                late2(PEACE),
                late2(lost(1)),
                late2(SIGNAL),
                Budget { losses: 1, strays: 1, ..PEACE },
                Budget { losses: 1, signals: 1, delays: 1, ..PEACE },
                Budget { losses: 2, delays: 1, ..PEACE },
                Budget { strays: 2, ..PEACE },
            ],
        ));
        all.extend(with(UNRECORDED, &[late2(lost(1)), Budget { losses: 1, strays: 1, delays: 1, ..PEACE }]));
        all.extend(with(TIMELESS, &[late2(lost(1)), Budget { losses: 1, strays: 1, delays: 1, ..PEACE }]));
        all.extend(with(
            APART,
            &[
                late2(PEACE),
                late2(lost(1)),
                Budget { losses: 1, strays: 1, ..PEACE },
                Budget { delays: 1, resets: 1, ..PEACE },
                Budget { delays: 1, steps: 1, ..PEACE },
                Budget { delays: 1, flushes: 1, ..PEACE },
            ],
        ));
        let leased = Setting { lease: Some(3), release: 4, tick: 500, horizon: 4500, ..APART };
        let leased = Setting { name: "two hosts, leases, each with a tick of its own", ..leased };
        all.extend(with(leased, &[PEACE, LATE, lost(1), STRAY, SIGNAL, OUTAGE]));
        all.extend(with(Setting { hosts: 3, name: "three hosts, one tick", ..TICK }, &[LATE, lost(1), STRAY, SIGNAL]));
        all.extend(with(Setting { hosts: 3, name: "three hosts, numbered", ..NUMBERED }, &[PEACE, lost(1), FLUSH]));
        all.extend(with(
            PLAIN,
            &[
                Budget { losses: 2, strays: 1, crashes: 1, ..PEACE },
                Budget { losses: 1, strays: 1, signals: 1, resets: 1, ..PEACE },
                Budget { losses: 1, delays: 2, ..PEACE },
            ],
        ));
    }
    let only = std::env::var("MODEL_ONLY").unwrap_or_default();
    all.retain(|world| format!("{} {}", world.name, world.budget.short()).contains(&only));
    all
}

const LATE: Budget = Budget { delays: 1, ..PEACE };
const APART: Setting = Setting { name: "two hosts, each with a tick of its own", together: false, ..TICK };
fn garbage(text: &'static str) -> Setting {
    Setting { name: "two hosts, one tick, garbage in the record", history: History::Garbage(text), ..TICK }
}
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
        (Mutation::GraceOnce, ALONE, lost(1)),
        (Mutation::NoConfirm, PLAIN, LATE),
        (Mutation::NoLastLook, PLAIN, PEACE),
        (Mutation::FearForgotten, ALONE, Budget { losses: 1, refusals: 1, ..PEACE }),
        (Mutation::NoGiveBack, ALONE, lost(3)),
        (Mutation::SecondSignal, ALONE, Budget { signals: 2, ..PEACE }),
        (Mutation::NumberTwice, NUMBERED, STEP),
        (Mutation::NumberByClock, NUMBERED, STEP),
        (Mutation::RecordedAgain, NUMBERED, lost(1)),
        (Mutation::OwnRunServes, TICK, LATE),
        (Mutation::NamesakeIsOwn, ALIKE, PEACE),
        (Mutation::VoidServes, TICK, SIGNAL),
        (Mutation::ElapsedOnce, TICK, LATE),
        (Mutation::NoDoubt, TICK, LATE),
        (Mutation::DoubtProlongs, AFTER, Budget { delays: 1, strays: 1, ..PEACE }),
        (Mutation::DoubtEndsLook, AFTER, LATE),
        (Mutation::FutureServes, APART, STEP),
        (Mutation::RecordFailsLock, garbage(GARBAGE[5]), PEACE),
        (Mutation::EndedAgain, ALONE, lost(1)),
        (Mutation::GarbageServes, garbage(GARBAGE[3]), PEACE),
        (Mutation::RenewalShortens, Setting { grace: 4, ..LEASE }, STRAY),
        (Mutation::ResumedUnseen, LEASE, Budget { suspends: 1, ..PEACE }),
    ];
    places.map(|(mutation, place, budget)| Setting { mutation: Some(mutation), budget, ..place }).to_vec()
}
