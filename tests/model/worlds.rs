//! The worlds that are explored.

use crate::mutation::Mutation;
use crate::world::{Budget, Predecessor, Setting};

/// Nothing happens.
const PEACE: Budget = Budget { losses: 0, strays: 0, crashes: 0, signals: 0, resets: 0 };

const PLAIN: Setting = Setting {
    name: "two hosts",
    hosts: 2,
    release: 3,
    grace: 2,
    lease: None,
    tries: 2,
    scripts: true,
    predecessor: Predecessor::None,
    skews: [0; 3],
    budget: PEACE,
    tick: 1000,
    horizon: 4000,
    mutation: None,
};

const THREE: Setting = Setting { name: "three hosts", hosts: 3, ..PLAIN };

/// What is lost is not sent again.
const ALONE: Setting = Setting { name: "two hosts, no reconnects", tries: 1, ..PLAIN };

const WITHOUT_SCRIPTS: Setting = Setting { name: "two hosts, a server without EVAL", scripts: false, ..PLAIN };

/// The shortest lease.
const LEASE: Setting =
    Setting { name: "two hosts, leases", lease: Some(3), release: 4, tick: 500, horizon: 4500, ..PLAIN };

const LEASE_WITHOUT_SCRIPTS: Setting =
    Setting { name: "two hosts, leases, a server without EVAL", scripts: false, ..LEASE };

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

fn lost(losses: u8) -> Budget {
    Budget { losses, ..PEACE }
}

const STRAY: Budget = Budget { strays: 1, ..PEACE };
const CRASH: Budget = Budget { crashes: 1, ..PEACE };
const SIGNAL: Budget = Budget { signals: 1, ..PEACE };
const RESET: Budget = Budget { resets: 1, ..PEACE };

/// Worlds in which something happens once: for every change of the code.
fn small() -> Vec<Setting> {
    let accidents = [CRASH, SIGNAL, RESET];
    let every = [lost(1), STRAY, CRASH, SIGNAL, RESET];
    let plain = [PLAIN, WITHOUT_SCRIPTS, RUNNING].into_iter().flat_map(|place| with(place, &every));
    let alone = with(ALONE, &[lost(2), STRAY]);
    plain
        .chain(alone)
        .chain(with(ABANDONED, &accidents))
        .chain(with(LEASE, &accidents[..2]))
        .chain(with(THREE, &[PEACE]))
        .collect()
}

fn with(place: Setting, budgets: &[Budget]) -> Vec<Setting> {
    budgets.iter().map(|budget| Setting { budget: *budget, ..place }).collect()
}

/// Those in which several things happen, or three hosts meet: for the slower proofs.
fn large() -> Vec<Setting> {
    let once = Budget { losses: 1, strays: 1, ..PEACE };
    let worst = Budget { losses: 2, strays: 1, crashes: 1, ..PEACE };
    let stopped = Budget { losses: 1, strays: 1, signals: 1, resets: 1, ..PEACE };
    let crossed = Budget { strays: 1, signals: 1, ..PEACE };
    let places = [
        with(PLAIN, &[worst, stopped]),
        with(THREE, &[once, CRASH, SIGNAL, RESET]),
        with(WITHOUT_SCRIPTS, &[once, crossed]),
        with(LEASE, &[lost(1), STRAY, RESET, Budget { losses: 1, crashes: 1, ..PEACE }]),
        with(LEASE_WITHOUT_SCRIPTS, &[lost(1), CRASH, SIGNAL]),
        with(ABANDONED, &[lost(1), STRAY, Budget { losses: 1, crashes: 1, ..PEACE }]),
        with(Setting { hosts: 3, name: "three hosts, a predecessor's lock, a cronlock", ..ABANDONED }, &[PEACE]),
        with(RUNNING, &[once]),
    ];
    places.concat()
}

/// With `GOLOCK_MODEL=large` also those that take minutes.
pub(crate) fn all() -> Vec<Setting> {
    let all = std::env::var("GOLOCK_MODEL").is_ok_and(|size| size == "large");
    if all { [small(), large()].concat() } else { small() }
}

/// A world for each mutation in which it must be found.
pub(crate) fn mutated() -> [Setting; 8] {
    let places = [
        (Mutation::ReleaseWithoutCompare, PLAIN, lost(1)),
        (Mutation::OwnershipBySet, PLAIN, lost(1)),
        (Mutation::TakeOverWithoutCompare, ABANDONED, PEACE),
        (Mutation::TakeOverWithTtl, RUNNING, PEACE),
        (Mutation::RetryOfTheUnrepeatable, WITHOUT_SCRIPTS, lost(1)),
        (Mutation::RenewalWithoutCompare, LEASE, RESET),
        (Mutation::LockWithoutTtl, PLAIN, PEACE),
        (Mutation::ReleaseAtTheLastMoment, Setting { tick: 500, ..WITHOUT_SCRIPTS }, STRAY),
    ];
    places.map(|(mutation, place, budget)| Setting { mutation: Some(mutation), budget, ..place })
}
