//! Compares the parser with a slow and plain reference, on every input up to a length over ten bytes: those that mean
//! something in RESP, and an `x`.
//!
//! `GOLOCK_RESP_BYTES` sets the length. At 8 there are 111,111,111 inputs, which take seconds with `--profile model`.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use golock::resp::{Reply, parse};
use std::fmt::Display;
use std::io::{self, Write};
use std::panic::catch_unwind;
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{env, thread};

const ALPHABET: [char; 10] = ['+', '-', ':', '$', '0', '1', '9', '\r', '\n', 'x'];

/// The shortest bulk string that is not empty has 7 bytes. Without optimization this length takes two seconds.
const SHORT: usize = 7;

#[derive(Clone, Debug, PartialEq)]
enum Verdict {
    Complete(Reply, usize),
    Partial,
    Error,
}

use Verdict::{Complete, Error, Partial};

/// The verdict of the parser.
fn parsed(input: &str) -> Verdict {
    let parsed = catch_unwind(|| parse(input.as_bytes()));
    match parsed.unwrap_or_else(|_| panic!("the parser panics at {input:?}")) {
        Ok(Some((reply, used))) => Complete(reply, used),
        Ok(None) => Partial,
        Err(_) => Error,
    }
}

/// The verdict of the protocol: a type, a line, and after a length a string of that length.
fn expected(input: &str) -> Verdict {
    let Some(kind) = input.chars().next() else { return Partial };
    if !"+-:$".contains(kind) {
        return Error;
    }
    let Some((line, rest)) = input[1..].split_once("\r\n") else { return unfinished(&input[1..]) };
    if has_line_end(line) {
        return Error;
    }
    let used = input.len() - rest.len();
    let reply = match kind {
        '+' => Some(Reply::Status(line.into())),
        '-' => Some(Reply::Error(line.into())),
        ':' => number(line).map(Reply::Integer),
        _ if line == "-1" => Some(Reply::Nil),
        _ => return number(line).map_or(Error, |length| string(rest, length, used)),
    };
    reply.map_or(Error, |reply| Complete(reply, used))
}

/// A line without CRLF may still get it, and may have its CR already.
fn unfinished(line: &str) -> Verdict {
    if has_line_end(line.strip_suffix('\r').unwrap_or(line)) { Error } else { Partial }
}

fn has_line_end(line: &str) -> bool {
    line.contains(['\r', '\n'])
}

/// A number has one spelling: the one in which it is printed.
fn number<N: FromStr + Display>(digits: &str) -> Option<N> {
    digits.parse().ok().filter(|number: &N| number.to_string() == digits)
}

/// `rest` must be a string of this length and CRLF. The limit of 64 KiB is in DESIGN.md.
fn string(rest: &str, length: usize, used: usize) -> Verdict {
    let (string, end) = rest.split_at(length.min(rest.len()));
    if length > 64 * 1024 {
        Error
    } else if end.starts_with("\r\n") {
        Complete(Reply::Bulk(string.into()), used + length + 2)
    } else if "\r\n".starts_with(end) {
        Partial
    } else {
        Error
    }
}

/// How many inputs had which verdict.
#[derive(Default)]
struct Tally {
    complete: u64,
    partial: u64,
    error: u64,
}

impl Tally {
    fn add(&mut self, verdict: &Verdict) {
        match verdict {
            Complete(..) => self.complete += 1,
            Partial => self.partial += 1,
            Error => self.error += 1,
        }
    }

    fn all(&self) -> u64 {
        self.complete + self.partial + self.error
    }

    fn plus(self, other: &Self) -> Self {
        Self {
            complete: self.complete + other.complete,
            partial: self.partial + other.partial,
            error: self.error + other.error,
        }
    }
}

/// Checks `input`, which had the verdict `before` without its last byte, and all longer inputs that begin with it.
///
/// Only what is partial may change with one byte more. So every proper prefix of a reply is partial, an error stays an
/// error, and an input that arrives in pieces gets the same answer wherever it is split.
fn check(input: &mut String, before: &Verdict, longest: usize, tally: &mut Tally) {
    let verdict = parsed(input);
    assert_eq!(verdict, expected(input), "{input:?}");
    assert!(*before == Partial || verdict == *before, "{input:?} is {verdict:?}, a byte earlier it was {before:?}");
    tally.add(&verdict);
    if input.len() < longest {
        for byte in ALPHABET {
            input.push(byte);
            check(input, &verdict, longest, tally);
            input.pop();
        }
    }
}

/// Checks all inputs of two bytes and more on all cores. Each core takes the next pair of first bytes.
fn check_in_parallel(longest: usize) -> Tally {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut tally = Tally::default();
        loop {
            let start = next.fetch_add(1, Ordering::Relaxed);
            let (Some(first), second) = (ALPHABET.get(start / ALPHABET.len()), ALPHABET[start % ALPHABET.len()]) else {
                return tally;
            };
            let before = parsed(&first.to_string());
            check(&mut format!("{first}{second}"), &before, longest, &mut tally);
        }
    };
    thread::scope(|scope| {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        workers.into_iter().fold(Tally::default(), |sum, worker| sum.plus(&worker.join().unwrap()))
    })
}

#[test]
fn every_short_input_is_judged_as_the_protocol_says() {
    let longest = env::var("GOLOCK_RESP_BYTES").map_or(SHORT, |bytes| bytes.parse().unwrap()).max(2);
    let mut tally = Tally::default();
    check(&mut String::new(), &Partial, 1, &mut tally);
    let tally = tally.plus(&check_in_parallel(longest));
    let inputs: u64 = (0..=longest).map(|length| 10_u64.pow(length.try_into().unwrap())).sum();
    assert_eq!(tally.all(), inputs);
    let Tally { complete, partial, error } = tally;
    let line =
        format!("resp: {inputs} inputs: {complete} begin with a reply, {partial} may become one, {error} cannot\n");
    // Past the harness, which shows what is printed only of tests that fail.
    io::stderr().write_all(line.as_bytes()).unwrap();
}
