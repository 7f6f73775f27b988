//! Locks on one host without Redis: the same promises, kept by the kernel.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, flock};
use tempfile::TempDir;

use crate::support::job_tools::{Notes, copy_executable};
use crate::support::ledger::{Ledger, NAME, Witness};
use crate::support::redis::free_port;
use crate::support::watch::is_asleep;
use crate::support::{Done, Golock, Job, Running, Server, each, until};

/// A host of its own, as far as local locks are concerned: a folder that only this test uses.
pub(crate) struct Host {
    dir: TempDir,
}

impl Host {
    pub(crate) fn new() -> Self {
        Self { dir: TempDir::new().unwrap() }
    }

    /// A path in the host's folder, beside its locks.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Where its locks are.
    pub(crate) fn locks(&self) -> PathBuf {
        self.path("locks")
    }

    /// The file of the lock that `golock` takes.
    pub(crate) fn file(&self) -> PathBuf {
        self.locks().join("cronlock.job")
    }

    /// golock with one and the same lock, without grace; where Redis should be, nothing answers.
    pub(crate) fn golock(&self) -> Golock {
        self.anonymous().set("KEY", "job")
    }

    /// The same without a key.
    pub(crate) fn anonymous(&self) -> Golock {
        Golock::new(1).set("GRACE", "0").set("LOCAL_DIR", self.locks()).args(["--local"])
    }

    /// Runs `job` under the lock.
    #[track_caller]
    pub(crate) fn run(&self, job: &Job) -> Done {
        self.golock().args(job.command()).run()
    }

    /// Starts `job` under the lock, and waits until it runs.
    #[track_caller]
    pub(crate) fn hold(&self, job: &Job) -> Running {
        let running = self.golock().args(job.command()).spawn();
        job.wait_running();
        running
    }

    #[track_caller]
    pub(crate) fn status(&self) -> (i32, String) {
        let done = self.golock().args(["--status"]).run();
        assert_eq!(done.stderr, "");
        (done.code, done.stdout)
    }

    #[track_caller]
    pub(crate) fn assert_free(&self) {
        let (code, line) = self.status();
        assert!(code == 0 && line.split_whitespace().take(2).eq(["cronlock.job", "free"]), "{code}: {line}");
    }

    #[track_caller]
    pub(crate) fn assert_held(&self) {
        let (code, line) = self.status();
        assert!(code == 200 && line.starts_with("cronlock.job running host="), "{code}: {line}");
    }

    /// The names of the lock files.
    pub(crate) fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.locks()).into_iter().flatten();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

/// The seconds of grace that a status line shows.
pub(crate) fn ttl(line: &str) -> u64 {
    let seconds = line.split_whitespace().find_map(|field| field.strip_prefix("ttl="));
    seconds.unwrap_or_else(|| panic!("{line:?}")).parse().unwrap()
}

#[test]
fn it_is_not_used_unless_asked_for() {
    let (host, job) = (Host::new(), Job::exits(7));
    let golock = Golock::new(free_port()).set("LOCAL_DIR", host.locks()).set("RECONNECT_ATTEMPTS", "0");
    let done = golock.args(job.command()).run();
    done.assert_one_line(201, &["cannot take the lock", "127.0.0.1"]);
    assert_eq!((job.runs(), host.files().len()), (0, 0));
}

/// Names that are dangerous as paths, of 300 bytes and of fewer.
fn strange_names() -> Vec<Vec<u8>> {
    let long = |text: &str| [text.repeat(300).as_bytes()[..299].to_vec(), vec![b'1']].concat();
    let mut names: Vec<Vec<u8>> =
        ["/", "../", "x\n", " ", "a", "%2F", "é", "*?~", "-"].iter().map(|t| long(t)).collect();
    names.extend(["/", ".", "..", "../../escape", "a/b", "a b", "a\nb", "%2F", "-k", "~"].iter().map(|t| (*t).into()));
    names.push(b"\xff\xfe/\x01".to_vec());
    names
}

#[test]
fn strange_names_are_files_in_the_folder_that_differ() {
    let (host, job) = (Host::new(), Job::exits(7));
    each(&strange_names(), |name| {
        let golock = host.anonymous().set("GRACE", "1000").args([OsStr::new("--key"), OsStr::from_bytes(name)]);
        golock.clone().args(job.command()).run().assert_silent(7);
        golock.args(job.command()).run().assert_silent(200);
    });
    // One file for each name, and nothing beside their folder.
    assert_eq!((host.files().len(), fs::read_dir(host.path("")).unwrap().count()), (strange_names().len(), 1));
}

#[test]
fn a_strange_prefix_is_part_of_the_file_name() {
    let (host, job) = (Host::new(), Job::exits(7));
    for prefix in ["../", "/", "a\n", "."] {
        host.golock().args(["--prefix", prefix]).args(job.command()).run().assert_silent(7);
    }
    assert_eq!((host.files().len(), fs::read_dir(host.path("")).unwrap().count()), (4, 1));
}

#[test]
fn strange_names_are_keys_of_redis() {
    let (server, job) = (Server::start(&[]), Job::exits(7));
    let names: Vec<_> = strange_names().into_iter().filter_map(|name| String::from_utf8(name).ok()).collect();
    each(&names, |name| {
        let golock = Golock::new(server.port()).args(["--grace=1000", "--key", name]).args(job.command());
        golock.run().assert_silent(7);
        golock.run().assert_silent(200);
        assert!(server.pttl(&format!("cronlock.{name}")) > 0);
    });
    assert_eq!((server.locks().len(), job.runs()), (names.len(), names.len()));
}

#[test]
fn the_name_is_that_of_redis() {
    let host = Host::new();
    host.anonymous().args(["true"]).run().assert_silent(0);
    let printed = Golock::new(1).args(["--print-key", "true"]).run().stdout;
    assert_eq!(host.files(), [printed.trim_end()]);
}

#[test]
fn the_grace_counts_again_at_every_run() {
    let (host, job) = (Host::new(), Job::exits(7));
    let graced = |seconds: &str| host.golock().set("GRACE", seconds).args(job.command()).run();
    for _ in 0..3 {
        graced("1").assert_silent(7);
        until("the grace has passed", || host.status().0 == 0);
    }
    graced("1000").assert_silent(7);
    graced("0").assert_silent(200);
    assert!((900..=1000).contains(&ttl(&host.status().1)));
    assert_eq!(job.runs(), 4);
}

#[test]
fn the_grace_is_at_most_release() {
    let host = Host::new();
    // A grace that nobody has asked for gives way.
    host.golock().unset("GRACE").set("RELEASE", "1").args(["true"]).run().assert_silent(0);
    until("the grace has passed", || host.status().0 == 0);
    let golock = host.golock().set("GRACE", "1000").set("RELEASE", "1").args(["true"]);
    golock.run().assert_one_line(201, &["CRONLOCK_GRACE", "RELEASE"]);
}

#[test]
fn the_lock_is_let_go_at_release() {
    let (host, first, second) = (Host::new(), Job::gated(7), Job::gated(8));
    let holder = host.golock().set("RELEASE", "1").args(first.command()).spawn();
    first.wait_running();
    let next = host.golock().set("WAIT", "1000").args(second.command()).spawn();
    second.wait_running();
    first.open_gate();
    holder.wait().assert_one_line(7, &["cronlock.job", "lost"]);
    host.assert_held();
    second.open_gate();
    next.wait().assert_silent(8);
    host.assert_free();
}

#[test]
fn a_job_is_killed_at_timeout_and_its_lock_is_free() {
    let (host, job) = (Host::new(), Job::gated(7));
    let done = host.golock().set("TIMEOUT", "1").args(job.command()).run();
    done.assert_one_line(202, &["killed"]);
    host.assert_free();
}

#[test]
fn a_held_lock_can_be_waited_for() {
    let (host, first, second) = (Host::new(), Job::gated(7), Job::exits(8));
    let holder = host.hold(&first);
    host.golock().set("WAIT", "1").args(second.command()).run().assert_silent(200);
    let waiter = host.golock().set("WAIT", "1000").args(second.command()).spawn();
    let stopped = host.golock().set("WAIT", "1000").set("VERBOSE", "yes").args(second.command()).spawn();
    host.assert_held();
    first.open_gate();
    holder.wait().assert_silent(7);
    waiter.wait().assert_silent(8);
    assert_eq!((stopped.wait().code, second.runs()), (8, 2));
}

#[test]
fn a_reset_frees_also_a_held_lock() {
    let (host, first, second) = (Host::new(), Job::gated(7), Job::gated(8));
    let reset = || host.golock().args(["--reset"]).run();
    reset().assert_silent(200);
    let holder = host.hold(&first);
    reset().assert_silent(200);
    host.assert_free();
    let next = host.hold(&second);
    first.open_gate();
    assert_eq!(holder.wait().code, 7);
    host.assert_held();
    host.run(&Job::exits(3)).assert_silent(200);
    second.open_gate();
    next.wait().assert_silent(8);
    host.assert_free();
}

#[test]
fn a_lock_that_was_reset_is_reported_lost() {
    let (host, job) = (Host::new(), Job::gated(7));
    let holder = host.hold(&job);
    host.golock().args(["--reset"]).run().assert_silent(200);
    job.open_gate();
    holder.wait().assert_one_line(7, &["cronlock.job", "lost"]);
}

#[test]
fn the_end_of_a_run_is_recorded_after_release_and_after_a_reset() {
    for is_reset in [true, false] {
        let (host, job) = (Host::new(), Job::gated(0));
        let status = || host.golock().args(["--status"]).run().stdout;
        let golock = host.golock().set("RELEASE", if is_reset { "1000" } else { "1" });
        let golock = if is_reset { golock.set("GRACE", "900") } else { golock };
        let holder = golock.args(job.command()).spawn();
        job.wait_running();
        if is_reset {
            host.golock().args(["--reset"]).run().assert_silent(200);
        }
        until("the lock is free", || status().contains(" free "));
        job.open_gate();
        holder.wait().assert_one_line(0, &["cronlock.job", "lost"]);
        // And no grace comes back.
        assert!(status().contains(" free ") && status().contains(" result=0 ") && status().contains(" failed=0 "));
    }
}

#[test]
fn the_end_of_a_run_that_has_a_successor_is_not_recorded() {
    let (host, first, second) = (Host::new(), Job::gated(7), Job::gated(8));
    let holder = host.hold(&first);
    host.golock().args(["--reset"]).run().assert_silent(200);
    let next = host.hold(&second);
    first.open_gate();
    holder.wait().assert_one_line(7, &["cronlock.job", "lost"]);
    assert!(host.golock().args(["--status"]).run().stdout.starts_with("cronlock.job running "));
    second.open_gate();
    next.wait().assert_silent(8);
}

#[test]
fn the_end_of_a_run_whose_successor_has_ended_is_not_recorded_either() {
    let (host, first) = (Host::new(), Job::gated(7));
    let holder = host.hold(&first);
    host.golock().args(["--reset"]).run().assert_silent(200);
    host.run(&Job::exits(8)).assert_silent(8);
    let known = host.status();
    first.open_gate();
    holder.wait().assert_one_line(7, &["cronlock.job", "lost"]);
    assert_eq!(host.status(), known);
}

#[test]
fn a_reset_keeps_the_record() {
    let host = Host::new();
    host.golock().set("GRACE", "1000").args(["true"]).run().assert_silent(0);
    let status = || host.golock().args(["--status"]).run().stdout;
    let (_, known) = status().split_once("host=").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    for word in ["deleted the lock", "there was no lock"] {
        let done = host.golock().args(["--reset", "-v"]).run();
        assert!(done.code == 200 && done.stderr.contains(word), "{done:?}");
        assert_eq!(status(), format!("cronlock.job free host={known}"));
    }
}

#[test]
fn a_reset_ends_the_grace() {
    let host = Host::new();
    host.golock().set("GRACE", "1000").args(["true"]).run().assert_silent(0);
    host.golock().args(["true"]).run().assert_silent(200);
    host.golock().args(["--reset"]).run().assert_silent(200);
    host.golock().args(["true"]).run().assert_silent(0);
}

#[test]
fn status_tells_free_and_held_and_changes_nothing() {
    let (host, job) = (Host::new(), Job::gated(7));
    host.assert_free();
    assert!(!host.locks().exists());
    let holder = host.hold(&job);
    host.assert_held();
    job.open_gate();
    holder.wait();
    host.assert_free();
    host.golock().set("GRACE", "1000").args(["true"]).run().assert_silent(0);
    assert!((900..=1000).contains(&ttl(&host.status().1)));
}

#[test]
fn exit_codes_are_those_of_redis() {
    let host = Host::new();
    for code in [0, 1, 199, 255] {
        host.run(&Job::exits(code)).assert_silent(code.into());
    }
    assert_eq!(host.golock().args(["sh", "-c", "kill -9 $$"]).run().code, 137);
    let unused = Host::new();
    assert_eq!(unused.golock().args(["/does/not/exist"]).run().code, 127);
    assert_eq!(unused.golock().args([unused.path("").as_os_str()]).run().code, 126);
    assert!(!unused.locks().exists());
    let job = Job::gated(7);
    let holder = host.hold(&job);
    host.golock().set("SKIP_EXIT", "0").args(["false"]).run().assert_silent(0);
    job.open_gate();
    holder.wait();
}

#[test]
fn settings_of_redis_are_refused_as_options() {
    let host = Host::new();
    let options = ["--host=x", "--port=1", "--user=x", "--auth=x", "--auth-file=x", "--db=1", "--url=redis://x"];
    let more = ["--redis-timeout=1", "--reconnect-attempts=1", "--reconnect-backoff=1", "--tls=no"];
    let tls = ["--tls-skip-verify=no", "--tls-ca=x", "--tls-cert=x", "--tls-key=x"];
    each(&[&options[..], &more, &tls].concat(), |option| {
        let plain = host.golock().set("HOST", "").set("PORT", "");
        let done = plain.args([option, "true"]).run();
        done.assert_one_line(201, &[]);
    });
    for [local, lease] in [["--local", "--lease=60"], ["", ""]] {
        let golock = Golock::new(1).unset("HOST").unset("PORT").set("LOCAL_DIR", host.locks());
        let golock =
            if local.is_empty() { golock.set("LOCAL", "yes").set("LEASE", "60") } else { golock.args([local, lease]) };
        golock.args(["true"]).run().assert_one_line(201, &["exclude each other"]);
    }
    assert!(!host.locks().exists());
}

/// Nothing but the grace of another run keeps a golock that comes late, and that knows no record, from running again.
#[test]
fn without_a_record_a_lock_that_is_free_only_after_the_grace_is_not_used() {
    each(&[("5", "0", 201), ("0", "0", 7), ("5", "35d", 200), ("1h", "0", 200)], |&(grace, record, code)| {
        let (host, job, config) = (Host::new(), Job::exits(7), Notes::new());
        rustix::fs::mkfifoat(rustix::fs::CWD, config.path("config"), Mode::from(0o600)).unwrap();
        let golock = host.golock().set("GRACE", grace).set("RECORD", record).args(job.command());
        // golock has begun, and waits for its settings.
        let late = golock.clone().set("CONFIG", config.path("config")).spawn();
        until("it reads its settings", || is_asleep(late.pid()));
        golock.run().assert_silent(7);
        thread::sleep(Duration::from_millis(5500));
        config.write("config", "");
        let done = late.wait();
        assert_eq!((done.code, job.runs()), (code, 1 + usize::from(code == 7)), "{done:?}");
        let told = done.stderr.contains("it was asked for later than GRACE after the start");
        assert_eq!(told, code == 201, "{done:?}");
        assert!(code != 201 || host.files().is_empty(), "{:?}", host.files());
    });
}

#[test]
fn a_run_without_a_command_leaves_no_grace_whoever_sweeps_meanwhile() {
    let (host, script) = (Host::new(), Notes::new());
    let script = script.executable("script", "#!/no/such/interpreter\n");
    let golock = host.golock().set("GRACE", "1h").set("RECORD", "0");
    golock.clone().args(["true"]).run().assert_silent(0);
    golock.clone().args(["--reset"]).run().assert_silent(200);
    // As somebody who deletes a file does.
    let folder = File::open(host.locks()).unwrap();
    flock(&folder, FlockOperation::LockExclusive).unwrap();
    golock.clone().args([&script]).run().assert_one_line(127, &["the interpreter"]);
    assert_eq!(golock.args(["--status"]).run().stdout, "cronlock.job free\n");
}

#[test]
fn a_reset_says_whether_there_was_a_lock() {
    each(&["0", "35d"], |record| {
        let host = Host::new();
        let golock = host.golock().set("RECORD", record).set("VERBOSE", "yes");
        let says = |words: &str| {
            let done = golock.clone().args(["--reset"]).run();
            assert!(done.code == 200 && done.stderr.contains(words), "{done:?}");
        };
        golock.clone().set("GRACE", "1h").args(["true"]).run();
        says("deleted the lock");
        says("there was no lock");
        golock.clone().set("GRACE", "1").args(["true"]).run();
        until("the grace is over", || golock.clone().args(["--status"]).run().stdout.contains(" free"));
        says("there was no lock");
    });
}

/// Three bytes of the record for each of its letters.
#[test]
fn a_long_name_leaves_room_for_the_rest_of_the_record() {
    for ledger in Ledger::both() {
        let (witness, name) = (Witness::new(), "\u{fc}".repeat(120));
        copy_executable("/bin/sh", witness.notes().path(&name));
        let program = witness.notes().path(&name).into_os_string();
        let words = witness.gated("exit 0");
        let running = ledger.golock().args([program].into_iter().chain(words.into_iter().skip(1))).spawn();
        witness.began();
        let seen = ledger.status();
        assert_eq!(seen.head(), format!("{NAME} running"), "{seen:?}");
        assert!(seen.get("program").starts_with("%C3%BC%C3%BC") && seen.get("program").len() == 300, "{seen:?}");
        witness.open();
        running.wait().assert_silent(0);
    }
}
