//! Plays many hosts whose cron starts golock in the same moment, without a process for each: every one connects on its
//! own, sends what golock sends to take one lock, reads its answer and hangs up.
//!
//!     hosts ADDRESS:PORT KEY COUNT
//!
//! It prints what came of it: how many took the lock, were told that it is held, failed, or had no answer in time, and
//! after how many milliseconds the first, half of them, and the last had theirs.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "it prints")]

use golock::clock;
use golock::exchange::{Answer, Build, Exchange, Repeat, Unanswered};
use golock::lock::{Lease, LockOptions, Token, acquire};
use golock::resp::{Reply, Request, parse};
use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with, sockopt};
use std::error::Error;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// Golock's own patience: `REDIS_TIMEOUT`.
const PATIENCE: Duration = Duration::from_secs(30);

/// Golock's `GRACE` and `RELEASE`.
const GRACE: Duration = Duration::from_secs(40);
const RELEASE: Duration = Duration::from_hours(24);

/// The reply to SET and the reply to GET.
const REPLIES: usize = 2;

/// Writes down what is asked of it and answers nothing.
#[derive(Default)]
struct Recorder(Request);

impl Exchange for Recorder {
    fn exchange(&mut self, _: Repeat, build: Build<'_>) -> Result<Answer, Unanswered> {
        build(clock::Instant::now(), &mut self.0);
        Err(Unanswered { why: None, may_be_done: true })
    }
}

/// What golock sends to take the lock of `lease`.
fn request(lease: &mut Lease) -> Vec<u8> {
    let mut recorder = Recorder::default();
    // It has to fail, as nothing answers.
    let _ = acquire(&mut recorder, lease, false);
    recorder.0.bytes
}

/// How a host fared.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Took,
    Skipped,
    Failed,
}

/// A host on its way.
struct Host {
    stream: TcpStream,
    lease: Lease,
    answer: Vec<u8>,
    asked: bool,
}

impl Host {
    /// Begins to connect.
    fn begin(server: SocketAddr, key: &str) -> Result<Self, Errno> {
        let family = if server.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let fd: OwnedFd = socket_with(family, SocketType::STREAM, flags, None)?;
        match connect(&fd, &server) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error),
        }
        sockopt::set_tcp_nodelay(&fd, true)?;
        let name = format!("cronlock.{key}").into_bytes();
        let options = LockOptions { name, grace: GRACE, release: RELEASE, lease: None, record: None, tick: None };
        let lease = Lease::new(options, Token::random());
        Ok(Self { stream: fd.into(), lease, answer: Vec::new(), asked: false })
    }

    /// Goes on as far as it can without waiting.
    fn advance(&mut self) -> Option<Fate> {
        if !self.asked {
            match self.stream.write_all(&request(&mut self.lease)) {
                Ok(()) => self.asked = true,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                Err(_) => return Some(Fate::Failed),
            }
        }
        let mut chunk = [0; 512];
        match self.stream.read(&mut chunk) {
            Ok(count) if count > 0 => self.answer.extend(chunk.iter().take(count)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
            _ => return Some(Fate::Failed),
        }
        self.judge()
    }

    /// What the answer says, once it is whole.
    fn judge(&self) -> Option<Fate> {
        let (mut rest, mut last) = (&self.answer[..], None);
        for _ in 0..REPLIES {
            match parse(rest) {
                Ok(Some((reply, used))) => {
                    rest = rest.get(used..).unwrap_or_default();
                    last = Some(reply);
                }
                Ok(None) => return None,
                Err(_) => return Some(Fate::Failed),
            }
            if let Some(Reply::Error(_)) = last {
                return Some(Fate::Failed);
            }
        }
        match last {
            Some(Reply::Bulk(value)) if value == self.lease.token.as_bytes() => Some(Fate::Took),
            Some(Reply::Bulk(_)) => Some(Fate::Skipped),
            _ => Some(Fate::Failed),
        }
    }
}

/// What came of it.
#[derive(Default)]
struct Tally {
    fates: Vec<(Fate, Duration)>,
    open: usize,
}

/// Starts all hosts and goes with each as far as it gets.
fn run(server: SocketAddr, key: &str, count: usize) -> Result<Tally, Box<dyn Error>> {
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut hosts: Vec<Option<Host>> = Vec::with_capacity(count);
    let (start, mut tally) = (Instant::now(), Tally::default());
    for number in 0..count {
        let host = Host::begin(server, key)?;
        let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
        epoll::add(&poll, &host.stream, epoll::EventData::new_u64(u64::try_from(number)?), flags)?;
        hosts.push(Some(host));
    }
    tally.open = count;
    let mut events = Vec::with_capacity(1024);
    while tally.open > 0 && start.elapsed() < PATIENCE {
        events.clear();
        let tick = rustix::event::Timespec { tv_sec: 1, tv_nsec: 0 };
        epoll::wait(&poll, spare_capacity(&mut events), Some(&tick))?;
        for event in &events {
            let place = hosts.get_mut(usize::try_from(event.data.u64())?);
            let Some(place) = place else { continue };
            if let Some(fate) = place.as_mut().and_then(Host::advance) {
                tally.fates.push((fate, start.elapsed()));
                tally.open -= 1;
                *place = None;
            }
        }
    }
    Ok(tally)
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [server, key, count] = &args[..] else { return Err("usage: hosts ADDRESS:PORT KEY COUNT".into()) };
    let tally = run(server.parse()?, key, count.parse()?)?;
    let of = |wanted: Fate| tally.fates.iter().filter(|(fate, _)| *fate == wanted).count();
    let answered = |at: usize| tally.fates.get(at).map_or(0, |(_, after)| after.as_millis());
    let last = tally.fates.len().saturating_sub(1);
    println!("took={} skipped={} failed={} late={}", of(Fate::Took), of(Fate::Skipped), of(Fate::Failed), tally.open);
    println!("first={} median={} last={}", answered(0), answered(last / 2), answered(last));
    Ok(())
}
