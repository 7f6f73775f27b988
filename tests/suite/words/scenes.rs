//! What has to happen to golock so that it says each thing that it can say.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::servers;
use crate::slips;
use crate::support::cluster::Cluster;
use crate::support::gate::{Gate, Withheld};
use crate::support::job_tools::{EVER, Notes, WHILE_NOTED, pristine};
use crate::support::redis::free_port;
use crate::support::scripted::{drain, read_commands};
use crate::support::{Action, Direction, Done, Fault, Golock, Proxy, Scripted, Server, until};

/// The password of all servers here.
pub(super) const PASSWORD: &str = "Tr0ub4dor&3x";

const NAME: &str = "cronlock.told";

/// What golock has said.
pub(super) struct Told {
    pub(super) stdout: String,
    pub(super) stderr: String,
}

impl From<Done> for Told {
    fn from(done: Done) -> Self {
        Self { stdout: done.stdout, stderr: done.stderr }
    }
}

type Scene = fn() -> Vec<Told>;

pub(super) const ALL: &[(&str, Scene)] = &[
    ("runs and skips", runs_and_skips),
    ("holders", holders),
    ("jobs that end otherwise", jobs_that_end_otherwise),
    ("leases that are lost", leases_that_are_lost),
    ("a golock that stood still", a_golock_that_stood_still),
    ("users with few rights", users_with_few_rights),
    ("records", records),
    ("overdue", overdue),
    ("a tick that is served", a_tick_that_is_served),
    ("late", late),
    ("connections", servers::connections),
    ("answers", servers::answers),
    ("answers to the rest", servers::answers_to_the_rest),
    ("give-backs", give_backs),
    ("commands", commands),
    ("actions", actions),
    ("settings", settings),
    ("local locks", local_locks),
    ("a cluster", a_cluster),
    #[cfg(target_os = "linux")]
    ("names and addresses", servers::names_and_addresses),
    #[cfg(feature = "tls")]
    ("tls", super::tls::tls),
    #[cfg(not(feature = "tls"))]
    ("no tls", no_tls),
];

/// A server with a password, and the job backup.sh.
pub(super) struct Stage {
    pub(super) server: Server,
    pub(super) notes: Notes,
}

impl Stage {
    pub(super) fn new() -> Self {
        let server = Server::start(&["--requirepass", PASSWORD]);
        Self { server, notes: with_job() }
    }

    /// golock for this server, without grace.
    pub(super) fn golock(&self) -> Golock {
        golock(self.server.port()).set("AUTH", PASSWORD)
    }

    /// The same with a user that has all rights but these.
    fn without(&self, rights: &[&str]) -> Golock {
        let user = rights.concat().replace(['-', '+', '@'], "");
        let mut words = vec!["ACL", "SETUSER", &user, "on", "resetpass"];
        let password = format!(">{PASSWORD}");
        words.extend([&*password, "~*", "+@all"]);
        words.extend(rights);
        self.server.query::<()>(&words);
        self.golock().set("USER", &user)
    }

    /// The words of a job that runs this script.
    pub(super) fn job(&self, script: &str) -> Vec<OsString> {
        job(&self.notes, script)
    }

    /// The same, which also says that it runs, and goes on until the note `open` is written.
    fn gated(&self, script: &str) -> Vec<OsString> {
        self.job(&format!(r#"exec 2>/dev/null; : >"$0/up"; {WHILE_NOTED}; {script}"#))
    }

    #[track_caller]
    fn wait_running(&self) {
        self.notes.wait_for("up", |_| self.notes.path("up").exists());
    }

    fn open(&self) {
        self.notes.write("open", "");
    }

    /// Lets a run begin, something happen, and the job end.
    fn meanwhile(&self, golock: Golock, happens: impl FnOnce(&Server)) -> Told {
        let running = golock.args(self.gated("exit 3")).spawn();
        self.wait_running();
        happens(&self.server);
        self.open();
        let done = running.wait();
        fs::remove_file(self.notes.path("open")).unwrap();
        fs::remove_file(self.notes.path("up")).unwrap();
        done.into()
    }
}

/// A folder with the job, which is a shell by another name.
pub(super) fn with_job() -> Notes {
    let notes = Notes::new();
    symlink("/bin/sh", notes.path("backup.sh")).unwrap();
    notes
}

pub(super) fn job(notes: &Notes, script: &str) -> Vec<OsString> {
    let mut words = notes.job(script);
    words[0] = notes.path("backup.sh").into();
    words
}

/// golock for the Redis on this port, without grace and with one reconnect.
pub(super) fn golock(port: u16) -> Golock {
    let golock = Golock::new(port).set("KEY", "told").set("GRACE", "0");
    golock.set("RECONNECT_BACKOFF", "0").set("RECONNECT_ATTEMPTS", "1")
}

fn runs_and_skips() -> Vec<Told> {
    let stage = Stage::new();
    stage.notes.write("conf", "CRONLOCK_CONFIG=/nowhere\n");
    let verbose = stage.golock().set("VERBOSE", "yes").set("CONFIG", stage.notes.path("conf")).args(["--show-key"]);
    let graceful = verbose.clone().set("GRACE", "1h").set("NTPDATE", "yes");
    let run = verbose.args(stage.job("exit 3")).run();
    let golock = graceful.args(stage.job("exit 0"));
    vec![run.into(), golock.run().into(), golock.run().into(), golock.set("WAIT", "1").run().into()]
}

fn holders() -> Vec<Told> {
    let stage = Stage::new();
    let golock = stage.golock().set("VERBOSE", "yes").args(stage.job("exit 0"));
    let mut told = Vec::new();
    for value in ["1999999999123456789", "9999999999", "no lock", &"\u{1b}[2J".repeat(999), ""] {
        stage.server.set(NAME, value);
        told.push(golock.run().into());
        told.push(golock.clone().args(["--status"]).run().into());
    }
    stage.server.query::<()>(&["DEL", NAME]);
    let running = stage.golock().args(stage.gated("exit 3")).spawn();
    stage.wait_running();
    told.push(golock.run().into());
    stage.open();
    told.push(running.wait().into());
    told
}

fn jobs_that_end_otherwise() -> Vec<Told> {
    let stage = Stage::new();
    let verbose = || stage.golock().set("VERBOSE", "yes");
    let killed = verbose().set("TIMEOUT", "1").args(stage.job(&format!("exec sleep {EVER}"))).run();
    let lost = stage.meanwhile(stage.golock(), |server| server.query(&["DEL", NAME]));
    let running = verbose().prelude(&pristine()).args(stage.gated("exit 3")).spawn();
    stage.wait_running();
    running.signal(Signal::TERM);
    let mut told: Vec<Told> = vec![killed.into(), lost, running.wait().into()];
    let nested = stage.golock().args([crate::support::job_tools::binary()]).args(stage.job("exit 0"));
    told.push(nested.run().into());
    told
}

fn leases_that_are_lost() -> Vec<Told> {
    let stage = Stage::new();
    let leased = |seconds: &str| stage.golock().set("LEASE", seconds).set("VERBOSE", "yes");
    let taken = stage.meanwhile_lost(leased("3"), |server| server.set(NAME, "1999999999123456789"));
    stage.server.query::<()>(&["DEL", NAME]);
    let over = stage.meanwhile_lost(leased("3").set("RELEASE", "3"), |_| ());
    let dead = stage.meanwhile_lost(leased("3"), Server::kill);
    vec![taken, over, dead]
}

impl Stage {
    /// Lets a run begin, and something happen that ends it.
    fn meanwhile_lost(&self, golock: Golock, happens: impl FnOnce(&Server)) -> Told {
        let running = golock.args(self.gated("exit 3")).spawn();
        self.wait_running();
        happens(&self.server);
        let done = running.wait();
        fs::remove_file(self.notes.path("up")).unwrap();
        done.into()
    }
}

fn a_golock_that_stood_still() -> Vec<Told> {
    let stage = Stage::new();
    let running = stage.golock().set("LEASE", "3").args(stage.gated("exit 3")).spawn();
    stage.wait_running();
    running.signal(Signal::STOP);
    until("the lease is over", || stage.server.get(NAME).is_none());
    running.signal(Signal::CONT);
    vec![running.wait().into()]
}

fn users_with_few_rights() -> Vec<Told> {
    let stage = Stage::new();
    let job = || stage.job("exit 3");
    let verbose = |rights: &[&str]| stage.without(rights).set("VERBOSE", "yes").args(job()).run().into();
    let mut told = vec![verbose(&["-eval"]), verbose(&["-time"]), verbose(&["-set"]), verbose(&["-get"])];
    stage.server.query::<()>(&["DEL", NAME]);
    // Too short for a release that looks before it deletes.
    let short = stage.without(&["-eval"]).set("VERBOSE", "yes").set("RELEASE", "20").args(job());
    told.push(short.run().into());
    stage.server.query::<()>(&["DEL", NAME]);
    told.push(stage.without(&["-eval"]).args(["--list"]).run().into());
    told.push(stage.without(&["-del"]).args(["--reset"]).run().into());
    told.push(stage.golock().set("AUTH", "another ").args(job()).run().into());
    told.push(stage.golock().set("DB", "99").args(job()).run().into());
    let timed = stage.without(&["-flushall"]).set("VERBOSE", "yes");
    told.push(stage.meanwhile(timed, |server| server.query(&["ACL", "SETUSER", "flushall", "-time"])));
    told
}

fn records() -> Vec<Told> {
    let stage = Stage::new();
    let run = |key: &str, script: &str| {
        stage.golock().set("KEY", key).args(stage.job(&format!("exec 2>/dev/null; {script}"))).run()
    };
    let mut told: Vec<Told> = vec![run("good", "exit 0").into()];
    for _ in 0..2 {
        told.push(run("bad", "exit 3").into());
    }
    told.push(run("killed", "kill -9 $$").into());
    told.push(stage.golock().set("TIMEOUT", "1").set("KEY", "slow").args(stage.job("exec sleep 1000")).run().into());
    let lost = stage.golock().set("LEASE", "3");
    told.push(stage.meanwhile_lost(lost, |server| server.set(NAME, "1999999999123456789")));
    let running = stage.golock().set("KEY", "dead").args(stage.gated("exit 3")).spawn();
    stage.wait_running();
    running.signal(Signal::KILL);
    told.push(running.wait().into());
    stage.server.query::<()>(&["DEL", "cronlock.dead"]);
    stage.server.set("cronlock.run.{cronlock.odd}", "no record\u{1b}[2J");
    told.push(stage.golock().args(["--list"]).run().into());
    stage.open();
    told
}

fn overdue() -> Vec<Told> {
    let stage = Stage::new();
    let golock = stage.golock().set("GRACE", "1h").args(stage.job("exit 3"));
    let mut told: Vec<Told> = vec![golock.run().into()];
    let skip = golock.set("MAX_AGE", "1");
    until("it is overdue", || {
        let done = skip.run();
        let code = done.code;
        told.push(done.into());
        code == 203
    });
    stage.server.query::<()>(&["DEL", NAME]);
    // A run that fails and is overdue says so as well.
    told.push(skip.run().into());
    told
}

fn a_tick_that_is_served() -> Vec<Told> {
    let stage = Stage::new();
    let line = Withheld::start(stage.server.port(), 0);
    // The answer to AUTH waits, which is the first exchange.
    let late = stage.golock().set("PORT", line.port().to_string()).set("VERBOSE", "yes").args(stage.job("exit 3"));
    let late = late.spawn();
    line.wait_answered();
    let served = stage.golock().args(stage.job("exit 3")).run();
    line.release();
    vec![served.into(), late.wait().into()]
}

fn late() -> Vec<Told> {
    let stage = Stage::new();
    // After two connections in vain and a pause, later than the grace.
    let lost = |at| Fault { direction: Direction::Reply, at, action: Action::Close };
    let proxy = Proxy::start(stage.server.port()).fault(0, lost(0)).fault(1, lost(0));
    let golock = stage.without(&["-time"]).set("PORT", proxy.port().to_string()).set("GRACE", "1");
    let golock = golock.set("RECONNECT_BACKOFF", "3").set("RECONNECT_ATTEMPTS", "2");
    let too_late = golock.args(stage.job("exit 3")).run();

    let line = Withheld::start(stage.server.port(), 1);
    let golock = stage.without(&["-eval"]).set("PORT", line.port().to_string()).set("RELEASE", "1");
    let running = golock.set("KEY", "told.late").args(stage.job("exit 3")).spawn();
    line.wait_answered();
    until("the lock is over", || stage.server.get("cronlock.told.late").is_none());
    line.release();
    vec![too_late.into(), running.wait().into(), unsure(&stage).into()]
}

/// A golock whose lock stands, but for too short a time by its own clock.
fn unsure(stage: &Stage) -> Done {
    let line = Withheld::start(stage.server.port(), 1);
    let golock = stage.without(&["-eval"]).set("PORT", line.port().to_string()).set("RELEASE", "10");
    let running = golock.set("KEY", "told.late").args(stage.job("exit 3")).spawn();
    let begun = Instant::now();
    line.wait_answered();
    stage.server.query::<()>(&["PERSIST", "cronlock.told.late"]);
    until("a tenth of RELEASE is over", || begun.elapsed() > Duration::from_millis(1_500));
    line.release();
    running.wait()
}

fn give_backs() -> Vec<Told> {
    let stage = Stage::new();
    let broken = stage.notes.executable("cronlock.broken", "#!/no/such/interpreter\n");
    let given_back = stage.golock().args([&broken]).run();
    // A release that looks before it deletes needs more time than is left.
    let kept = stage.without(&["-eval"]).set("RELEASE", "3").args([&broken]).run();
    let gate = std::sync::Arc::new(Gate::default());
    let line = Scripted::start({
        let gate = std::sync::Arc::clone(&gate);
        move |index, client| {
            if index == 0 {
                read_commands(client, 1);
                gate.open();
                drain(client);
            }
        }
    });
    until("the lock is over", || stage.server.get(NAME).is_none());
    let running = golock(line.port()).args(stage.job("exit 3")).spawn();
    gate.wait();
    running.signal(Signal::TERM);
    let stopped = running.wait();
    vec![given_back.into(), kept.into(), stopped.into()]
}

fn commands() -> Vec<Told> {
    let stage = Stage::new();
    stage.notes.write("backup.sh.txt", "");
    let run = |command: &str| stage.golock().args([command]).run().into();
    let file = stage.notes.path("backup.sh.txt").display().to_string();
    let mut told: Vec<Told> =
        ["backup.sh;", "backup.sh >x", "A=backup.sh", "redis://h", "/nowhere/backup.sh", &file].map(run).into();
    let secret = stage.notes.path("secret");
    fs::write(&secret, PASSWORD).unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o644)).unwrap();
    let public = stage.golock().set("AUTH", "").set("AUTH_FILE", &secret);
    told.push(public.args(stage.job("exit 3")).run().into());
    told
}

fn actions() -> Vec<Told> {
    let stage = Stage::new();
    let act = |words: &[&str]| stage.golock().args(words).run().into();
    let mut told: Vec<Told> = vec![act(&["-v", "--reset"]), act(&["--list"]), act(&["--metrics"]), act(&["--status"])];
    stage.server.set(NAME, "1");
    told.push(act(&["-v", "--reset"]));
    #[cfg(target_os = "linux")]
    for words in [&["--print-key"][..], &["--status"], &["--list"]] {
        told.push(stage.golock().prelude("exec >/dev/full").args(words).run().into());
    }
    let dead = golock(free_port()).args(["--status"]).run();
    told.extend([dead.into(), golock(free_port()).args(["--list"]).run().into()]);
    told
}

fn settings() -> Vec<Told> {
    let mut told: Vec<Told> =
        slips::ALL.iter().flat_map(|slips| slips.iter()).map(|slip| slips::made(slip).into()).collect();
    let notes = with_job();
    let with = |golock: Golock| -> Told { golock.args(job(&notes, "exit 3")).run().into() };
    let urls = [
        "redis://h?x",
        "redis://h:port",
        "redis://h/x",
        "redis://user@h",
        "redis://:secret@",
        "redis://%ff",
        "redis://[::1",
        "redis://[::1]1",
        "redis://h:1/0#x",
    ];
    let plain = || Golock::new(1).unset("HOST").unset("PORT");
    told.extend(urls.map(|url| with(plain().args(["--url", url]))));
    let bytes = || OsString::from_vec(b"h\xff".to_vec());
    told.push(with(plain().set("URL", OsString::from_vec(b"redis://\xff".to_vec()))));
    told.push(with(plain().set("HOST", bytes())));
    told.push(with(plain().set("HOST", "[::1]x")));
    told.push(with(plain().set("TLS", "yes").set("TLS_NAME", bytes())));
    told.push(with(plain().set("KEY_FORMAT", "md5")));
    told.push(with(plain().set("HOST", "/run/redis.sock").set("TLS", "yes")));
    told.push(with(plain().set("USER", "backup")));
    told.push(with(plain().set("AUTH_FILE", "/nowhere")));
    told.push(with(plain().args(["--local", "--db", "1"])));
    notes.write("empty", "");
    told.push(with(plain().set("AUTH_FILE", notes.path("empty"))));
    notes.write("conf", "rm -rf /\n");
    told.push(with(plain().set("CONFIG", notes.path("conf"))));
    told.push(with(plain().set("CONFIG", "/nowhere")));
    for words in [&[][..], &["--status"], &["--key"], &["--list=x"], &["-x"], &["--nonsense"]] {
        told.push(plain().args(words).run().into());
    }
    told
}

fn local_locks() -> Vec<Told> {
    let notes = with_job();
    let local =
        |folder: &str| Golock::new(1).set("KEY", "told").set("LOCAL", "yes").set("LOCAL_DIR", notes.path(folder));
    let with = |golock: Golock, script: &str| -> Told { golock.args(job(&notes, script)).run().into() };
    let mode = |name: &str, mode: u32| fs::set_permissions(notes.path(name), fs::Permissions::from_mode(mode)).unwrap();
    fs::create_dir(notes.path("elsewhere")).unwrap();
    symlink(notes.path("elsewhere"), notes.path("link")).unwrap();
    fs::create_dir_all(notes.path("open/below")).unwrap();
    fs::create_dir(notes.path("shared")).unwrap();
    mode("open", 0o777);
    mode("open/below", 0o700);
    mode("shared", 0o777);
    let mut told = vec![
        with(local("locks").set("VERBOSE", "yes"), "exit 3"),
        with(local("locks").set("VERBOSE", "yes"), "exit 3"),
        with(local("link"), ""),
        with(local("open/below"), ""),
        with(local("shared"), ""),
        with(local("conf/below"), ""),
        with(Golock::new(1).set("KEY", "told").set("LOCAL", "yes").set("LOCAL_DIR", "/dev/null/x"), ""),
    ];
    notes.write("locks/cronlock.told", "no lock");
    told.push(with(local("locks"), ""));
    told.push(local("locks").args(["--reset"]).run().into());
    // A lock whose file somebody has removed.
    told.push(with(local("locks").set("GRACE", "0"), r#"rm "$0/locks/cronlock.told""#));
    // A golock that is killed, whose job ends then.
    for record in ["35d", "0"] {
        let folder = format!("killed {record}");
        let local = || local(&folder).set("RECORD", record);
        told.push(with(local().set("GRACE", "1h"), "kill -9 $PPID"));
        until("the job has ended", || local().args(["--status"]).run().stdout.contains(" grace "));
        told.push(with(local().set("VERBOSE", "yes"), "exit 3"));
    }
    let owner = if rustix::process::geteuid().is_root() {
        fs::create_dir(notes.path("theirs")).unwrap();
        std::os::unix::fs::chown(notes.path("theirs"), Some(65_534), None).unwrap();
        notes.path("theirs")
    } else {
        "/usr".into()
    };
    told.push(with(local("").set("LOCAL_DIR", owner), ""));
    told
}

fn a_cluster() -> Vec<Told> {
    let cluster = Cluster::start();
    vec![Golock::new(cluster.node(0).port()).args(["--list"]).run().into()]
}

#[cfg(not(feature = "tls"))]
fn no_tls() -> Vec<Told> {
    let notes = with_job();
    vec![golock(1).set("TLS", "yes").args(job(&notes, "exit 3")).run().into()]
}
