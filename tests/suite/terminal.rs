//! golock on a terminal without a shell: the job reads there, the keyboard's signals reach all of it once, and so do the
//! ends that golock makes.

use rustix::process::{Signal, kill_process};

use crate::support::desk::{CTRL_C, Desk};
use crate::support::job_tools::{Notes, WHILE_NOTED, graceless, sleeps, status};
use crate::support::successor::{SUCCESSOR, take_over};
use crate::support::tenant::{NAME, OBEDIENT, STUBBORN, Tenant, leasing};
use crate::support::watch::{is_alive, parent};
use crate::support::{Golock, Server, each, until};

/// Waits until the job of these notes runs, and golock watches over it.
#[track_caller]
fn wait_running(notes: &Notes) {
    let job = notes.pid("pid");
    until("golock watches over its job", || parent(job).is_some_and(|golock| sleeps(&status(golock))));
}

#[test]
fn the_job_reads_from_the_terminal() {
    // From its input, or whatever that is, by the terminal's name.
    let ways = [("", "read line"), ("</dev/null", "read line </dev/tty"), ("<&-", "read line </dev/tty")];
    let cases = ways.iter().flat_map(|way| ["0", "60"].map(|lease| (way, lease))).collect::<Vec<_>>();
    each(&cases, |&(&(stdin, read), lease)| {
        let server = Server::start(&[]);
        let (desk, notes) = (Desk::new(), Notes::new());
        let job = notes.job(&format!(r#"echo $$ >"$0/pid"; {read}; echo "read $line"; exit 7"#));
        let running = desk.at(stdin, graceless(server.port())).set("LEASE", lease).args(job).spawn();
        notes.pid("pid");
        desk.hit("this\n");
        let done = running.wait();
        assert_eq!((done.code, &*done.stdout, &*done.stderr), (7, "read this\n", ""));
        assert_eq!(server.locks(), [""; 0]);
    });
}

#[test]
fn the_job_does_not_get_golocks_own_descriptor_of_the_terminal() {
    let server = Server::start(&[]);
    let (desk, notes) = (Desk::new(), Notes::new());
    let list = notes.job(r#"ls -l /proc/self/fd >"$0/list""#);
    desk.at("", graceless(server.port())).args(list).run().assert_silent(0);
    let list = notes.read("list");
    assert!(list.contains(" -> /dev/pts/") && !list.contains(" -> /dev/tty"), "{list}");
}

#[test]
fn a_command_that_cannot_be_started_leaves_no_grace() {
    let server = Server::start(&[]);
    let (desk, notes) = (Desk::new(), Notes::new());
    let broken = notes.executable("broken.sh", "#!/no/such/interpreter\n");
    let done = desk.at("", Golock::new(server.port())).args([broken]).run();
    done.assert_one_line(127, &["broken.sh did not run", "No such file or directory"]);
    assert_eq!(server.locks(), [""; 0]);
}

#[test]
fn the_keyboards_interrupt_ends_the_job_and_frees_the_lock() {
    each(&["0", "60"], |lease| {
        let server = Server::start(&[]);
        let (desk, notes) = (Desk::new(), Notes::new());
        let job = notes.job(r#"echo $$ >"$0/pid"; read line"#);
        let running = desk.at("", graceless(server.port())).set("LEASE", lease).args(job).spawn();
        wait_running(&notes);
        desk.hit(CTRL_C);
        // It leads the session: there is nobody who had to see golock die of the signal.
        running.wait().assert_silent(130);
        assert_eq!(server.locks(), [""; 0]);
    });
}

#[test]
fn one_key_is_one_signal_to_the_whole_job() {
    let server = Server::start(&[]);
    each(&["", "</dev/null"], |stdin| {
        let (desk, notes) = (Desk::new(), Notes::new());
        // perl does not fork, and its handler runs once for each signal, if they come one at a time.
        let counts = |name: &str| {
            format!(
                r#"perl -e '$SIG{{INT}} = sub {{ open F, ">>", "$ARGV[0]/{name}"; print F "int\n"; close F }};
                open F, ">", "$ARGV[0]/{name}.up"; close F; select(undef, undef, undef, 0.02) while -d $ARGV[0] && !-e "$ARGV[0]/open"' "$0""#
            )
        };
        // A shell without job control starts what runs in its background with the interrupt ignored; perl resets that.
        let job = format!("echo $$ >\"$0/pid\"; {} & {}; wait; exit 7", counts("child"), counts("parent"));
        let golock = graceless(server.port()).set("KEY", stdin);
        let running = desk.at(stdin, golock).args(notes.job(&job)).spawn();
        wait_running(&notes);
        for count in 1..=3 {
            until("both are up", || ["child.up", "parent.up"].iter().all(|up| notes.path(up).exists()));
            desk.hit(CTRL_C);
            for name in ["child", "parent"] {
                assert_eq!(notes.lines(name, count).len(), count);
            }
        }
        notes.write("open", "");
        running.wait();
        for name in ["child", "parent"] {
            assert_eq!(notes.lines(name, 3).len(), 3);
        }
    });
}

/// A job whose child, in its group, does not end when its parent does, or when it is told to.
fn family(notes: &Notes, parent: &str) -> Vec<std::ffi::OsString> {
    let child = format!(r#"sh -c 'trap "" HUP INT TERM; echo $$ >"$0/child"; {WHILE_NOTED}; : >"$0/done"' "$0" &"#);
    notes.job(&format!(r#"exec 2>"$0/err"; {child} {parent}; echo $$ >"$0/pid"; {WHILE_NOTED}; exit 7"#))
}

#[test]
fn at_the_timeout_all_of_the_job_is_gone_before_the_lock_is_free() {
    let cases = [("", "0"), ("</dev/null", "0"), ("", "1"), ("</dev/null", "1")];
    each(&cases, |&(stdin, kill_after)| {
        let server = Server::start(&[]);
        let (desk, notes, next) = (Desk::new(), Notes::new(), Notes::new());
        let golock = graceless(server.port()).set("KEY", "family");
        let limited = golock.clone().set("TIMEOUT", "3").set("KILL_AFTER", kill_after);
        let running = desk.at(stdin, limited).args(family(&notes, ":")).spawn();
        let child = notes.pid("child");
        let look = format!(r#"kill -0 {child} && echo overlap >"$0/overlap"; exit 8"#);
        let waiting = golock.set("WAIT", "1000").args(next.job(&look)).spawn();
        running.wait().assert_one_line(202, &["sh", "3 s"]);
        assert!(!is_alive(child));
        assert_eq!(waiting.wait().code, 8);
        assert!(!next.path("overlap").exists());
        assert!(!notes.path("done").exists());
    });
}

#[test]
fn when_its_lease_is_lost_all_of_the_job_is_ended_on_a_terminal_too() {
    each(&["", "</dev/null"], |stdin| {
        let server = Server::start(&[]);
        let (desk, notes) = (Desk::new(), Notes::new());
        let golock = desk.at(stdin, leasing(server.port(), "3")).set("KILL_AFTER", "1");
        let running = golock.args(family(&notes, r#"trap "" TERM"#)).spawn();
        let (parent, child) = (notes.pid("pid"), notes.pid("child"));
        take_over(&server, NAME);
        running.wait().assert_one_line(201, &[NAME, "lost"]);
        assert!(!is_alive(parent) && !is_alive(child));
        assert_eq!(server.get(NAME).as_deref(), Some(SUCCESSOR));
    });
}

#[test]
fn on_a_terminal_a_job_is_told_to_end_before_it_is_killed() {
    let server = Server::start(&[]);
    let desk = Desk::new();
    let tenant = Tenant::start(&desk.at("", leasing(server.port(), "3")), OBEDIENT);
    take_over(&server, NAME);
    tenant.golock.wait().assert_one_line(201, &[NAME, "lost"]);
    assert_eq!(tenant.notes.read("log"), "TERM\n");
}

/// As a shell does it: what was killed could not, as a prompt for a password or an editor.
#[test]
fn the_modes_of_a_job_that_dies_of_a_signal_die_with_it() {
    let server = Server::start(&[]);
    let ends =
        [("kill -9 $$", "0", 137), ("kill -TERM $$", "0", 143), ("exec sleep 1000", "1", 202), ("exit 3", "0", 3)];
    each(&ends, |&(end, timeout, code)| {
        for lease in ["0", "60"] {
            let (desk, notes) = (Desk::new(), Notes::new());
            let golock = graceless(server.port()).set("LEASE", lease).set("TIMEOUT", timeout);
            let done = desk.at("", golock).args(notes.job(&format!("stty -echo -icanon; {end}"))).run();
            // What exits has set them for good.
            assert_eq!((done.code, desk.is_in_order()), (code, code != 3), "{end}");
        }
    });
}

#[test]
fn on_a_terminal_golock_forwards_the_signals_that_others_send() {
    let server = Server::start(&[]);
    let desk = Desk::new();
    let tenant = Tenant::start(&desk.at("", leasing(server.port(), "60")), STUBBORN);
    for count in 1..=2 {
        kill_process(tenant.golock.pid(), Signal::TERM).unwrap();
        tenant.notes.lines("log", count);
    }
    tenant.finish();
    assert_eq!(server.locks(), [""; 0]);
}
