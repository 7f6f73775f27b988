//! Servers that do not speak as Redis does: the job does not run, golock ends within its budget, and its memory does
//! not grow with what the server claims or sends.

use std::env;
use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::Duration;

use crate::support::scripted::{drain, read_commands, send};
use crate::support::{Golock, Job, Scripted, each};

/// The kernel refuses golock more data than so many KiB: far more than it needs, far less than is announced. An emulator
/// takes some for itself.
fn bounded_memory() -> String {
    let emulator = if env::var_os("GOLOCK_EMULATED").is_some() { 1 << 18 } else { 0 };
    format!("ulimit -d {}", (1 << 16) + emulator)
}

/// What a server does once it has a request.
#[derive(Clone, Copy, Debug)]
enum Hostility {
    Silence,
    Hangup,
    /// A line that grows by one byte at a time, for ever.
    Dribble,
    /// This, and then silence.
    Answer(&'static str),
    /// The head once, then the tail for ever.
    Flood(&'static str, &'static str),
}

use Hostility::{Answer, Dribble, Flood, Hangup, Silence};

const HOSTILITIES: &[Hostility] = &[
    Silence,
    Hangup,
    Dribble,
    Answer("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"),
    Answer("<html>\r\n"),
    Answer("\r\n\r\n"),
    // Announced, never sent; each number is an edge of some integer type.
    Answer("+OK\r\n$2147483647\r\n"),
    Answer("+OK\r\n$4294967295\r\n"),
    Answer("+OK\r\n$9223372036854775807\r\n"),
    Answer("+OK\r\n$18446744073709551616\r\n"),
    Flood("$2147483647\r\n", "xxxxxxxxxxxxxxxx"),
    Flood("+", "xxxxxxxxxxxxxxxx"),
    Flood("-ERR ", "xxxxxxxxxxxxxxxx"),
    Flood(":", "1111111111111111"),
    Flood("$", "0000000000000000"),
    // Lengths that are none.
    Answer("+OK\r\n$-2\r\n"),
    Answer("+OK\r\n$+2\r\nxx\r\n"),
    Answer("+OK\r\n$02\r\nxx\r\n"),
    Answer("+OK\r\n$ 2\r\nxx\r\n"),
    Answer("+OK\r\n$\r\n"),
    Answer("+OK\r\n$2\r\nxxxx\r\n"),
    // Aggregates and RESP3.
    Answer("+OK\r\n*2\r\n:1\r\n:2\r\n"),
    Answer("*-1\r\n*-1\r\n"),
    Flood("", "*1\r\n"),
    Answer("%1\r\n+a\r\n+b\r\n_\r\n"),
    Answer("+OK\r\n_\r\n"),
    Answer("+OK\r\n#t\r\n"),
    Answer(">2\r\n+message\r\n+x\r\n"),
    // Well formed, but no answers to the question.
    Answer("+OK\r\n"),
    Answer(":1\r\n:1\r\n"),
    Answer("+OK\r\n+OK\r\n"),
    Answer("+OK\r\n:9223372036854775807\r\n"),
];

impl Hostility {
    /// The `REDIS_TIMEOUT` with which to meet it. Only what could still become a reply may be waited for; all else must
    /// be seen through at once, which a timeout longer than the tests' patience proves.
    fn timeout(self) -> &'static str {
        if matches!(self, Silence | Dribble | Answer("+OK\r\n")) { "1" } else { "1000" }
    }

    fn play(self, stream: &TcpStream) {
        match self {
            Silence => {}
            Hangup => return,
            Dribble => dribble(stream),
            Answer(bytes) => drop(send(stream, bytes)),
            Flood(head, tail) => {
                let tail = tail.repeat(1024);
                let mut open = send(stream, head);
                while open {
                    open = send(stream, &tail);
                }
            }
        }
        drain(stream);
    }
}

fn dribble(mut stream: &TcpStream) {
    stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let mut bytes = b"+".iter().chain([b'x'].iter().cycle());
    while send(stream, [*bytes.next().unwrap()]) {
        // The read is the pause: it ends early when golock hangs up.
        match stream.read(&mut [0; 64]) {
            Err(error) if [ErrorKind::WouldBlock, ErrorKind::Interrupted].contains(&error.kind()) => {}
            _ => return,
        }
    }
}

/// golock with two tries.
fn golock(port: u16, hostility: Hostility, job: &Job) -> Golock {
    Golock::new(port)
        .prelude(&bounded_memory())
        .set("KEY", "hostile")
        .set("GRACE", "0")
        .set("REDIS_TIMEOUT", hostility.timeout())
        .set("RECONNECT_ATTEMPTS", "1")
        .set("RECONNECT_BACKOFF", "0")
        .args(job.command())
}

#[test]
fn a_hostile_server_gets_no_job_run() {
    each(HOSTILITIES, |&hostility| {
        let server = Scripted::start(move |_, stream| {
            read_commands(stream, 1);
            hostility.play(stream);
        });
        let job = Job::exits(0);
        let done = golock(server.port(), hostility, &job).run();
        done.assert_one_line(201, &["cronlock.hostile", "redis"]);
        assert_eq!(job.runs(), 0);
        // Two to take the lock, and two to give it back, which it may have got.
        assert!(server.connections() <= 4, "{} connections", server.connections());
    });
}

/// Gives the lock to a client that asks for it, and returns its token.
fn grant(stream: &TcpStream) -> Option<String> {
    let token = read_commands(stream, 2).first()?.get(2)?.clone();
    send(stream, format!("+OK\r\n$19\r\n{token}\r\n")).then_some(token)
}

#[test]
fn a_server_that_turns_hostile_at_the_confirmation_gets_no_job_run() {
    each(HOSTILITIES, |&hostility| {
        let server = Scripted::start(move |index, stream| {
            if index > 0 || grant(stream).is_some() {
                read_commands(stream, 1);
                hostility.play(stream);
            }
        });
        let job = Job::exits(0);
        let done = golock(server.port(), hostility, &job).run();
        done.assert_one_line(201, &["cannot keep the lock cronlock.hostile", "redis", "; it may stay locked for"]);
        assert_eq!(job.runs(), 0);
        assert!(server.connections() <= 4, "{} connections", server.connections());
    });
}

#[test]
fn a_server_that_turns_hostile_at_the_release_does_not_hide_the_exit_code() {
    each(HOSTILITIES, |&hostility| {
        let server = Scripted::start(move |index, stream| {
            let token = if index == 0 { grant(stream) } else { None };
            read_commands(stream, 1);
            match token {
                Some(token) => drop(send(stream, format!("$19\r\n{token}\r\n"))),
                None => hostility.play(stream),
            }
        });
        let job = Job::exits(7);
        let done = golock(server.port(), hostility, &job).run();
        done.assert_one_line(7, &["cronlock.hostile", "redis"]);
        assert_eq!(job.runs(), 1);
        assert!(server.connections() <= 3, "{} connections", server.connections());
    });
}

/// Whether the client's end of the stream is a reset; waits for it.
fn is_reset(mut stream: &TcpStream) -> bool {
    let mut chunk = [0; 4096];
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) => return error.kind() == ErrorKind::ConnectionReset,
        }
    }
}

#[test]
fn a_request_that_was_given_up_is_not_delivered_any_more() {
    let (given_up, wait) = channel::<()>();
    let (tell, ends) = channel();
    let (wait, tell) = (Mutex::new(wait), Mutex::new(tell));
    let server = Scripted::start(move |_, stream| {
        // It reads only when nobody waits for its answer any more.
        let _ = wait.lock().unwrap().recv();
        let _ = tell.lock().unwrap().send(is_reset(stream));
    });
    let job = Job::exits(0);
    let golock = Golock::new(server.port()).set("REDIS_TIMEOUT", "1").set("RECONNECT_ATTEMPTS", "0");
    golock.args(job.command()).run().assert_one_line(201, &["no answer in time"]);
    drop(given_up);
    // A second one was to give back what the first may have got.
    for _ in 0..server.connections() {
        assert_eq!(ends.recv(), Ok(true), "the kernel would have delivered the rest of a closed connection");
    }
    assert_eq!(job.runs(), 0);
}
