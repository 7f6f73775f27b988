//! Many cases of one test at the same time, because most of their time is spent waiting for a deadline.

use std::fmt::Debug;
use std::thread;

/// Runs `check` on every case, each on its own thread, and fails naming the cases that failed.
#[track_caller]
pub(crate) fn each<C: Debug + Sync>(cases: &[C], check: impl Fn(&C) + Sync) {
    let check = &check;
    let failed: Vec<&C> = thread::scope(|scope| {
        let running: Vec<_> = cases.iter().map(|case| (case, scope.spawn(move || check(case)))).collect();
        running.into_iter().filter_map(|(case, thread)| thread.join().is_err().then_some(case)).collect()
    });
    assert!(failed.is_empty(), "{} of {} cases failed: {failed:#?}", failed.len(), cases.len());
}
