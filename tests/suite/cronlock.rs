//! What cronlock's README and its own tests promise, so that a crontab that says `cronlock` may say `golock`; and the
//! two together on one lock, with a predecessor played by the commands that it sends.

use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::support::board::list;
use crate::support::job_tools::{Notes, graceless};
use crate::support::ledger::{Ledger, NAME, RECORD, Witness};
use crate::support::redis::free_port;
use crate::support::{Golock, Job, Server, each, until};

/// golock as in the README's examples, with nothing set but where Redis is.
fn cronlock(server: &Server) -> Golock {
    Golock::new(server.port())
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().try_into().unwrap()
}

#[test]
fn the_config_file_names_the_server() {
    let server = Server::start(&[]);
    let notes = Notes::new();
    let golock = cronlock(&server).unset("HOST").unset("PORT").set("RESET", "yes").args(["pwd"]);
    let wrong = free_port();
    notes.write("conf", format!("CRONLOCK_HOST=127.0.0.1\nCRONLOCK_PORT={wrong}\nCRONLOCK_RECONNECT_ATTEMPTS=0\n"));
    let done = golock.clone().set("CONFIG", notes.path("conf")).run();
    done.assert_one_line(201, &[&format!("127.0.0.1:{wrong}"), "refused"]);
    notes.write("conf", format!("CRONLOCK_HOST=\"127.0.0.1\"\nCRONLOCK_PORT={}\n", server.port()));
    golock.set("CONFIG", notes.path("conf")).run().assert_silent(200);
}

#[test]
fn a_first_try_in_the_present_folder_prints_it() {
    let server = Server::start(&[]);
    let done = cronlock(&server).args(["pwd"]).run();
    let here = std::env::current_dir().unwrap();
    assert_eq!((done.code, done.stdout, &*done.stderr), (0, format!("{}\n", here.display()), ""));
}

#[test]
fn in_the_grace_a_second_contender_gives_up() {
    let server = Server::start(&[]);
    let (first, second) = (Job::exits(0), Job::exits(0));
    let golock = cronlock(&server).set("KEY", "mail");
    golock.clone().args(first.command()).run().assert_silent(0);
    golock.clone().args(second.command()).run().assert_silent(200);
    // The contender's own grace does not count.
    golock.set("GRACE", "0").args(second.command()).run().assert_silent(200);
    assert_eq!((first.runs(), second.runs()), (1, 0));
    assert!((1..=40_000).contains(&server.pttl("cronlock.mail")));
}

#[test]
fn after_the_grace_a_second_contender_runs() {
    let server = Server::start(&[]);
    let job = Job::exits(0);
    let golock = cronlock(&server).set("GRACE", "1").args(job.command());
    golock.run().assert_silent(0);
    until("the grace is over", || server.locks().is_empty());
    golock.run().assert_silent(0);
    assert_eq!(job.runs(), 2);
}

#[test]
fn the_grace_counts_from_the_beginning() {
    let server = Server::start(&[]);
    let job = Job::gated(0);
    let golock = cronlock(&server).set("GRACE", "1").set("KEY", "long").args(job.command()).spawn();
    job.wait_running();
    let start = std::time::Instant::now();
    until("the job has outlasted the grace", || start.elapsed().as_secs() >= 1);
    job.open_gate();
    golock.wait().assert_silent(0);
    assert_eq!(server.locks(), [""; 0]);
}

#[test]
fn a_lock_persists_no_longer_than_its_release() {
    let server = Server::start(&[]);
    let (first, second) = (Job::gated(0), Job::exits(0));
    let golock = cronlock(&server).set("KEY", "mail").set("RELEASE", "1").set("GRACE", "0");
    let running = golock.clone().args(first.command()).spawn();
    first.wait_running();
    until("the lock is gone", || server.locks().is_empty());
    golock.set("RELEASE", "1000").args(second.command()).run().assert_silent(0);
    first.open_gate();
    running.wait().assert_one_line(0, &["cronlock.mail", "lost"]);
}

#[test]
fn reset_deletes_the_lock_whoever_holds_it() {
    let server = Server::start(&[]);
    let job = Job::exits(0);
    let golock = cronlock(&server).args(job.command());
    let reset = golock.clone().set("RESET", "yes");
    golock.run().assert_silent(0);
    golock.run().assert_silent(200);
    each(&["from the lock", "from nothing"], |_| reset.run().assert_silent(200));
    assert_eq!((job.runs(), server.locks().len()), (1, 0));
    golock.run().assert_silent(0);
    assert_eq!(job.runs(), 2);
}

#[test]
fn a_command_that_takes_too_long_is_killed() {
    let server = Server::start(&[]);
    let golock = cronlock(&server).set("GRACE", "2").set("TIMEOUT", "1").set("KEY", "sleep");
    golock.args(["sleep", "1000"]).run().assert_one_line(202, &["sleep", "1 s"]);
    assert!(server.pttl("cronlock.sleep") <= 2000);
}

#[test]
fn databases_and_prefixes_are_apart() {
    let server = Server::start(&[]);
    let job = Job::exits(0);
    let golock = cronlock(&server).set("KEY", "mail").args(job.command());
    golock.run().assert_silent(0);
    golock.clone().set("DB", "1").run().assert_silent(0);
    golock.clone().set("PREFIX", "mylocks.app1.").run().assert_silent(0);
    golock.clone().set("PREFIX", "mylocks.app2.").run().assert_silent(0);
    let mut keys = server.locks();
    keys.sort();
    assert_eq!(keys, ["0:cronlock.mail", "0:mylocks.app1.mail", "0:mylocks.app2.mail", "1:cronlock.mail"]);
    golock.clone().set("DB", "-1").run().assert_one_line(201, &["CRONLOCK_DB", "-1"]);
    golock.set("AUTH", "INVALID_AUTH_CODE").run().assert_one_line(201, &["AUTH"]);
    assert_eq!(job.runs(), 4);
}

#[test]
fn different_commands_exclude_each_other_only_under_the_same_key() {
    let server = Server::start(&[]);
    for (key, second) in [("", 0), ("echo", 200)] {
        let golock = cronlock(&server).set("KEY", key);
        assert_eq!(golock.clone().args(["echo", "-al"]).run().code, 0);
        assert_eq!(golock.args(["echo", "-a"]).run().code, second);
    }
}

#[test]
fn default_keys_are_those_that_cronlock_makes() {
    // cronlock is written for bash, whose echo takes a backslash as it comes; md5 is md5sum's name on macOS.
    const CRONLOCK: &str = r#"printf '%s\n' "$*" | { md5sum 2>/dev/null || md5; } | cut -c1-32"#;
    let commands: [&[&str]; 7] = [
        &["ls", "-al"],
        &["pwd"],
        &["/var/www/mail_customers.sh"],
        &["echo", "two  spaces", "", "'quotes\"", "back\\slash\\n"],
        &["echo", "line\nline", "\ttab "],
        &["echo", "gr\u{fc}n", "-v", "--", "--key"],
        &[""],
    ];
    each(&commands, |command| {
        let cronlock = Command::new("sh").args(["-c", CRONLOCK, "sh"]).args(*command).output().unwrap();
        let expected = format!("cronlock.{}", String::from_utf8(cronlock.stdout).unwrap());
        let golock = Golock::new(1).args(["--print-key", "--"]).args(*command);
        assert_eq!(golock.run().stdout, expected);
    });
}

#[test]
fn the_lock_of_a_running_predecessor_is_respected() {
    let server = Server::start(&[]);
    let job = Job::exits(0);
    // Set by SETNX for a day, without a TTL.
    let value = (now() + 86401).to_string();
    server.set("cronlock.mail", &value);
    graceless(server.port()).set("KEY", "mail").args(job.command()).run().assert_silent(200);
    assert_eq!((server.get("cronlock.mail"), server.pttl("cronlock.mail"), job.runs()), (Some(value), -1, 0));
}

#[test]
fn the_grace_of_a_predecessor_is_respected() {
    let server = Server::start(&[]);
    let job = Job::exits(0);
    // Set by GETSET and EXPIREAT; while the TTL runs, Redis's clock alone decides.
    for second in [now() - 1000, now(), now() + 1000] {
        server.query::<()>(&["SET", "cronlock.mail", &second.to_string(), "EX", "1000"]);
        graceless(server.port()).set("KEY", "mail").args(job.command()).run().assert_silent(200);
    }
    assert_eq!(job.runs(), 0);
}

#[test]
fn the_lock_that_a_crashed_predecessor_left_is_taken_over() {
    let server = Server::start(&[]);
    let job = Job::gated(0);
    server.set("cronlock.mail", &(now() - 1).to_string());
    let golock = graceless(server.port()).set("KEY", "mail").args(job.command()).spawn();
    job.wait_running();
    assert!((1..=86_400_000).contains(&server.pttl("cronlock.mail")));
    job.open_gate();
    golock.wait().assert_silent(0);
    assert_eq!(server.locks(), [""; 0]);
}

#[test]
fn a_predecessor_respects_a_running_golock_and_its_grace() {
    let server = Server::start(&[]);
    let job = Job::gated(0);
    let golock = cronlock(&server).set("KEY", "mail").args(job.command()).spawn();
    job.wait_running();
    let respected = || {
        let taken: i64 = server.query(&["SETNX", "cronlock.mail", &(now() + 86401).to_string()]);
        // Both predecessors calculate with 64 bits, the sign included.
        let second: i64 = server.get("cronlock.mail").unwrap().parse().unwrap();
        taken == 0 && second - now() > 0
    };
    assert!(respected());
    job.open_gate();
    golock.wait().assert_silent(0);
    assert!(respected());
}

#[test]
fn what_a_predecessor_took_meanwhile_is_left_to_it() {
    let server = Server::start(&[]);
    let job = Job::gated(7);
    let golock = graceless(server.port()).set("KEY", "mail").args(job.command()).spawn();
    job.wait_running();
    let value = (now() + 86401).to_string();
    server.set("cronlock.mail", &value);
    job.open_gate();
    golock.wait().assert_one_line(7, &["cronlock.mail", "lost"]);
    assert_eq!(server.get("cronlock.mail"), Some(value));
}

/// A predecessor takes a lock that is free, and lets it go into its grace.
fn predecessor_runs(server: &Server, meanwhile: impl FnOnce()) {
    let taken: i64 = server.query(&["SETNX", NAME, &(now() + 86_401).to_string()]);
    assert_eq!(taken, 1);
    meanwhile();
    server.query::<()>(&["GETSET", NAME, &(now() + 40).to_string()]);
    server.query::<()>(&["EXPIRE", NAME, "40"]);
}

#[test]
fn a_predecessor_that_holds_a_lock_changes_nothing_of_what_golock_has_recorded() {
    let ledger = Ledger::redis();
    let server = ledger.server();
    ledger.golock().args(Notes::new().job("exit 3")).run().assert_silent(3);
    let record = ledger.record();
    predecessor_runs(server, || {
        let facts = ledger.status();
        assert_eq!((facts.code, facts.head()), (200, format!("{NAME} held")));
        assert_eq!((facts.get("ttl"), facts.get("by"), facts.get("result")), ("none", "predecessor", "3"));
        let skipped = ledger.golock().set("VERBOSE", "yes").args(["false"]).run();
        assert!(skipped.stderr.contains("held by cronlock or golock (Go), and never expires, token "), "{skipped:?}");
        let rows = list(&ledger.golock());
        assert_eq!((rows.len(), &*rows[0].state, &*rows[0].result), (1, "held", "exit 3"));
    });
    assert!((1..=40).contains(&ledger.status().get("ttl").parse().unwrap()));
    assert_eq!((ledger.record(), server.locks()), (record, vec![format!("0:{NAME}")]));
    // What the predecessor did is not in it: golock counts its own runs.
    server.query::<()>(&["DEL", NAME]);
    ledger.golock().args(["false"]).run().assert_silent(1);
    assert_eq!(ledger.field("failed"), "2");
}

#[test]
fn a_run_that_died_before_a_predecessor_took_the_lock_is_not_running() {
    let ledger = Ledger::redis();
    let died = "fence=7 host=web2 pid=4711 program=backup.sh start=1795672931000 end= result= ok= failed=0 first=1";
    ledger.server().set(RECORD, died);
    predecessor_runs(ledger.server(), || {
        let facts = ledger.status();
        assert_eq!((facts.get("by"), facts.get("result"), facts.get("took")), ("predecessor", "unrecorded", ""));
        let rows = list(&ledger.golock());
        assert_eq!((&*rows[0].state, &*rows[0].result, rows[0].is_in_trouble), ("held", "no end was recorded", true));
    });
}

#[test]
fn a_lock_that_is_taken_over_from_a_crashed_predecessor_is_recorded() {
    let (ledger, witness) = (Ledger::redis(), Witness::new());
    ledger.server().set(NAME, &(now() - 1).to_string());
    assert_eq!(ledger.status().line, format!("{NAME} held ttl=none by=predecessor"));
    let golock = ledger.golock().args(witness.gated("exit 0")).spawn();
    let [_, parent, fence, _] = witness.began();
    let facts = ledger.status();
    assert_eq!((facts.head(), facts.get("pid").to_owned()), (format!("{NAME} running"), parent.to_string()));
    // The predecessors look at the lock alone, and find a second in the future.
    let second: i64 = ledger.server().get(NAME).unwrap().parse().unwrap();
    assert!(second > now() && ledger.server().pttl(NAME) > 0);
    witness.open();
    golock.wait().assert_silent(0);
    assert_eq!((ledger.number("fence"), ledger.field("result"), ledger.server().get(NAME)), (fence, "0".into(), None));
}
