//! The number of a run never falls and is never given twice: for any number of hosts, whatever is sent again, also when
//! Redis has lost its data.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use golock::clock::Instant;
use golock::exchange::{Answer, Build, Exchange, Repeat, Unanswered};
use golock::lock::{Acquired, Confirmed, End, Lease, LockOptions, Recording, Run, Token, acquire, beside, release};
use golock::resp::{Reply, Request, parse};

use crate::support::soak::{Dice, seed};
use crate::support::{Server, until};

const NAME: &[u8] = b"cronlock.numbered";

const HOSTS: usize = 50;

/// How many runs there are.
const RUNS: usize = 10_000;

/// A host's way to Redis, on which some answers are lost: what was asked is then asked again.
struct Line<'d> {
    stream: UnixStream,
    dice: &'d Dice,
}

impl Line<'_> {
    fn ask(&mut self, build: Build<'_>) -> (Vec<Reply>, Instant) {
        let (mut request, at) = (Request::default(), Instant::now());
        build(at, &mut request);
        self.stream.write_all(&request.bytes).unwrap();
        let (mut replies, mut bytes, mut chunk) = (Vec::new(), Vec::new(), [0; 1024]);
        while replies.len() < request.commands {
            let count = self.stream.read(&mut chunk).unwrap();
            assert!(count > 0, "redis hung up");
            bytes.extend(&chunk[..count]);
            while let Some((reply, used)) = parse(&bytes).unwrap() {
                bytes.drain(..used);
                replies.push(reply);
            }
        }
        (replies, at)
    }
}

impl Exchange for Line<'_> {
    fn exchange(&mut self, _: Repeat, build: Build<'_>) -> Result<Answer, Unanswered> {
        let repeated = self.dice.below(8) == 0;
        if repeated {
            self.ask(build);
        }
        let (replies, asked) = self.ask(build);
        Ok(Answer { replies, asked, repeated })
    }
}

/// A lock for this host, whose times do not matter here.
fn lease(host: usize) -> Lease {
    let run = Run { host: format!("web{host}").into(), pid: 4711, program: b"job".to_vec() };
    let record = beside(b"cronlock.", b"run.", NAME).map(|key| Recording { key, keep: Duration::from_hours(1), run });
    let (grace, release) = (Duration::ZERO, Duration::from_hours(1));
    let options = LockOptions { name: NAME.to_vec(), grace, release, lease: None, record, tick: None };
    Lease::new(options, Token::random())
}

/// All hosts together: how many runs there have been, the greatest fence so far, and all of them.
#[derive(Default)]
struct Fleet {
    runs: AtomicUsize,
    greatest: AtomicU64,
    is_over: AtomicBool,
}

impl Fleet {
    /// Runs as one host until there are enough, and returns its fences.
    fn host(&self, host: usize, server: &Server, dice: &Dice) -> Vec<u64> {
        let mut line = Line { stream: UnixStream::connect(server.socket_path()).unwrap(), dice };
        let mut fences = Vec::new();
        while !self.is_over.load(Ordering::SeqCst) {
            let mut lease = lease(host);
            if acquire(&mut line, &mut lease, false).unwrap() != Acquired::Ours {
                thread::sleep(dice.span(1, 20));
                continue;
            }
            // Whoever got one before we asked got a smaller one.
            let before = self.greatest.load(Ordering::SeqCst);
            match lease.confirm(&mut line, None, Duration::from_secs(1)).unwrap() {
                Confirmed::Ours(note) => assert_eq!(note.map(|words| String::from_utf8(words).unwrap()), None),
                // Redis was flushed in between, and another was faster.
                Confirmed::Lost(_) => continue,
                Confirmed::Served => panic!("nobody has asked for that"),
            }
            let fence = lease.fence.unwrap();
            assert!(fence > before, "host {host} got {fence} after {before}");
            self.greatest.fetch_max(fence, Ordering::SeqCst);
            fences.push(fence);
            let success = dice.below(2) == 0;
            let end = End { result: vec![b'1' - u8::from(success)], success, ran: true, took: Duration::ZERO };
            if dice.below(8) > 0 {
                release(&mut line, &lease, Duration::from_secs(1), &end).unwrap();
            } else {
                // The host dies, and its lock expires.
                server.query::<()>(&["DEL", "cronlock.numbered"]);
            }
            self.runs.fetch_add(1, Ordering::SeqCst);
        }
        fences
    }
}

#[test]
fn no_fence_falls_or_repeats_whatever_is_sent_again_or_flushed() {
    let seed = seed();
    println!("GOLOCK_SOAK_SEED={seed}");
    let (server, dice, fleet) = (Server::start(&[]), Dice::new(seed), Fleet::default());
    let mut fences: Vec<u64> = thread::scope(|scope| {
        let host = |host| {
            scope.spawn({
                let (fleet, server, dice) = (&fleet, &server, &dice);
                move || fleet.host(host, server, dice)
            })
        };
        let hosts: Vec<_> = (0..HOSTS).map(host).collect();
        let mut admin = server.connection();
        let mut flushes = 0;
        while fleet.runs.load(Ordering::SeqCst) < RUNS && !hosts.iter().any(thread::ScopedJoinHandle::is_finished) {
            thread::sleep(dice.span(1, 30));
            redis::cmd("FLUSHALL").query::<()>(&mut admin).unwrap();
            flushes += 1;
        }
        fleet.is_over.store(true, Ordering::SeqCst);
        println!("{flushes} flushes, {} runs", fleet.runs.load(Ordering::SeqCst));
        hosts.into_iter().flat_map(|host| host.join().unwrap()).collect()
    });
    let count = fences.len();
    fences.sort_unstable();
    fences.dedup();
    assert!(count >= RUNS && fences.len() == count, "{} of {count} fences differ", fences.len());
    until("nobody holds the lock", || server.locks().is_empty());
}
