//! `[what to do]\n[conversation]`: a server's whole conversation with the real client and the real lock.
//!
//! What to do, a letter each: `a`cquire, or the same `w`ith a look at the record, `c`onfirm, re`n`ew, `r`elease, release
//! with `g`race, re`l`ease where a command may take longer than the lock lasts, `s`tatus, `d`elete, lis`t`, t`o`ld that it
//! is overdue. `p` gives a password, `u` a user and `b` a database; `k` keeps a record, `e` holds a lease, `i` minds other
//! runs of the same tick. In the conversation `&` ends what is said to one request, `^` closes the connection, `@` stands
//! for the lock's token, and `` `c `` repeats the byte before it, the more often the later `c` stands in the alphabet.

use super::conversation::parts;
use super::proof::{self, Proof};
use super::server::{Play, Server, Turn};
use super::shown::{assert_line, assert_metrics, assert_printed, assert_table};
use golock::clock::Instant;
use golock::interrupt::Interrupts;
use golock::lock::{self, Acquired, End, Entry, Lease, LockOptions, Recording, Run, Token};
use golock::net::{self, Client, Credentials, Endpoint};
use golock::process::Variables;
use golock::report::{metrics, table};
use golock::resp::{BULK_LIMIT, LINE_LIMIT};
use golock::text::{Line, Log, Secret};
use signal_hook::consts::SIGPIPE;
use std::fmt::Display;
use std::time::Duration;

/// What stands in the password only.
const PASSWORD: &str = "S3CRET-password";

/// The most letters of what to do.
const STEPS: usize = 12;

/// The most requests that one step may need: the five rounds of acquiring, each sent twice and redirected.
const MOST_REQUESTS: usize = 100;

/// How much more than the limits allow the kernel may hold between the two.
const SLACK: usize = 64 * 1024;

/// How long a lock persists here.
const TTL: Duration = Duration::from_mins(10);

thread_local! {
    static SERVER: Server = Server::start();
    static INTERRUPTS: &'static Interrupts = catch_signals();
}

/// Catches what golock catches, and SIGPIPE: libFuzzer's `main` does not ignore it, as that of a Rust program does.
fn catch_signals() -> &'static Interrupts {
    signal_hook::flag::register(SIGPIPE, std::sync::Arc::default()).expect("a signal handler");
    Box::leak(Box::new(Interrupts::catch().expect("signals")))
}

/// Asks the server of the input for a lock, and believes nothing that was not said.
pub fn session(input: &[u8]) {
    let end = input.iter().position(|&byte| byte == b'\n').unwrap_or(input.len()).min(STEPS);
    let (todo, conversation) = (&input[..end], input.get(end + 1..).unwrap_or_default());
    let token = Token::random();
    let Some(parts) = parts(conversation, token.as_bytes()) else { return };
    SERVER.with(|server| {
        let play = server.play(parts);
        let wanted = redis(Endpoint::Unix(server.path()), todo);
        let Ok(credentials) = Credentials::read(Some(&wanted)) else { panic!("without files") };
        let told = Told { has_password: todo.contains(&b'p') };
        INTERRUPTS.with(|interrupts| {
            let variables = Variables::default();
            let client = Client::new(&wanted, credentials, interrupts, &variables, &told);
            Session { client, lease: lease(todo, token), stale: None, play: &play, told: &told }.run(todo);
        });
    });
}

fn redis(endpoint: Endpoint, todo: &[u8]) -> net::Server {
    let has = |letter| todo.contains(&letter);
    net::Server {
        endpoint,
        user: has(b'u').then(|| b"user".to_vec()),
        password: has(b'p').then(|| Secret(PASSWORD.into())),
        auth_file: None,
        config_file: None,
        database: u32::from(has(b'b')),
        tls: None,
        // No server of ours keeps a client waiting, so that this much time means that something hangs.
        timeout: Duration::from_secs(30),
        attempts: 1,
        backoff: Duration::ZERO,
    }
}

/// A lock as if it had just been taken, so that each step can come first.
fn lease(todo: &[u8], token: Token) -> Lease {
    let (has, now) = (|letter| todo.contains(&letter), Instant::now());
    let run = Run { host: b"web 1".to_vec(), pid: 7, program: b"job".to_vec() };
    let record = Recording { key: b"p.run.{p.lock}".to_vec(), keep: TTL, run };
    let options = LockOptions {
        name: b"p.lock".to_vec(),
        grace: TTL / 2,
        release: TTL,
        lease: has(b'e').then_some(TTL),
        record: has(b'k').then_some(record),
        tick: has(b'i').then_some(now),
    };
    Lease { valid_until: now + TTL, hold_end: now + 2 * TTL, grace_end: now, ..Lease::new(options, token) }
}

/// What people are told: always a line of text, and never the password.
struct Told {
    has_password: bool,
}

impl Told {
    fn line(&self, text: &dyn Display) {
        let text = text.to_string();
        assert_line(&text);
        assert!(!self.has_password || !text.contains(PASSWORD), "the password is told: {text}");
    }
}

impl Log for Told {
    fn debug(&self, line: Line) {
        self.line(&line);
    }
}

struct Session<'a> {
    client: Client<'a>,
    lease: Lease,
    /// The value of a predecessor's lock that is to be taken over.
    stale: Option<Vec<u8>>,
    play: &'a Play,
    told: &'a Told,
}

impl Session<'_> {
    fn run(mut self, todo: &[u8]) {
        for step in todo {
            let before = self.play.count();
            let proof = self.take(*step);
            let turns = self.play.turns_behind(before);
            turns.iter().for_each(assert_bounded);
            assert!(turns.len() <= MOST_REQUESTS, "{} requests", turns.len());
            if let Some(proof) = proof {
                assert!(proof.holds(&turns), "nobody said so after {}", step.escape_ascii());
            }
        }
    }

    /// Takes a step, and says which replies must have been the reason for what came of it.
    fn take(&mut self, step: u8) -> Option<Proof> {
        match step {
            b'a' => self.acquire(b'a'),
            b'w' => self.acquire(b'w'),
            b'c' => self.confirm(),
            b'n' => self.renew(),
            b'r' => self.release(Instant::ZERO, Duration::ZERO),
            b'g' => self.release(Instant::after(TTL / 2), Duration::ZERO),
            b'l' => self.release(Instant::ZERO, TTL),
            b's' => self.status(),
            b'd' => self.reset(),
            b't' => self.list(),
            b'o' => self.overdue(),
            _ => None,
        }
    }

    fn acquire(&mut self, step: u8) -> Option<Proof> {
        let looks = step == b'w';
        let budget = self.client.patience;
        match lock::acquire(self.client.with(budget), &mut self.lease, looks) {
            Ok(acquired) => {
                self.stale = if let Acquired::Stale(value) = &acquired { Some(value.clone()) } else { None };
                Some(proof::acquired(acquired, &self.lease.token))
            }
            Err(unsure) => {
                self.told.line(&unsure.error.words());
                (!unsure.may_hold).then(proof::not_taken)
            }
        }
    }

    fn confirm(&mut self) -> Option<Proof> {
        let (budget, margin) = (self.client.patience, self.client.server.timeout);
        self.lease.eval_refused = false;
        let confirmed = self.lease.confirm(self.client.with(budget), self.stale.as_deref(), margin);
        let confirmed = self.known(confirmed)?;
        assert!(!matches!(confirmed, lock::Confirmed::Ours(_)) || self.lease.lasts(Instant::now()));
        Some(proof::confirmed(confirmed, &self.lease))
    }

    fn renew(&mut self) -> Option<Proof> {
        let budget = self.client.insistence(Instant::NEVER);
        let renewed = self.lease.renew(self.client.with(budget));
        let renewed = self.known(renewed)?;
        assert!(self.lease.valid_until <= self.lease.hold_end);
        Some(proof::renewed(renewed, &self.lease.token))
    }

    fn release(&mut self, grace_end: Instant, margin: Duration) -> Option<Proof> {
        self.lease.grace_end = grace_end;
        let (budget, end) = (
            self.client.insistence(Instant::NEVER),
            End { result: b"0".to_vec(), success: true, ran: true, took: std::time::Duration::ZERO },
        );
        let released = lock::release(self.client.with(budget), &self.lease, margin, &end);
        let released = self.known(released)?;
        Some(proof::released(released, &self.lease.token))
    }

    fn status(&mut self) -> Option<Proof> {
        let (budget, options) = (self.client.patience, &self.lease.options);
        let record = options.record.as_ref().map(|record| &record.key[..]);
        let status = lock::status(self.client.with(budget), &options.name, record);
        let status = self.known(status)?;
        let mut shown = Entry { name: b"p.lock".to_vec(), status: status.clone() };
        shown.status.redact(&|text| self.client.redacted(text));
        let line = assert_printed(shown);
        assert!(!self.told.has_password || !line.contains(PASSWORD), "the password is told: {line}");
        Some(proof::seen(status))
    }

    fn reset(&mut self) -> Option<Proof> {
        let budget = self.client.patience;
        let found = lock::reset(self.client.with(budget), &self.lease.options.name);
        let found = self.known(found)?;
        Some(proof::deleted(found))
    }

    fn list(&mut self) -> Option<Proof> {
        let budget = self.client.patience;
        let listing = lock::list(self.client.with(budget), b"p.");
        let (entries, _) = self.known(listing)?;
        assert_table(&table(entries.clone(), Some(TTL)), entries.len());
        assert_metrics(&metrics(&entries));
        Some(proof::listed(entries))
    }

    fn overdue(&mut self) -> Option<Proof> {
        let budget = self.client.patience;
        let ours = lock::overdue_is_ours(self.client.with(budget), b"p.late.{p.lock}");
        let ours = self.known(ours)?;
        Some(proof::overdue(ours))
    }

    /// What was done; why it was not is told in one line.
    fn known<T>(&self, done: Result<T, lock::Error>) -> Option<T> {
        done.map_err(|error| self.told.line(&error.words())).ok()
    }
}

/// The client has taken no more than as many replies as it has asked for can have.
fn assert_bounded(turn: &Turn) {
    let most = turn.asked.len() * (BULK_LIMIT + LINE_LIMIT) + SLACK;
    assert!(turn.sent.len() <= most, "{} bytes were taken for {} replies", turn.sent.len(), turn.asked.len());
}
