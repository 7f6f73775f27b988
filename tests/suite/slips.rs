//! The slips that people make in settings, and what golock says of each: one line that names the job, the place and, where
//! it is likely, what was meant. Nothing runs, and Redis is not asked.

use std::fs;
use std::os::unix::fs::symlink;

use crate::support::job_tools::{Notes, graceless};
use crate::support::{Done, Golock, Job, Scripted, Server, each};

/// A slip, and what follows `backup.sh did not run: `.
#[derive(Debug)]
pub(crate) struct Slip {
    options: &'static [&'static str],
    environment: &'static [(&'static str, &'static str)],
    /// The config file; in the words, CONF stands for its path.
    file: &'static str,
    says: &'static str,
}

const fn option(options: &'static [&'static str], says: &'static str) -> Slip {
    Slip { options, environment: &[], file: "", says }
}

const fn variable(environment: &'static [(&'static str, &'static str)], says: &'static str) -> Slip {
    Slip { options: &[], environment, file: "", says }
}

const fn line(file: &'static str, says: &'static str) -> Slip {
    Slip { options: &[], environment: &[], file, says }
}

/// Names that are no settings.
const MISSPELT: &[Slip] = &[
    variable(&[("HSOT", "redis.example.com")], "CRONLOCK_HSOT: no such setting; CRONLOCK_HOST?"),
    variable(&[("GRACEE", "1")], "CRONLOCK_GRACEE: no such setting; CRONLOCK_GRACE?"),
    variable(&[("RECONNECT", "1")], "CRONLOCK_RECONNECT: no such setting; CRONLOCK_RECONNECT_ATTEMPTS?"),
    variable(&[("host", "h")], "CRONLOCK_host: no such setting; CRONLOCK_HOST?"),
    variable(&[("NONSENSE", "\x1b[2J")], "CRONLOCK_NONSENSE: no such setting; see golock --help all"),
    variable(&[("NON\nSENSE", "1")], "CRONLOCK_NON\\nSENSE: no such setting; see golock --help all"),
    variable(&[("", "1")], "CRONLOCK_: no such setting; see golock --help all"),
    line("PATH=/bin\n\nCRONLOCK_TIEMOUT=1\n", "CONF:3: CRONLOCK_TIEMOUT: no such setting; CRONLOCK_TIMEOUT?"),
    line("MAILTO=me\nHOST=redis1\n", "CONF:2: HOST: no such setting; CRONLOCK_HOST?"),
    line("export AUTH_FILE=/etc/secret\n", "CONF:1: AUTH_FILE: no such setting; CRONLOCK_AUTH_FILE?"),
    line("GOLOCK_HOST=redis1\n", "CONF:1: GOLOCK_HOST: no such setting; CRONLOCK_HOST?"),
    line("cronlock_host=redis1\n", "CONF:1: cronlock_host: no such setting; CRONLOCK_HOST?"),
    line("CRONLOC_DB=3\n", "CONF:1: CRONLOC_DB: no such setting; CRONLOCK_DB?"),
    line("\u{feff}HOST=redis1\n", "CONF:1: HOST: no such setting; CRONLOCK_HOST?"),
    option(&["--tiemout", "5"], "--tiemout: no such option; --timeout?"),
    option(&["--hots=redis1"], "--hots: no such option; --host?"),
    option(&["--grac", "5"], "--grac: no such option; --grace?"),
    variable(
        &[("LOCAL_VIP", "10.0.0.1")],
        "CRONLOCK_LOCAL_VIP: a host cannot be chosen by its address: run golock on the hosts that may run the job",
    ),
    line(
        "CRONLOCK_LOCAL_VIP=10.0.0.1",
        "CONF:1: CRONLOCK_LOCAL_VIP: a host cannot be chosen by its address: run golock on the hosts that may run the job",
    ),
    variable(
        &[("USE_SENTINEL", "yes")],
        "CRONLOCK_USE_SENTINEL: Sentinel is not supported: name the primary by CRONLOCK_HOST",
    ),
    line(
        "# all\nCRONLOCK_USE_SENTINEL=\"yes\"",
        "CONF:2: CRONLOCK_USE_SENTINEL: Sentinel is not supported: name the primary by CRONLOCK_HOST",
    ),
];

/// Settings of one source that contradict each other, each named as it was given.
const CONTRADICTIONS: &[Slip] = &[
    option(&["--url", "redis://h", "--host", "h"], "--url and --host exclude each other"),
    option(&["--url", "redis://h", "--port", "1"], "--url and --port exclude each other"),
    option(&["--auth", "word", "--auth-file", "/nowhere"], "--auth and --auth-file exclude each other"),
    option(&["--local", "--lease", "5"], "--local and --lease exclude each other"),
    variable(&[("URL", "redis://h"), ("HOST", "h")], "CRONLOCK_URL and CRONLOCK_HOST exclude each other"),
    variable(&[("URL", "redis://h"), ("USER", "u")], "CRONLOCK_URL and CRONLOCK_USER exclude each other"),
    variable(&[("URL", "redis://h"), ("AUTH", "w")], "CRONLOCK_URL and CRONLOCK_AUTH exclude each other"),
    variable(&[("URL", "redis://h"), ("AUTH_FILE", "f")], "CRONLOCK_URL and CRONLOCK_AUTH_FILE exclude each other"),
    variable(&[("URL", "redis://h"), ("DB", "0")], "CRONLOCK_URL and CRONLOCK_DB exclude each other"),
    variable(&[("URL", "redis://h"), ("TLS", "no")], "CRONLOCK_URL and CRONLOCK_TLS exclude each other"),
    variable(&[("AUTH", "w"), ("AUTH_FILE", "f")], "CRONLOCK_AUTH and CRONLOCK_AUTH_FILE exclude each other"),
    variable(&[("LOCAL", "yes"), ("LEASE", "5")], "CRONLOCK_LOCAL and CRONLOCK_LEASE exclude each other"),
    line(
        "CRONLOCK_URL=redis://h\nCRONLOCK_HOST=h\n",
        "CONF:1: CRONLOCK_URL and CONF:2: CRONLOCK_HOST exclude each other",
    ),
    line(
        "CRONLOCK_LEASE=5\nCRONLOCK_LOCAL=yes\n",
        "CONF:2: CRONLOCK_LOCAL and CONF:1: CRONLOCK_LEASE exclude each other",
    ),
];

/// Values that are understood, but cannot be meant.
const VALUES: &[Slip] = &[
    variable(&[("HOST", "h:6380")], "CRONLOCK_HOST: it holds a port; write CRONLOCK_HOST=h and CRONLOCK_PORT=6380"),
    option(&["--host", "[::1]:6380"], "--host: it holds a port; write --host=::1 and --port=6380"),
    option(&["--list", "--status"], "--status: one action at a time"),
    option(&["--local", "--local-dir", "locks"], "--local-dir: \"locks\" is not an absolute path"),
    option(&["--url", "redis://::1:6379"], "--url: an IPv6 address must be written as [ADDRESS]"),
    option(&["--reset", "--status"], "--reset does nothing beside --status, --list, --metrics or --print-key"),
    option(&["--list", "backup.sh"], "--list and --metrics take no command: they tell of all jobs under PREFIX"),
    option(&["--metrics", "backup.sh"], "--list and --metrics take no command: they tell of all jobs under PREFIX"),
    variable(
        &[("HOST", "cron:secret@h")],
        "CRONLOCK_HOST: it holds a user or a password; they belong into CRONLOCK_URL",
    ),
    variable(
        &[("HOST", "redis CRONLOCK_AUTH=secret")],
        "CRONLOCK_HOST: another setting stands in its value; each has a line of its own",
    ),
    variable(
        &[("PREFIX", "x\tCRONLOCK_URL=redis://:secret@h")],
        "CRONLOCK_PREFIX: another setting stands in its value; each has a line of its own",
    ),
    line(
        "CRONLOCK_GRACE='5 CRONLOCK_AUTH=secret'\n",
        "CONF:1: CRONLOCK_GRACE: another setting stands in its value; each has a line of its own",
    ),
    variable(&[("HOST", "redis PASSWORD=secret")], "CRONLOCK_HOST: more than the name of a host"),
    variable(&[("HOST", "redis;AUTH=secret")], "CRONLOCK_HOST: more than the name of a host"),
    variable(&[("URL", "redis://h%20PASSWORD=secret")], "CRONLOCK_URL: more than the name of a host"),
    variable(&[("PORT", "6379 PASSWORD=secret")], "CRONLOCK_PORT: not a number"),
    option(&["--host", "[::1]6380"], "--host: \"[::1]6380\" is not a host"),
    option(&["--host", "redis://h:6380/2"], "--host: it is a URL; that is --url"),
    variable(&[("HOST", "rediss://:secret@h")], "CRONLOCK_HOST: it is a URL; that is CRONLOCK_URL"),
    variable(
        &[("HOST", "unix:///run/redis.sock")],
        "CRONLOCK_HOST: a Unix socket is named by its path alone, which begins with a slash",
    ),
    option(&["--url", "unix:///run/redis.sock"], "--url: a Unix socket is HOST=/PATH, not a URL"),
    option(&["--url", "/run/redis.sock"], "--url: a Unix socket is HOST=/PATH, not a URL"),
    option(&["--url", "http://h"], "--url: neither redis:// nor rediss://"),
    option(&["--url", "redis://:a/b@h"], "--url: a / in a user's name or a password must be written as %2F"),
    option(&["--url", "redis://:a@b@h"], "--url: an @ in a user's name or a password must be written as %40"),
    option(&["--url", "redis://:a#b@h"], "--url: a # in a user's name or a password must be written as %23"),
    option(&["--url", "redis://:a?b@h"], "--url: a ? in a user's name or a password must be written as %3F"),
    option(&["--url", "redis://:a%00b@h"], "--url: %00, a NUL, which nothing here can hold"),
    option(&["--url", "redis://:a%b@h"], "--url: a % without two hex digits behind it; itself it is %25"),
    variable(
        &[("URL", "redis://h"), ("TLS_CA", "/ca.pem")],
        "CRONLOCK_TLS_CA needs TLS: write rediss:// in CRONLOCK_URL",
    ),
    Slip {
        options: &["--tls-ca", "/ca.pem"],
        environment: &[("URL", "redis://h")],
        file: "",
        says: "--tls-ca needs TLS: write rediss:// in CRONLOCK_URL",
    },
    variable(&[("TLS_SKIP_VERIFY", "yes")], "CRONLOCK_TLS_SKIP_VERIFY needs CRONLOCK_TLS"),
    variable(&[("TLS_CA", "/ca.pem")], "CRONLOCK_TLS_CA needs CRONLOCK_TLS"),
    variable(&[("TLS_NAME", "redis")], "CRONLOCK_TLS_NAME needs CRONLOCK_TLS"),
    option(&["--kill-after", "5"], "--kill-after needs --timeout"),
    variable(&[("KILL_AFTER", "5")], "CRONLOCK_KILL_AFTER needs CRONLOCK_TIMEOUT"),
    option(&["--grace", "100", "--release", "50"], "--grace: it is longer than RELEASE, which is 50 s"),
    option(&["--grace", "2d"], "--grace: it is longer than RELEASE, which is 86400 s"),
    Slip {
        options: &["--grace", "100"],
        environment: &[("RELEASE", "50")],
        file: "",
        says: "--grace: it is longer than RELEASE, which is 50 s",
    },
    option(
        &["--grace", "11575d"],
        "--grace: \"11575d\" is not a time in seconds, or as 90s, 5m, 1h30m or 2d, from 0 s to 11574 days",
    ),
    option(&["--port", "0"], "--port: \"0\" is not a number from 1 to 65535"),
    variable(&[("TLS", "maybe")], "CRONLOCK_TLS: \"maybe\" is neither yes nor no"),
];

/// Variables whose names only look like ours.
#[test]
fn what_is_almost_the_prefix_is_no_silence() {
    let job = Job::exits(7);
    for (name, meant) in [
        ("GOLOCK_HOST", "HOST"),
        ("GOLOCK_AUTH_FILE", "AUTH_FILE"),
        ("cronlock_grace", "GRACE"),
        ("CRONLOCKHOST", "HOST"),
        ("GOLOCK_PORT", "PORT"),
        ("CRNOLOCK_DB", "DB"),
    ] {
        let done = Golock::new(1).env(name, "1").args(job.command()).run();
        done.assert_one_line(201, &[&format!("did not run: {name}: no such setting; CRONLOCK_{meant}?")]);
    }
    // What a job finds in its environment, and what is another's.
    let golock = graceless(Server::start(&[]).port()).args(["--key=k", "--print-key"]);
    let others = ["GOLOCK_KEY", "GOLOCK_TOKEN", "GOLOCK_BIN", "CRONLOG_HOST", "HOST", "LOCK_KEY", "CRON_LOCK_TIMEOUT"];
    // Kubernetes tells of a service called golock.
    let of_services =
        [("GOLOCK_PORT", "tcp://10.0.0.1:80"), ("GOLOCK_URL", "https://example.com/golock"), ("GOLOCK_DB", "")];
    for (name, value) in others.map(|name| (name, "1")).into_iter().chain(of_services) {
        assert_eq!(golock.clone().env(name, value).run().stdout, "cronlock.k\n", "{name}");
    }
}

/// All of them.
pub(crate) const ALL: [&[Slip]; 3] = [MISSPELT, CONTRADICTIONS, VALUES];

/// What golock says of a slip.
pub(crate) fn made(slip: &Slip) -> Done {
    make(slip, &Notes::new(), &Scripted::start(|_, _| ()), &Job::exits(0))
}

/// golock, given a slip, the only server that it could reach, and the job that it could run.
fn make(slip: &Slip, notes: &Notes, server: &Scripted, job: &Job) -> Done {
    notes.write("conf", slip.file);
    // A URL stands for these.
    let elsewhere = slip.environment.iter().any(|(name, _)| *name == "URL") || slip.options.contains(&"--url");
    let mut golock = graceless(server.port()).set("CONFIG", notes.path("conf"));
    if elsewhere || slip.file.contains("URL") || slip.file.contains("LOCAL=") {
        golock = golock.unset("HOST").unset("PORT");
    }
    for (name, value) in slip.environment {
        golock = golock.set(name, value);
    }
    symlink("/bin/sh", notes.path("backup.sh")).unwrap();
    let command = [vec![notes.path("backup.sh").into()], job.command().split_off(1)].concat();
    golock.args(slip.options).args(command).run()
}

fn assert_said(slip: &Slip) {
    let (notes, server, job) = (Notes::new(), Scripted::start(|_, _| ()), Job::exits(0));
    let done = make(slip, &notes, &server, &job);
    let says = slip.says.replace("CONF", notes.path("conf").to_str().unwrap());
    assert_eq!((done.code, &*done.stderr), (201, &*format!("golock: backup.sh did not run: {says}\n")));
    assert_eq!((done.stdout.as_str(), job.runs(), server.connections()), ("", 0, 0));
}

#[test]
fn a_name_that_is_no_setting_is_an_error_that_says_what_was_meant() {
    each(MISSPELT, assert_said);
}

#[test]
fn contradictions_within_one_source_are_named_as_they_were_given() {
    each(CONTRADICTIONS, assert_said);
}

#[test]
fn a_value_that_cannot_be_meant_says_what_to_write() {
    each(VALUES, assert_said);
}

#[test]
fn a_command_that_is_a_shells_line_says_how_to_run_it() {
    let server = Scripted::start(|_, _| ());
    let cases = [
        ("cd /tmp && ls", "cd: not found; a shell's line is run by sh -c"),
        ("backup.sh >/dev/null", "backup.sh: not found; a shell's line is run by sh -c"),
        ("/opt/my tools/dump -pX/y", "/opt/my: not found; a shell's line is run by sh -c"),
        (" FOO=secret backup", "FOO=: not found; a variable is set by env NAME=VALUE COMMAND"),
        ("(FOO=secret backup)", "FOO=: not found; a variable is set by env NAME=VALUE COMMAND"),
        ("FOO=1", "FOO=: not found; a variable is set by env NAME=VALUE COMMAND"),
        ("_FOO_2=1", "_FOO_2=: not found; a variable is set by env NAME=VALUE COMMAND"),
        ("env FOO=1 backup.sh", "env: not found; a shell's line is run by sh -c"),
        ("redis://:word@h", "redis://: not found; a server is named by --url URL"),
        ("=1", "=1: not found"),
        ("://h", "://h: not found"),
        ("FOO.1=1", "FOO.1=1: not found"),
        ("no-such-command", "no-such-command: not found"),
    ];
    each(&cases, |(command, says)| {
        let done = graceless(server.port()).args([command, "env"]).run();
        done.assert_one_line(127, &[&format!(" did not run: {says}")]);
        assert!(done.stderr.ends_with(&format!("{says}\n")), "{done:?}");
    });
    assert_eq!(server.connections(), 0);
}

#[test]
fn an_action_without_a_lock_says_what_it_needs() {
    let nobody = Scripted::start(|_, _| ());
    let golock = || graceless(nobody.port());
    for option in ["--status", "--print-key", "--reset"] {
        golock().args([option]).run().assert_one_line(201, &["golock: it needs a command or --key"]);
    }
    golock().set("RESET", "yes").run().assert_one_line(201, &["golock: it needs a command or --key"]);
    golock().run().assert_one_line(201, &["golock: no command given; see golock --help"]);
    golock().args(["--no-such"]).run().assert_one_line(201, &["golock: --no-such: no such option; see golock --help"]);
    golock().args(["--stauts"]).run().assert_one_line(201, &["golock: --stauts: no such option; --status?"]);
    golock().args(["--key"]).run().assert_one_line(201, &["golock: --key: its value is missing; see golock --help"]);
    assert_eq!(nobody.connections(), 0);
}

#[test]
fn a_file_without_a_password_is_an_error() {
    let (nobody, notes) = (Scripted::start(|_, _| ()), Notes::new());
    each(&["", "\n"], |content| {
        let file = notes.path(&format!("password{}", content.len()));
        fs::write(&file, content).unwrap();
        let done = graceless(nobody.port()).set("RECONNECT_ATTEMPTS", "0").set("AUTH_FILE", &file).args(["true"]).run();
        done.assert_one_line(201, &["golock: true did not run: ", file.to_str().unwrap(), "it is empty"]);
    });
    assert_eq!(nobody.connections(), 0);
}

#[test]
fn a_password_with_something_around_it_is_pointed_at_when_it_is_refused() {
    const HINT: &str = "; the password begins or ends with white space or a byte order mark";
    let (server, notes) = (Server::start(&["--requirepass", "secret"]), Notes::new());
    let cases =
        [("secret ", true), (" secret", true), ("secret\n\n", true), ("\u{feff}secret", true), ("wrong", false)];
    each(&cases, |(password, hinted)| {
        let file = notes.path(&format!("{}", password.len() * 2 + usize::from(password.starts_with(' '))));
        fs::write(&file, password).unwrap();
        for (name, value) in [("AUTH", password.to_string()), ("AUTH_FILE", file.display().to_string())] {
            let done = graceless(server.port()).set(name, value).args(["true"]).run();
            done.assert_one_line(201, &["golock: true did not run: ", "WRONGPASS"]);
            assert_eq!(done.stderr.contains(HINT), *hinted, "{name}={password:?}: {done:?}");
        }
    });
}

#[test]
fn a_url_of_valkey_is_one_of_redis() {
    let server = Server::start(&[]);
    let url = format!("valkey://127.0.0.1:{}/3", server.port());
    graceless(0).unset("HOST").unset("PORT").args(["--url", &url, "sh", "-c", "exit 7"]).run().assert_silent(7);
    assert_eq!(server.connections_received(), 2);
}

#[test]
fn a_span_can_have_several_units() {
    let server = Server::start(&[]);
    let golock = graceless(server.port()).set("KEY", "span").set("GRACE", "1h30m").set("RELEASE", "1d2h3m4s");
    golock.args(["true"]).run().assert_silent(0);
    assert!((5_000_000..=5_400_000).contains(&server.pttl("cronlock.span")), "{}", server.pttl("cronlock.span"));
}

#[test]
fn a_reset_says_on_request_whether_there_was_a_lock() {
    let server = Server::start(&[]);
    server.set("cronlock.there", "1999999999");
    let reset =
        |key: &str, options: &[&str]| Golock::new(server.port()).set("KEY", key).args(["--reset"]).args(options).run();
    for (key, says) in [("there", ": deleted the lock\n"), ("there", ": there was no lock\n")] {
        let done = reset(key, &["-v"]);
        assert!(done.code == 200 && done.stderr.ends_with(says), "{says:?}: {done:?}");
    }
    reset("there", &[]).assert_silent(200);
}
