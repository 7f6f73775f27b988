//! The examples in dist/examples, run as they are written, but for the places: a folder of this test stands for
//! /usr/local/bin and /etc/golock, and a private server for redis.example.com.

use std::env;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use rustix::process::{Signal, geteuid};
use tempfile::TempDir;

use crate::support::job_tools::copy_executable;
use crate::support::{Golock, Job, Server};

const PASSWORD: &str = "open sesame";

/// What the examples run, which here only leaves a line in `ran`.
const JOBS: [&str; 14] = [
    "fetch-mail",
    "archive",
    "backup",
    "database-vacuum",
    "database-analyze",
    "database-report",
    "warm-cache",
    "rotate-keys",
    "send-invoices",
    "clean-up",
    "make-reports",
    "update-blocklist",
    "curl",
    "logger",
];

/// A host on which the examples are installed.
struct Stage {
    dir: TempDir,
    server: Server,
}

impl Stage {
    fn new() -> Self {
        let stage = Self { dir: TempDir::new().unwrap(), server: Server::start(&["--requirepass", PASSWORD]) };
        for folder in ["bin", "etc", "metrics"] {
            fs::create_dir(stage.path(folder)).unwrap();
        }
        symlink(binary(), stage.path("bin/golock")).unwrap();
        for name in JOBS {
            stage.script(name, &format!("#!/bin/sh\necho \"{name} $*\" >>'{}'\n", stage.path("ran").display()));
        }
        // It takes what is piped into it.
        stage.script("logger", "#!/bin/sh\nexec cat >&2\n");
        for name in ["with-ping", "nightly"] {
            stage.script(name, &example(name));
        }
        fs::write(stage.path("etc/redis-password"), format!("{PASSWORD}\n")).unwrap();
        fs::set_permissions(stage.path("etc/redis-password"), Permissions::from_mode(0o600)).unwrap();
        stage
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn script(&self, name: &str, text: &str) {
        let draft = self.path("draft");
        fs::write(&draft, text).unwrap();
        copy_executable(draft, self.path("bin").join(name));
    }

    /// The text of an example, with the places of this stage.
    fn adapted(&self, text: &str) -> String {
        let folder = |name: &str| self.path(name).display().to_string();
        let text = text.replace("/usr/local/bin", &folder("bin")).replace("/etc/golock", &folder("etc"));
        let text = text.replace("/var/lib/prometheus/node-exporter", &folder("metrics"));
        text.replace("redis.example.com", "127.0.0.1").replace("%d/", &format!("{}/", folder("etc")))
    }

    /// A command in the environment of cron on this stage.
    fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        let path = format!("{}:/usr/bin:/bin", self.path("bin").display());
        command.env_clear().env("PATH", path).env("CRONLOCK_PORT", self.server.port().to_string());
        command.env("CRONLOCK_CONFIG", "/dev/null").env("CRONLOCK_LOCAL_DIR", self.path("locks"));
        command.stdin(Stdio::null());
        command
    }

    /// Golock on this stage, with its settings from `variables`.
    fn golock(&self, variables: &[(&str, &str)]) -> Golock {
        let password = self.path("etc/redis-password");
        let path = format!("{}:/usr/bin:/bin", self.path("bin").display());
        let golock = Golock::new(self.server.port()).set("AUTH_FILE", password).set("GRACE", "0").env("PATH", path);
        variables.iter().fold(golock, |golock, (name, value)| golock.set(name, value))
    }

    /// The lines that the jobs have left.
    fn ran(&self) -> Vec<String> {
        fs::read_to_string(self.path("ran")).unwrap_or_default().lines().map(String::from).collect()
    }
}

fn binary() -> PathBuf {
    env::var_os("GOLOCK_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_golock").into()).into()
}

fn example(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("dist/examples").join(name)).unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("{output:?}"))
}

/// A line that cron runs, with the assignments above it.
struct Entry {
    variables: Vec<(String, String)>,
    line: String,
}

/// Reads a crontab as cron does.
fn entries(crontab: &str) -> Vec<Entry> {
    let mut variables = Vec::new();
    let mut entries = Vec::new();
    for line in crontab.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        match line.split_once('=') {
            Some((name, value)) if name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_') => {
                variables.push((name.to_owned(), value.to_owned()));
            }
            _ => {
                let command = (0..5).fold(line, |rest, _| rest.split_once(' ').unwrap().1.trim_start());
                assert!(!command.replace("\\%", "").contains('%'), "cron reads % as a new line: {command}");
                entries.push(Entry { variables: variables.clone(), line: command.replace("\\%", "%") });
            }
        }
    }
    entries
}

/// Every line of a crontab, one after the other, as cron runs them on one host.
fn tick(stage: &Stage, crontab: &str, grace: &str) -> Vec<i32> {
    let run = |entry: Entry| {
        let mut shell = stage.command("/bin/sh");
        shell.env("CRONLOCK_GRACE", grace).envs(entry.variables).arg("-c").arg(&entry.line);
        code(&shell.output().unwrap())
    };
    entries(&stage.adapted(&example(crontab))).into_iter().map(run).collect()
}

#[test]
fn the_crontab_of_one_host_runs_every_job() {
    let stage = Stage::new();
    for _ in 0..2 {
        assert_eq!(tick(&stage, "crontab.one-host", "0"), [0; 5]);
    }
    assert_eq!(stage.ran().len(), 10);
    // Redis had no part in it.
    assert_eq!((stage.server.connections_received(), fs::read_dir(stage.path("locks")).unwrap().count()), (0, 3));
}

#[test]
fn the_crontab_of_a_fleet_runs_each_job_on_one_host() {
    let stage = Stage::new();
    assert_eq!(tick(&stage, "crontab.fleet", "1000"), [0; 6]);
    let ran = stage.ran();
    let jobs =
        ["warm-cache --all", "rotate-keys", "send-invoices --from=", "archive --day=20", "backup", "make-reports"];
    for job in jobs.into_iter().chain(["clean-up"]) {
        assert_eq!(ran.iter().filter(|line| line.starts_with(job)).count(), 1, "{job}: {ran:?}");
    }
    let pings = ran.iter().filter(|line| line.starts_with("curl")).count();
    assert_eq!(pings, 2, "{ran:?}");
    // The second host, whose cron is not to see an error in that.
    assert_eq!(tick(&stage, "crontab.fleet", "1000"), [0; 6]);
    assert_eq!(stage.ran(), ran);
}

#[test]
fn the_crontabs_of_applications_do_not_meet() {
    let stage = Stage::new();
    assert_eq!(tick(&stage, "crontab.per-application", "1000"), [0; 4]);
    assert_eq!(tick(&stage, "crontab.per-application", "1000"), [200; 4]);
    assert_eq!(stage.ran(), ["clean-up ", "backup ", "clean-up ", "backup "]);
    let keys = stage.server.locks();
    assert_eq!((keys.len(), keys.iter().filter(|key| key.starts_with("0:shop.")).count()), (4, 2));
}

#[test]
fn the_crontab_of_openwrt_uses_the_config_file() {
    let stage = Stage::new();
    fs::write(stage.path("etc/cronlock.conf"), stage.adapted(&example("cronlock.conf"))).unwrap();
    for _ in 0..2 {
        for entry in entries(&stage.adapted(&example("crontab.openwrt"))) {
            let mut shell = stage.command("/bin/sh");
            shell.env("CRONLOCK_CONFIG", stage.path("etc/cronlock.conf")).env("CRONLOCK_GRACE", "1000");
            let done = shell.arg("-c").arg(entry.line).output().unwrap();
            assert_eq!((code(&done), &*done.stderr), (0, &b""[..]), "{done:?}");
        }
    }
    assert_eq!(stage.ran(), ["update-blocklist "]);
}

#[test]
fn every_line_of_the_config_file_is_valid() {
    let stage = Stage::new();
    let file = stage.path("cronlock.conf");
    let all = example("cronlock.conf").replace("\n#CRONLOCK_", "\nCRONLOCK_");
    assert!(all.matches("\nCRONLOCK_").count() > 8);
    fs::write(&file, &all).unwrap();
    let done = stage.command(binary()).arg("--config").arg(file).args(["-v", "--print-key", "true"]).output().unwrap();
    assert_eq!((code(&done), String::from_utf8(done.stderr).unwrap()), (0, String::new()));
    let done = Command::new("sh").arg("-n").arg("-c").arg(all).status().unwrap();
    assert!(done.success(), "cronlock sources it");
}

#[test]
fn a_ping_tells_how_the_command_ended_and_changes_nothing() {
    let stage = Stage::new();
    let job = Job::exits(7);
    let run = |job: &Job| stage.golock(&[]).args(["with-ping", "https://ping.example.com/x"]).args(job.command());
    run(&job).run().assert_silent(7);
    let url = "https://ping.example.com/x";
    assert!(stage.ran()[0].ends_with(&format!("{url}/start")) && stage.ran()[1].ends_with(&format!("{url}/7")));
    stage.script("curl", "#!/bin/sh\necho no way >&2; exit 6\n");
    run(&job).run().assert_silent(7);
    assert_eq!(job.runs(), 2);
}

#[test]
fn a_ping_is_sent_also_for_a_command_that_a_signal_ends() {
    let stage = Stage::new();
    let job = Job::gated(7);
    let running = stage.golock(&[]).args(["with-ping", "https://ping.example.com/x"]).args(job.command()).spawn();
    job.wait_running();
    running.signal(Signal::TERM);
    assert_eq!(running.wait().code, 143);
    assert!(stage.ran().last().unwrap().ends_with("/143"), "{:?}", stage.ran());
}

#[test]
fn a_ping_is_sent_also_for_a_command_that_takes_too_long() {
    let stage = Stage::new();
    let job = Job::gated(7);
    let golock = stage.golock(&[]).args(["--timeout=3", "--kill-after=1h", "with-ping", "https://ping.example.com/x"]);
    let done = golock.args(job.command()).run();
    // Shells tell that a signal has ended their child.
    assert!(done.code == 202 && done.stderr.ends_with("golock: killed with-ping after 3 s\n"), "{done:?}");
    assert!(stage.ran().last().unwrap().ends_with("/143"), "{:?}", stage.ran());
}

/// Runs promtool, where it is there.
#[allow(clippy::print_stderr, reason = "what was not tested is told")]
pub(crate) fn promtool(args: &[&str], input: Stdio) {
    match Command::new("promtool").args(args).stdin(input).output() {
        Err(error) => eprintln!("not verified: promtool: {error}"),
        Ok(done) => assert_eq!((code(&done), String::from_utf8(done.stderr).unwrap()), (0, String::new())),
    }
}

#[test]
fn metrics_are_brought_to_the_collector() {
    let stage = Stage::new();
    assert_eq!(tick(&stage, "crontab.fleet", "0"), [0; 6]);
    assert_eq!(tick(&stage, "crontab.metrics", "0"), [0]);
    let file = stage.path("metrics/golock.prom");
    let text = fs::read_to_string(&file).unwrap();
    for program in ["warm-cache", "rotate-keys", "send-invoices", "archive", "with-ping", "nightly"] {
        let code = |line: &&str| line.starts_with("golock_last_exit_code{") && line.contains(program);
        assert!(text.lines().find(code).is_some_and(|line| line.ends_with(" 0")), "{program}: {text}");
    }
    assert!(!stage.path("metrics/golock.tmp").exists());
    promtool(&["check", "metrics"], fs::File::open(file).unwrap().into());
    // What the alerts ask for is there.
    let alerts = example("alerts.yml");
    let asked: Vec<&str> = alerts.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
    let asked = asked.into_iter().filter(|word| word.starts_with("golock_"));
    for name in asked {
        assert!(text.contains(&format!("# TYPE {name} ")), "{name}");
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("dist/examples/alerts.yml");
    promtool(&["check", "rules", path.to_str().unwrap()], Stdio::null());
}

#[test]
fn a_script_takes_locks_of_its_own_whatever_it_inherits() {
    let stage = Stage::new();
    let nightly = || stage.golock(&[("KEY", "nightly"), ("GRACE", "1000")]).args(["nightly"]).run();
    let done = nightly();
    assert_eq!((done.code, &*done.stderr), (0, "all done under cronlock.nightly\n"), "{done:?}");
    assert_eq!(stage.ran(), ["make-reports ", "clean-up "]);
    // Another host has done what is inside: no failure.
    stage.golock(&[]).args(["--key=nightly", "--reset"]).run().assert_silent(200);
    assert_eq!((nightly().code, stage.ran().len()), (0, 2));
    // What fails inside is one.
    stage.golock(&[]).args(["--key=nightly", "--reset"]).run().assert_silent(200);
    stage.golock(&[]).args(["--key=reports", "--reset"]).run().assert_silent(200);
    stage.script("make-reports", "#!/bin/sh\nexit 3\n");
    assert_eq!((nightly().code, stage.ran().len()), (3, 2));
}

#[test]
fn the_systemd_service_runs_on_one_host() {
    let stage = Stage::new();
    let unit = stage.adapted(&example("backup.service"));
    let values = |name: &str| unit.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('=')).collect();
    let environment: Vec<&str> = values("Environment");
    let variables: Vec<(&str, &str)> =
        environment.iter().flat_map(|line| line.split(' ')).map(|pair| pair.split_once('=').unwrap()).collect();
    let start: Vec<&str> = values("ExecStart").into_iter().flat_map(|line: &str| line.split(' ')).collect();
    let run = || code(&stage.command(start[0]).args(&start[1..]).envs(variables.iter().copied()).output().unwrap());
    assert_eq!((run(), run(), values("SuccessExitStatus")), (0, 200, vec!["200"]));
    assert_eq!(stage.ran(), ["backup "]);
    verify(&stage, &unit);
}

/// What systemd itself says of the service and its timer.
#[allow(clippy::print_stderr, reason = "what was not tested is told")]
fn verify(stage: &Stage, unit: &str) {
    fs::write(stage.path("backup.service"), unit).unwrap();
    fs::write(stage.path("backup.timer"), example("backup.timer")).unwrap();
    let units = [stage.path("backup.service"), stage.path("backup.timer")];
    match Command::new("systemd-analyze").args(["verify", "--man=no"]).args(units).output() {
        Err(error) => eprintln!("not verified: systemd-analyze: {error}"),
        Ok(done) => {
            let said = String::from_utf8(done.stderr).unwrap();
            // It also speaks of the units of this host.
            let ours: Vec<&str> = said.lines().filter(|line| line.contains("backup.")).collect();
            assert!(ours.is_empty(), "{ours:?}");
        }
    }
}

#[test]
fn the_cron_job_of_kubernetes_runs_in_one_cluster() {
    let stage = Stage::new();
    let manifest = stage.adapted(&example("cronjob.yaml"));
    let quoted = |text: &str| text.split('"').skip(1).step_by(2).map(String::from).collect::<Vec<_>>();
    let command = quoted(manifest.lines().find(|line| line.trim().starts_with("command:")).unwrap());
    let variables: Vec<(String, String)> = manifest
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- {name: CRONLOCK_"))
        .map(|rest| (format!("CRONLOCK_{}", rest.split_once(',').unwrap().0), quoted(rest).remove(0)))
        .collect();
    assert_eq!((&*command[0], variables.len()), ("golock", 6));
    let golock = stage.path("bin/golock");
    let run = || code(&stage.command(&golock).args(&command[1..]).envs(variables.clone()).output().unwrap());
    assert_eq!((run(), run()), (0, 0));
    assert_eq!(stage.ran(), ["backup --all"]);
    // Its form, where something is there that reads it.
    let reader = "import sys, yaml; yaml.safe_load(sys.argv[1])['spec']['jobTemplate']";
    if Command::new("python3").args(["-c", "import yaml"]).output().is_ok_and(|done| done.status.success()) {
        assert!(Command::new("python3").args(["-c", reader, &manifest]).status().unwrap().success());
    }
}

/// Needs a static binary and root, as in .ci/run.
#[test]
fn the_container_needs_nothing_but_golock() {
    let stage = Stage::new();
    let (root, file) = (stage.path("root"), stage.adapted(&example("Dockerfile")));
    fs::create_dir(&root).unwrap();
    for name in ["golock", "job"] {
        copy_executable(binary(), root.join(name));
    }
    let word =
        |name: &str| file.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim_matches(['[', '"', ']']);
    let (entry, command) = (word("ENTRYPOINT "), word("CMD "));
    let chroot = |words: &[&str]| {
        let password = [("CRONLOCK_HOST", "127.0.0.1"), ("CRONLOCK_AUTH", PASSWORD)];
        let mut chroot = stage.command("/usr/sbin/chroot");
        // Not even a /dev/null is there.
        chroot.env_remove("CRONLOCK_CONFIG").envs(password).arg(&root).arg(entry).args(words).output().unwrap()
    };
    if !geteuid().is_root() || !chroot(&["--version"]).status.success() {
        return eprintln!("not tested: it needs root and a static binary");
    }
    // The job is a golock, too, which has nothing to do.
    let done = chroot(&[command]);
    assert_eq!(code(&done), 201);
    assert!(String::from_utf8(done.stderr).unwrap().contains("no command given"));
    assert_eq!(stage.server.locks().len(), 1);
}
