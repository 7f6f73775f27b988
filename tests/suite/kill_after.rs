//! TIMEOUT with `KILL_AFTER`: the job's group is told to end, has its time for that, and is killed if it needs more.

use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, geteuid, getpgid, kill_process};

use crate::quiet::may_trace;
use crate::support::job_tools::{EVER, Notes, WHILE_NOTED, graceless, quoted};
use crate::support::tenant::{NAME, OBEDIENT, STEADY, STUBBORN, Tenant, job, leasing};
use crate::support::wait::holds_within;
use crate::support::watch::{children, is_alive, is_asleep, wake_ups};
use crate::support::{Golock, Job, Server, each, until};

/// golock with these limits.
fn limited(server: &Server, timeout: &str, kill_after: &str) -> Golock {
    graceless(server.port()).set("KEY", "leased").set("TIMEOUT", timeout).set("KILL_AFTER", kill_after)
}

#[test]
fn a_job_that_obeys_is_told_to_end_and_one_that_does_not_is_killed() {
    each(&[(OBEDIENT, EVER, "TERM\n"), (STUBBORN, "1", "TERM\n"), (STEADY, EVER, "")], |&(character, span, log)| {
        let server = Server::start(&[]);
        let tenant = Tenant::start(&limited(&server, "2", span), character);
        tenant.golock.wait().assert_one_line(202, &["sh", "2 s"]);
        assert_eq!(tenant.notes.read("log"), log);
        assert!(!is_alive(tenant.job));
        assert_eq!(server.locks(), [""; 0]);
    });
}

#[test]
fn a_job_that_ends_before_its_timeout_is_not_told_anything() {
    let server = Server::start(&[]);
    Tenant::start(&limited(&server, EVER, EVER), OBEDIENT).finish();
}

#[test]
fn without_anything_that_stops_the_job_kill_after_is_refused() {
    let server = Server::start(&[]);
    let job = Job::exits(7);
    let golock = graceless(server.port()).set("KILL_AFTER", "1").args(job.command());
    golock.run().assert_one_line(201, &["sh did not run", "CRONLOCK_KILL_AFTER", "CRONLOCK_TIMEOUT"]);
    assert_eq!((job.runs(), server.connections_received()), (0, 0));
    golock.set("TIMEOUT", EVER).run().assert_silent(7);
}

/// A job that dies of SIGTERM, and its child, which does this instead, and whose process id is in the note `child`.
fn family(does: &str) -> String {
    format!(r#"sh -c 'exec 2>>"$0/err"; {does}; echo $$ >"$0/child"; {WHILE_NOTED}; echo done >"$0/done"' "$0" &"#)
}

/// The job of a family, whose first process has died at its TIMEOUT, while the child goes on.
struct Orphaned {
    tenant: Tenant,
    child: Pid,
}

impl Orphaned {
    #[track_caller]
    fn new(golock: &Golock, child_does: &str) -> Self {
        let tenant = Tenant::start(golock, &family(child_does));
        let child = tenant.notes.pid("child");
        until("the first process has died", || !tenant.lives());
        Self { tenant, child }
    }
}

#[test]
fn a_child_that_cleans_up_when_its_parent_has_died_gets_its_time() {
    each(&["0", "60"], |lease| {
        let server = Server::start(&[]);
        let golock = limited(&server, "2", EVER).set("LEASE", lease);
        let Orphaned { mut tenant, child } = Orphaned::new(&golock, r#"trap "echo TERM >>$0/log" TERM"#);
        until("the child is told", || tenant.is_told());
        assert!(is_alive(child) && !tenant.golock.has_ended() && server.get(NAME).is_some());
        tenant.notes.write("open", "");
        // With the child the group ends, and golock does not wait for the rest of KILL_AFTER.
        tenant.golock.wait().assert_one_line(202, &["sh"]);
        assert_eq!(tenant.notes.read("done"), "done\n");
        assert_eq!(server.locks(), [""; 0]);
    });
}

#[test]
fn a_child_that_ignores_everything_is_killed_with_the_group() {
    let server = Server::start(&[]);
    let Orphaned { tenant, child } = Orphaned::new(&limited(&server, "2", "1"), r#"trap "" HUP INT QUIT TERM"#);
    tenant.golock.wait().assert_one_line(202, &["sh"]);
    until("the child is gone", || !is_alive(child));
    assert!(!tenant.notes.path("done").exists());
}

#[test]
fn a_signal_reaches_what_is_left_of_the_group() {
    let server = Server::start(&[]);
    let child = r#"trap "" TERM; trap "exit" USR1"#;
    let Orphaned { tenant, child } = Orphaned::new(&limited(&server, "2", EVER), child);
    tenant.golock.signal(Signal::USR1);
    tenant.golock.wait().assert_one_line(202, &["sh"]);
    assert!(!is_alive(child));
}

#[test]
fn a_daemon_that_has_left_the_group_lives_on_and_does_not_hold_golock_up() {
    each(&["0", "60"], |lease| {
        let server = Server::start(&[]);
        let daemon = format!(r#"setsid sh -c 'echo $$ >"$0/daemon"; {WHILE_NOTED}' "$0" &"#);
        let golock = limited(&server, "2", EVER).set("LEASE", lease);
        let tenant = Tenant::start(&golock, &daemon);
        let daemon = tenant.notes.pid("daemon");
        assert_ne!(getpgid(Some(daemon)).unwrap(), tenant.job);
        tenant.golock.wait().assert_one_line(202, &["sh"]);
        assert!(is_alive(daemon));
        tenant.notes.write("open", "");
        until("the daemon ends", || !is_alive(daemon));
    });
}

#[test]
fn orphans_are_reaped_while_the_job_runs() {
    let server = Server::start(&[]);
    let golocks = [limited(&server, EVER, EVER), leasing(server.port(), "60").set("KEY", "other")];
    for golock in golocks {
        let orphans = r#"for i in 1 2 3 4 5 6 7 8 9; do (sleep 0 & echo "$!" >>"$0/orphans"); done"#;
        let tenant = Tenant::start(&golock, orphans);
        assert_eq!(tenant.notes.lines("orphans", 9).len(), 9);
        until("golock has no other child", || children(tenant.golock.pid()) == [tenant.job]);
        assert!(!holds_within(Duration::from_millis(100), || children(tenant.golock.pid()) != [tenant.job]));
        tenant.finish();
    }
}

#[test]
fn a_job_that_ends_by_itself_is_not_waited_for_beyond_that() {
    let server = Server::start(&[]);
    for golock in [limited(&server, EVER, EVER), leasing(server.port(), "60")] {
        let tenant = Tenant::start(&golock, &family(":").replace("/open", "/later"));
        let child = tenant.notes.pid("child");
        let notes = tenant.notes.path("later");
        // Its notes stay until the child has ended, too.
        tenant.notes.write("open", "");
        tenant.golock.wait().assert_silent(7);
        assert!(is_alive(child));
        fs::write(notes, "").unwrap();
        until("the child ends", || !is_alive(child));
    }
}

#[test]
fn the_lock_is_held_while_the_job_has_its_time() {
    let server = Server::start(&[]);
    let notes = Notes::new();
    let golock = limited(&server, "1", EVER).args(job(&notes, STUBBORN)).spawn();
    notes.wait_for("log", |log| log == "TERM\n");
    graceless(server.port()).set("KEY", "leased").args(["true"]).run().assert_silent(200);
    notes.write("open", "");
    golock.wait().assert_one_line(202, &["sh"]);
    assert_eq!(server.locks(), [""; 0]);
}

/// Of root's rights, that to signal everybody is gone.
const MAY_NOT_KILL: &str = r#"exec setpriv --bounding-set=-kill "$0" "$@""#;

/// A process that becomes another user's, and lasts as long as the file that it is given.
const OTHERS: &str = r"$< = $> = 65534; select(undef, undef, undef, 0.02) while -e $ARGV[0]";

/// That of the job, and a golock that may signal only its own.
#[test]
fn a_job_that_golock_may_not_kill_is_waited_for_at_rest_and_told() {
    if !geteuid().is_root() {
        return println!("skipped: only root can start what becomes another user's");
    }
    each(&["0", "1"], |kill_after| {
        let (server, notes) = (Server::start(&[]), Notes::new());
        notes.write("stay", "");
        fs::set_permissions(notes.folder(), Permissions::from_mode(0o755)).unwrap();
        let golock = limited(&server, "4", kill_after).prelude(MAY_NOT_KILL);
        let perl = ["perl", "-e", OTHERS].map(OsString::from);
        let running = golock.args(perl.into_iter().chain([notes.path("stay").into()])).spawn();
        // By then its time was up, and so was that for its group.
        thread::sleep(Duration::from_secs(8));
        until("golock sleeps", || is_asleep(running.pid()));
        let before = wake_ups(running.pid());
        assert!(!holds_within(Duration::from_millis(500), || wake_ups(running.pid()) != before), "golock woke up");
        fs::remove_file(notes.path("stay")).unwrap();
        running
            .wait()
            .assert_one_line(202, &["perl had to end after 4 s, and no signal reached it: it runs as another user"]);
        assert_eq!(server.locks(), [""; 0]);
    });
}

/// A process of the group that has become another user's, and a golock that may signal only its own.
#[test]
fn a_child_that_golock_may_not_kill_does_not_hold_it_up_for_ever() {
    if !geteuid().is_root() {
        return println!("skipped: only root can start what becomes another user's");
    }
    let server = Server::start(&[]);
    let other = r#"$< = $> = 65534; select(undef, undef, undef, 0.02) while -e "/proc/$ARGV[0]""#;
    let child = format!(r#"perl -e '{other}' {} & echo "$!" >"$0/child"; "#, std::process::id());
    let golock = limited(&server, "2", "0").prelude(MAY_NOT_KILL);
    let tenant = Tenant::start(&golock, &child);
    let child = tenant.notes.pid("child");
    tenant.golock.wait().assert_one_line(202, &["sh"]);
    assert!(is_alive(child));
    kill_process(child, Signal::KILL).unwrap();
    assert_eq!(server.locks(), [""; 0]);
}

#[test]
fn what_reaches_the_group_is_not_sent_to_the_job_once_more() {
    if !may_trace() {
        return println!("skipped: no process may trace another here");
    }
    let (server, notes) = (Server::start(&[]), Notes::new());
    let strace = format!(r#"exec strace -qq -e trace=kill -o {} "$0" "$@""#, quoted(&notes.path("trace")));
    let job = format!(r#"exec 2>"$0/err"; trap "exit 5" TERM; kill -TERM $PPID; {WHILE_NOTED}"#);
    graceless(server.port()).prelude(&strace).args(notes.job(&job)).run().assert_silent(5);
    let trace = notes.lines("trace", 1);
    let calls: Vec<_> = trace.iter().filter(|line| line.starts_with("kill(")).collect();
    assert!(!calls.is_empty() && calls.iter().all(|call| call.starts_with("kill(-")), "{calls:?}");
}

/// A job that joins another process group, with or without others that stay in its own.
const DESERTER: &str = r#"exec perl -e '
    my ($folder, $stays) = @ARGV;
    sub wait_while { select(undef, undef, undef, 0.02) while -d $folder && !-e "$folder/$_[0]" }
    if ($stays && !fork) { wait_while("open"); exit }
    my $other = fork;
    if (!$other) { setpgrp; open my $up, ">", "$folder/up"; wait_while("open"); exit }
    wait_while("up");
    setpgrp 0, $other or die;
    $SIG{USR1} = sub { open my $log, ">>", "$folder/log"; print $log "USR1\n" };
    $SIG{TERM} = "IGNORE";
    open my $pid, ">", "$folder/pid"; print $pid "$$\n"; close $pid;
    wait_while("open")' "$0" "#;

#[test]
fn a_job_that_has_left_its_group_is_signalled_and_killed_too() {
    let server = Server::start(&[]);
    each(&["", "stays"], |stays| {
        let notes = Notes::new();
        let golock = limited(&server, "5", "1").set("KEY", stays).args(notes.job(&format!("{DESERTER}{stays}")));
        let golock = golock.spawn();
        let job = notes.pid("pid");
        if stays.is_empty() {
            golock.signal(Signal::USR1);
            assert_eq!(notes.lines("log", 1), ["USR1"]);
        }
        golock.wait().assert_one_line(202, &["sh"]);
        assert!(!is_alive(job));
        notes.write("open", "");
    });
}
