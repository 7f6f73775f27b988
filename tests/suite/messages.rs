//! What golock says: nothing, or one line; on request the story of a run. It never fails because nobody can listen.

use crate::support::job_tools::{EVER, Notes, SETTINGS, WHILE_NOTED, graceless, option};
use crate::support::redis::free_port;
use crate::support::scripted::{drain, read_commands, send};
use crate::support::{Done, Golock, Job, Scripted, Server, each, until};

/// Asserts that the story of `lock` holds these parts, each in a line behind that of the part before. Every line has the
/// lock's name and the time since the first, which is a time of day.
#[track_caller]
fn assert_told(done: &Done, lock: &str, parts: &[&str]) {
    let mut lines = done.stderr.lines();
    for part in parts {
        assert!(lines.any(|line| line.contains(part)), "{part:?} is missing or out of order in {}", done.stderr);
    }
    let start = format!("golock: {lock}: ");
    for line in done.stderr.lines() {
        let rest = line.strip_prefix(&start).unwrap_or_else(|| panic!("{line}"));
        let (time, words) = rest.split_once(": ").unwrap();
        let seconds = time.strip_suffix('s').and_then(|time| time.split_once('.'));
        let digits = seconds.map(|(seconds, fraction)| (seconds.parse::<u64>().is_ok(), fraction.len()));
        assert!(digits == Some((true, 3)) && !words.is_empty(), "{line}");
    }
    let first = done.stderr.lines().next().unwrap();
    let (_, day) = first.split_once("s: it is ").unwrap_or_else(|| panic!("{first}"));
    assert!(day.len() == "2026-11-26T06:02:11Z".len() && day.starts_with("20") && day.ends_with('Z'), "{day}");
    assert!(done.stderr.lines().count() <= 12, "{}", done.stderr);
}

#[test]
fn verbose_tells_the_story_of_a_run() {
    let server = Server::start(&[]);
    let address = format!("127.0.0.1:{}", server.port());
    let golock = Golock::new(server.port()).set("VERBOSE", "yes").set("KEY", "story").set("GRACE", "1h");
    let done = golock.clone().args(["sh", "-c", "exit 7"]).run();
    assert_eq!((done.code, &*done.stdout), (7, ""));
    let parts = ["it is 2", &address, "got the lock", "/sh as process ", &address, "code 7", "of grace left"];
    assert_told(&done, "cronlock.story", &parts);
    // Until when and by whom it is held.
    let token = server.get("cronlock.story").unwrap();
    let done = golock.args(["sh", "-c", "exit 7"]).run();
    assert_eq!((done.code, &*done.stdout), (200, ""));
    let held = ["held for the grace of the run on ", " that ended 20", "Z, free in ", " at the latest, token ", &token];
    assert_told(&done, "cronlock.story", &[&address, held[0]]);
    let told = done.stderr.lines().last().unwrap();
    assert!(held.iter().all(|part| told.contains(part)), "{told}");
}

#[test]
fn verbose_tells_who_has_held_the_lock_since_when() {
    let server = Server::start(&[]);
    let (holder, job) = (graceless(server.port()).set("KEY", "held"), Job::gated(7));
    let running = holder.clone().args(job.command()).spawn();
    job.wait_running();
    let token = server.get("cronlock.held").unwrap();
    let done = holder.clone().args(["-v", "true"]).run();
    assert_eq!(done.code, 200);
    let process = format!(", process {}, since 20", running.pid());
    let told = done.stderr.lines().last().unwrap();
    for part in [": held by ", &process, " s), free in ", &format!(" at the latest, token {token}")] {
        assert!(told.contains(part), "{part:?} is not in {told}");
    }
    job.open_gate();
    running.wait().assert_silent(7);
}

#[test]
fn verbose_tells_of_a_wait_once_and_of_each_change() {
    let server = Server::start(&[]);
    server.set("cronlock.waited", "1999999999123456789");
    let notes = Notes::new();
    let golock = graceless(server.port()).set("KEY", "waited").set("WAIT", "1h").set("VERBOSE", "yes");
    let running = golock.prelude(&notes.stderr_into("story")).args(["true"]).spawn();
    let asked = || server.command_count("set");
    let wait_for = |more: u64| {
        let before = asked();
        until("it has asked again and again", || asked() > before + more);
    };
    wait_for(3);
    server.set("cronlock.waited", "1888888888123456789");
    wait_for(3);
    server.query::<()>(&["DEL", "cronlock.waited"]);
    running.wait().assert_silent(0);
    let story = notes.read("story");
    let held: Vec<_> = story.lines().filter(|line| line.contains(": held by another")).collect();
    let tokens = ["1999999999123456789", "1888888888123456789"];
    assert!(
        matches!(held[..], [first, second] if first.ends_with(tokens[0]) && second.ends_with(tokens[1])),
        "{story}"
    );
}

#[test]
fn a_look_at_the_holder_that_is_not_answered_holds_nobody_up() {
    let server = Scripted::start(|_, stream| {
        read_commands(stream, 2);
        send(stream, "$-1\r\n$19\r\n1999999999123456789\r\n");
        drain(stream);
    });
    let golock = graceless(server.port()).set("KEY", "looked").set("REDIS_TIMEOUT", EVER);
    let done = golock.args(["-v", "true"]).run();
    assert_eq!(done.code, 200);
    assert_told(&done, "cronlock.looked", &[": held by another"]);
}

#[test]
fn verbose_tells_of_every_try() {
    let port = free_port();
    let golock = Golock::new(port).set("RECONNECT_ATTEMPTS", "2").set("RECONNECT_BACKOFF", "0");
    let done = golock.args(["-v", "--key", "tried", "true"]).run();
    assert_eq!(done.code, 201);
    let address = format!("127.0.0.1:{port}");
    let failed = format!("true did not run: cannot take the lock cronlock.tried: redis at {address}: ");
    assert_told(&done, "cronlock.tried", &["trying again in 0 s", "trying again in 0 s", &failed]);
    assert!(done.stderr.lines().last().unwrap().contains(" (3 tries in "), "{}", done.stderr);
}

#[test]
fn verbose_tells_that_eval_is_refused_and_that_nothing_is_recorded() {
    let server = Server::start(&["--user", "plain", "on", ">secret", "~*", "+@all", "-eval"]);
    server.query::<()>(&["ACL", "SETUSER", "untimed", "on", ">secret", "~*", "+@all", "-time"]);
    let cases = [("plain", "redis refuses EVAL: NOPERM"), ("untimed", "nothing is recorded of this run: ")];
    each(&cases, |&(user, words)| {
        let golock = graceless(server.port()).set("USER", user).set("AUTH", "secret").set("KEY", user).args(["true"]);
        golock.run().assert_silent(0);
        let done = golock.set("VERBOSE", "yes").run();
        assert_eq!((done.code, done.stderr.matches(words).count()), (0, 1), "{done:?}");
    });
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
    assert_told(&done, "cronlock.odd", &["the key is not a lock, its value is no\\nlock"]);
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
    let line = done.stdout.strip_prefix("cronlock.mail running ttl=").unwrap_or_else(|| panic!("{done:?}"));
    let (left, rest) = line.split_once(' ').unwrap();
    assert!((1..=86400).contains(&left.parse().unwrap()), "{done:?}");
    let holder = format!(" pid={} program=sh start=20", running.pid());
    assert!(rest.starts_with("host=") && rest.contains(&holder) && !rest.contains(" end="), "{done:?}");
    notes.write("open", "");
    running.wait().assert_silent(0);
    let done = status.run();
    assert!(done.code == 0 && done.stdout.starts_with("cronlock.mail free host="), "{done:?}");
    assert!(done.stdout.contains(" end=20") && done.stdout.contains(" result=0 ok=20"), "{done:?}");
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
