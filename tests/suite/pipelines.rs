//! golock at a terminal beside other programs, which read from it too, and with programs under it that take it over.

use crate::job_control::{continue_in_foreground, goes_on, interrupt, is_stopped, shell, stop};
use crate::support::desk::{CTRL_C, CTRL_D, CTRL_Z, Shell};
use crate::support::job_tools::graceless;
use crate::support::watch::{is_alive, is_asleep, mentioning};
use crate::support::{Server, each, until};

use rustix::process::Pid;

/// Words of shell that tell which process they run in, and then become what follows.
const BECOME: &str = r#"sh -c 'echo $$ >"$D/other"; exec "$@"' sh"#;

/// Stops and continues the whole line by the keyboard: this job, which may be any process of it.
#[track_caller]
fn stop_and_continue(shell: &Shell, job: Pid) {
    shell.desk.hit(CTRL_Z);
    assert!(shell.ask("jobs").contains("Stopped"));
    until("the job is stopped", || is_stopped(job));
    shell.line("fg");
    until("the line goes on", || !shell.has_terminal() && goes_on(job));
}

#[test]
fn another_member_of_the_line_reads_from_the_terminal() {
    let server = Server::start(&[]);
    let shell = shell(&graceless(server.port()));
    let reads = r#"read line </dev/tty; echo "read $line" >>"$D/lines""#;
    shell.line(&format!("$G $J | sh -c '{reads}; {reads}; echo $$ >$D/other; exec cat'"));
    let job = shell.notes.pid("pid");
    shell.line("this");
    shell.notes.lines("lines", 1);
    shell.line("that");
    assert_eq!(shell.notes.lines("lines", 2), ["read this", "read that"]);
    let other = shell.notes.pid("other");
    stop_and_continue(&shell, job);
    assert!(goes_on(other));
    shell.desk.hit(CTRL_C);
    shell.wait_for_prompt();
    until("all have ended", || !is_alive(job) && !is_alive(other));
    assert_eq!(server.locks(), [""; 0]);
}

#[test]
fn a_job_reads_what_another_member_reads_from_the_terminal() {
    let server = Server::start(&[]);
    let shell = shell(&graceless(server.port()));
    shell.line("cat | $G tee $D/copy");
    shell.line("first");
    shell.notes.lines("copy", 1);
    let job = mentioning(&shell.notes.path("copy").display().to_string())
        .into_iter()
        .find(|&pid| crate::support::watch::command_line(pid).starts_with("tee "))
        .unwrap();
    stop_and_continue(&shell, job);
    shell.line("second");
    assert_eq!(shell.notes.lines("copy", 2), ["first", "second"]);
    shell.desk.hit(CTRL_D);
    assert_eq!(shell.ask("echo $?"), "0");
    assert_eq!(server.locks(), [""; 0]);
}

#[test]
fn a_job_reads_from_the_terminal_that_another_golock_has_given_to_its_own() {
    let server = Server::start(&[]);
    let lines = [
        "$G --key a sh $D/reader | $G --key b cat >$D/out",
        "$G --key a cat $D/job | $G --key b sh $D/reader >$D/out",
        "$G --key a $J | $G --key b sh $D/reader >$D/out",
        // A script stands above them, which the shell must not see stopped.
        "sh -c '$G --key a sh $D/job | $G --key b sh $D/reader >$D/out'",
    ];
    for attempt in 0..20 {
        each(&lines, |line| {
            let shell = shell(&graceless(server.port()).set("PREFIX", format!("{attempt}{line}")));
            shell.notes.write("reader", r#"read line </dev/tty; echo "read $line" >"$D/line"; echo done"#);
            shell.line(line);
            shell.line("this");
            assert_eq!(shell.notes.lines("line", 1), ["read this"]);
            shell.notes.write("open", "");
            shell.wait_for_prompt();
            assert_eq!(shell.ask("jobs"), "");
            assert!(!shell.desk.shown().contains("Stopped"), "{}", shell.desk.shown());
        });
    }
    assert_eq!(server.locks(), [""; 0]);
}

#[test]
fn another_member_of_a_line_in_the_background_waits_for_the_foreground() {
    let server = Server::start(&[]);
    let shell = shell(&graceless(server.port()));
    let reads = r#"until [ -e "$D/pid" ]; do sleep 0.02; done; read line </dev/tty; echo "read $line" >"$D/line""#;
    shell.line(&format!("$G $J | sh -c '{reads}; exec cat' &"));
    let job = shell.notes.pid("pid");
    until("the shell knows", || shell.ask("jobs").contains("Stopped"));
    until("the job is stopped, too", || is_stopped(job));
    shell.line("fg");
    until("the line goes on", || !shell.has_terminal() && goes_on(job));
    shell.line("this");
    assert_eq!(shell.notes.lines("line", 1), ["read this"]);
    shell.notes.write("open", "");
    shell.wait_for_prompt();
    assert_eq!(server.locks(), [""; 0]);
}

#[test]
fn two_jobs_take_turns_at_the_terminal() {
    let server = Server::start(&[]);
    let shell = shell(&graceless(server.port()));
    // Each reads only when the other one has read.
    let turns = r#"for turn in 1 2 3; do
        until [ -e "$D/$1$turn" ]; do sleep 0.02; done
        read line </dev/tty; echo "$1 $line" >>"$D/lines"; : >"$D/$2$((turn + $3))"
    done"#;
    shell.notes.write("turns", turns);
    shell.line("sh -c '$G --key a sh $D/turns a b 0 | $G --key b sh $D/turns b a 1'");
    shell.notes.write("a1", "");
    for (count, line) in (1..).zip(["a 1", "b 2", "a 3", "b 4", "a 5", "b 6"]) {
        shell.line(&line[2..]);
        assert_eq!(shell.notes.lines("lines", count).last().map(String::as_str), Some(line));
    }
    shell.wait_for_prompt();
    assert!(!shell.desk.shown().contains("Stopped"), "{}", shell.desk.shown());
    assert_eq!(server.locks(), [""; 0]);
}

#[test]
fn with_a_pipe_the_job_has_to_ask_for_the_terminal() {
    let server = Server::start(&[]);
    let lines = [("$G $J", true), ("$G $J </dev/null >/dev/null", true), ("$G $J | cat", false), (": | $G $J", false)];
    each(&lines, |&(line, is_given)| {
        let shell = shell(&graceless(server.port()).set("KEY", line));
        shell.line(line);
        let job = shell.job();
        assert_eq!(shell.desk.foreground() == Some(job), is_given);
        shell.notes.write("open", "");
        shell.wait_for_prompt();
    });
}

#[test]
fn a_job_that_has_left_its_group_is_given_the_terminal_too() {
    let server = Server::start(&[]);
    let shell = shell(&graceless(server.port()));
    let reads = r#"exec perl -e '
        sub note { open my $file, ">", "$ENV{D}/$_[0]"; print $file $_[1] }
        sub wait_for { select(undef, undef, undef, 0.02) until -e "$ENV{D}/$_[0]" || !-d $ENV{D} }
        my $other = fork;
        if (!$other) { setpgrp; note("up"); wait_for("joined"); exit }
        wait_for("up");
        setpgrp 0, $other or die;
        note("joined");
        waitpid $other, 0;
        open my $terminal, "<", "/dev/tty";
        my $line = <$terminal>;
        note("line", "read $line")'"#;
    shell.notes.write("job", reads);
    shell.line("$G $J");
    shell.line("this");
    assert_eq!(shell.notes.lines("line", 1), ["read this"]);
    assert_eq!(shell.ask("echo $?"), "0");
    assert_eq!(server.locks(), [""; 0]);
}

#[test]
fn an_interrupt_of_the_job_reaches_the_line_also_after_an_earlier_one() {
    let server = Server::start(&[]);
    let shell = shell(&graceless(server.port()));
    let asks = r#"trap 'echo heard >>"$D/log"' INT; echo $$ >"$D/pid"; until [ -e "$D/go" ]; do sleep 0.02; done
        trap - INT; read line </dev/tty"#;
    shell.notes.write("job", asks);
    let counts = r#"$SIG{INT} = sub { open my $log, ">>", "$ENV{D}/log"; print $log "int\n" };
        open my $up, ">", "$ENV{D}/up"; select(undef, undef, undef, 0.02) while -d $ENV{D} && !-e "$ENV{D}/open""#;
    shell.line(&format!("$G $J | perl -e '{counts}'"));
    let job = shell.job();
    until("the other counts", || shell.notes.path("up").exists());
    // The first comes from golock's group, which has the terminal, the second from the job's.
    shell.desk.hit(CTRL_C);
    shell.notes.lines("log", 2);
    shell.notes.write("go", "");
    shell.desk.wait_for(job);
    shell.desk.hit(CTRL_C);
    assert_eq!(shell.notes.lines("log", 3).last().map(String::as_str), Some("int"));
    shell.notes.write("open", "");
    shell.wait_for_prompt();
    assert_eq!(server.locks(), [""; 0]);
}

#[test]
fn nothing_is_continued_that_was_not_stopped() {
    let server = Server::start(&[]);
    let shell = shell(&graceless(server.port()));
    shell.notes.write("job", r#"read line </dev/tty; echo "read $line" >"$D/line""#);
    shell.line(r#"perl -e '$SIG{CONT} = sub { open F, ">", "$ENV{D}/continued" }; system "$ENV{G} sh $ENV{D}/job"'"#);
    shell.line("this");
    assert_eq!(shell.notes.lines("line", 1), ["read this"]);
    shell.wait_for_prompt();
    assert!(!shell.notes.path("continued").exists());
    assert_eq!(server.locks(), [""; 0]);
}

#[test]
fn two_golocks_in_a_line_are_stopped_and_continued_together() {
    let server = Server::start(&[]);
    let shell = shell(&graceless(server.port()));
    shell.line("$G --key a $J | $G --key b sh -c 'echo $$ >$D/other; exec cat'");
    let (first, second) = (shell.notes.pid("pid"), shell.notes.pid("other"));
    for _ in 0..3 {
        stop_and_continue(&shell, first);
        until("the other goes on, too", || goes_on(second));
    }
    assert_eq!(interrupt(&shell), "130");
    until("both have ended", || !is_alive(first) && !is_alive(second));
    until("both locks are released", || server.locks().is_empty());
}

#[test]
fn a_job_under_xargs_asks_for_a_password() {
    let server = Server::start(&[]);
    let shell = shell(&graceless(server.port()));
    let asks = r#"exec 9<>/dev/tty; echo $$ >"$D/pid"; stty -echo <&9; echo Password: >&9; : >"$D/asked"
        read word <&9; stty echo <&9; echo "got $word" >"$D/word""#;
    shell.notes.write("job", asks);
    shell.line("echo $D/job | xargs $G sh");
    let job = shell.notes.pid("pid");
    until("it asks", || shell.notes.path("asked").exists());
    stop(&shell, job);
    continue_in_foreground(&shell, job);
    shell.line("secret");
    shell.notes.lines("word", 1);
    assert_eq!(shell.ask("echo $?"), "0");
    assert_eq!(shell.notes.read("word"), "got secret\n");
    assert!(shell.desk.is_in_order());
}

/// Waits until a program has drawn what it has to, and reads keys.
#[track_caller]
fn wait_for_keys(shell: &Shell, program: Pid, shown: &str) {
    until("the program has drawn its screen", || shell.desk.shown().contains(shown));
    // One that is just about to read may take a stop for something else.
    until("the program reads keys", || is_asleep(program) && !shell.desk.is_in_order());
}

/// Stops it by the keyboard, and continues it: the shell has a terminal that is in order in between.
#[track_caller]
fn stop_and_redraw(shell: &Shell, program: Pid) {
    stop_and_continue(shell, program);
    until("the program has the terminal as it wants it", || !shell.desk.is_in_order());
    until("the program reads keys", || is_asleep(program));
}

#[test]
fn a_pager_under_golock_reads_keys() {
    let server = Server::start(&[]);
    for _ in 0..10 {
        let shell = shell(&graceless(server.port()));
        shell.ask("seq 1 1000 >$D/text");
        shell.line(&format!("$G {BECOME} less $D/text"));
        let less = shell.notes.pid("other");
        wait_for_keys(&shell, less, "\n20\r\n");
        shell.desk.hit("/^444$\n");
        wait_for_keys(&shell, less, "\n450\r\n");
        stop_and_redraw(&shell, less);
        shell.desk.hit("/^777$\n");
        wait_for_keys(&shell, less, "\n780\r\n");
        shell.desk.hit("q");
        assert_eq!(shell.ask("echo $?"), "0");
        assert!(shell.desk.is_in_order());
    }
    assert_eq!(server.locks(), [""; 0]);
}

#[test]
fn a_pager_behind_golock_reads_keys() {
    let server = Server::start(&[]);
    // A job that has long ended, and one that goes on.
    each(&["seq 1 1000", "sh -c 'seq 1 100000; exec sh $D/job'"], |job| {
        let shell = shell(&graceless(server.port()).set("KEY", job));
        shell.line(&format!("$G {job} | {BECOME} less"));
        let less = shell.notes.pid("other");
        wait_for_keys(&shell, less, "\n20\r\n");
        shell.desk.hit("/^444$\n");
        wait_for_keys(&shell, less, "\n450\r\n");
        stop_and_redraw(&shell, less);
        shell.desk.hit("/^777$\n");
        wait_for_keys(&shell, less, "\n780\r\n");
        shell.desk.hit("q");
        shell.notes.write("open", "");
        shell.wait_for_prompt();
        assert_eq!(shell.ask("jobs"), "");
        assert!(shell.desk.is_in_order());
    });
    assert_eq!(server.locks(), [""; 0]);
}

#[test]
fn an_editor_under_golock_edits() {
    let server = Server::start(&[]);
    for _ in 0..5 {
        let shell = shell(&graceless(server.port()));
        shell.notes.write("text", "one\ntwo\n");
        shell.line(&format!("$G {BECOME} vi -u NONE $D/text"));
        let vi = shell.notes.pid("other");
        wait_for_keys(&shell, vi, "two");
        shell.desk.hit("othree\x1b:w\r");
        shell.notes.wait_for("text", |text| text == "one\nthree\ntwo\n");
        until("the editor reads keys", || is_asleep(vi));
        stop_and_redraw(&shell, vi);
        shell.desk.hit("ofour\x1b:wq\r");
        assert_eq!(shell.ask("echo $?"), "0");
        assert_eq!(shell.notes.read("text"), "one\nthree\nfour\ntwo\n");
        assert!(shell.desk.is_in_order());
    }
    assert_eq!(server.locks(), [""; 0]);
}

/// As in a command substitution of an interactive shell: a job that wants the terminal is not stopped there.
#[test]
fn where_a_job_could_not_ask_for_the_terminal_it_has_it() {
    let server = Server::start(&[]);
    let shell = shell(&graceless(server.port()));
    shell.notes.write("reader", r#"read line </dev/tty; echo "read $line""#);
    shell.line(r#"sh -c 'trap "" TTIN; $G sh $D/reader | cat >$D/got'"#);
    shell.line("this");
    assert_eq!(shell.notes.lines("got", 1), ["read this"]);
    assert_eq!(shell.ask("echo $?"), "0");
    assert_eq!(server.locks(), [""; 0]);
}

/// SIGKILL leaves a golock no time to take it back from its own job, which goes on.
#[test]
fn a_script_gets_the_terminal_back_from_the_job_of_a_golock_that_was_killed() {
    let server = Server::start(&[]);
    let shell = shell(&graceless(server.port()));
    let inner = r#"$G --key inner sh -c 'echo $$ >"$D/inner"; while [ -d "$D" ]; do sleep 0.1; done'"#;
    shell.notes.write("script", format!("$G --key outer --timeout 2 {inner}; read line; echo $line >$D/read"));
    shell.line("sh $D/script");
    shell.notes.pid("inner");
    shell.line("this");
    until("the script reads", || {
        assert!(!shell.desk.shown().contains("Stopped"), "{}", shell.desk.shown());
        shell.notes.path("read").exists()
    });
    assert_eq!(shell.notes.lines("read", 1), ["this"]);
}
