//! Settings that make no sense: one line says so, Redis is not asked, and nothing runs.

use crate::support::job_tools::{Notes, graceless, option};
use crate::support::{Golock, Job, Scripted, Server, each};

/// A job that must not run, and a server that must not be asked.
struct Nothing {
    job: Job,
    server: Scripted,
}

impl Nothing {
    fn new() -> Self {
        Self { job: Job::exits(0), server: Scripted::start(|_, _| ()) }
    }

    fn golock(&self) -> Golock {
        graceless(self.server.port()).set("RECONNECT_ATTEMPTS", "0")
    }

    /// Asserts that golock fails with one line that holds `parts`, and that nothing happens.
    #[track_caller]
    fn comes_of(&self, golock: Golock, parts: &[&str]) {
        golock.args(self.job.command()).run().assert_one_line(201, parts);
        assert_eq!((self.job.runs(), self.server.connections()), (0, 0));
    }
}

/// Settings that contradict each other, and the two that golock names.
type Contradiction = (&'static [(&'static str, &'static str)], [&'static str; 2]);

const CONTRADICTIONS: [Contradiction; 16] = [
    (&[("URL", "redis://host"), ("HOST", "host")], ["URL", "HOST"]),
    (&[("HOST", ""), ("URL", "redis://host"), ("PORT", "1")], ["URL", "PORT"]),
    (&[("HOST", ""), ("PORT", ""), ("URL", "redis://host"), ("USER", "user"), ("AUTH", "word")], ["URL", "USER"]),
    (&[("HOST", ""), ("PORT", ""), ("URL", "redis://host"), ("AUTH", "word")], ["URL", "AUTH"]),
    (&[("HOST", ""), ("PORT", ""), ("URL", "redis://host"), ("AUTH_FILE", "/nowhere")], ["URL", "AUTH_FILE"]),
    (&[("HOST", ""), ("PORT", ""), ("URL", "redis://host"), ("DB", "0")], ["URL", "DB"]),
    (&[("HOST", ""), ("PORT", ""), ("URL", "redis://host"), ("TLS", "no")], ["URL", "TLS"]),
    (&[("AUTH", "word"), ("AUTH_FILE", "/nowhere")], ["AUTH", "AUTH_FILE"]),
    (&[("USER", "user")], ["USER", "AUTH"]),
    (&[("TLS", "yes"), ("TLS_CERT", "/nowhere")], ["TLS_CERT", "TLS_KEY"]),
    (&[("TLS", "yes"), ("TLS_KEY", "/nowhere")], ["TLS_KEY", "TLS_CERT"]),
    (&[("TLS_CA", "/nowhere")], ["TLS_CA", "TLS"]),
    (&[("TLS_CERT", "/nowhere"), ("TLS_KEY", "/nowhere")], ["TLS_CERT", "TLS"]),
    (&[("HOST", ""), ("PORT", ""), ("URL", "redis://host"), ("TLS_CA", "/nowhere")], ["TLS_CA", "TLS"]),
    (&[("HOST", "/nowhere"), ("TLS", "yes")], ["TLS", "Unix socket"]),
    (&[("USE_SENTINEL", "yes")], ["USE_SENTINEL", "not supported"]),
];

#[test]
fn settings_that_contradict_each_other_are_named() {
    each(&CONTRADICTIONS, |&(settings, named)| {
        let nothing = Nothing::new();
        let golock = settings.iter().fold(nothing.golock(), |golock, (name, value)| golock.set(name, value));
        nothing.comes_of(golock, &named);
    });
}

#[test]
fn a_local_lock_has_no_use_for_redis_nor_for_a_lease() {
    const USELESS: [(&str, &str); 4] = [("URL", "redis://host"), ("AUTH", "word"), ("DB", "0"), ("TLS", "yes")];
    each(&USELESS, |(name, value)| {
        let (nothing, notes) = (Nothing::new(), Notes::new());
        let option = option(name);
        let local = nothing.golock().set("HOST", "").set("PORT", "").set("LOCAL_DIR", notes.folder());
        nothing.comes_of(local.args(["--local", &format!("{option}={value}")]), &[&option]);
    });
    let (nothing, notes) = (Nothing::new(), Notes::new());
    let local = nothing.golock().set("LOCAL", "yes").set("LOCAL_DIR", notes.folder());
    nothing.comes_of(local.set("LEASE", "5"), &["CRONLOCK_LOCAL", "CRONLOCK_LEASE"]);
}

#[test]
fn values_without_a_meaning_are_refused() {
    const VALUES: [(&str, &str); 16] = [
        ("PORT", "0"),
        ("PORT", " 6379"),
        ("DB", "0x1"),
        ("GRACE", "1,5"),
        ("GRACE", "99999999999999999999"),
        ("RELEASE", "0s"),
        ("TIMEOUT", "1 h"),
        ("RELEASE", "-1d"),
        ("SKIP_EXIT", "-1"),
        ("RECONNECT_ATTEMPTS", "many"),
        ("VERBOSE", "yess"),
        ("KEY_FORMAT", "CRONLOCK"),
        ("LEASE", "2"),
        ("WAIT", "30s1m"),
        ("RECORD", "1m30"),
        ("MAX_AGE", "11575d"),
    ];
    each(&VALUES, |(name, value)| {
        let nothing = Nothing::new();
        nothing.comes_of(nothing.golock().set(name, value), &[&format!("CRONLOCK_{name}"), &format!("\"{value}\"")]);
    });
}

#[test]
fn a_value_that_would_break_the_line_is_escaped() {
    let nothing = Nothing::new();
    nothing.comes_of(nothing.golock().set("GRACE", "1\n2\r\x1b[31m"), &["CRONLOCK_GRACE", "1\\n2\\r"]);
    let host = std::os::unix::ffi::OsStringExt::from_vec(b"h\xff".to_vec());
    nothing.comes_of(nothing.golock().set("HOST", std::ffi::OsString::clone(&host)), &["CRONLOCK_HOST", "UTF-8"]);
}

#[test]
fn a_command_line_that_is_not_understood_is_refused() {
    let cases = [
        (&["--no-such-option"][..], "--no-such-option"),
        (&["-x"], "-x"),
        (&["--GRACE", "5"], "--GRACE"),
        (&["--redis_timeout", "5"], "--redis_timeout"),
        (&["--status=yes"], "--status"),
        (&["-vq"], "-q"),
        (&["--grac", "5"], "--grac"),
    ];
    each(&cases, |(words, named)| {
        let nothing = Nothing::new();
        nothing.comes_of(nothing.golock().args(*words), &[named]);
    });
    let nothing = Nothing::new();
    for words in [&["--key"][..], &["--grace", "5"], &[], &["--"], &["--reset"], &["--status"], &["--print-key"]] {
        nothing.golock().args(words).run().assert_one_line(201, &[words.first().map_or("", |_| "golock: ")]);
    }
    assert_eq!(nothing.server.connections(), 0);
}

/// Lines that a shell would run or expand: each would leave a trace in the folder, were it run.
const HOSTILE: [&str; 24] = [
    "touch TRACE",
    "CRONLOCK_KEY=$(touch TRACE)",
    "CRONLOCK_KEY=`touch TRACE`",
    "CRONLOCK_KEY=\"$(touch TRACE)\"",
    "CRONLOCK_KEY=a; touch TRACE",
    "CRONLOCK_KEY=a;touch TRACE",
    "CRONLOCK_KEY=a & touch TRACE",
    "CRONLOCK_KEY=a && touch TRACE",
    "CRONLOCK_KEY=a touch TRACE",
    "CRONLOCK_KEY='a' touch TRACE",
    "CRONLOCK_KEY=a | touch TRACE",
    "CRONLOCK_KEY=a > TRACE",
    "CRONLOCK_KEY=<(touch TRACE)",
    "CRONLOCK_KEY=$HOME",
    "CRONLOCK_KEY=${HOME}",
    "CRONLOCK_KEY=~",
    "CRONLOCK_KEY=a\\",
    "CRONLOCK_KEY=\"a",
    "CRONLOCK_KEY='a",
    "CRONLOCK_KEY+=a",
    "CRONLOCK_KEY = a",
    "CRONLOCK KEY=a",
    "export CRONLOCK_KEY",
    "[ -e TRACE ] || touch TRACE",
];

#[test]
fn a_config_file_is_never_run() {
    each(&HOSTILE, |line| {
        let (nothing, notes) = (Nothing::new(), Notes::new());
        let (conf, trace) = (notes.path("conf"), notes.path("trace"));
        let line = line.replace("TRACE", trace.to_str().unwrap());
        notes.write("conf", format!("# a comment\n\nCRONLOCK_GRACE=0\n{line}\nCRONLOCK_KEY=good\n"));
        nothing.comes_of(nothing.golock().set("CONFIG", &conf), &[&format!("{}:4:", conf.display())]);
        assert!(!trace.exists());
    });
}

#[test]
fn a_config_file_that_cannot_be_read_is_an_error() {
    let (nothing, notes) = (Nothing::new(), Notes::new());
    let missing = notes.path("missing");
    for path in [missing.to_str().unwrap(), "/", "/dev/zero", "/dev/null/x"] {
        nothing.comes_of(nothing.golock().set("CONFIG", path), &[path]);
        nothing.comes_of(nothing.golock().args(["--config", path]), &[path]);
    }
}

#[test]
fn a_config_file_as_cronlocks_users_have_it_is_understood() {
    let server = Server::start(&[]);
    let notes = Notes::new();
    let text = format!(
        "\u{23} the mail job\n\nCRONLOCK_HOST=\"127.0.0.1\"\r\n  export CRONLOCK_PORT={} # a port\n\
         CRONLOCK_GRACE=50\nCRONLOCK_PREFIX='my company''s'\nCRONLOCK_NTPDATE=\"yes\"\nPATH=/nowhere\nOTHER='$(x)'\n",
        server.port()
    );
    notes.write("conf", text.replace("''s", ""));
    let golock = Golock::new(0).unset("HOST").unset("PORT").set("CONFIG", notes.path("conf")).set("KEY", ".key");
    golock.args(["sh", "-c", "exit 7"]).run().assert_silent(7);
    assert_eq!(server.locks(), ["0:my company.key"]);
    assert!((1..=50_000).contains(&server.pttl("my company.key")));
}
