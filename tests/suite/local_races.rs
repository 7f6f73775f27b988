//! Local locks under attack: herds, holders that are killed, others that look and reset at the same moment.

use std::fs::{self, File};
use std::path::Path;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use crate::local::{Host, ttl};
use crate::support::job_tools::{Notes, WHILE_NOTED};
use crate::support::soak::{Dice, seed};
use crate::support::wait::holds_within;
use crate::support::watch::descriptors;
use crate::support::{Golock, Job, Running, abreast, each, until};

fn is_alive(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    // A process that nobody has waited for yet is dead all the same.
    stat.rsplit(')').next().is_some_and(|rest| !matches!(rest.trim_start().chars().next(), None | Some('Z' | 'X')))
}

#[test]
fn one_of_two_hundred_runs() {
    let (host, job) = (Host::new(), Job::gated(7));
    let golock = host.golock().args(job.command());
    let mut herd: Vec<Running> = (0..200).map(|_| golock.spawn()).collect();
    until("all but one have ended", || herd.iter_mut().map(Running::has_ended).filter(|ended| !ended).count() <= 1);
    job.open_gate();
    let (winners, others): (Vec<_>, Vec<_>) = herd.into_iter().map(Running::wait).partition(|done| done.code == 7);
    assert_eq!((winners.len(), others.len(), job.runs()), (1, 199, 1));
    others.iter().chain(&winners).for_each(|done| done.assert_silent(if done.code == 7 { 7 } else { 200 }));
    host.assert_free();
}

#[test]
fn lookers_and_resets_disturb_no_herd() {
    let host = Host::new();
    thread::scope(|scope| {
        for option in ["--status", "--status", "--reset"] {
            let other = host.anonymous().set("KEY", if option == "--reset" { "another" } else { "job" }).args([option]);
            scope.spawn(move || (0..100).for_each(|_| assert!(matches!(other.run().code, 0 | 200))));
        }
        for _ in 0..10 {
            let job = Job::exits(7);
            let golock = host.golock().set("GRACE", "1000").args(job.command());
            let herd: Vec<Running> = (0..10).map(|_| golock.spawn()).collect();
            let codes: Vec<i32> = herd.into_iter().map(|running| running.wait().code).collect();
            assert_eq!((job.runs(), codes.iter().filter(|&&code| code == 200).count()), (1, 9), "{codes:?}");
            host.golock().args(["--reset"]).run().assert_silent(200);
        }
    });
}

/// A reset at any moment of taking and letting go makes at worst another run possible: nothing fails, nothing stays held.
#[test]
fn resets_in_between_make_nothing_fail() {
    let (host, job) = (Host::new(), Job::exits(7));
    let golock = host.golock().args(job.command());
    let herd: Vec<Running> =
        (0..60).map(|at| if at % 3 == 0 { host.golock().args(["--reset"]).spawn() } else { golock.spawn() }).collect();
    let codes: Vec<i32> = herd.into_iter().map(|running| running.wait().code).collect();
    assert!(codes.iter().all(|code| matches!(code, 7 | 200)), "{codes:?}");
    assert_eq!(job.runs(), codes.iter().filter(|&&code| code == 7).count());
    host.assert_free();
}

#[test]
fn somebody_who_looks_makes_nobody_skip() {
    let (host, job) = (Host::new(), Job::exits(7));
    host.run(&Job::exits(7)).assert_silent(7);
    // What --status has while it reads; on a busy host it can have it for long.
    let looker = File::open(host.file()).unwrap();
    looker.try_lock_shared().unwrap();
    host.assert_free();
    let mut running = host.golock().set("VERBOSE", "yes").args(job.command()).spawn();
    let mut looks = 0;
    until("it has gone on asking for a while", || {
        looks += 1;
        assert!(!running.has_ended() && job.runs() == 0, "a lock that nobody holds was skipped");
        looks > 20
    });
    drop(looker);
    assert_eq!((running.wait().code, job.runs()), (7, 1));
}

/// A list sweeps first, and every run at times; here for two seconds.
#[test]
fn a_sweep_makes_nobody_skip() {
    let (host, job) = (Host::new(), Job::exits(7));
    host.run(&Job::exits(7)).assert_silent(7);
    let inject = "-e trace=flock -e inject=flock:delay_exit=2000000:when=1";
    let list = host.anonymous().prelude(&format!(r#"exec strace -D -qq -o /dev/null {inject} "$0" "$@""#));
    let sweep = list.args(["--list"]).spawn();
    until("it looks at the file", || File::open(host.file()).unwrap().try_lock().is_err());
    host.run(&job).assert_silent(7);
    assert_eq!((sweep.wait().code, job.runs()), (0, 1));
}

#[test]
fn a_file_that_is_deleted_before_it_is_locked_is_not_the_lock() {
    let (host, job) = (Host::new(), Job::exits(7));
    host.run(&job).assert_silent(7);
    let inject = "-e trace=flock -e inject=flock:delay_enter=5000000:when=1";
    let golock = host.golock().prelude(&format!(r#"exec strace -D -qq -o /dev/null {inject} "$0" "$@""#));
    let running = golock.args(job.command()).spawn();
    let file = host.file().canonicalize().unwrap().display().to_string();
    until("it has opened the file", || descriptors(running.pid()).contains(&file));
    // As a sweep does.
    fs::remove_file(&file).unwrap();
    // With a lock on the file that was there it would have lost it at the end.
    running.wait().assert_silent(7);
    host.assert_free();
}

#[test]
fn a_signal_ends_golock_also_while_somebody_looks() {
    let (host, job) = (Host::new(), Job::exits(7));
    host.run(&Job::exits(7)).assert_silent(7);
    let looker = File::open(host.file()).unwrap();
    looker.try_lock_shared().unwrap();
    let running = host.golock().args(job.command()).spawn();
    until("it catches signals", || descriptors(running.pid()).iter().any(|file| file.contains("signalfd")));
    running.signal(Signal::TERM);
    running.wait().assert_silent(143);
    assert_eq!(job.runs(), 0);
}

/// Whoever deletes or replaces a file has the folder locked for that moment.
#[test]
fn a_reset_waits_for_whoever_deletes_something_else() {
    let host = Host::new();
    host.golock().set("GRACE", "1000").args(["true"]).run().assert_silent(0);
    let other = File::open(host.locks()).unwrap();
    other.try_lock().unwrap();
    let mut running = host.golock().args(["--reset"]).spawn();
    assert!(!holds_within(Duration::from_millis(300), || running.has_ended() || host.status().0 == 0));
    drop(other);
    running.wait().assert_silent(200);
    host.assert_free();
}

#[test]
fn a_killed_holder_leaves_the_lock_to_its_job() {
    let (host, job) = (Host::new(), Job::gated(7));
    let holder = host.hold(&job);
    let pid = fs::read_to_string(Path::new(job.command().last().unwrap()).join("ran")).unwrap();
    holder.signal(Signal::KILL);
    assert_eq!(holder.wait().code, -9);
    assert!(is_alive(&pid));
    host.assert_held();
    host.run(&Job::exits(3)).assert_silent(200);
    let next = Job::exits(3);
    let waiting = host.golock().set("WAIT", "1000").args(next.command()).spawn();
    job.open_gate();
    waiting.wait().assert_silent(3);
    assert!(!is_alive(&pid));
}

/// Scripts save their output in descriptors of small numbers, whatever those were before.
#[test]
fn a_job_that_takes_small_descriptors_for_itself_keeps_the_lock() {
    let (host, notes) = (Host::new(), Notes::new());
    let takes: Vec<String> = (3..=9).map(|number| format!("{number}>&2")).collect();
    let job = notes.job(&format!(r#"exec {}; echo $$ >"$0/pid"; {WHILE_NOTED}"#, takes.join(" ")));
    let holder = host.golock().args(job).spawn();
    let pid = notes.pid("pid").to_string();
    holder.signal(Signal::KILL);
    holder.wait();
    host.run(&Job::exits(3)).assert_silent(200);
    notes.write("open", "");
    until("the job has ended", || !is_alive(&pid));
    host.run(&Job::exits(3)).assert_silent(3);
}

/// A job that has a lock of its own for as long as it lives, and tells if another one has. Where the tests run as root it
/// changes its user if it is to, as setpriv(1) and su(1) do, which nothing that binds a process to its parent survives.
const WITNESS: &str = r#"
use Fcntl ":flock";
my ($folder, $drops) = @ARGV;
sub note { open my $file, ">>", "$folder/$_[0]"; syswrite $file, "$_[1]\n" }
open my $alone, ">", "$folder/alone" or die;
flock $alone, LOCK_EX | LOCK_NB or note "overlaps", $$;
note "runs", $$;
if ($drops && !$>) { $) = "65534 65534"; $( = 65534; $< = $> = 65534; die if $< != 65534 }
select undef, undef, undef, rand 0.03;
exit 7;
"#;

#[test]
fn whenever_golock_is_killed_no_two_jobs_run() {
    each(&["", "drops"], |drops| {
        let (host, notes, dice) = (Host::new(), Notes::new(), Dice::new(seed()));
        notes.write("witness", WITNESS);
        let words = ["perl".into(), notes.path("witness").into_os_string(), notes.folder().into(), drops.into()];
        let golock = host.golock().set("WAIT", "1000000").args(&words);
        let runs = || notes.read("runs").lines().count();
        // Two that want the lock at a time, so that a job which its golock has left meets another one.
        abreast(2, &(0..100).collect::<Vec<_>>(), |number| {
            let (running, before) = (golock.spawn(), runs());
            // However slow the machine is, some are killed while a job runs.
            if number % 4 == 0 {
                until("a job runs", || runs() > before);
            } else {
                holds_within(dice.span(0, 60), || false);
            }
            running.signal(Signal::KILL);
            running.wait();
        });
        assert_eq!(golock.run().code, 7);
        assert_eq!(notes.read("overlaps"), "");
        assert!(runs() > 1);
        host.assert_free();
    });
}

#[test]
fn a_killed_holder_leaves_its_grace() {
    let (host, job) = (Host::new(), Job::gated(7));
    let holder = host.golock().set("GRACE", "1000").args(job.command()).spawn();
    job.wait_running();
    holder.signal(Signal::KILL);
    holder.wait();
    host.assert_held();
    job.open_gate();
    until("the job has ended", || host.status().1.contains(" ttl="));
    assert!((900..=1000).contains(&ttl(&host.status().1)));
    host.run(&Job::exits(3)).assert_silent(200);
    // Nobody has recorded the end of this run, but the kernel knows of it.
    assert!(host.status().1.starts_with("cronlock.job grace "), "{}", host.status().1);
}

#[test]
fn a_golock_that_stands_still_until_release_starts_nothing() {
    let (host, job) = (Host::new(), Job::exits(7));
    // Its second signalfd4 comes after it has taken the lock.
    let inject = "-e trace=signalfd4 -e inject=signalfd4:delay_enter=2000000:when=2";
    let golock = host.golock().set("RELEASE", "1");
    let golock = golock.prelude(&format!(r#"exec strace -qq -o /dev/null {inject} "$0" "$@""#));
    golock.args(job.command()).run().assert_one_line(201, &["did not run", "stood still for too long"]);
    assert_eq!(job.runs(), 0);
    host.assert_free();
}

#[test]
fn no_network_system_call_is_made() {
    let (host, job) = (Host::new(), Job::exits(7));
    let trace = host.path("trace");
    let strace = format!("exec strace -f -qq -e trace=network,execve -o '{}' \"$0\" \"$@\"", trace.display());
    let run = |golock: Golock| golock.prelude(&strace).run();
    run(host.golock().args(job.command())).assert_silent(7);
    let mut calls = fs::read_to_string(&trace).unwrap();
    assert_eq!(run(host.golock().args(["--status"])).code, 0);
    calls += &fs::read_to_string(&trace).unwrap();
    let (starts, others): (Vec<&str>, Vec<&str>) =
        calls.lines().filter(|line| line.contains('(')).partition(|line| line.contains("execve("));
    assert!(starts.len() >= 3 && others.is_empty(), "{others:?} of {calls}");
}
