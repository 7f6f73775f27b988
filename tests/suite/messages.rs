//! What golock says: nothing, or one line; on request the story of a run. It never fails because nobody can listen.

use crate::support::job_tools::{Notes, SETTINGS, WHILE_NOTED, graceless, option};
use crate::support::redis::free_port;
use crate::support::{Done, Golock, Job, Server, each};

/// Asserts that `lines` hold these parts, each in a line behind that of the part before.
#[track_caller]
fn assert_told(done: &Done, parts: &[&str]) {
    let mut lines = done.stderr.lines();
    for part in parts {
        assert!(lines.any(|line| line.contains(part)), "{part:?} is missing or out of order in {}", done.stderr);
    }
    for line in done.stderr.lines() {
        assert!(line.starts_with("golock: "), "{line}");
    }
    assert!(done.stderr.lines().count() <= 12, "{}", done.stderr);
}

#[test]
fn verbose_tells_the_story_of_a_run() {
    let server = Server::start(&[]);
    let address = format!("127.0.0.1:{}", server.port());
    let golock = Golock::new(server.port()).set("VERBOSE", "yes").set("KEY", "story");
    let done = golock.clone().args(["sh", "-c", "exit 7"]).run();
    assert_eq!((done.code, &*done.stdout), (7, ""));
    assert_told(&done, &["cronlock.story", &address, "got the lock", "/sh", "code 7", &address, "grace"]);
    // All but the first line have a time.
    assert!(done.stderr.lines().skip(1).all(|line| line.split(' ').nth(1).unwrap().ends_with('s')), "{}", done.stderr);
    let done = golock.args(["sh", "-c", "exit 7"]).run();
    assert_eq!((done.code, &*done.stdout), (200, ""));
    assert_told(&done, &["cronlock.story", &address, "held by another"]);
}

#[test]
fn verbose_tells_of_every_try() {
    let port = free_port();
    let golock = Golock::new(port).set("RECONNECT_ATTEMPTS", "2").set("RECONNECT_BACKOFF", "0").args(["-v", "true"]);
    let done = golock.run();
    assert_eq!(done.code, 201);
    let address = format!("127.0.0.1:{port}");
    assert_told(&done, &["Acquiring", "trying again", "trying again", &address]);
    assert!(done.stderr.lines().last().unwrap().contains("3 tries"), "{}", done.stderr);
}

#[test]
fn the_locks_name_is_shown_on_request() {
    let server = Server::start(&[]);
    let done = graceless(server.port()).args(["--show-key", "--key", "a\nb", "true"]).run();
    done.assert_one_line(0, &["Acquiring lock on cronlock.a\\nb key"]);
}

#[test]
fn a_value_that_is_no_lock_is_explained_on_request() {
    let server = Server::start(&[]);
    server.set("cronlock.odd", "no\nlock");
    let golock = graceless(server.port()).set("KEY", "odd");
    golock.clone().args(["true"]).run().assert_silent(200);
    let done = golock.args(["-v", "true"]).run();
    assert_eq!(done.code, 200);
    assert_told(&done, &["no\\nlock"]);
    assert!(done.stderr.contains("--reset"), "{}", done.stderr);
}

/// Ways in which nobody listens. What goes to a closed file is lost in silence, what a device refuses is an error.
const DEAF: &[&str] = &[
    "exec 2>&-",
    "exec >&-",
    "exec <&- >&- 2>&-",
    "exec 2</dev/null",
    #[cfg(target_os = "linux")]
    "exec 2>/dev/full",
    #[cfg(target_os = "linux")]
    "exec >&- 2>/dev/full",
];

#[test]
fn a_run_does_not_depend_on_being_heard() {
    let server = Server::start(&[]);
    each(DEAF, |prelude| {
        for verbose in ["yes", "no"] {
            let key = format!("{prelude} {verbose}");
            let golock = graceless(server.port()).set("KEY", &key).set("VERBOSE", verbose).prelude(prelude);
            assert_eq!(golock.clone().args(["sh", "-c", "exit 7"]).run().code, 7);
            assert_eq!(golock.clone().args(["--reset"]).run().code, 200);
            assert_eq!(golock.clone().args(["/nowhere"]).run().code, 127);
            assert_eq!(golock.clone().args(["--no-such-option"]).run().code, 201);
            let refused = golock.set("PORT", free_port().to_string()).set("RECONNECT_ATTEMPTS", "0");
            assert_eq!(refused.args(["true"]).run().code, 201);
        }
    });
    each(DEAF, |prelude| {
        let golock = graceless(server.port()).set("KEY", prelude).set("TIMEOUT", "1").prelude(prelude);
        assert_eq!(golock.args(["sleep", "1000"]).run().code, 202);
    });
    assert_eq!(server.locks(), [""; 0]);
}

#[test]
#[cfg(target_os = "linux")]
fn what_cannot_be_printed_is_an_error() {
    let golock = Golock::new(1).prelude("exec >/dev/full").set("KEY", "k");
    for words in [&["--help"][..], &["--version"], &["--print-key"]] {
        golock.clone().args(words).run().assert_one_line(201, &["print"]);
    }
    let server = Server::start(&[]);
    let golock = Golock::new(server.port()).prelude("exec >/dev/full").args(["--key", "k", "--status"]);
    golock.run().assert_one_line(201, &["print"]);
}

#[test]
fn readers_that_have_gone_do_no_harm() {
    let server = Server::start(&[]);
    each(&["2>&1", "2>&1 >/dev/null"], |redirection| {
        let notes = Notes::new();
        let code = notes.path("code").display().to_string();
        let golock = graceless(server.port()).set("KEY", redirection).set("VERBOSE", "yes");
        let pipe = format!(r#"{{ "$0" "$@"; echo $? >'{code}'; }} {redirection} | :; exit"#);
        golock.prelude(&pipe).args(["sh", "-c", "exit 7"]).run().assert_silent(0);
        assert_eq!(notes.read("code"), "7\n");
    });
}

#[test]
fn status_is_one_line() {
    let server = Server::start(&[]);
    server.set("cronlock.cronlock", "1999999999");
    server.query::<()>(&["SET", "cronlock.grace", "1500000000", "EX", "1000"]);
    server.set("cronlock.odd", "x");
    server.set("cronlock.empty", "");
    let status = |key: &str| {
        let done = Golock::new(server.port()).args(["--status", "--key", key]).run();
        assert_eq!(done.stderr, "");
        (done.code, done.stdout)
    };
    let held = |line: &str| (200, format!("cronlock.{line}\n"));
    assert_eq!(status("nobody"), (0, "cronlock.nobody free\n".into()));
    assert_eq!(status("cronlock"), held("cronlock held ttl=none by=predecessor"));
    assert_eq!(status("odd"), held("odd held ttl=none by=unknown"));
    assert_eq!(status("empty"), held("empty held ttl=none by=unknown"));
    let (code, line) = status("grace");
    let left = line.strip_prefix("cronlock.grace held ttl=").and_then(|line| line.strip_suffix(" by=predecessor\n"));
    assert!(code == 200 && (1..=1000).contains(&left.unwrap().parse().unwrap()), "{line}");
    assert_eq!(status("a\nb\u{1b}[31m\u{e9}"), (0, "cronlock.a\\nb\\x1b[31m\\xc3\\xa9 free\n".into()));
}

#[test]
fn status_sees_a_running_golock_and_runs_nothing() {
    let server = Server::start(&[]);
    let (running, idle, notes) = (graceless(server.port()).set("KEY", "mail"), Job::exits(0), Notes::new());
    let status = running.clone().args(["--status"]).args(idle.command());
    let running = running.args(notes.job(&format!(r#": >"$0/up"; {WHILE_NOTED}"#))).spawn();
    notes.wait_for("up", |_| notes.path("up").exists());
    let done = status.run();
    assert_eq!((done.code, &*done.stderr), (200, ""));
    let left = done.stdout.strip_prefix("cronlock.mail held ttl=").and_then(|line| line.strip_suffix(" by=golock\n"));
    assert!((1..=86400).contains(&left.unwrap().parse().unwrap()), "{done:?}");
    notes.write("open", "");
    running.wait().assert_silent(0);
    let done = status.run();
    assert_eq!((done.code, &*done.stdout), (0, "cronlock.mail free\n"));
    assert_eq!(idle.runs(), 0);
}

#[test]
fn status_that_cannot_be_known_is_an_error() {
    let server = Server::start(&[]);
    server.query::<()>(&["RPUSH", "cronlock.list", "x"]);
    let done = Golock::new(server.port()).args(["--status", "--key", "list"]).run();
    done.assert_one_line(201, &["cronlock.list", "WRONGTYPE"]);
    let golock = Golock::new(free_port()).set("RECONNECT_ATTEMPTS", "0").args(["--status", "--key", "list"]);
    golock.run().assert_one_line(201, &["cronlock.list", "refused"]);
}

#[test]
fn the_printed_key_is_the_name_byte_for_byte() {
    // For redis-cli, which needs it as it is.
    let done = Golock::new(1).args(["--print-key", "--key", "a\nb\u{1b}[31m \u{e9}"]).run();
    assert_eq!((done.code, &*done.stdout, &*done.stderr), (0, "cronlock.a\nb\u{1b}[31m \u{e9}\n", ""));
}

/// What people can always read, however wrong their settings are.
#[track_caller]
fn read(words: &[&str]) -> String {
    let done = Golock::new(1).set("GRACE", "nonsense").set("CONFIG", "/nowhere").args(words).run();
    assert_eq!((done.code, &*done.stderr), (0, ""), "{words:?}");
    done.stdout
}

#[test]
fn help_names_every_setting_and_fits_the_screen() {
    let (short, all) = (read(&["--help"]), read(&["--help", "all"]));
    assert_eq!([read(&["-h"]), read(&["--key", "k", "--help"])], [&*short; 2]);
    for name in SETTINGS {
        assert!(all.contains(&format!(" {} ", option(name))), "{name}");
    }
    for line in all.lines().chain(short.lines()) {
        assert!(line.len() <= 80 && !line.ends_with(' '), "{line}");
    }
}

#[test]
fn the_version_is_that_of_the_package() {
    for word in ["--version", "-V"] {
        let version = read(&[word]);
        assert!(version.starts_with(&format!("golock {} ", env!("CARGO_PKG_VERSION"))), "{version}");
        assert_eq!(version.matches('\n').count(), 1);
    }
}
