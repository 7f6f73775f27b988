//! A fleet of five hosts whose jobs succeed, fail, hang and die, and write down what they do: the record and `--list` say
//! the same.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::board::{Row, list, seconds};
use crate::support::job_tools::{Notes, WHILE_NOTED};
use crate::support::ledger::{host, now};
use crate::support::{Done, Golock, Running, Server, until};

/// For how long cron goes on, and how often it fires.
fn length() -> Duration {
    Duration::from_secs(env::var("GOLOCK_FLEET_SECONDS").map_or(8, |seconds| seconds.parse().unwrap()))
}

const TICK: Duration = Duration::from_millis(250);

/// The jobs: the key, and how each goes on once it has said that it has begun.
const JOBS: [(&str, &str); 6] = [
    ("good", "sleep 0.1; end 0"),
    ("bad", "end 3"),
    ("hangs", "exec sleep 1000"),
    ("killed", "kill -9 $$"),
    // Its whole host is gone.
    ("dies", "kill -9 $PPID; kill -9 $$"),
    ("mixed", "end $((GOLOCK_FENCE / 10 % 2))"),
];

/// A run, as its job tells of it: its fence, the golock above it, when it began, and with what code it ended when.
#[derive(Clone, Debug)]
struct Run {
    fence: u64,
    golock: u64,
    began: u64,
    ended: Option<(u64, u64)>,
}

/// Five hosts, each of which is told in another way where Redis is.
struct Fleet {
    server: Server,
    notes: Notes,
}

impl Fleet {
    fn new() -> Self {
        let (server, notes) = (Server::start(&[]), Notes::new());
        notes.write("conf", format!("CRONLOCK_HOST=127.0.0.1\nCRONLOCK_PORT={}\n", server.port()));
        Self { server, notes }
    }

    /// golock on one of the hosts.
    fn golock(&self, host: usize) -> Golock {
        let (port, golock) = (self.server.port(), Golock::new(self.server.port()));
        let bare = golock.clone().unset("HOST").unset("PORT");
        let golock = match host {
            0 => golock,
            1 => golock.set("HOST", "localhost"),
            2 => bare.set("HOST", self.server.socket_path()),
            3 => bare.set("URL", format!("redis://127.0.0.1:{port}/0")),
            _ => bare.set("CONFIG", self.notes.path("conf")),
        };
        golock.set("GRACE", "0")
    }

    /// The words of a job that writes into the note `key`.
    fn job(&self, key: &str, script: &str) -> Vec<OsString> {
        let told = format!(
            r#"exec 2>/dev/null; tell() {{ echo "$GOLOCK_FENCE $PPID $(date +%s%3N) $1" >>"$0/{key}"; }}
            end() {{ tell "$1"; exit "$1"; }}; tell begun; {script}"#
        );
        self.notes.job(&told)
    }

    /// What the jobs have written down, in the order of their numbers.
    fn runs(&self, key: &str) -> Vec<Run> {
        let mut runs: BTreeMap<u64, Run> = BTreeMap::new();
        for line in self.notes.read(key).lines() {
            let [fence, golock, time, what] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line:?}") };
            let [fence, golock, time] = [fence, golock, time].map(|number| number.parse().unwrap());
            if what == "begun" {
                let run = Run { fence, golock, began: time, ended: None };
                assert!(runs.insert(fence, run).is_none(), "{key}: the number {fence} was given twice");
            } else {
                runs.get_mut(&fence).unwrap().ended = Some((what.parse().unwrap(), time));
            }
        }
        runs.into_values().collect()
    }

    /// Fires until the time is over; how all golocks of each job have ended.
    fn fire(&self) -> BTreeMap<&'static str, Vec<Done>> {
        let (mut running, mut ends, start): (Vec<(&str, Running)>, BTreeMap<_, Vec<Done>>, _) =
            (Vec::new(), BTreeMap::new(), Instant::now());
        let mut jobs = JOBS.iter().cycle();
        while start.elapsed() < length() {
            let (key, script) = jobs.next().unwrap();
            if *key == "dies" {
                // What RELEASE does in a day.
                self.server.query::<()>(&["DEL", "cronlock.dies"]);
            }
            let timeout = if *key == "hangs" { "2" } else { "0" };
            let golock = |host| self.golock(host).set("KEY", key).set("TIMEOUT", timeout);
            let golocks = (0..5).map(|host| golock(host).args(self.job(key, script)).spawn());
            running.extend(golocks.map(|golock| (*key, golock)));
            thread::sleep(TICK);
            let (ended, others) = running
                .into_iter()
                .map(|(key, mut golock)| (golock.has_ended(), key, golock))
                .partition::<Vec<_>, _>(|one| one.0);
            running = others.into_iter().map(|(_, key, golock)| (key, golock)).collect();
            for (_, key, golock) in ended {
                ends.entry(key).or_default().push(golock.wait());
            }
        }
        for (key, golock) in running {
            ends.entry(key).or_default().push(golock.wait());
        }
        self.server.query::<()>(&["DEL", "cronlock.dies"]);
        ends
    }

    /// A field of a job's record.
    fn field(&self, key: &str, name: &str) -> String {
        let record = self.server.get(&format!("cronlock.run.{{cronlock.{key}}}")).unwrap();
        let value = record.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        value.unwrap_or_else(|| panic!("no {name} in {record:?}")).to_owned()
    }

    fn number(&self, key: &str, name: &str) -> u64 {
        self.field(key, name).parse().unwrap_or(0)
    }
}

/// What is recorded of a run of this job, and what `--list` says of it.
fn result(key: &str, run: &Run) -> (String, String) {
    let (recorded, shown) = match key {
        "hangs" => ("timeout", "killed at TIMEOUT"),
        "killed" => ("signal:9", "signal 9"),
        "dies" => ("", "no end was recorded"),
        _ => {
            let code = run.ended.unwrap_or_else(|| panic!("{key}: {run:?}")).0;
            let shown = if code == 0 { "success".to_owned() } else { format!("exit {code}") };
            return (code.to_string(), shown);
        }
    };
    (recorded.to_owned(), shown.to_owned())
}

/// The exit codes of golocks whose job has run.
fn codes(key: &str) -> &'static [i32] {
    match key {
        "good" => &[0],
        "bad" => &[3],
        "hangs" => &[202],
        "killed" => &[137],
        "dies" => &[-9],
        _ => &[0, 1],
    }
}

/// A time as golock shows it.
fn shown(milliseconds: u64) -> String {
    let second = format!("@{}", milliseconds / 1000);
    let said = Command::new("date").args(["-u", "-d", &second, "+%Y-%m-%dT%H:%M:%SZ"]).output().unwrap();
    String::from_utf8(said.stdout).unwrap().trim().to_owned()
}

#[test]
fn the_list_of_a_fleet_says_what_its_jobs_wrote_down() {
    let (fleet, start) = (Fleet::new(), now());
    let long = fleet.golock(0).set("KEY", "long").args(fleet.job("long", WHILE_NOTED)).spawn();
    until("the long job runs", || !fleet.runs("long").is_empty());
    let ends = fleet.fire();
    for (key, ends) in &ends {
        let (skipped, ran): (Vec<_>, Vec<_>) = ends.iter().partition(|done| done.code == 200);
        assert!(skipped.iter().all(|done| done.stderr.is_empty()), "{skipped:?}");
        assert!(ran.iter().all(|done| codes(key).contains(&done.code)), "{key}: {ran:?}");
        // On a machine that stands still a job may be killed before it has said a word.
        assert!(ran.len() == fleet.runs(key).len() || *key == "hangs" && ran.len() > fleet.runs(key).len(), "{key}");
        let told = if *key == "hangs" { "golock: killed sh after 2 s\n" } else { "" };
        assert!(ran.iter().all(|done| done.stderr == told), "{key}: {ran:?}");
    }

    let before = now();
    let rows = list(&fleet.golock(4));
    let after = now();
    assert_eq!(rows.len(), ends.len() + 1);
    assert!(rows.is_sorted_by_key(|row| (!row.is_in_trouble, row.lock.clone())), "{rows:#?}");
    let row = |key: &str| {
        rows.iter().find(|row| row.lock == format!("cronlock.{key}")).unwrap_or_else(|| panic!("{key}: {rows:#?}"))
    };
    let have_all_spoken =
        |key: &&&str| ends[**key].iter().filter(|done| done.code != 200).count() == fleet.runs(key).len();
    for key in ends.keys().filter(have_all_spoken) {
        compare(&fleet, key, row(key), start, before..=after);
    }

    let ([run], row) = (&fleet.runs("long")[..], row("long")) else { panic!("the long job has run once") };
    assert_eq!((fleet.number("long", "pid"), fleet.number("long", "fence")), (run.golock, run.fence));
    let cells = [&row.job, &row.state, &row.host, &row.result, &row.success].map(String::as_str);
    assert_eq!(cells, ["sh", "running", &host(), "-", "never"]);
    assert_eq!((row.is_in_trouble, &row.since), (false, &shown(fleet.number("long", "start"))));
    fleet.notes.write("open", "");
    long.wait().assert_silent(0);
    fs::remove_file(fleet.notes.path("open")).unwrap();
}

/// Compares what is recorded and listed of a job with what it wrote down; the list is of a time in `asked`.
#[track_caller]
fn compare(fleet: &Fleet, key: &str, row: &Row, start: u64, asked: std::ops::RangeInclusive<u64>) {
    let runs = fleet.runs(key);
    let last = runs.last().unwrap();
    let (recorded, shown_result) = result(key, last);
    let succeeded = |run: &&Run| result(key, run).0 == "0";
    let failed = runs.iter().rev().take_while(|run| !succeeded(run)).count();
    // The last one that has died is counted when the next begins.
    let counted = failed - usize::from(key == "dies");
    assert_eq!((fleet.number(key, "fence"), fleet.number(key, "pid")), (last.fence, last.golock), "{key}");
    assert_eq!((fleet.field(key, "result"), fleet.field(key, "failed")), (recorded, counted.to_string()), "{key}");
    let [began, ended, ok, first] = ["start", "end", "ok", "first"].map(|name| fleet.number(key, name));
    assert!(
        began <= last.began && last.ended.is_none_or(|(_, time)| time <= ended),
        "{key}: {last:?}, {began} {ended}"
    );
    assert!((start..=runs[0].began).contains(&first), "{key}: {first} {:?}", runs[0]);
    match runs.iter().rfind(succeeded) {
        Some(run) => assert!(run.ended.unwrap().1 <= ok && ok <= *asked.end(), "{key}: {ok} {run:?}"),
        None => assert_eq!(ok, 0, "{key}"),
    }

    let times = if failed > 1 { format!(", {failed} times") } else { String::new() };
    assert_eq!((row.is_in_trouble, &row.result), (failed > 0, &format!("{shown_result}{times}")), "{key}");
    assert_eq!([&*row.job, &row.state, &row.host], ["sh", "free", &host()], "{key}");
    assert_eq!(row.since, shown(if key == "dies" { began } else { ended }), "{key}");
    if key == "dies" {
        assert_eq!(row.took, "?");
    } else {
        assert_eq!(seconds(&row.took), (ended - began) / 1000, "{key}: {row:?}");
    }
    match row.success.strip_suffix(" ago") {
        None => assert_eq!((&*row.success, ok), ("never", 0), "{key}"),
        Some(span) => {
            let ages = (asked.start() - ok) / 1000..=(asked.end() - ok) / 1000;
            assert!(
                seconds(span) <= *ages.end() && (*ages.start() >= 3600 || ages.contains(&seconds(span))),
                "{key}: {row:?}"
            );
        }
    }
}
