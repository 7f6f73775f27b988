//! A Redis that refuses: golock fails with the server's words, runs nothing, and leaves no key in any database.

use crate::support::{Job, STALE, Scene, Server, each};

const PASSWORD: &str = "correct horse";
const WRONG: &str = "battery staple";

#[derive(Debug)]
struct Refusal {
    /// What the server is told before.
    server: &'static [&'static str],
    settings: &'static [(&'static str, &'static str)],
    /// What is in golock's line.
    words: &'static str,
    /// Whether the lock was asked for at all.
    asked: bool,
}

const REFUSALS: &[Refusal] = &[
    Refusal { server: &[], settings: &[("AUTH", WRONG)], words: "without any password", asked: false },
    Refusal { server: &[], settings: &[("AUTH", WRONG), ("DB", "3")], words: "without any password", asked: false },
    Refusal { server: &[], settings: &[("USER", "nobody"), ("AUTH", WRONG)], words: "WRONGPASS", asked: false },
    Refusal { server: &[], settings: &[("DB", "99")], words: "DB index is out of range", asked: false },
    Refusal {
        server: &["CONFIG", "SET", "requirepass", PASSWORD],
        settings: &[("AUTH", WRONG)],
        words: "WRONGPASS",
        asked: false,
    },
    Refusal {
        server: &["CONFIG", "SET", "requirepass", PASSWORD],
        settings: &[("AUTH", WRONG), ("DB", "3")],
        words: "WRONGPASS",
        asked: false,
    },
    Refusal {
        server: &["CONFIG", "SET", "requirepass", PASSWORD],
        settings: &[("AUTH", PASSWORD), ("DB", "99")],
        words: "DB index is out of range",
        asked: false,
    },
    Refusal { server: &["CONFIG", "SET", "requirepass", PASSWORD], settings: &[], words: "NOAUTH", asked: true },
    Refusal { server: &["ACL", "SETUSER", "default", "-set"], settings: &[], words: "NOPERM", asked: true },
    Refusal { server: &["ACL", "SETUSER", "default", "resetkeys"], settings: &[], words: "NOPERM", asked: true },
];

#[test]
fn a_refusal_leaves_no_key_anywhere() {
    each(REFUSALS, |refusal| {
        let server = Server::start(&[]);
        if !refusal.server.is_empty() {
            server.query::<()>(refusal.server);
        }
        let scene = Scene::new(&server, Job::exits(7));
        let golock = refusal.settings.iter().fold(scene.golock(), |golock, (name, value)| golock.set(name, value));
        let done = golock.run();
        done.assert_one_line(201, &[&scene.name(), refusal.words]);
        assert!(![PASSWORD, WRONG].iter().any(|secret| done.stderr.contains(secret)), "{done:?}");
        scene.assert_not_run();
        assert_eq!(server.keys(), [""; 0]);
        let records = scene.proxy.records();
        assert_eq!(records.len(), 1);
        assert_eq!(records[0].commands().iter().any(|words| words[0] == "SET"), refusal.asked);
    });
}

#[test]
fn a_full_redis_is_asked_again_and_leaves_no_key() {
    let server = Server::start(&[]);
    server.query::<()>(&["CONFIG", "SET", "maxmemory", "1"]);
    let scene = Scene::new(&server, Job::exits(7));
    scene.golock().set("RECONNECT_ATTEMPTS", "2").run().assert_one_line(201, &[&scene.name(), "OOM", "(3 tries in "]);
    scene.assert_not_run();
    assert_eq!(server.keys(), [""; 0]);
}

#[test]
fn a_database_that_cannot_be_is_refused_without_asking() {
    let server = Server::start(&[]);
    let scene = Scene::new(&server, Job::exits(7));
    scene.golock().set("DB", "-1").run().assert_one_line(201, &["CRONLOCK_DB", "-1"]);
    scene.assert_not_run();
    assert_eq!((scene.proxy.connections(), server.keys().len()), (0, 0));
}

#[test]
fn a_replica_without_its_master_gets_no_lock() {
    // With stale data it answers GET, without it it does not; SET is refused either way.
    each(&[("yes", "$-1"), ("no", "-MASTERDOWN")], |(stale_data, get)| {
        let server = Server::start(&["--replicaof", "127.0.0.1", "1", "--replica-serve-stale-data", stale_data]);
        let scene = Scene::new(&server, Job::exits(7));
        let done = scene.golock().set("RECONNECT_ATTEMPTS", "1").run();
        done.assert_one_line(201, &[&scene.name(), "READONLY"]);
        scene.assert_not_run();
        let records = scene.proxy.records();
        assert_eq!(records.len(), 2);
        assert!(String::from_utf8_lossy(&records[0].reply).contains(get));
        server.query::<()>(&["REPLICAOF", "NO", "ONE"]);
        assert_eq!(server.keys(), [""; 0]);
    });
}

#[test]
fn a_key_of_another_type_is_left_alone() {
    let server = Server::start(&[]);
    let scene = Scene::new(&server, Job::exits(7));
    server.query::<()>(&["RPUSH", &scene.name(), "element"]);
    scene.golock().run().assert_one_line(201, &[&scene.name(), "WRONGTYPE"]);
    scene.assert_not_run();
    assert_eq!(server.query::<i64>(&["LLEN", &scene.name()]), 1);
    assert_eq!(server.pttl(&scene.name()), -1);
}

#[test]
fn without_eval_a_predecessors_lock_is_not_taken_over() {
    let server = Server::start(&[]);
    server.query::<()>(&["ACL", "SETUSER", "default", "-eval"]);
    let scene = Scene::new(&server, Job::exits(7));
    server.set(&scene.name(), STALE);
    scene.golock().run().assert_one_line(201, &["cannot take", &scene.name(), "NOPERM"]);
    scene.assert_not_run();
    // It may be given back, though nothing was taken; that changes nothing.
    let asked: Vec<_> = scene.proxy.records()[0].commands().into_iter().map(|words| words[0].clone()).collect();
    assert_eq!(asked[..3], ["SET", "GET", "EVAL"]);
    assert!(asked[3..].iter().all(|word| ["EVAL", "GET"].contains(&&**word)), "{asked:?}");
    assert_eq!((server.get(&scene.name()).as_deref(), server.pttl(&scene.name())), (Some(STALE), -1));
}

#[test]
fn the_right_password_opens() {
    let server = Server::start(&[]);
    server.query::<()>(&["CONFIG", "SET", "requirepass", PASSWORD]);
    server.query::<()>(&["ACL", "SETUSER", "cron", "on", &format!(">{WRONG}"), "~cronlock.*", "+@all"]);
    each(&[("", PASSWORD), ("default", PASSWORD), ("cron", WRONG)], |(user, password)| {
        let scene = Scene::new(&server, Job::gated(7));
        let running = scene.golock().set("USER", user).set("AUTH", password).set("DB", "3").spawn();
        scene.job.wait_running();
        let lock = format!("3:{}", scene.name());
        assert!(server.keys().contains(&lock), "{lock} is not in {:?}", server.keys());
        scene.job.open_gate();
        running.wait().assert_silent(7);
        assert!(!server.keys().contains(&lock));
    });
}

/// Runs a job, tells the server `command` meanwhile, and expects a silent release, as far as `grace` and `left` say.
fn release_after(command: &[&str], grace: &str, left: i64) {
    let server = Server::start(&[]);
    let scene = Scene::new(&server, Job::gated(7));
    let running = scene.golock().set("GRACE", grace).set("RELEASE", "1000").spawn();
    scene.job.wait_running();
    server.query::<()>(command);
    scene.job.open_gate();
    running.wait().assert_silent(7);
    scene.assert_released_within(left);
}

#[test]
fn a_redis_that_ran_out_of_memory_releases_all_the_same() {
    let full = ["CONFIG", "SET", "maxmemory", "1"];
    each(&[("0", 0), ("40", 40)], |&(grace, left)| release_after(&full, grace, left));
}

#[test]
fn without_eval_the_lock_is_released_all_the_same() {
    // The rest of the grace need not be set without EVAL, but the lock must not outlast RELEASE.
    let cases = [("-@scripting", "0", 0), ("-eval", "0", 0), ("-@scripting", "40", 1000)];
    each(&cases, |&(rule, grace, left)| release_after(&["ACL", "SETUSER", "default", rule], grace, left));
}

#[test]
fn a_server_without_an_eval_command_releases_all_the_same() {
    let server = Server::start(&["--rename-command", "EVAL", ""]);
    let scene = Scene::new(&server, Job::exits(7));
    scene.golock().run().assert_silent(7);
    scene.assert_released();
}
