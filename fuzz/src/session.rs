//! `[what to do]\n[conversation]`: a server's whole conversation with the real client and the real lock.
//!
//! What to do, a letter each: `a`cquire, re`n`ew, `r`elease, release with `g`race, re`l`ease where a command may take
//! longer than the lock lasts, `s`tatus, `d`elete; `p` gives a password, `u` a user and `b` a database. In the
//! conversation `&` ends what is said to one request, `^` closes the connection, `@` stands for the lock's token, and
//! `` `c `` repeats the byte before it, the more often the later `c` stands in the alphabet.

use super::conversation::parts;
use super::request::Words;
use super::server::{Play, Server, Turn};
use golock::clock::Moment;
use golock::config::Invocation;
use golock::lock::{self, Acquired, Lease, Lock, Released, Status};
use golock::net::{self, Client, Endpoint, Login, Retry, TlsMode};
use golock::report::Story;
use golock::resp::{BULK_LIMIT, LINE_LIMIT, Reply};
use golock::signals::Signals;
use signal_hook::consts::SIGPIPE;
use std::time::Duration;

/// No server of ours keeps a client waiting, so that this much time means that something hangs.
const RETRY: Retry = Retry { timeout: Duration::from_secs(30), attempts: 1, backoff: Duration::ZERO };

/// What stands in the password only.
const PASSWORD: &str = "S3CRET-password";

/// How much more than the limits allow the kernel may hold between the two.
const SLACK: usize = 64 * 1024;

/// How long a lock persists here.
const TTL: Duration = Duration::from_mins(10);

/// Whether a command and the reply to it were the reason for what was done.
type Proof = Box<dyn Fn(&Words, &Reply) -> bool>;

thread_local! {
    static SERVER: Server = Server::start();
    static SIGNALS: &'static Signals = catch_signals();
    static STORY: Story = silent_story();
}

/// Catches what golock catches, and SIGPIPE: libFuzzer's `main` does not ignore it, as that of a Rust program does.
fn catch_signals() -> &'static Signals {
    signal_hook::flag::register(SIGPIPE, std::sync::Arc::default()).expect("a signal handler");
    Signals::install().expect("signal handlers")
}

fn silent_story() -> Story {
    let args = ["--config=/dev/null", "--print-key", "--key=k"].map(Into::into);
    let Ok(Invocation::PrintKey(config)) = Invocation::parse(&args, []) else { panic!("a plain configuration") };
    Story::begin(&config)
}

/// Lends the signals of this thread.
pub(crate) fn signals<T>(lend: impl FnOnce(&Signals) -> T) -> T {
    SIGNALS.with(|signals| lend(signals))
}

/// A story that tells nothing.
pub(crate) fn story() -> Story {
    STORY.with(|story| *story)
}

/// Asks the server of the input for a lock, and believes nothing that was not said.
pub fn session(input: &[u8]) {
    let end = input.iter().position(|&byte| byte == b'\n').unwrap_or(input.len()).min(10);
    let (todo, conversation) = (&input[..end], input.get(end + 1..).unwrap_or_default());
    let lock = Lock::new(b"lock", TTL);
    let Some(parts) = parts(conversation, lock.token.as_bytes()) else { return };
    SERVER.with(|server| {
        let play = server.play(parts);
        let server = net::Server { endpoint: Endpoint::Unix(server.path()), login: login(todo), tls: TlsMode::Off };
        signals(|signals| {
            let Ok(client) = Client::new(server, RETRY, signals, story()) else { panic!("without TLS") };
            Session { client, lock, play: &play, message: String::new() }.run(todo);
        });
    });
}

fn login(todo: &[u8]) -> Login {
    let has = |letter| todo.contains(&letter);
    Login {
        user: has(b'u').then(|| b"user".to_vec()),
        password: has(b'p').then(|| PASSWORD.into()),
        database: u32::from(has(b'b')),
    }
}

struct Session<'a> {
    client: Client<'a>,
    lock: Lock,
    play: &'a Play,
    /// What the last error says.
    message: String,
}

impl Session<'_> {
    fn run(mut self, todo: &[u8]) {
        for step in todo {
            let before = self.play.count();
            let proof = self.take(*step);
            let told = todo.contains(&b'p') && self.message.contains(PASSWORD);
            assert!(!told, "the password is told: {}", self.message);
            let turns = self.play.turns_behind(before);
            turns.iter().for_each(assert_bounded);
            if let Some(proof) = proof {
                let is_proven = turns.iter().filter_map(Turn::last).any(|(command, reply)| proof(command, &reply));
                assert!(is_proven, "nobody said so after {}", step.escape_ascii());
            }
        }
    }

    /// Takes a step, and says which reply to which command must have been its reason.
    fn take(&mut self, step: u8) -> Option<Proof> {
        match step {
            b'a' => self.acquire(),
            b'n' => self.renew(),
            b'r' => self.release(Moment::now(), Duration::ZERO),
            b'g' => self.release(Moment::after(TTL / 2), Duration::ZERO),
            b'l' => self.release(Moment::now(), TTL),
            b's' => self.status(),
            b'd' => self.reset(),
            _ => None,
        }
    }

    fn acquire(&mut self) -> Option<Proof> {
        let token = Reply::Bulk(self.lock.token.as_bytes().to_vec());
        match told(lock::acquire(&mut self.client, &self.lock), &mut self.message)? {
            Acquired::Ours => Some(Box::new(move |command, reply| is_one_of(command, "GET EVAL") && *reply == token)),
            Acquired::Held(value) => {
                assert_ne!(value, self.lock.token.as_bytes());
                Some(Box::new(move |_, reply| *reply == Reply::Bulk(value.clone())))
            }
        }
    }

    fn renew(&mut self) -> Option<Proof> {
        let mut lease = Lease::new(self.lock.clone(), TTL, Moment::after(2 * TTL));
        let token = Reply::Bulk(self.lock.token.as_bytes().to_vec());
        let renewed = told(lease.renew(&mut self.client), &mut self.message)?;
        Some(Box::new(move |command, reply| {
            is_one_of(command, "EVAL") && matches!(reply, Reply::Bulk(_)) && (*reply == token) == renewed
        }))
    }

    fn release(&mut self, grace_end: Moment, margin: Duration) -> Option<Proof> {
        let token = Reply::Bulk(self.lock.token.as_bytes().to_vec());
        let released = told(lock::release(&mut self.client, &self.lock, grace_end, margin), &mut self.message)?;
        Some(Box::new(move |command, reply| match released {
            Released::Free | Released::InGrace(_) => match reply {
                Reply::Integer(1) => is_one_of(command, "EVAL DEL"),
                // Gone, or another's: it was released by a request whose reply was lost.
                Reply::Integer(0 | -1) => is_one_of(command, "EVAL"),
                Reply::Nil => is_one_of(command, "GET"),
                Reply::Status(_) => is_one_of(command, "SET"),
                _ => false,
            },
            Released::Lost => !matches!(reply, Reply::Error(_) | Reply::Integer(1)) && *reply != token,
            Released::Left => is_one_of(command, "GET") && *reply == token,
        }))
    }

    fn status(&mut self) -> Option<Proof> {
        let status = told(lock::status(&mut self.client, &self.lock.name), &mut self.message)?;
        Some(Box::new(move |command, reply| {
            let seen = if status == Status::Free { *reply == Reply::Nil } else { matches!(reply, Reply::Bulk(_)) };
            is_one_of(command, "EVAL GET") && seen
        }))
    }

    fn reset(&mut self) -> Option<Proof> {
        told(lock::reset(&mut self.client, &self.lock.name), &mut self.message)?;
        Some(Box::new(|command, reply| is_one_of(command, "DEL") && matches!(reply, Reply::Integer(0 | 1))))
    }
}

fn is_one_of(command: &Words, names: &str) -> bool {
    command.first().is_some_and(|name| names.split(' ').any(|known| known.as_bytes() == name))
}

/// What was done; an error is told in one line.
fn told<T>(done: Result<T, lock::Error<net::Error>>, messages: &mut String) -> Option<T> {
    if let Err(error) = &done {
        *messages = error.to_string();
        assert!(!messages.contains(char::is_control), "not one line: {messages:?}");
    }
    done.ok()
}

/// The client has taken no more than as many replies as it has asked for can have.
fn assert_bounded(turn: &Turn) {
    let most = turn.asked.len() * (BULK_LIMIT + LINE_LIMIT) + SLACK;
    assert!(turn.sent.len() <= most, "{} bytes were taken for {} replies", turn.sent.len(), turn.asked.len());
}
