//! golock at the prompt of a shell with job control: the keys do to its job what they do to any other program, and the
//! shell sees what has become of it.

use rustix::process::{Pid, Signal, kill_process};

use crate::support::desk::{CTRL_BACKSLASH, CTRL_C, CTRL_D, CTRL_Z, Desk, Shell};
use crate::support::job_tools::{field, graceless, status};
use crate::support::successor::take_over;
use crate::support::wait::holds_within;
use crate::support::watch::{is_alive, parent};
use crate::support::{Golock, Server, each, until};
use std::time::Duration;

/// A job that says which process it is and goes on until the test is over. It ends with code 7. It starts nothing: what is
/// stopped between vfork and exec keeps its parent from being stopped, whatever that is.
const JOB: &str = r#"echo $$ >>"$D/pid"
exec perl -e 'select(undef, undef, undef, 0.02) while -d $ENV{D} && !-e "$ENV{D}/open"; exit 7'"#;

/// A shell in which `$J` is that job.
pub(crate) fn shell(golock: &Golock) -> Shell {
    let shell = Shell::start(&golock.clone().env("J", "job"));
    shell.notes.write("job", JOB);
    shell.ask(r#"J="sh $D/job""#);
    shell
}

/// Whether a process is stopped.
pub(crate) fn is_stopped(pid: Pid) -> bool {
    let status = status(pid);
    !status.is_empty() && field(&status, "State").starts_with('T')
}

/// Whether it is there and not stopped.
pub(crate) fn goes_on(pid: Pid) -> bool {
    is_alive(pid) && !is_stopped(pid)
}

/// Stops the job by the keyboard, and sees that the shell knows.
#[track_caller]
pub(crate) fn stop(shell: &Shell, job: Pid) {
    shell.desk.hit(CTRL_Z);
    let jobs = shell.ask("jobs");
    assert!(jobs.contains("Stopped"), "{jobs}");
    until("the job is stopped", || is_stopped(job));
}

/// Brings it back to the foreground.
#[track_caller]
pub(crate) fn continue_in_foreground(shell: &Shell, job: Pid) {
    shell.line("fg");
    // A shell does not tell a job that already goes on of its foreground: then golock has it until the job wants it.
    until("golock or its job has the terminal", || !shell.has_terminal() && goes_on(job));
}

/// Interrupts it by the keyboard, and returns the code that the shell sees.
#[track_caller]
pub(crate) fn interrupt(shell: &Shell) -> String {
    shell.desk.hit(CTRL_C);
    shell.ask("echo $?")
}

/// Ways to run golock, with the job as `$J`.
const WAYS: &[&str] = &[
    "$G $J",
    "$G $J | cat",
    ": | $G $J",
    "$G $J </dev/null",
    "echo $D/job | xargs $G sh",
    "echo $D/job | xargs -I FILE sh -c '$G sh FILE'",
    "printf 'a\\nb\\n' | while read line; do $G $J; done",
    "while read line; do $G $J; done <<<a",
    "for each in a b; do $G $J; done",
    "($G $J)",
    "sh -c '$G $J; echo after'",
    "bash -c '$G $J; echo after'",
    "$G $J >/dev/null 2>&1",
    "$G $J && echo after",
    "nice $G $J",
    "timeout 1000000 $G $J",
    "$G --key outer $G --key inner $J",
];

#[test]
fn a_job_is_stopped_continued_and_interrupted_by_the_keyboard() {
    let server = Server::start(&[]);
    each(WAYS, |way| {
        let shell = shell(&graceless(server.port()).set("KEY", way));
        shell.line(way);
        let job = shell.job();
        stop(&shell, job);
        continue_in_foreground(&shell, job);
        stop(&shell, job);
        continue_in_foreground(&shell, job);
        assert_eq!(interrupt(&shell), "130", "{}", shell.desk.shown());
        assert!(!is_alive(job));
        assert!(!shell.desk.shown().contains("\nafter"), "{}", shell.desk.shown());
        assert_eq!(shell.ask("jobs"), "");
    });
    assert_eq!(server.locks(), [""; 0]);
}

/// Before there is a job, Ctrl-C is golock's, and a loop has to see it die of it.
#[test]
fn an_interrupt_before_the_job_ends_the_loop() {
    let server = Server::start(&[]);
    take_over(&server, "cronlock.taken");
    let waiting = graceless(server.port()).set("KEY", "taken").set("WAIT", "1000").set("VERBOSE", "yes");
    each(&["$G true", "bash -c 'for i in 1 2; do $G true; done; echo again'", "$G true </dev/null"], |way| {
        let shell = Shell::start(&waiting);
        shell.line(&format!("for i in 1 2; do {way}; echo again; done"));
        until("it waits", || shell.desk.shown().contains(": held by "));
        assert_eq!(interrupt(&shell), "130", "{}", shell.desk.shown());
        assert!(!shell.desk.shown().contains("\nagain"), "{}", shell.desk.shown());
    });
}

#[test]
fn a_job_that_was_stopped_ends_with_its_own_code() {
    let server = Server::start(&[]);
    let shell = shell(&graceless(server.port()));
    shell.line("$G $J");
    let job = shell.job();
    stop(&shell, job);
    continue_in_foreground(&shell, job);
    shell.notes.write("open", "");
    assert_eq!(shell.ask("echo $?"), "7");
    assert_eq!(server.locks(), [""; 0]);
}

#[test]
fn a_job_in_the_background_is_brought_to_the_foreground_and_sent_back() {
    let server = Server::start(&[]);
    let shell = shell(&graceless(server.port()));
    shell.line("$G $J &");
    let job = shell.notes.pid("pid");
    assert!(shell.ask("jobs").contains("Running"));
    continue_in_foreground(&shell, job);
    stop(&shell, job);
    assert!(shell.ask("bg; jobs").contains("Running"));
    until("the job goes on", || goes_on(job));
    continue_in_foreground(&shell, job);
    assert_eq!(interrupt(&shell), "130");
    assert_eq!(server.locks(), [""; 0]);
}

#[test]
fn in_the_background_the_terminal_is_left_alone() {
    let server = Server::start(&[]);
    let shell = shell(&graceless(server.port()));
    shell.line("$G $J &");
    let job = shell.notes.pid("pid");
    // The shell still gets what is typed, and the job nothing of it.
    for _ in 0..3 {
        shell.interrupt_at_prompt();
        assert!(shell.ask("jobs").contains("Running"));
    }
    assert_ne!(shell.desk.foreground(), Some(job));
    shell.notes.write("open", "");
    assert_eq!(shell.ask("wait $!; echo $?").lines().last(), Some("7"));
}

#[test]
fn a_job_in_the_background_that_reads_waits_for_the_foreground() {
    let server = Server::start(&[]);
    each(&["</dev/null", ""], |stdin| {
        let shell = shell(&graceless(server.port()).set("KEY", stdin));
        shell.notes.write("job", r#"echo $$ >"$D/pid"; read line </dev/tty; echo "read $line" >"$D/line"; exit 7"#);
        shell.line(&format!("$G $J {stdin} &"));
        let job = shell.notes.pid("pid");
        until("the shell knows", || shell.ask("jobs").contains("Stopped"));
        continue_in_foreground(&shell, job);
        shell.line("this");
        assert_eq!(shell.ask("echo $?"), "7");
        assert_eq!(shell.notes.read("line"), "read this\n");
    });
}

#[test]
fn what_the_shell_sends_to_a_stopped_job_ends_it() {
    let server = Server::start(&[]);
    each(&["kill %1", "kill -HUP %1", "kill -INT %1; fg", "kill -USR1 %1; fg"], |kill| {
        let shell = shell(&graceless(server.port()).set("KEY", kill));
        shell.line("$G $J");
        let job = shell.job();
        stop(&shell, job);
        shell.line(kill);
        until("the job is gone", || !is_alive(job));
        until("the shell knows", || shell.ask("jobs").is_empty());
    });
    assert_eq!(server.locks(), [""; 0]);
}

#[test]
fn whoever_is_stopped_by_another_is_a_stopped_job_too() {
    let server = Server::start(&[]);
    // golock itself, or its job; by a signal that can be handled, or by one that cannot.
    let cases = [(true, Signal::TSTP), (true, Signal::STOP), (false, Signal::TSTP), (false, Signal::STOP)];
    each(&cases, |&(golock, signal)| {
        let shell = shell(&graceless(server.port()).set("KEY", format!("{golock} {signal:?}")));
        shell.line("$G $J");
        let job = shell.job();
        let golock = if golock { parent(job) } else { None };
        kill_process(golock.unwrap_or(job), signal).unwrap();
        assert!(shell.ask("jobs").contains("Stopped"));
        continue_in_foreground(&shell, job);
        assert_eq!(interrupt(&shell), "130");
    });
    assert_eq!(server.locks(), [""; 0]);
}

#[test]
fn at_one_interrupt_a_list_of_golocks_ends() {
    let server = Server::start(&[]);
    let lists = [
        "for each in a b; do $G $J; done",
        "while :; do $G $J; done",
        "sh -c 'for each in a b; do $G $J; done'",
        "sh -c '$G $J; $G $J'",
        "$G --key a $J | $G --key b sh -c 'echo $$ >$D/second; exec sleep 1000000'",
    ];
    each(&lists, |list| {
        let shell = shell(&graceless(server.port()).set("KEY", list));
        shell.line(list);
        let job = shell.job();
        if list.contains("second") {
            // A process that the shell has just started may still have the shell's own way with an interrupt.
            shell.notes.pid("second");
        }
        assert_eq!(interrupt(&shell), "130");
        assert!(!is_alive(job));
        assert_eq!(shell.notes.lines("pid", 1).len(), 1);
    });
    until("the locks are released", || server.locks().is_empty());
}

#[test]
fn a_job_that_does_something_else_at_an_interrupt_does_not_end_the_list() {
    let server = Server::start(&[]);
    let shell = shell(&graceless(server.port()));
    let handling =
        r#"trap 'echo interrupted >>"$D/log"; exit 3' INT; echo $$ >>"$D/pid"; while :; do sleep 0.02; done"#;
    shell.notes.write("job", handling);
    shell.line("for each in a b; do $G $J; echo $? >>$D/codes; done");
    for count in 1..=2 {
        shell.notes.lines("pid", count);
        shell.desk.hit(CTRL_C);
        assert_eq!(shell.notes.lines("codes", count), vec!["3"; count]);
    }
    // One key is one signal.
    assert_eq!(shell.notes.lines("log", 2).len(), 2);
}

#[test]
fn a_script_that_runs_golock_in_its_background_can_be_interrupted() {
    let server = Server::start(&[]);
    // A shell without job control has no other process group for its background.
    let scripts = [("sh -c '$G $J & wait; echo after'", 1), ("bash -c '$G --key a $J & $G --key b $J & wait'", 2)];
    each(&scripts, |&(script, jobs)| {
        let shell = shell(&graceless(server.port()).set("KEY", script));
        shell.line(script);
        shell.notes.lines("pid", jobs);
        assert_eq!(interrupt(&shell), "130", "{}", shell.desk.shown());
        shell.notes.write("open", "");
    });
}

#[test]
fn a_script_reads_from_the_terminal_while_golock_runs_in_its_background() {
    let server = Server::start(&[]);
    let shell = shell(&graceless(server.port()));
    shell.line(r#"sh -c '$G $J & read one; read two; echo "read $one $two" >$D/lines; wait'"#);
    shell.notes.pid("pid");
    shell.line("this");
    shell.line("that");
    shell.notes.lines("lines", 1);
    assert_eq!(shell.notes.read("lines"), "read this that\n");
    shell.notes.write("open", "");
    shell.wait_for_prompt();
}

#[test]
fn a_quit_from_the_keyboard_ends_the_job_with_its_code() {
    let server = Server::start(&[]);
    let shell = shell(&graceless(server.port()));
    shell.line("ulimit -c 0; $G $J");
    shell.job();
    shell.desk.hit(CTRL_BACKSLASH);
    assert_eq!(shell.ask("echo $?"), "131");
    assert_eq!(server.locks(), [""; 0]);
}

#[test]
fn when_the_terminal_goes_away_the_job_ends_and_the_lock_is_released() {
    each(&[false, true], |&stopped| {
        let server = Server::start(&[]);
        let mut shell = shell(&graceless(server.port()));
        shell.line("$G $J");
        let job = shell.job();
        if stopped {
            stop(&shell, job);
        }
        assert!(!server.locks().is_empty());
        shell.desk = Desk::new();
        until("the job is gone", || !is_alive(job));
        until("the lock is released", || server.locks().is_empty());
    });
}

#[test]
fn a_shell_under_golock_has_jobs_of_its_own() {
    let server = Server::start(&[]);
    let shell = shell(&graceless(server.port()));
    shell.line("$G bash --norc --noprofile --noediting -i");
    shell.line("echo $$ >$D/inner");
    let inner = shell.notes.pid("inner");
    shell.desk.wait_for(inner);
    shell.line("sh $D/job");
    let job = shell.job();
    shell.desk.hit(CTRL_Z);
    until("the job is stopped", || is_stopped(job));
    shell.desk.wait_for(inner);
    assert!(shell.answer("jobs").contains("Stopped"));
    continue_in_foreground(&shell, job);
    shell.desk.hit(CTRL_C);
    until("the job is gone", || !is_alive(job));
    shell.desk.wait_for(inner);
    // The shell stops itself, and is golock's job.
    shell.line("suspend");
    assert!(shell.ask("jobs").contains("Stopped"));
    shell.line("fg");
    shell.desk.wait_for(inner);
    shell.line("exit 5");
    assert_eq!(shell.ask("echo $?"), "5");
    assert_eq!(server.locks(), [""; 0]);
}

#[test]
fn in_a_terminal_within_a_terminal_it_is_the_same() {
    let server = Server::start(&[]);
    let shell = shell(&graceless(server.port()));
    shell.line(r#"script -qc "bash --norc --noprofile --noediting -i" /dev/null"#);
    shell.line("echo $$ >$D/inner");
    let inner = shell.notes.pid("inner");
    shell.line("$G sh $D/job");
    let job = shell.notes.pid("pid");
    until("the job has the inner terminal", || has_terminal(job));
    shell.desk.hit(CTRL_Z);
    until("the job is stopped", || is_stopped(job));
    until("the shell has its terminal back", || has_terminal(inner));
    assert!(shell.answer("jobs").contains("Stopped"));
    shell.line("fg");
    until("the job goes on", || goes_on(job) && has_terminal(job));
    shell.desk.hit(CTRL_C);
    until("the shell has its terminal back", || has_terminal(inner));
    assert_eq!(shell.answer("echo $?"), "130");
    shell.line("exit");
    assert_eq!(shell.ask("jobs"), "");
    assert_eq!(server.locks(), [""; 0]);
}

/// Whether the group that this process leads is in the foreground of its terminal.
fn has_terminal(leader: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{leader}/stat")).unwrap_or_default();
    // After the name: state, parent, group, session, terminal, foreground group (proc(5)).
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.split(' ').nth(5) == Some(&leader.to_string()))
}

#[test]
fn a_terminal_without_a_shell_stops_nothing() {
    let server = Server::start(&[]);
    let shell = shell(&graceless(server.port()));
    // As by ssh -t: golock leads the session, so that nobody could ever continue it.
    shell.line(r#"script -qc "$G sh $D/job" /dev/null"#);
    let job = shell.notes.pid("pid");
    until("the job has the inner terminal", || has_terminal(job));
    shell.desk.hit(CTRL_Z);
    assert!(!holds_within(Duration::from_millis(300), || !is_alive(job)));
    until("the job goes on", || goes_on(job) && has_terminal(job));
    shell.desk.hit(CTRL_C);
    shell.wait_for_prompt();
    assert!(!is_alive(job));
    assert_eq!(server.locks(), [""; 0]);
}

/// The shell has forgotten this golock, whose process group nobody would continue.
#[test]
fn a_job_that_waits_for_a_terminal_that_nobody_will_give_it_is_hung_up_on() {
    let server = Server::start(&[]);
    let shell = shell(&graceless(server.port()));
    let reads = r#"echo $$ >"$D/pid"; until [ -e "$D/go" ]; do sleep 0.02; done; read line </dev/tty; : >"$D/line""#;
    shell.notes.write("job", reads);
    shell.ask("($G $J &)");
    let job = shell.notes.pid("pid");
    shell.wait_for_prompt();
    shell.notes.write("go", "");
    until("the job is gone", || !is_alive(job));
    until("the lock is released", || server.locks().is_empty());
    assert!(!shell.notes.path("line").exists());
}

#[test]
fn a_line_is_read_to_its_end() {
    let server = Server::start(&[]);
    let shell = shell(&graceless(server.port()));
    shell.line("$G cat >$D/read");
    until("cat has the terminal", || shell.desk.foreground().is_some_and(has_terminal));
    shell.line("first");
    shell.notes.lines("read", 1);
    shell.desk.hit(CTRL_D);
    assert_eq!(shell.ask("echo $?"), "0");
    assert_eq!(shell.notes.read("read"), "first\n");
}
