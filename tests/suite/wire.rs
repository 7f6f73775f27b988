//! What goes over the wire, and what does not.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::support::proxy::Record;
use crate::support::{Golock, Job, STALE, Scene, Server, each, until};

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// Runs the scene's job to its end and returns what happened on each connection.
fn records(scene: &Scene<'_>, golock: &Golock) -> Vec<Record> {
    golock.run().assert_silent(scene.job.code());
    until("golock's connections end", || scene.proxy.open() == 0);
    scene.proxy.records()
}

#[test]
fn a_run_is_one_write_to_acquire_and_one_to_release() {
    let server = Server::start(&[]);
    let scene = Scene::new(&server, Job::exits(7));
    let [acquire, release] = <[Record; 2]>::try_from(records(&scene, &scene.golock())).unwrap();
    let name = scene.name();
    let token = &acquire.commands()[0][2];
    assert_eq!(acquire.commands(), [vec!["SET", &name, token, "NX", "EX", "86400"], vec!["GET", &name]]);
    assert_eq!(release.commands().iter().map(|words| &*words[0]).collect::<Vec<_>>(), ["EVAL"]);
    assert_eq!((acquire.request_reads, release.request_reads), (1, 1));
}

#[test]
fn no_connection_is_open_while_the_job_runs() {
    let server = Server::start(&[]);
    let scene = Scene::new(&server, Job::gated(7));
    let running = scene.golock().spawn();
    scene.job.wait_running();
    until("golock's connection ends", || scene.proxy.open() == 0);
    assert_eq!((scene.proxy.connections(), server.connections_received()), (1, 1));
    scene.job.open_gate();
    running.wait().assert_silent(7);
    assert_eq!((scene.proxy.connections(), server.connections_received()), (2, 2));
}

#[test]
fn auth_and_select_go_first_and_alone() {
    let server = Server::start(&[]);
    server.query::<()>(&["ACL", "SETUSER", "cron", "on", ">pass word", "~*", "+@all"]);
    let scene = Scene::new(&server, Job::exits(7));
    let golock = scene.golock().set("USER", "cron").set("AUTH", "pass word").set("DB", "3");
    for record in records(&scene, &golock) {
        assert_eq!(record.commands()[..2], [vec!["AUTH", "cron", "pass word"], vec!["SELECT", "3"]]);
        assert_eq!(record.request_reads, 2);
    }
}

#[test]
fn without_a_user_the_password_goes_alone() {
    let server = Server::start(&["--requirepass", "secret"]);
    let scene = Scene::new(&server, Job::exits(7));
    for record in records(&scene, &scene.golock().set("AUTH", "secret")) {
        assert_eq!(record.commands()[0], ["AUTH", "secret"]);
        assert!(record.commands().iter().all(|words| words[0] != "SELECT"));
    }
}

#[test]
fn only_six_commands_are_ever_sent() {
    let server = Server::start(&["--requirepass", "secret"]);
    // With a takeover, with EVAL and without.
    each(&["+eval", "-eval"], |rule| {
        server.query::<()>(&["ACL", "SETUSER", rule, "on", ">secret", "~*", "+@all", rule]);
        let scene = Scene::new(&server, Job::exits(7));
        let golock = scene.golock().set("USER", rule).set("AUTH", "secret").set("DB", "1");
        if *rule == "+eval" {
            server.query::<()>(&[
                "EVAL",
                "redis.call('SELECT', 1); redis.call('SET', KEYS[1], ARGV[1])",
                "1",
                &scene.name(),
                STALE,
            ]);
        }
        for words in records(&scene, &golock).iter().flat_map(Record::commands) {
            assert!(["AUTH", "SELECT", "SET", "GET", "DEL", "EVAL"].contains(&&*words[0]), "{words:?}");
        }
    });
}

#[test]
fn the_token_is_nineteen_digits_and_never_the_same() {
    let server = Server::start(&[]);
    let mut tokens: Vec<String> = Vec::new();
    for _ in 0..20 {
        let scene = Scene::new(&server, Job::exits(7));
        scene.golock().set("GRACE", "40").run().assert_silent(7);
        tokens.extend(server.get(&scene.name()));
    }
    for token in &tokens {
        assert!(token.len() == 19 && token.bytes().all(|byte| byte.is_ascii_digit()), "{token}");
        let number: u64 = token.parse().unwrap();
        assert!(number > unix_seconds() && i64::try_from(number).is_ok(), "{token}");
    }
    tokens.sort();
    tokens.dedup();
    assert_eq!(tokens.len(), 20);
}

#[test]
fn the_default_name_is_cronlocks() {
    let server = Server::start(&[]);
    // Each is the MD5 of the words, separated by single spaces, and a newline.
    let names: [(&[&str], &str); 3] = [
        (&["true"], "74d9a83219cabaab06a69fd318873f33"),
        (&["true", "-al", "two  spaces", ""], "4b062674e57a023a82dea8bfa954a2e2"),
        (&["env", "true", "ä", "--grace=3"], "c8b9d08b360558693ef8d653297e6bdf"),
    ];
    each(&names, |(words, hash)| {
        Golock::new(server.port()).args(*words).run().assert_silent(0);
        assert!(server.pttl(&format!("cronlock.{hash}")) > 0, "{:?}", server.keys());
    });
}

#[test]
fn localhost_is_the_default() {
    let server = Server::start(&[]);
    let scene = Scene::new(&server, Job::exits(7));
    scene.golock().set("HOST", "").set("PORT", server.port().to_string()).run().assert_silent(7);
    scene.assert_released();
    assert_eq!(server.command_count("set"), 1);
}

#[test]
fn a_unix_socket_serves_as_well() {
    let server = Server::start(&[]);
    let scene = Scene::new(&server, Job::exits(7));
    scene.golock().set("HOST", server.socket_path()).set("PORT", "").run().assert_silent(7);
    scene.assert_released();
    assert_eq!((scene.proxy.connections(), server.command_count("set")), (0, 1));
}
