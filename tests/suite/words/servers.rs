//! The same for servers that answer oddly, or not at all, and for names and addresses that lead nowhere.

use std::net::TcpStream;
use std::sync::Mutex;

use super::scenes::{Stage, Told, golock, job, with_job};
use crate::support::redis::free_port;
use crate::support::scripted::{drain, read_commands, send};
use crate::support::{Action, Direction, Fault, Proxy, Scripted};

/// What golock says of a server that reads a command and then does this.
fn meets(settings: &[(&str, &str)], serve: impl Fn(usize, &TcpStream) + Send + Sync + 'static) -> Told {
    let (notes, server) = (with_job(), Scripted::start(serve));
    let golock = golock(server.port()).set("REDIS_TIMEOUT", "1").set("VERBOSE", "yes");
    let golock = settings.iter().fold(golock, |golock, (name, value)| golock.set(name, value));
    golock.args(job(&notes, "exit 3")).run().into()
}

pub(super) fn connections() -> Vec<Told> {
    let (stage, notes) = (Stage::new(), with_job());
    let refused = golock(free_port()).set("VERBOSE", "yes").args(job(&notes, "exit 3")).run();
    let silence = meets(&[], |_, stream| drain(stream));
    let hangup = meets(&[], |_, stream| drop(read_commands(stream, 1)));
    let proxy = Proxy::start(stage.server.port());
    let reset = Fault { direction: Direction::Reply, at: 2, action: Action::Reset };
    let proxy = proxy.fault_from(0, reset);
    let broken = stage.golock().set("PORT", proxy.port().to_string()).args(stage.job("exit 3")).run();
    let socket = golock(1).set("HOST", "/nowhere/redis.sock").args(job(&notes, "exit 3")).run();
    let six = golock(free_port()).set("HOST", "::1").args(job(&notes, "exit 3")).run();
    let circle = meets(&[], |_, stream| {
        let port = stream.local_addr().unwrap().port();
        while !read_commands(stream, 1).is_empty() && send(stream, format!("-MOVED 1 127.0.0.1:{port}\r\n")) {}
    });
    vec![refused.into(), silence, hangup, broken.into(), socket.into(), six.into(), circle]
}

/// What golock says of a server that gives this answer to whatever comes.
fn answered(settings: &'static [(&str, &str)], answer: impl Into<String>) -> Told {
    let answer = answer.into();
    meets(settings, move |_, stream| {
        read_commands(stream, 1);
        send(stream, &answer);
        drain(stream);
    })
}

pub(super) fn answers() -> Vec<Told> {
    let of_any = [
        "*1\r\n",
        "HTTP/1.1 400 Bad Request\r\n",
        "\u{15}\u{3}\u{3}\0\u{2}\u{2}(",
        "hello\r\n",
        "+OK\rX",
        "$x\r\n",
        "$2\r\nxxxx",
        "$99999999999\r\n",
        ":x\r\n",
        "+OK\r\n+OK\r\n+OK\r\n",
        "+OK\r\n:1\r\n",
        "+OK\r\n$1\r\nx\r\n",
        "$-1\r\n$-1\r\n",
        "-ERR \u{1b}[2J\r\n-ERR x\r\n",
    ];
    let mut told: Vec<Told> = of_any.iter().map(|answer| answered(&[], *answer)).collect();
    told.push(answered(&[], format!("+{}", "x".repeat(5000))));
    told.push(answered(&[], format!("-ERR {}\r\n", "x".repeat(2000))));
    told.push(answered(&[("AUTH", "word")], ":1\r\n"));
    told
}

/// Answers each command of a client with what `answer` says, given its token.
fn converse(stream: &TcpStream, answer: impl Fn(&str, &str) -> String) {
    let mut token = String::new();
    loop {
        let commands = read_commands(stream, 1);
        if let Some(words) = commands.iter().find(|words| words[0] == "SET" && words.len() > 4) {
            token.clone_from(&words[2]);
        }
        let replies: String = commands.iter().map(|words| answer(&words[0], &token)).collect();
        if commands.is_empty() || !send(stream, replies) {
            return;
        }
    }
}

fn bulk(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}

pub(super) fn answers_to_the_rest() -> Vec<Told> {
    let notes = with_job();
    let acts = |action: &str, answer: fn(&str, &str) -> String| -> Told {
        let server = Scripted::start(move |_, stream| converse(stream, answer));
        let golock = golock(server.port()).args([action]);
        if action == "--list" { golock.run().into() } else { golock.args(job(&notes, "exit 3")).run().into() }
    };
    let mut told = vec![
        acts("--reset", |_, _| "+OK\r\n".into()),
        acts("--status", |_, _| ":1\r\n".into()),
        acts("--status", |_, _| bulk("nonsense")),
        acts("--status", |command, _| if command == "EVAL" { "-NOPERM x\r\n".into() } else { ":1\r\n".into() }),
        acts("--list", |_, _| "+OK\r\n".into()),
        acts("--list", |_, _| "-ERR unknown command\r\n".into()),
        // To the confirmation; to the release; to both steps of a release without EVAL.
        acts("-v", |command, token| match command {
            "SET" => "+OK\r\n".into(),
            "GET" => bulk(token),
            _ => ":1\r\n".into(),
        }),
        acts("-v", |command, token| match command {
            "SET" => "+OK\r\n".into(),
            "EVAL" => "-NOPERM x\r\n".into(),
            _ if token.is_empty() => ":1\r\n".into(),
            _ => bulk(token),
        }),
    ];
    let odd_delete = {
        let token = Mutex::new(String::new());
        Scripted::start(move |index, stream| {
            if index == 0 {
                let commands = read_commands(stream, 2);
                let Some(own) = commands.first().and_then(|words| words.get(2)) else { return };
                own.clone_into(&mut token.lock().unwrap());
                send(stream, format!("+OK\r\n{}", bulk(own)));
                read_commands(stream, 1);
                send(stream, "-NOPERM x\r\n");
                return drain(stream);
            }
            read_commands(stream, 1);
            send(stream, bulk(&token.lock().unwrap()));
            read_commands(stream, 1);
            send(stream, "+OK\r\n");
            drain(stream);
        })
    };
    told.push(golock(odd_delete.port()).args(job(&notes, "exit 3")).run().into());
    told
}

#[cfg(target_os = "linux")]
pub(super) fn names_and_addresses() -> Vec<Told> {
    let notes = with_job();
    let nameless = golock(1).set("HOST", "no..name").args(job(&notes, "exit 3")).run();
    let deaf_names = golock(1).set("HOST", "words.example").set("REDIS_TIMEOUT", "1");
    let deaf_names = deaf_names.prelude(&crate::lookup::deaf_name_server(&notes)).args(job(&notes, "exit 3")).run();
    let port = free_port();
    let _deaf = crate::route::Deaf::at(([127, 0, 0, 1], port).into());
    let swallowed = golock(port).set("REDIS_TIMEOUT", "1").args(job(&notes, "exit 3")).run();
    vec![nameless.into(), deaf_names.into(), swallowed.into()]
}
