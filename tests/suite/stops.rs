//! A job that is stopped: its lock is looked at before it goes on, and whatever is to end it wakes it.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::job_control::{goes_on, is_stopped, stop};
use crate::local::Host;
use crate::support::desk::Shell;
use crate::support::job_tools::{EVER, Notes, graceless, pristine};
use crate::support::successor::{SUCCESSOR, take_over};
use crate::support::tenant::{NAME, leasing};
use crate::support::wait::holds_within;
use crate::support::watch::{is_alive, parent};
use crate::support::{Golock, Job, Server, each, until};

/// A job of one process that writes a line again and again, and handles signals by a line of their own.
const TICKING: &str = r#"exec perl -e '
    my $folder = shift;
    sub note { open my $file, ">>", "$folder/$_[0]"; print $file "$_[1]\n" }
    $SIG{TERM} = sub { note("log", "TERM"); exit 5 };
    note("pid", $$);
    while (-d $folder && !-e "$folder/open") { note("ticks", "tick"); select(undef, undef, undef, 0.02) }
    exit 7' "#;

/// How many lines it has written.
fn ticks(notes: &Notes) -> usize {
    notes.read("ticks").len()
}

/// A shell whose `$J` is that job.
fn shell(golock: &Golock) -> Shell {
    let shell = Shell::start(golock);
    shell.notes.write("job", format!(r#"{TICKING}"$D""#));
    shell.ask(r#"J="sh $D/job""#);
    shell
}

/// A job at a shell, started by this line, that has been stopped by the keyboard and had written so many lines.
#[track_caller]
fn stopped_by_key(golock: &Golock, line: &str) -> (Shell, Pid, usize) {
    let shell = shell(golock);
    shell.line(line);
    let job = shell.job();
    shell.notes.lines("ticks", 1);
    stop(&shell, job);
    let written = ticks(&shell.notes);
    (shell, job, written)
}

/// The same, without ado.
#[track_caller]
fn stopped(golock: &Golock) -> (Shell, Pid, usize) {
    stopped_by_key(golock, "$G $J")
}

/// Continues it, and expects that its lock was lost: it ends without another line, and golock says why in one.
#[track_caller]
fn assert_ends(shell: &Shell, job: Pid, written: usize, why: &str) {
    shell.line("fg");
    assert_eq!(shell.ask("echo $?"), "201", "{}", shell.desk.shown());
    assert!(!is_alive(job));
    assert_eq!(ticks(&shell.notes), written);
    assert_eq!(shell.notes.read("log"), "");
    let shown = shell.desk.shown();
    let lines: Vec<&str> = shown.lines().filter(|line| line.contains("golock: ")).collect();
    assert!(matches!(lines[..], [line] if line.contains(why)), "{lines:?}: {shown}");
}

#[test]
fn a_job_that_was_stopped_past_its_lock_does_not_go_on() {
    let cases = [
        ("LEASE", "$G $J", "lost"),
        ("LEASE", ": | $G $J", "lost"),
        ("LEASE", "$G $J </dev/null", "lost"),
        ("RELEASE", "$G $J", "RELEASE"),
        ("RELEASE", ": | $G $J", "RELEASE"),
    ];
    each(&cases, |&(setting, line, why)| {
        let server = Server::start(&[]);
        let golock = graceless(server.port()).set("KEY", "leased");
        let (shell, job, written) = stopped_by_key(&golock.clone().set(setting, "3"), line);
        // Another host has the lock meanwhile, and is alone.
        let other = Notes::new();
        let look = format!(r#"grep "^State" /proc/{job}/status >"$0/state"; exit 8"#);
        golock.set("WAIT", "1000").args(other.job(&look)).run().assert_silent(8);
        assert!(other.read("state").contains("stopped"), "{}", other.read("state"));
        assert_eq!(ticks(&shell.notes), written);
        assert_ends(&shell, job, written, why);
        assert_eq!(server.locks(), [""; 0]);
    });
}

#[test]
fn a_local_lock_too_is_looked_at_before_the_job_goes_on() {
    let host = Host::new();
    let (shell, job, written) =
        stopped(&host.golock().unset("HOST").unset("PORT").set("LOCAL", "yes").set("RELEASE", "2"));
    let since = Instant::now();
    until("RELEASE is over", || since.elapsed() > Duration::from_secs(2));
    assert_ends(&shell, job, written, "cronlock.job");
    host.assert_free();
}

#[test]
fn a_lock_that_another_has_taken_meanwhile_is_his() {
    let server = Server::start(&[]);
    let (shell, job, written) = stopped(&leasing(server.port(), "6"));
    take_over(&server, NAME);
    let since = Instant::now();
    // It need not ask before the time of its next renewal.
    until("a renewal is due", || since.elapsed() > Duration::from_secs(2));
    assert_ends(&shell, job, written, "another");
    assert_eq!(server.get(NAME).as_deref(), Some(SUCCESSOR));
}

#[test]
fn a_job_that_is_stopped_for_a_moment_keeps_its_lock() {
    let server = Server::start(&[]);
    let (shell, job, written) = stopped(&leasing(server.port(), "60"));
    let token = server.get(NAME);
    shell.line("fg");
    until("the job goes on", || goes_on(job) && ticks(&shell.notes) > written);
    assert!(token.is_some() && server.get(NAME) == token);
    shell.notes.write("open", "");
    assert_eq!(shell.ask("echo $?"), "7");
    assert_eq!(server.locks(), [""; 0]);
}

/// A prelude after which golock leads its session; and one after which it leads a process group below the leader, in
/// which the kernel lets it be stopped.
const ALONE: &str = ":";
const APART: &str = r#"exec perl -e 'if ($g = fork) { waitpid $g, 0; exit $? >> 8 } setpgrp; exec @ARGV' "$0" "$@""#;

/// A job without a terminal, the golock above it, and what it has written.
struct Bare {
    notes: Notes,
    session: crate::support::Running,
    golock: Pid,
    job: Pid,
}

impl Bare {
    #[track_caller]
    fn start(golock: &Golock, prelude: &str) -> Self {
        let notes = Notes::new();
        let session = golock.clone().prelude(prelude).args(notes.job(&format!(r#"{TICKING}"$0""#))).spawn();
        let job = notes.pid("pid");
        notes.lines("ticks", 1);
        Self { notes, session, golock: parent(job).unwrap(), job }
    }

    /// Sends a signal to golock alone.
    fn signal(&self, signal: Signal) {
        kill_process(self.golock, signal).unwrap();
    }

    /// Stops the job alone, whom nobody would continue.
    #[track_caller]
    fn stop(&self) {
        kill_process(self.job, Signal::STOP).unwrap();
        until("the job is stopped", || is_stopped(self.job));
    }
}

#[test]
fn without_a_terminal_a_stopped_job_stays_so_and_its_lease_is_renewed() {
    let server = Server::start(&[]);
    let bare = Bare::start(&leasing(server.port(), "3"), ALONE);
    bare.stop();
    let (written, token) = (ticks(&bare.notes), server.get(NAME));
    assert!(token.is_some());
    let is_lost = || server.get(NAME) != token || !is_stopped(bare.job) || is_stopped(bare.golock);
    assert!(!holds_within(Duration::from_secs(6), is_lost));
    assert_eq!(ticks(&bare.notes), written);
    kill_process(bare.job, Signal::CONT).unwrap();
    until("the job goes on", || ticks(&bare.notes) > written);
    bare.notes.write("open", "");
    bare.session.wait().assert_silent(7);
}

#[test]
fn without_a_terminal_a_stopped_job_does_not_stop_golock_where_it_could_be() {
    let server = Server::start(&[]);
    let bare = Bare::start(&leasing(server.port(), "3"), APART);
    let before = server.command_count("eval");
    bare.stop();
    until("the lease is renewed", || server.command_count("eval") > before + 1);
    assert!(is_stopped(bare.job) && goes_on(bare.golock));
    kill_process(bare.job, Signal::CONT).unwrap();
    bare.notes.write("open", "");
    bare.session.wait().assert_silent(7);
}

#[test]
fn a_stopped_job_is_ended_by_what_ends_a_job() {
    let server = Server::start(&[]);
    let signals = [(Signal::TERM, 5), (Signal::HUP, 129), (Signal::INT, 130), (Signal::QUIT, 131)];
    each(&signals, |&(signal, code)| {
        let golock = graceless(server.port()).set("KEY", format!("{signal:?}"));
        let bare = Bare::start(&golock, &pristine());
        bare.stop();
        bare.signal(signal);
        bare.session.wait().assert_silent(code);
        assert!(!is_alive(bare.job));
    });
    assert_eq!(server.locks(), [""; 0]);
}

#[test]
fn a_signal_of_the_users_own_does_not_wake_a_stopped_job() {
    let server = Server::start(&[]);
    let mut bare = Bare::start(&graceless(server.port()), ALONE);
    bare.stop();
    bare.signal(Signal::USR1);
    assert!(!holds_within(Duration::from_millis(200), || bare.session.has_ended() || !is_stopped(bare.job)));
    kill_process(bare.job, Signal::CONT).unwrap();
    bare.session.wait().assert_silent(138);
}

#[test]
fn a_stopped_job_is_ended_at_its_timeout_and_when_its_lease_is_lost() {
    each(&[("TIMEOUT", 202), ("LEASE", 201)], |&(reason, code)| {
        let server = Server::start(&[]);
        let golock = leasing(server.port(), if reason == "LEASE" { "3" } else { "0" });
        let golock = if reason == "TIMEOUT" { golock.set("TIMEOUT", "3").set("KILL_AFTER", EVER) } else { golock };
        let bare = Bare::start(&golock, ALONE);
        bare.stop();
        if reason == "LEASE" {
            take_over(&server, NAME);
        }
        bare.session.wait().assert_one_line(code, &[]);
        assert!(!is_alive(bare.job));
        // It was woken to end, and has had its time for that.
        assert_eq!(bare.notes.read("log"), "TERM\n");
    });
}

#[test]
fn a_job_that_stops_again_when_it_is_told_to_end_is_woken_again() {
    let server = Server::start(&[]);
    let notes = Notes::new();
    let job = r#"exec perl -e '
        my $folder = shift;
        $SIG{TERM} = sub { kill STOP => $$ for 1 .. 3; open my $file, ">", "$folder/log"; print $file "woken\n"; exit 5 };
        select(undef, undef, undef, 0.02) while -d $folder' "$0""#;
    let golock = graceless(server.port()).set("TIMEOUT", "1").set("KILL_AFTER", EVER);
    golock.args(notes.job(job)).run().assert_one_line(202, &["1 s"]);
    assert_eq!(notes.read("log"), "woken\n");
}

#[test]
fn golock_that_is_told_to_stop_stops_its_job_first() {
    let server = Server::start(&[]);
    let mut bare = Bare::start(&leasing(server.port(), "60"), APART);
    for _ in 0..3 {
        bare.signal(Signal::TSTP);
        until("both are stopped", || is_stopped(bare.job) && is_stopped(bare.golock));
        let written = ticks(&bare.notes);
        bare.signal(Signal::CONT);
        until("both go on", || goes_on(bare.golock) && ticks(&bare.notes) > written);
    }
    assert!(!bare.session.has_ended());
    bare.notes.write("open", "");
    bare.session.wait().assert_silent(7);
}

#[test]
fn a_job_that_was_stopped_until_its_renewal_is_due_keeps_its_lock() {
    let server = Server::start(&[]);
    let bare = Bare::start(&leasing(server.port(), "24"), APART);
    bare.signal(Signal::TSTP);
    until("both are stopped", || is_stopped(bare.job) && is_stopped(bare.golock));
    let (written, token) = (ticks(&bare.notes), server.get(NAME));
    // It is due after a third of the lease, and the job has to end after five sixths.
    until("a renewal is due", || server.pttl(NAME) < 15_500);
    bare.signal(Signal::CONT);
    until("the job goes on", || ticks(&bare.notes) > written);
    assert!(token.is_some() && server.get(NAME) == token && server.pttl(NAME) > 15_500);
    bare.notes.write("open", "");
    bare.session.wait().assert_silent(7);
}

#[test]
fn golock_that_is_told_to_stop_past_its_lease_ends_its_job() {
    let server = Server::start(&[]);
    let bare = Bare::start(&leasing(server.port(), "3"), APART);
    bare.signal(Signal::TSTP);
    until("both are stopped", || is_stopped(bare.job) && is_stopped(bare.golock));
    let written = ticks(&bare.notes);
    until("the lock is gone", || server.get(NAME).is_none());
    bare.signal(Signal::CONT);
    bare.session.wait().assert_one_line(201, &[NAME, "lost"]);
    assert!(!is_alive(bare.job));
    assert_eq!((ticks(&bare.notes), &*bare.notes.read("log")), (written, ""));
}

#[test]
fn a_job_that_another_has_continued_is_stopped_with_golock_all_the_same() {
    let server = Server::start(&[]);
    let bare = Bare::start(&leasing(server.port(), "60"), APART);
    bare.stop();
    kill_process(bare.job, Signal::CONT).unwrap();
    until("the job goes on", || goes_on(bare.job));
    bare.signal(Signal::TSTP);
    until("both are stopped", || is_stopped(bare.job) && is_stopped(bare.golock));
    let written = ticks(&bare.notes);
    bare.signal(Signal::CONT);
    until("both go on", || goes_on(bare.golock) && ticks(&bare.notes) > written);
    bare.notes.write("open", "");
    bare.session.wait().assert_silent(7);
}

#[test]
fn golock_that_alone_is_told_to_stop_stops_nobody_but_its_job() {
    let server = Server::start(&[]);
    let shell = shell(&graceless(server.port()));
    shell.line(r#"$G $J | sh -c 'echo $$ >"$D/other"; exec cat'"#);
    let (job, other) = (shell.job(), shell.notes.pid("other"));
    let golock = parent(job).unwrap();
    kill_process(golock, Signal::TSTP).unwrap();
    until("both are stopped", || is_stopped(job) && is_stopped(golock));
    assert!(!holds_within(Duration::from_millis(200), || is_stopped(other)));
    kill_process(golock, Signal::CONT).unwrap();
    until("the job goes on", || goes_on(job));
    shell.notes.write("open", "");
    assert_eq!(shell.ask("echo ${PIPESTATUS[0]}"), "7");
}

#[test]
fn golock_that_nobody_could_continue_is_not_stopped() {
    let server = Server::start(&[]);
    let bare = Bare::start(&graceless(server.port()), ALONE);
    bare.signal(Signal::TSTP);
    // The kernel does not let itself be stopped what would stay so for ever.
    let written = ticks(&bare.notes);
    until("the job goes on", || goes_on(bare.job) && ticks(&bare.notes) > written + 200);
    assert!(goes_on(bare.golock));
    bare.notes.write("open", "");
    bare.session.wait().assert_silent(7);
}

#[test]
fn a_stopped_job_does_not_keep_a_lost_golock() {
    let (server, job) = (Server::start(&[]), Job::exits(0));
    let bare = Bare::start(&leasing(server.port(), "3"), ALONE);
    bare.stop();
    bare.signal(Signal::KILL);
    until("the kernel has killed the job, too", || !is_alive(bare.job));
    leasing(server.port(), "3").set("WAIT", "1000").args(job.command()).run().assert_silent(0);
}
