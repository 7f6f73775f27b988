//! `--list` and `--metrics`: complete, in bounded memory, and nothing but jobs; whatever they are called.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;

use crate::examples::promtool;
use crate::support::board::{Row, list};
use crate::support::cluster::{Cluster, record};
use crate::support::job_tools::Notes;
use crate::support::ledger::{Ledger, NAME, Witness, now};
use crate::support::{Golock, Server, each};

#[test]
fn who_reads_no_further_is_told_nothing() {
    let ledger = Ledger::redis();
    ledger.golock().args(["true"]).run().assert_silent(0);
    // A pipe whose reader has gone, as behind head(1).
    let unread = r#"exec perl -e 'pipe R, W; close R; open STDOUT, ">&", W; exec @ARGV' "$0" "$@""#;
    for action in ["--list", "--metrics", "--status"] {
        ledger.golock().prelude(unread).args([action]).run().assert_silent(201);
    }
}

/// The words of a record of which the run has ended with this result, after so many failures, at this time.
fn ended(program: &str, result: &str, failed: u64, end: u64) -> String {
    let (start, ok) = (end - 1500, if failed == 0 { end } else { end - 86_400_000 });
    format!(
        "fence={start}000 host=web1 pid=4711 program={program} start={start} end={end} result={result} ok={ok} \
         failed={failed} first=1"
    )
}

/// Puts this many jobs into Redis, of which each third has failed, each fifth is held, and each seventh is named by a hash
/// tag; and as many keys that are none. Returns the names of those jobs, in trouble or not.
fn populate(server: &Server, count: usize) -> BTreeSet<(bool, String)> {
    let (mut pipe, mut connection, mut names) = (redis::pipe(), server.connection(), BTreeSet::new());
    let end = now();
    for number in 0..count {
        let key = if number.is_multiple_of(7) { format!("{{t{number}}}job") } else { format!("job{number:05}") };
        let name = format!("cronlock.{key}");
        let of_record = if number.is_multiple_of(7) { format!("cronlock.run.{name}") } else { record(&key) };
        let (result, failed) = if number.is_multiple_of(3) { ("3", 2) } else { ("0", 0) };
        pipe.cmd("SET").arg(of_record).arg(ended(&format!("job-{number}.sh"), result, failed, end)).ignore();
        pipe.cmd("SET").arg(format!("session:{number}")).arg("x".repeat(number % 100)).ignore();
        if number.is_multiple_of(5) {
            pipe.cmd("SET").arg(&name).arg("1234567890123456789").ignore();
        }
        names.insert((failed > 0, name));
    }
    pipe.query::<()>(&mut connection).unwrap();
    names
}

#[test]
fn ten_thousand_jobs_are_listed_whole_and_in_bounded_memory() {
    let server = Server::start(&[]);
    let names = populate(&server, 10_000);
    let golock = Golock::new(server.port());
    // What a golock that has nothing to do may address, and some 50 MB.
    let bounded = golock.clone().prelude("ulimit -v 150000");
    let rows = list(&bounded);
    let listed: BTreeSet<_> = rows.iter().map(|row| (row.is_in_trouble, row.lock.clone())).collect();
    assert!(rows.len() == 10_000 && listed == names, "{} rows, {} jobs", rows.len(), listed.len());
    assert!(rows.is_sorted_by_key(|row| (!row.is_in_trouble, row.lock.clone())));
    for row in &rows {
        let number: usize = row.job.strip_prefix("job-").unwrap().strip_suffix(".sh").unwrap().parse().unwrap();
        let key = if number.is_multiple_of(7) { format!("{{t{number}}}job") } else { format!("job{number:05}") };
        let (state, result) = (
            if number.is_multiple_of(5) { "grace" } else { "free" },
            if number.is_multiple_of(3) { "exit 3, 2 times" } else { "success" },
        );
        let cells = [&row.state, &row.result, &row.lock, &row.host, &row.took].map(String::as_str);
        assert_eq!(cells, [state, result, &format!("cronlock.{key}"), "web1", "1 s"]);
        assert!(row.success.starts_with(if number.is_multiple_of(3) { "1 d 0 h" } else { "" }), "{row:?}");
    }
    let metrics = bounded.args(["--metrics"]).run();
    assert_eq!((metrics.code, &*metrics.stderr), (0, ""));
    let codes = metrics.stdout.lines().filter(|line| line.starts_with("golock_last_exit_code{"));
    assert_eq!(codes.filter(|line| line.ends_with(" 3")).count(), 3_334);
    // Redis was never busy for more than a page of 250 keys at a time.
    assert!(server.command_count("scan") >= 2 * 20_000 / 1_000, "{} pages", server.command_count("scan"));
}

#[test]
fn what_others_keep_beside_the_locks_takes_no_memory() {
    let server = Server::start(&[]);
    let mut pipe = redis::pipe();
    for number in 0..1_500 {
        // What is under the name of the lock is somebody's picture.
        let key = format!("job{number}");
        pipe.cmd("SET").arg(record(&key)).arg(ended("job", "0", 0, now())).ignore();
        pipe.cmd("SET").arg(format!("cronlock.{key}")).arg("x".repeat(60_000)).ignore();
    }
    pipe.query::<()>(&mut server.connection()).unwrap();
    let rows = list(&Golock::new(server.port()).prelude("ulimit -v 150000"));
    assert!(rows.len() == 1_500 && rows.iter().all(|row| row.state == "held"), "{}", rows.len());
}

#[test]
fn what_is_no_lock_and_no_record_hides_no_job() {
    let ledger = Ledger::redis();
    ledger.golock().args(["true"]).run().assert_silent(0);
    let (server, long) = (ledger.server(), "x".repeat(1_000_000));
    server.set("cronlock.run.{cronlock.long}", &long);
    server.set("cronlock.run.{cronlock.picture}", &ended("job", "0", 0, now()));
    server.set("cronlock.picture", &long);
    server.set("cronlock.run.{cronlock.hash}", &ended("job", "0", 0, now()));
    server.query::<()>(&["HSET", "cronlock.hash", "a", "b"]);
    let mut rows: Vec<_> =
        list(&ledger.golock()).into_iter().map(|row| format!("{} {} {}", row.lock, row.state, row.result)).collect();
    rows.sort_unstable();
    let expected = ["hash held not a record", "job free success", "long free not a record", "picture held success"];
    assert_eq!(rows, expected.map(|row| format!("cronlock.{row}")));
    // Who may see the records and not the locks is told so, not that nobody holds them.
    let rights = ["SETUSER", "watch", "on", ">word", "~cronlock.run.*", "+@all"];
    server.query::<()>(&[&["ACL"], &rights[..]].concat());
    let watch = ledger.golock().set("USER", "watch").set("AUTH", "word");
    let rights = ["SETUSER", "reader", "on", ">word", "%R~cronlock.*", "+eval", "+scan", "+get", "+time", "+ttl"];
    // Redis knows keys that may only be read since 7.
    if redis::cmd("ACL").arg(&rights).query::<()>(&mut server.connection()).is_ok() {
        assert_eq!(list(&ledger.golock().set("USER", "reader").set("AUTH", "word")).len(), 4);
    }
    each(&["--list", "--metrics"], |action| {
        watch.clone().args([action]).run().assert_one_line(201, &["cannot list cronlock.*", "redis refused EVAL"]);
    });
}

#[test]
fn only_what_has_a_record_s_name_is_listed() {
    for ledger in Ledger::both() {
        let run = |key: &str| ledger.anonymous().args(["--grace=1h", "--key", key, "true"]).run().assert_silent(0);
        // Locks whose names look like those of records.
        for key in ["run.reports", "run.", "late.{x}", "{tag}a", "a{tag}", "x"] {
            run(key);
        }
        ledger.anonymous().args(["--prefix=other.", "--key=y", "true"]).run().assert_silent(0);
        ledger.anonymous().args(["--key=unrecorded", "--grace=1h", "--record=0", "true"]).run().assert_silent(0);
        if ledger.is_local() {
            fs::write(ledger.locks().join("notes"), "not a lock\n").unwrap();
            fs::write(ledger.locks().join("cronlock.notes"), "not a lock\n").unwrap();
            fs::create_dir(ledger.locks().join("cronlock.folder")).unwrap();
            std::os::unix::fs::symlink("/etc/passwd", ledger.locks().join("cronlock.link")).unwrap();
        } else {
            for key in ["run.x", "cronlock.run", "cronlock.runaway", "Xcronlock.run.{y}", "cronlock.run.z"] {
                ledger.server().set(key, "x");
            }
        }
        let rows = list(&ledger.anonymous());
        let mut locks: Vec<_> = rows.iter().map(|row| row.lock.as_str()).collect();
        locks.sort_unstable();
        let expected =
            ["a{tag}", "late.{x}", "run.", "run.reports", "x", "{tag}a"].map(|key| format!("cronlock.{key}"));
        assert_eq!(locks, expected, "{ledger:?}");
        assert!(rows.iter().all(|row| (&*row.state, &*row.result, row.is_in_trouble) == ("grace", "success", false)));
        let others = list(&ledger.anonymous().args(["--prefix=other."]));
        assert_eq!(others.iter().map(|row| &*row.lock).collect::<Vec<_>>(), ["other.y"]);
        if !ledger.is_local() {
            // A prefix is taken to the letter.
            let wild = |prefix: &str| list(&ledger.anonymous().args(["--prefix", prefix]));
            assert_eq!((wild("*"), wild("cronl?ck."), wild("[c]ronlock.")), (vec![], vec![], vec![]));
        }
    }
}

#[test]
fn an_empty_list_is_a_head_and_no_more() {
    for ledger in Ledger::both() {
        assert_eq!(list(&ledger.golock()), []);
        let done = ledger.golock().args(["--list"]).run();
        assert_eq!(done.stdout, " JOB STATE HOST SINCE TOOK RESULT LAST SUCCESS LOCK\n");
        let metrics = ledger.golock().args(["--metrics"]).run();
        assert!(metrics.code == 0 && metrics.stdout.lines().all(|line| line.starts_with("# ")), "{metrics:?}");
        assert!(!ledger.locks().exists());
    }
}

#[test]
fn a_job_is_in_trouble_that_fails_or_is_overdue_or_has_died() {
    let ledger = Ledger::redis();
    let server = ledger.server();
    let day = 86_400_000;
    for (key, line) in [
        ("fails", ended("a", "3", 1, now())),
        ("fine", ended("b", "0", 0, now())),
        ("old", ended("c", "0", 0, now() - 2 * day)),
        ("new", ended("d", "0", 0, now()).replace(" end=", " x=").replace(" result=0", " result=")),
        (
            "died",
            ended("e", "0", 0, now() - day / 24).split(" end=").next().unwrap().to_owned()
                + " end= result= ok= failed=0 first=1",
        ),
        ("odd", "no record".into()),
    ] {
        server.set(&record(key), &line);
    }
    let told = |rows: &[Row]| {
        rows.iter()
            .map(|row| format!("{}{} {}", if row.is_in_trouble { "!" } else { "" }, row.lock, row.result))
            .collect::<Vec<_>>()
    };
    let rows = told(&list(&ledger.golock()));
    let trouble = [
        "!cronlock.died no end was recorded",
        "!cronlock.fails exit 3",
        "!cronlock.new not a record",
        "!cronlock.odd not a record",
    ];
    assert_eq!(rows, [&trouble[..], &["cronlock.fine success", "cronlock.old success"]].concat());
    let rows = told(&list(&ledger.golock().set("MAX_AGE", "1d")));
    assert_eq!(rows, [&trouble[..], &["!cronlock.old success", "cronlock.fine success"]].concat());
}

#[test]
fn in_a_cluster_the_jobs_of_the_node_that_was_asked_are_listed() {
    let cluster = Cluster::start();
    let keys: Vec<(usize, String)> = (0..3)
        .flat_map(|node| ["plain", "{tag", "with{tag"].map(|start| (node, start)))
        .map(|(node, start)| {
            let key = cluster.key_on(node, start);
            // What is between the braces decides.
            if start.contains('{') { (node, tagged(&cluster, node, start)) } else { (node, key) }
        })
        .collect();
    each(&keys, |(node, key)| {
        let golock = Golock::new(cluster.node((node + 1) % 3).port()).set("KEY", key).set("GRACE", "0");
        let witness = Witness::new();
        golock.clone().args(witness.job("exit 3")).run().assert_silent(3);
        let status = golock.args(["--status"]).run();
        let [_, parent, fence, _] = witness.began();
        assert!(status.stdout.starts_with(&format!("cronlock.{key} free host=")), "{status:?}");
        let said = [format!(" pid={parent} "), " result=3 failed=1 ".into(), format!(" fence={fence}\n")];
        assert!(said.iter().all(|said| status.stdout.contains(said)), "{status:?}");
    });
    for node in 0..3 {
        let done = Golock::new(cluster.node(node).port()).args(["--list"]).run();
        assert_eq!((done.code, &*done.stderr), (0, "golock: these are the jobs of one node of a cluster\n"));
        let rows = crate::support::board::rows(&done.stdout);
        let listed: BTreeSet<_> = rows.into_iter().map(|row| row.lock).collect();
        let here = keys.iter().filter(|(home, _)| *home == node).map(|(_, key)| format!("cronlock.{key}"));
        assert_eq!(listed, here.collect());
    }
    // A user who may do what the README says.
    let user = ["SETUSER", "app", "on", ">secret", "~cronlock.*", "-@all", "+eval", "+get", "+ttl", "+pttl", "+time"];
    cluster.node(0).query::<()>(&[&["ACL"], &user[..], &["+scan", "+cluster|info"]].concat());
    let done = Golock::new(cluster.node(0).port()).set("USER", "app").set("AUTH", "secret").args(["--list"]).run();
    assert_eq!((done.code, &*done.stderr), (0, "golock: these are the jobs of one node of a cluster\n"));
}

/// A KEY with a hash tag whose lock lives on this node.
fn tagged(cluster: &Cluster, node: usize, start: &str) -> String {
    let mut candidates = (0..1000).map(|number| format!("{start}{number}}}end"));
    candidates.find(|key| cluster.home(key) == node).unwrap()
}

/// Names that are hard to print, each of a lock and of a program.
fn strange_names() -> Vec<Vec<u8>> {
    let mut names: Vec<Vec<u8>> = [
        "a\"b",
        "back\\slash",
        "end\\",
        "new\nline",
        "new\\nline",
        "{a}\"} 1\n# TYPE x",
        "{",
        "a=b,c",
        "%41",
        "\t",
        "\u{1b}[2J",
        "grün",
        "\u{202e}x",
    ]
    .iter()
    .map(|name| (*name).into())
    .collect();
    names.push(b"\xff\xfe".to_vec());
    names.push(vec![b'"'; 200]);
    names.push(vec![b'x'; 240]);
    names
}

#[test]
fn metrics_of_hostile_names_are_metrics() {
    for ledger in Ledger::both() {
        let (notes, names) = (Notes::new(), strange_names());
        each(&names, |name| {
            let program = notes.folder().join(OsStr::from_bytes(name));
            let (program, code) = if name.len() == 240 { (program, 0) } else { ("false".into(), 1) };
            if code == 0 {
                notes.executable(&String::from_utf8_lossy(name), "#!/bin/sh\nexit 0\n");
            }
            let golock = ledger.anonymous().args([OsStr::new("--key"), OsStr::from_bytes(name), program.as_os_str()]);
            golock.run().assert_silent(code);
        });
        let odd = notes.executable("a\"b\\ c\u{1b}\n}", "#!/bin/sh\nexit 0\n");
        ledger.golock().args([odd]).run().assert_silent(0);
        let done = ledger.anonymous().args(["--metrics"]).run();
        assert_eq!((done.code, &*done.stderr), (0, ""));
        assert!(done.stdout.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\n')), "{}", done.stdout);
        let held: BTreeSet<&str> = done.stdout.lines().filter(|line| line.starts_with("golock_held{")).collect();
        assert_eq!(held.len(), names.len() + 1, "{held:#?}");
        assert!(held.iter().any(|line| line.contains(NAME)), "{held:#?}");
        // The longest is whole: a name tells jobs apart.
        assert!(held.iter().any(|line| line.contains(&"x".repeat(240))), "{held:#?}");
        notes.write("metrics", &done.stdout);
        promtool(&["check", "metrics"], fs::File::open(notes.path("metrics")).unwrap().into());
        assert_eq!(list(&ledger.anonymous()).len(), names.len() + 1);
    }
}

/// The value of this metric of the only job.
fn metric(ledger: &Ledger, name: &str) -> Option<String> {
    let done = ledger.golock().args(["--metrics"]).run();
    let start = format!("golock_{name}{{lock=\"{NAME}\",program=\"sh\"}} ");
    done.stdout.lines().find_map(|line| line.strip_prefix(&start)).map(String::from)
}

#[test]
fn metrics_say_what_happened() {
    for ledger in Ledger::both() {
        let told =
            |names: &[&str]| names.iter().map(|name| metric(&ledger, name).unwrap_or_default()).collect::<Vec<_>>();
        let seconds = |field: &str| {
            let time = ledger.number(field);
            format!("{}.{:03}", time / 1000, time % 1000)
        };
        let run = |script: &str, timeout: &str| {
            ledger.golock().set("TIMEOUT", timeout).args(Witness::new().job(script)).run()
        };
        let states = ["last_exit_code", "failures_in_a_row", "held"];
        for (script, timeout, code, failed) in [
            ("exit 0", "0", "0", "0"),
            ("exit 3", "0", "3", "1"),
            ("kill -9 $$", "0", "137", "2"),
            ("exec sleep 1000", "1", "202", "3"),
        ] {
            run(script, timeout);
            assert_eq!(told(&states), [code, failed, "0"], "{script}");
        }
        let times = ["last_start_timestamp_seconds", "last_end_timestamp_seconds", "last_success_timestamp_seconds"];
        assert_eq!(told(&times), ["start", "end", "ok"].map(seconds));
        let took = ledger.number("end") - ledger.number("start");
        assert_eq!(told(&["last_duration_seconds"]), [format!("{}.{:03}", took / 1000, took % 1000)]);

        let witness = Witness::new();
        let running = ledger.golock().args(witness.gated("exit 0")).spawn();
        witness.began();
        assert_eq!(told(&states), ["", "3", "1"]);
        assert_eq!(told(&times), [seconds("start"), String::new(), seconds("ok")]);
        running.signal(rustix::process::Signal::KILL);
        running.wait();
        witness.open();
        ledger.expire();
        crate::support::until("the job is gone", || metric(&ledger, "held").as_deref() == Some("0"));
        assert_eq!(
            (told(&states), metric(&ledger, "last_duration_seconds")),
            (vec![String::new(), "4".into(), "0".into()], None)
        );
    }
}
