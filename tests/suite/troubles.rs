//! Trouble that passes, and servers that send golock elsewhere: as long as the budget lasts, the job runs once, its exit
//! code comes back, and the lock ends released.

use std::net::{Ipv6Addr, TcpListener, TcpStream};
use std::sync::{Arc, OnceLock};
use std::thread;

use crate::support::forward::forward;
use crate::support::scripted::{read_commands, send};
use crate::support::{Golock, Job, Proxy, Record, Scene, Scripted, Server, each, until};

const TROUBLES: &[&str] = &[
    "ASK 3999 127.0.0.1:1",
    "TRYAGAIN Multiple keys request during rehashing of slot",
    "CLUSTERDOWN Hash slot not served",
    "CLUSTERDOWN The cluster is down",
    "LOADING Redis is loading the dataset in memory",
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
    "READONLY You can't write against a read only replica.",
    "NOREPLICAS Not enough good replicas to write.",
    "ERR max number of clients reached",
    "ERR max number of clients + cluster connections reached",
    "OOM command not allowed when used memory > 'maxmemory'.",
    "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk. Commands that may \
     modify the data set are disabled, because this instance is configured to report errors during writes if RDB \
     snapshotting fails (stop-writes-on-bgsave-error option). Please check the Redis logs for details about the RDB error.",
    // Of proxies: twemproxy, envoy.
    "ERR Connection refused",
    "ERR Connection timed out",
    "ERR No such file or directory",
    "upstream failure",
    "no healthy upstream",
];

/// Those that last, of a Redis that is asked for something new: who has a lock to give up tries again all the same.
const LASTING: &[&str] = &[
    "NOAUTH Authentication required.",
    "WRONGPASS invalid username-password pair or user is disabled.",
    "ERR invalid password",
    "ERR syntax error",
    "ERR wrong number of arguments for 'eval' command",
];

/// What a script says of them: Redis 7, and Redis up to 6.
const SCRIPT_TROUBLES: &[&str] = &[
    "READONLY You can't write against a read only replica. script: 1b2c, on @user_script:1.",
    "ERR Error running script (call to f_1b2c): @user_script:1: @user_script: 1: -READONLY You can't write against a \
     read only replica.",
];

/// Answers every command of a client with this error.
fn refuse(stream: &TcpStream, words: &str) {
    for _ in read_commands(stream, 1) {
        send(stream, format!("-{words}\r\n"));
    }
}

/// In front of the server on `port`, one that has this trouble for `times` connections from the one of index `first` on.
fn troubled(port: u16, words: &'static str, first: usize, times: usize) -> Scripted {
    Scripted::start(
        move |index, stream| {
            if (first..first + times).contains(&index) { refuse(stream, words) } else { forward(stream, port) }
        },
    )
}

fn twice<C: Copy>(cases: impl Iterator<Item = C>) -> Vec<(C, usize)> {
    cases.flat_map(|case| [(case, 1), (case, 2)]).collect()
}

/// golock as in the scene, but by way of the server on this port, and with two reconnects.
fn by_way_of(scene: &Scene<'_>, port: u16) -> Golock {
    scene.golock().set("PORT", port.to_string()).set("RECONNECT_ATTEMPTS", "2")
}

#[test]
fn trouble_before_the_job_costs_no_run() {
    let server = Server::start(&[]);
    each(&twice(TROUBLES.iter()), |&(words, times)| {
        let scene = Scene::new(&server, Job::exits(7));
        let troubled = troubled(server.port(), words, 0, times);
        by_way_of(&scene, troubled.port()).run().assert_silent(7);
        scene.assert_released();
        assert_eq!(troubled.connections(), times + 2);
    });
}

#[test]
fn trouble_at_the_release_leaves_no_lock() {
    let server = Server::start(&[]);
    each(&twice(TROUBLES.iter().chain(SCRIPT_TROUBLES).chain(LASTING)), |&(words, times)| {
        let scene = Scene::new(&server, Job::exits(7));
        let troubled = troubled(server.port(), words, 1, times);
        by_way_of(&scene, troubled.port()).run().assert_silent(7);
        scene.assert_released();
        assert_eq!(troubled.connections(), times + 2);
    });
}

/// What the server has refused was not done: that the lock is gone then is no release of ours whose reply was lost.
#[test]
fn trouble_at_the_release_does_not_hide_that_the_lock_was_lost() {
    let server = Server::start(&[]);
    each(TROUBLES, |words| {
        let scene = Scene::new(&server, Job::gated(7));
        let troubled = troubled(server.port(), words, 1, 1);
        let running = by_way_of(&scene, troubled.port()).spawn();
        scene.job.wait_running();
        server.query::<()>(&["DEL", &scene.name()]);
        scene.job.open_gate();
        if words.contains("timed out") || *words == "upstream failure" {
            // A proxy says that, who does not know what its server has done.
            running.wait().assert_silent(7);
        } else {
            running.wait().assert_one_line(7, &[&scene.name(), "was lost"]);
        }
        assert_eq!(troubled.connections(), 3);
    });
}

#[test]
fn trouble_that_outlasts_the_budget_at_the_release_is_told_with_the_code_of_the_job() {
    let server = Server::start(&[]);
    each(TROUBLES, |words| {
        let scene = Scene::new(&server, Job::exits(7));
        let troubled = troubled(server.port(), words, 1, usize::MAX - 1);
        // What is long in it is cut.
        let start = &words[..words.len().min(100)];
        let done = by_way_of(&scene, troubled.port()).run();
        done.assert_one_line(7, &[&scene.name(), start, "; it may stay locked for up to 86400 s"]);
        assert_eq!((scene.job.runs(), troubled.connections()), (1, 4));
        assert!(server.pttl(&scene.name()) > 0);
    });
}

#[test]
fn real_trouble_passes_as_well() {
    let troubles: [(&[&str], &[&str], &str); 2] = [
        (
            &["CONFIG", "SET", "min-replicas-to-write", "1"],
            &["CONFIG", "SET", "min-replicas-to-write", "0"],
            "NOREPLICAS",
        ),
        (&["REPLICAOF", "127.0.0.1", "1"], &["REPLICAOF", "NO", "ONE"], "READONLY"),
    ];
    each(&troubles, |(spoil, mend, words)| {
        let server = Server::start(&[]);
        let scene = Scene::new(&server, Job::exits(7));
        server.query::<()>(spoil);
        let running = patient(&scene).spawn();
        until("golock meets trouble", || told(&scene, words) >= 2);
        server.query::<()>(mend);
        running.wait().assert_silent(7);
        scene.assert_released();
    });
}

#[test]
fn a_place_in_a_full_redis_is_waited_for() {
    let server = Server::start(&[]);
    let scene = Scene::new(&server, Job::exits(7));
    let places = server.fill();
    let running = patient(&scene).spawn();
    until("golock is turned away", || told(&scene, "ERR max number of clients reached") >= 2);
    places.free();
    running.wait().assert_silent(7);
    scene.assert_released();
}

/// golock with a budget that outlasts any trouble.
fn patient(scene: &Scene<'_>) -> Golock {
    scene.golock().set("RECONNECT_ATTEMPTS", "50").set("RECONNECT_BACKOFF", "1")
}

/// How many connections had an answer that begins with this error.
fn told(scene: &Scene<'_>, words: &str) -> usize {
    let error = format!("-{words}");
    scene.proxy.records().iter().filter(|record| record.reply.starts_with(error.as_bytes())).count()
}

/// A server that sends everybody to `place`.
fn elsewhere(place: String) -> Scripted {
    Scripted::start(move |_, stream| refuse(stream, &format!("MOVED 3999 {place}")))
}

#[test]
fn a_redirection_can_name_a_host_in_any_way() {
    let server = Server::start(&[]);
    each(&["127.0.0.1", "localhost", "", "?"], |host| {
        let scene = Scene::new(&server, Job::exits(7));
        let first = elsewhere(format!("{host}:{}", scene.proxy.port()));
        by_way_of(&scene, first.port()).run().assert_silent(7);
        scene.assert_released();
        assert_eq!(scene.proxy.connections(), 2);
    });
}

#[test]
fn a_redirection_to_what_cannot_be_a_host_is_not_followed() {
    // What would end a name early, be another argument, or reach the terminal.
    each(&["a\0b\0c:5", "a\u{1b}[2J:5", "a\tb:5", "\u{7f}:5", "\u{9b}31m:5"], |place| {
        let server = elsewhere((*place).into());
        let job = Job::exits(7);
        let golock =
            Golock::new(server.port()).set("KEY", "nowhere").set("RECONNECT_ATTEMPTS", "0").args(job.command());
        golock.run().assert_one_line(201, &["cronlock.nowhere", "MOVED 3999 "]);
        assert_eq!((job.runs(), server.connections()), (0, 1));
    });
}

#[test]
fn a_step_that_is_not_repeated_begins_again_with_a_look_at_another_node() {
    // Where EVAL is refused, it is GET and then DEL, or SET with what is left of the grace.
    each(&["0", "1000"], |&grace| {
        let server = Arc::new(Server::start(&[]));
        server.query::<()>(&["ACL", "SETUSER", "default", "-eval"]);
        let scene = Scene::new(&server, Job::exits(7));
        let node = Proxy::start(server.port());
        let moved = format!("MOVED 3999 127.0.0.1:{}", node.port());
        let first = Scripted::start({
            let (server, name) = (Arc::clone(&server), scene.name());
            move |index, client| {
                if index == 0 {
                    return forward(client, server.port());
                }
                // The slot moves between the two.
                assert_eq!(read_commands(client, 1), [["GET", &name]]);
                let token = server.get(&name).unwrap();
                send(client, format!("${}\r\n{token}\r\n", token.len()));
                refuse(client, &moved);
            }
        });
        scene.golock().set("PORT", first.port().to_string()).set("GRACE", grace).run().assert_silent(7);
        scene.assert_released_within(grace.parse().unwrap());
        until("golock's connections end", || node.open() == 0);
        let commands = node.records().iter().flat_map(Record::commands).collect::<Vec<_>>();
        let words: Vec<_> = commands.iter().map(|words| &*words[0]).collect();
        assert_eq!(words, ["GET", if grace == "0" { "DEL" } else { "SET" }]);
    });
}

#[test]
fn a_node_that_is_gone_at_the_release_is_asked_for_again() {
    let server = Server::start(&[]);
    let scene = Scene::new(&server, Job::gated(7));
    let (port, node) = (server.port(), Proxy::start(server.port()));
    let moved = format!("MOVED 3999 127.0.0.1:{}", node.port());
    let first =
        Scripted::start(move |index, stream| if index == 0 { refuse(stream, &moved) } else { forward(stream, port) });
    let running = by_way_of(&scene, first.port()).spawn();
    scene.job.wait_running();
    assert_eq!((first.connections(), node.connections()), (1, 1));
    drop(node);
    scene.job.open_gate();
    running.wait().assert_silent(7);
    scene.assert_released();
}

#[test]
fn a_redirection_can_name_an_address_of_ipv6() {
    let Ok(listener) = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)) else {
        eprintln!("not tested: this host has no IPv6");
        return;
    };
    let server = Server::start(&[]);
    let scene = Scene::new(&server, Job::exits(7));
    let first = elsewhere(format!("::1:{}", listener.local_addr().unwrap().port()));
    thread::scope(|scope| {
        scope.spawn(|| {
            for stream in listener.incoming().take(2) {
                forward(&stream.unwrap(), server.port());
            }
        });
        by_way_of(&scene, first.port()).run().assert_silent(7);
    });
    scene.assert_released();
}

#[test]
fn five_redirections_are_followed_and_more_are_not() {
    let server = Server::start(&[]);
    each(&[5, 6], |&hops| {
        let scene = Scene::new(&server, Job::exits(7));
        let mut chain = vec![elsewhere(format!("127.0.0.1:{}", scene.proxy.port()))];
        while chain.len() < hops {
            chain.push(elsewhere(format!("127.0.0.1:{}", chain[chain.len() - 1].port())));
        }
        let done = by_way_of(&scene, chain[hops - 1].port()).set("RECONNECT_ATTEMPTS", "0").run();
        if hops == 5 {
            done.assert_silent(7);
            scene.assert_released();
        } else {
            done.assert_one_line(201, &[&scene.name(), "redirected"]);
            scene.assert_not_run();
        }
    });
}

#[test]
fn two_servers_that_send_golock_to_each_other_are_given_up() {
    let second = Arc::new(OnceLock::new());
    let first = Scripted::start({
        let second = Arc::clone(&second);
        move |_, stream| refuse(stream, &format!("MOVED 3999 127.0.0.1:{}", second.wait()))
    });
    let back = elsewhere(format!("127.0.0.1:{}", first.port()));
    second.set(back.port()).unwrap();
    let job = Job::exits(7);
    let golock = Golock::new(first.port()).set("KEY", "circle").set("RECONNECT_BACKOFF", "0").args(job.command());
    golock.set("RECONNECT_ATTEMPTS", "2").run().assert_one_line(201, &["cronlock.circle", "redirected"]);
    assert_eq!(job.runs(), 0);
    // At most five redirections for each of the three tries.
    assert!(first.connections() + back.connections() <= 18);
}
