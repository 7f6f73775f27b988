//! What goes over the wire, and what does not.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::support::proxy::Record;
use crate::support::resp::{Words, encoded};
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
fn a_run_is_one_write_to_acquire_one_to_confirm_and_one_to_release() {
    let server = Server::start(&[]);
    let scene = Scene::new(&server, Job::exits(7));
    let [acquire, release] = <[Record; 2]>::try_from(records(&scene, &scene.golock())).unwrap();
    let (name, commands) = (scene.name(), acquire.commands());
    let token = &commands[0][2];
    assert_eq!(commands[..2], [vec!["SET", &name, token, "NX", "EX", "86400"], vec!["GET", &name]]);
    let keys = ["2", &name, &format!("cronlock.run.{{{name}}}")];
    assert_eq!((&*commands[2][0], &commands[2][2..5], commands.len()), ("EVAL", &keys.map(String::from)[..], 3));
    assert_eq!(release.commands().iter().map(|words| &*words[0]).collect::<Vec<_>>(), ["EVAL"]);
    assert_eq!((acquire.request_reads, release.request_reads), (2, 1));
}

#[test]
fn a_run_that_is_skipped_is_one_write() {
    let server = Server::start(&[]);
    let scene = Scene::new(&server, Job::exits(7));
    let name = scene.name();
    server.set(&name, "2000000000000000000");
    scene.golock().run().assert_silent(200);
    // With MAX_AGE it asks for the record in the same write.
    scene.golock().set("MAX_AGE", "1h").run().assert_silent(200);
    until("golock's connections end", || scene.proxy.open() == 0);
    let [plain, with_age] = <[Record; 2]>::try_from(scene.proxy.records()).unwrap();
    let asked = |record: &Record| {
        let commands = record.commands();
        let token = commands[0][2].clone();
        assert_eq!((commands[0].join(" "), record.request_reads), (format!("SET {name} {token} NX EX 86400"), 1));
        commands[1..].iter().map(|words| words.join(" ")).collect::<Vec<_>>()
    };
    assert_eq!(asked(&plain), [format!("GET {name}")]);
    assert_eq!(asked(&with_age), [format!("GET {name}"), format!("GET cronlock.run.{{{name}}}")]);
}

/// How a lock is confirmed and renewed where nothing is recorded, and how it is released.
const CONFIRM: &str = "local v,p=redis.call('GET',KEYS[1]) \
    if v and v~=ARGV[1] and not(v==ARGV[3] and redis.call('TTL',KEYS[1])==-1) then return v end \
    if v~=ARGV[1] then redis.call('SET',KEYS[1],ARGV[1],'PX',ARGV[2]) \
    else p=redis.call('PTTL',KEYS[1]) if p<tonumber(ARGV[2]) then redis.call('PEXPIRE',KEYS[1],ARGV[2]) end end \
    return ARGV[1]";
const RELEASE: &str = "local v,c=redis.call('GET',KEYS[1]),1 if not v then c=-1 elseif v~=ARGV[1] then c=0 \
    else local g,p=tonumber(ARGV[2]),redis.call('PTTL',KEYS[1]) if g==0 then redis.call('DEL',KEYS[1]) \
    elseif ARGV[3]=='1' or p<0 or p>g then redis.call('PEXPIRE',KEYS[1],ARGV[2]) end end return c";

/// Asserts that each connection has sent these commands and nothing else, byte for byte; those of an inner list in one
/// write. In the words, `NAME` and `TOKEN` stand for those of the lock.
#[track_caller]
fn assert_wire(scene: &Scene<'_>, connections: &[&[&[&[&str]]]]) {
    until("golock's connections end", || scene.proxy.open() == 0);
    let records = scene.proxy.records();
    let token = records.iter().flat_map(Record::commands).find(|words| words[0] == "SET").unwrap()[2].clone();
    let word = |word: &&str| word.replace("NAME", &scene.name()).replace("TOKEN", &token);
    let said = |writes: &&[&[&[&str]]]| {
        let words: Vec<Words> =
            writes.iter().copied().flatten().map(|words| words.iter().map(word).collect()).collect();
        (String::from_utf8(encoded(&words)).unwrap(), writes.len())
    };
    let heard = |record: &Record| (String::from_utf8(record.request.clone()).unwrap(), record.request_reads);
    assert_eq!(records.iter().map(heard).collect::<Vec<_>>(), connections.iter().map(said).collect::<Vec<_>>());
}

#[test]
fn without_a_record_the_wire_is_what_it_was_but_for_the_confirmation() {
    const SET: &[&str] = &["SET", "NAME", "TOKEN", "NX", "EX", "86400"];
    const GET: &[&str] = &["GET", "NAME"];
    const CONFIRMED: &[&str] = &["EVAL", CONFIRM, "1", "NAME", "TOKEN", "86400000", "TOKEN"];
    const RELEASED: &[&str] = &["EVAL", RELEASE, "1", "NAME", "TOKEN", "0", "0"];
    let server = Server::start(&["--user", "plain", "on", ">secret", "~*", "+@all", "-eval"]);
    let scene = || Scene::new(&server, Job::exits(7));
    let plain = |scene: &Scene<'_>| scene.golock().set("RECORD", "0");

    let run = scene();
    plain(&run).run().assert_silent(7);
    assert_wire(&run, &[&[&[SET, GET], &[CONFIRMED]], &[&[RELEASED]]]);

    let skipped = scene();
    server.set(&skipped.name(), "2000000000000000000");
    plain(&skipped).set("MAX_AGE", "1h").run().assert_silent(200);
    assert_wire(&skipped, &[&[&[SET, GET]]]);

    let taken_over = scene();
    server.set(&taken_over.name(), STALE);
    plain(&taken_over).run().assert_silent(7);
    let confirmed: &[&str] = &["EVAL", CONFIRM, "1", "NAME", "TOKEN", "86400000", STALE];
    assert_wire(&taken_over, &[&[&[SET, GET], &[confirmed]], &[&[RELEASED]]]);

    let refused = scene();
    plain(&refused).set("USER", "plain").set("AUTH", "secret").run().assert_silent(7);
    let login: &[&str] = &["AUTH", "plain", "secret"];
    let acquire: &[&[&[&str]]] = &[&[login], &[SET, GET], &[CONFIRMED], &[GET]];
    assert_wire(&refused, &[acquire, &[&[login], &[GET], &[&["DEL", "NAME"]]]]);
}

#[test]
fn without_a_record_a_lease_is_renewed_as_it_is_confirmed() {
    let server = Server::start(&[]);
    let scene = Scene::new(&server, Job::gated(7));
    let running = scene.golock().set("RECORD", "0").set("LEASE", "3600").spawn();
    scene.job.wait_running();
    scene.job.open_gate();
    running.wait().assert_silent(7);
    let set: &[&str] = &["SET", "NAME", "TOKEN", "NX", "EX", "3600"];
    let confirmed: &[&str] = &["EVAL", CONFIRM, "1", "NAME", "TOKEN", "3600000", "TOKEN"];
    let released: &[&str] = &["EVAL", RELEASE, "1", "NAME", "TOKEN", "0", "1"];
    assert_wire(&scene, &[&[&[set, &["GET", "NAME"]], &[confirmed]], &[&[released]]]);

    let scene = Scene::new(&server, Job::gated(7));
    let running = scene.golock().set("RECORD", "0").set("LEASE", "9").spawn();
    scene.job.wait_running();
    until("a renewal has been answered", || {
        scene.proxy.records().get(1).is_some_and(|record| !record.reply.is_empty())
    });
    scene.job.open_gate();
    running.wait().assert_silent(7);
    let renewed = scene.proxy.records()[1].commands();
    let token = &renewed[0][4];
    assert_eq!(renewed, [vec!["EVAL", CONFIRM, "1", &scene.name(), token, "9000", token]]);
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
    let records = records(&scene, &golock);
    for record in &records {
        assert_eq!(record.commands()[..2], [vec!["AUTH", "cron", "pass word"], vec!["SELECT", "3"]]);
    }
    assert_eq!(records.iter().map(|record| record.request_reads).collect::<Vec<_>>(), [3, 2]);
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
    scene.golock().unset("HOST").set("PORT", server.port().to_string()).run().assert_silent(7);
    scene.assert_released();
    assert_eq!((scene.proxy.connections(), server.connections_received()), (0, 2));
}

#[test]
fn a_unix_socket_serves_as_well() {
    let server = Server::start(&[]);
    let scene = Scene::new(&server, Job::exits(7));
    scene.golock().set("HOST", server.socket_path()).unset("PORT").run().assert_silent(7);
    scene.assert_released();
    assert_eq!((scene.proxy.connections(), server.connections_received()), (0, 2));
}
