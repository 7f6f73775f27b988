//! Many cases of one test at the same time, because most of their time is spent waiting for a deadline.

use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// How many cases run at the same time. Each takes some six descriptors, and two or three processes; the usual limit is
/// 1,024 descriptors, for all tests that run beside each other.
const ABREAST: usize = 48;

/// Runs `check` on every case, many at the same time, and fails naming the cases that failed.
#[track_caller]
pub(crate) fn each<C: Debug + Sync>(cases: &[C], check: impl Fn(&C) + Sync) {
    abreast(ABREAST, cases, check);
}

/// The same, `workers` at a time.
#[track_caller]
pub(crate) fn abreast<C: Debug + Sync>(workers: usize, cases: &[C], check: impl Fn(&C) + Sync) {
    let next = AtomicUsize::new(0);
    let work = || {
        let take = || cases.get(next.fetch_add(1, Ordering::SeqCst));
        let fails = |case: &&C| catch_unwind(AssertUnwindSafe(|| check(case))).is_err();
        std::iter::from_fn(take).filter(fails).collect::<Vec<&C>>()
    };
    let failed: Vec<&C> = thread::scope(|scope| {
        let workers: Vec<_> = (0..workers.min(cases.len())).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    assert!(failed.is_empty(), "{} of {} cases failed: {failed:#?}", failed.len(), cases.len());
}
