//! Moments that last some microseconds, in which a key or the job may be quicker than golock: here strace makes them long.

use crate::job_control::{continue_in_foreground, interrupt, is_stopped, shell};
use crate::quiet::may_trace;
use crate::support::desk::{CTRL_C, CTRL_Z, Shell};
use crate::support::job_tools::{Notes, WHILE_NOTED, graceless};
use crate::support::watch::{below, command_line, is_asleep};
use crate::support::{Server, each, until};
use rustix::process::Signal;

/// golock, of which each of these system calls begins half a second late. strace itself is in a process group of its own,
/// where no key reaches it.
fn late(call: &str) -> String {
    format!("strace -DD -f -qq -o /dev/null -e trace={call} -e inject={call}:delay_enter=500000 $G")
}

#[test]
fn a_job_that_wants_the_terminal_before_it_has_it_is_not_a_stopped_job() {
    if !may_trace() {
        return println!("skipped: no process may trace another here");
    }
    let server = Server::start(&[]);
    each(&["stty -echo <&9; stty echo <&9", "read line <&9"], |wants| {
        let shell = shell(&graceless(server.port()).set("KEY", wants));
        shell.notes.write("job", format!(r#"exec 9<>/dev/tty; echo $$ >"$D/pid"; {wants}; : >"$D/done""#));
        // Only golock's own calls: those of the job come as soon as they can.
        shell.line(&late("ioctl").replace(" -f", "").replace("$G", "$G $J"));
        shell.notes.pid("pid");
        shell.line("this");
        until("the job has done what it wants", || {
            shell.desk.shown();
            shell.notes.path("done").exists()
        });
        assert!(!shell.desk.shown().contains("Stopped"), "{}", shell.desk.shown());
        shell.wait_for_prompt();
    });
    assert_eq!(server.locks(), [""; 0]);
}

/// Waits until golock is just about to start its job, which is still a copy of itself, in golock's process group. Who looks
/// too late finds the job, to which the same holds.
#[track_caller]
fn wait_for_birth(shell: &Shell) {
    until("golock starts its job", || {
        shell.desk.shown();
        let is_golock = |pid: &&rustix::process::Pid| command_line(**pid).contains("golock");
        below(shell.pid()).iter().filter(is_golock).count() > 1 || shell.notes.path("pid").exists()
    });
}

#[test]
fn a_key_that_comes_while_the_job_is_being_born_is_not_lost() {
    if !may_trace() {
        return println!("skipped: no process may trace another here");
    }
    let server = Server::start(&[]);
    each(&["stop", "interrupt"], |key| {
        let shell = shell(&graceless(server.port()).set("KEY", key));
        shell.line(&late("setpgid").replace("$G", "$G $J"));
        wait_for_birth(&shell);
        if *key == "stop" {
            shell.desk.hit(CTRL_Z);
            assert!(shell.ask("jobs").contains("Stopped"));
            shell.line("fg");
            // The shell itself would forget what was typed at an interrupt.
            until("the shell has read the line", || !shell.has_terminal());
            let job = shell.notes.pid("pid");
            shell.line("");
            assert!(!is_stopped(job));
            interrupt(&shell);
        } else {
            shell.desk.hit(CTRL_C);
        }
        assert_eq!(shell.ask("jobs"), "");
    });
    until("the locks are released", || server.locks().is_empty());
}

/// As the kernel has it: whoever sends both in a row wants it to go on. Here golock hears of the second while it reads the first.
#[test]
fn a_stop_that_was_taken_back_stops_nothing() {
    if !may_trace() {
        return println!("skipped: no process may trace another here");
    }
    let (server, notes) = (Server::start(&[]), Notes::new());
    // In the group of the tests it could be one that nobody would continue.
    let late = "strace -D -qq -o /dev/null -e trace=read -e inject=read:delay_exit=500000";
    let own_group = format!(r#"exec perl -e 'setpgrp; exec @ARGV' {late} "$0" "$@""#);
    let golock = graceless(server.port()).prelude(&own_group);
    let running = golock.args(notes.job(&format!(r#": >"$0/ready"; {WHILE_NOTED}; exit 7"#))).spawn();
    until("the job runs, and golock sleeps", || notes.path("ready").exists() && is_asleep(running.pid()));
    running.signal(Signal::TSTP);
    std::thread::sleep(std::time::Duration::from_millis(100));
    running.signal(Signal::CONT);
    notes.write("open", "");
    running.wait().assert_silent(7);
}

#[test]
fn a_job_that_is_continued_by_the_shell_is_continued_only_by_golock() {
    let server = Server::start(&[]);
    let shell = shell(&graceless(server.port()));
    shell.line("$G $J");
    let job = shell.job();
    for _ in 0..20 {
        shell.desk.hit(CTRL_Z);
        shell.wait_for_prompt();
        until("the job is stopped", || is_stopped(job));
        continue_in_foreground(&shell, job);
    }
    assert_eq!(interrupt(&shell), "130");
    assert_eq!(server.locks(), [""; 0]);
}
