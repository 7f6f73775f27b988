//! The checks of the fuzz targets on inputs that are committed: the seeds, what fuzzing has found wrong, and what is near
//! to either. `fuzz/run` goes on from there.
#![forbid(unsafe_code)]
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(missing_docs, unreachable_pub, reason = "a library of its own in fuzz/")]
#[path = "../fuzz/src/lib.rs"]
mod checks;

use checks::{CHECKS, Check};
use std::fs;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// How many prefixes of an input are tried at most, and how many of its bytes are changed.
const NEIGHBOURS: usize = 200;

/// What a byte is changed into: its neighbour, the other case of a letter, a byte that is no ASCII.
const CHANGES: [u8; 3] = [0x01, 0x20, 0x80];

fn replay(target: &str) {
    let (_, check) = CHECKS.iter().find(|(name, _)| *name == target).expect("a check of this name");
    let inputs: Vec<_> = ["seeds", "regressions"].iter().flat_map(|kind| files(kind, target)).collect();
    assert!(!inputs.is_empty(), "no inputs for {target}");
    let mut count = 0;
    for path in &inputs {
        let all = around(&fs::read(path).unwrap());
        count += all.len();
        for near in all {
            try_one(path, *check, &near);
        }
    }
    let line = format!("{target}: replayed {} inputs, {count} with their neighbours\n", inputs.len());
    // Past the capture of the test harness.
    io::stderr().write_all(line.as_bytes()).unwrap();
}

/// The committed inputs of one kind, in order.
fn files(kind: &str, target: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(kind).join(target);
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// `input`, its prefixes, and what differs from it in one byte.
fn around(input: &[u8]) -> Vec<Vec<u8>> {
    let places = || (0..input.len()).step_by(input.len().div_ceil(NEIGHBOURS).max(1));
    let changed = |at: usize, change: u8| {
        let mut near = input.to_vec();
        near[at] ^= change;
        near
    };
    let mut all = vec![input.to_vec()];
    all.extend(places().map(|end| input[..end].to_vec()));
    all.extend(places().flat_map(|at| CHANGES.map(|change| changed(at, change))));
    all
}

fn try_one(path: &Path, check: Check, input: &[u8]) {
    let done = catch_unwind(AssertUnwindSafe(|| check(input)));
    assert!(done.is_ok(), "near {}: \"{}\"", path.display(), input.escape_ascii());
}

#[test]
fn replies_are_parsed_as_the_oracle_does() {
    replay("parse_reply");
}

#[test]
fn commands_and_replies_come_back_as_they_went() {
    replay("round_trip");
}

#[test]
fn settings_are_within_their_range_or_named() {
    replay("config");
}

#[test]
fn nothing_is_believed_that_the_server_did_not_say() {
    replay("session");
}

#[test]
fn a_record_of_any_bytes_is_read_shown_and_followed() {
    replay("record");
}

#[cfg(feature = "tls")]
#[test]
fn a_broken_pem_file_is_named() {
    replay("pem");
}

#[test]
fn every_target_has_a_check_and_inputs() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
    let mut targets: Vec<_> = fs::read_dir(seeds).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    targets.retain(|target| cfg!(feature = "tls") || target != "pem");
    let mut checks: Vec<_> = CHECKS.iter().map(|(name, _)| *name).collect();
    targets.sort();
    checks.sort_unstable();
    assert_eq!(targets, checks);
}
