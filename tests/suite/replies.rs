//! Replies of a Redis that is in trouble, or that says something surprising in the right form.

use std::cell::RefCell;
use std::net::TcpStream;
use std::sync::Arc;

use crate::support::forward::forward;
use crate::support::resp::Words;
use crate::support::scripted::{read_commands, send};
use crate::support::{Golock, Job, STALE, Scene, Scripted, Server, each, until};

fn golock(port: u16, job: &Job) -> Golock {
    Golock::new(port)
        .set("KEY", "replies")
        .set("GRACE", "0")
        .set("RECONNECT_ATTEMPTS", "1")
        .set("RECONNECT_BACKOFF", "0")
        .args(job.command())
}

/// Answers every command with what `answer` says, for as long as golock asks.
fn answer_each(stream: &TcpStream, answer: impl Fn(&Words) -> String) {
    loop {
        let commands = read_commands(stream, 1);
        if commands.is_empty() || !send(stream, commands.iter().map(&answer).collect::<String>()) {
            return;
        }
    }
}

fn always(answer: impl Fn(&Words) -> String + Send + Sync + 'static) -> Scripted {
    Scripted::start(move |_, stream| answer_each(stream, &answer))
}

fn bulk(value: &str) -> String {
    format!("${}\r\n{value}\r\n", value.len())
}

/// A Redis that answers SET with `set` and GET with `get`, given golock's token, confirms whatever it is asked to, and
/// releases on a further connection.
fn answers(set: &'static str, get: impl Fn(&str) -> String + Send + Sync + 'static) -> Scripted {
    Scripted::start(move |_, stream| {
        let token = RefCell::new(String::new());
        answer_each(stream, |command| match command[0].as_str() {
            "SET" => {
                token.replace(command[2].clone());
                set.into()
            }
            "GET" => get(&token.borrow()),
            _ if token.borrow().is_empty() => ":1\r\n".into(),
            _ => bulk(&token.borrow()),
        });
    })
}

#[test]
fn an_ok_does_not_prove_that_we_hold_the_lock() {
    let job = Job::exits(7);
    let server = answers("+OK\r\n", |_| bulk("1999999999123456789"));
    golock(server.port(), &job).run().assert_one_line(201, &["another's is read"]);
    assert_eq!(job.runs(), 0);
}

#[test]
fn our_own_token_proves_that_we_hold_the_lock() {
    let job = Job::exits(7);
    let server = answers("$-1\r\n", bulk);
    golock(server.port(), &job).run().assert_silent(7);
    assert_eq!(job.runs(), 1);
}

#[test]
fn a_takeover_looks_again_at_what_it_takes() {
    // GET still told of the abandoned lock; by the time of EVAL it is another's.
    each(&["9999999999", "1500000001", ""], |&now| {
        let job = Job::exits(7);
        let redis = Arc::new(Server::start(&[]));
        redis.set("cronlock.replies", now);
        let server = always({
            let redis = Arc::clone(&redis);
            move |command| match command[0].as_str() {
                "SET" => "$-1\r\n".into(),
                "GET" => bulk(STALE),
                _ => bulk(&redis.query::<String>(&command.iter().map(String::as_str).collect::<Vec<_>>())),
            }
        });
        golock(server.port(), &job).run().assert_silent(200);
        assert_eq!((job.runs(), redis.get("cronlock.replies").as_deref()), (0, Some(now)));
    });
}

#[test]
fn a_lock_that_keeps_vanishing_is_not_asked_for_for_ever() {
    let job = Job::exits(7);
    let server = answers("$-1\r\n", |_| "$-1\r\n".into());
    golock(server.port(), &job).run().assert_one_line(201, &["cronlock.replies"]);
    assert_eq!(job.runs(), 0);
}

#[test]
fn a_redis_in_passing_trouble_is_tried_again() {
    let troubles = [
        "LOADING Redis is loading the dataset in memory",
        "MASTERDOWN Link with MASTER is down",
        "CLUSTERDOWN The cluster is down",
        "TRYAGAIN Multiple keys request during rehashing of slot",
        "ASK 3999 127.0.0.1:1",
        "NOREPLICAS Not enough good replicas to write.",
        "BUSY Redis is busy running a script.",
        "READONLY You can't write against a read only replica.",
        "ERR max number of clients reached",
        "OOM command not allowed when used memory > 'maxmemory'.",
        "MISCONF Redis is configured to save RDB snapshots",
        "ERR Connection refused",
        "no healthy upstream",
    ];
    each(&troubles, |&trouble| {
        let job = Job::exits(7);
        let server = always(move |_| format!("-{trouble}\r\n"));
        golock(server.port(), &job).run().assert_one_line(201, &["cronlock.replies", trouble]);
        assert_eq!((job.runs(), server.connections()), (0, 2));
    });
}

#[test]
fn a_refusal_that_is_known_to_last_ends_it_at_once() {
    let refusals = [
        "NOAUTH Authentication required.",
        "WRONGPASS invalid username-password pair or user is disabled.",
        "NOPERM this user has no permissions to run the 'set' command",
        "WRONGTYPE Operation against a key holding the wrong kind of value",
        "ERR unknown command 'SET'",
        "ERR DB index is out of range",
        "ERR wrong number of arguments for 'set' command",
        "ERR Protocol error: invalid bulk length",
        "ERR invalid password",
    ];
    each(&refusals, |&refusal| {
        let job = Job::exits(7);
        let server = always(move |_| format!("-{refusal}\r\n"));
        golock(server.port(), &job).run().assert_one_line(201, &["cronlock.replies", refusal]);
        assert_eq!((job.runs(), server.connections()), (0, 1));
    });
}

#[test]
fn the_servers_words_stay_on_one_line() {
    each(&["ERR a\nb", "ERR a\rb", "ERR \u{1b}[2Jred", "ERR tab\tbell\u{7}", "ERR \u{9b}31m"], |&words| {
        let job = Job::exits(7);
        let server = always(move |_| format!("-{words}\r\n"));
        golock(server.port(), &job).run().assert_one_line(201, &["cronlock.replies"]);
        assert_eq!(job.runs(), 0);
    });
}

#[test]
fn a_moved_lock_is_followed() {
    let redis = Server::start(&[]);
    each(&["127.0.0.1", ""], |host| {
        let scene = Scene::new(&redis, Job::exits(7));
        let moved = format!("-MOVED 3999 {host}:{}\r\n", scene.proxy.port());
        let server = always(move |_| moved.clone());
        scene.golock().set("PORT", server.port().to_string()).run().assert_silent(7);
        scene.assert_released();
        assert!(scene.proxy.connections() >= 2);
    });
}

#[test]
fn a_lock_that_moves_in_circles_is_given_up() {
    // With a password it is AUTH that is redirected.
    each(&["", "secret"], |password| {
        let job = Job::exits(7);
        let server = Scripted::start(|_, stream| {
            let port = stream.local_addr().unwrap().port();
            answer_each(stream, |_| format!("-MOVED 3999 127.0.0.1:{port}\r\n"));
        });
        let done = golock(server.port(), &job).set("AUTH", password).run();
        done.assert_one_line(201, &["cronlock.replies"]);
        assert_eq!(job.runs(), 0);
        // At most five moves for each of the two tries.
        assert!(server.connections() <= 12, "{} connections", server.connections());
    });
}

#[test]
fn a_move_to_nowhere_is_a_failure() {
    for place in ["", "nowhere", "127.0.0.1:", "127.0.0.1:99999", "127.0.0.1:-1", ":0"] {
        let job = Job::exits(7);
        let server = always(move |_| format!("-MOVED 3999 {place}\r\n"));
        golock(server.port(), &job).run().assert_one_line(201, &["cronlock.replies"]);
        assert_eq!(job.runs(), 0);
    }
}

fn moved(port: u16) -> String {
    format!("-MOVED 3999 127.0.0.1:{port}\r\n")
}

/// As one that was taken out of its cluster, while the server that named it knows better.
#[test]
fn a_node_that_has_lost_its_slots_is_not_asked_for_ever() {
    each(&["0", "6"], |lease| {
        let (server, job) = (Server::start(&[]), Job::gated(7));
        let ready = server.port();
        let node = Scripted::start(move |index, client| match index {
            0 => forward(client, ready),
            _ => answer_each(client, |_| "-CLUSTERDOWN Hash slot not served\r\n".into()),
        });
        let first = node.port();
        let home = Scripted::start(move |index, client| {
            answer_each(client, |_| moved(if index == 0 { first } else { ready }));
        });
        let running = golock(home.port(), &job).set("LEASE", lease).spawn();
        job.wait_running();
        if *lease != "0" {
            until("it is renewed on the other node", || home.connections() > 1);
        }
        job.open_gate();
        running.wait().assert_silent(7);
        assert_eq!(server.get("cronlock.replies"), None);
    });
}

/// Until a cluster has found another node for the slot, it names the dead one; the count of redirections begins anew with each
/// try.
#[test]
fn a_node_that_takes_over_late_is_followed_to() {
    let (server, job) = (Server::start(&[]), Job::exits(7));
    let (ready, dead) = (server.port(), crate::support::redis::free_port());
    let home = Scripted::start(move |index, client| {
        answer_each(client, |_| moved(if index < 6 { dead } else { ready }));
    });
    golock(home.port(), &job).set("RECONNECT_ATTEMPTS", "6").run().assert_silent(7);
    assert_eq!((job.runs(), server.get("cronlock.replies")), (1, None));
}
