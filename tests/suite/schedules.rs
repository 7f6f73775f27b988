//! A thousand random schedules of what can happen to a job: it and its golock are stopped, continued and told to end, by
//! signals and by the keyboard, reach their timeout or end by themselves. golock always ends, as it should, no two jobs under
//! one lock overlap, and nothing is left behind.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::job_control::is_stopped;
use crate::support::desk::{CTRL_C, CTRL_Z, Shell};
use crate::support::job_tools::{Notes, graceless};
use crate::support::soak::{Dice, Host, seed};
use crate::support::wait::{WATCHDOG, holds_within};
use crate::support::watch::{command_line, inheriting, is_alive, parent};
use crate::support::{Golock, Server, abreast, until};

/// A job of two processes that marks that it runs, looks who else does, and goes on until it may end, with code 7. It is not
/// a shell: what a shell starts can be stopped before it is what it is to be, and the shell with it.
const WITNESS: &str = r#"
my ($folder, $lock, $name) = @ARGV;
sub born {
    open my $file, "<", "/proc/$_[0]/stat" or return "";
    my $text = <$file> // "";
    my @words = split / /, $text =~ s/.*\) //r;
    return @words && $words[0] !~ /[ZX]/ ? $words[19] : "";
}
sub note { open my $file, ">>", "$folder/$_[0]"; syswrite $file, "$_[1]\n" }
sub pass { select undef, undef, undef, 0.005 while -d $folder && !-e "$folder/$name.open" }
my $mine = "$$." . born($$);
mkdir "$folder/$lock";
note "$lock/$mine", $name;
for my $mark (glob "$folder/$lock/*.*") {
    my ($pid, $born) = $mark =~ /(\d+)\.(\d+)$/;
    next if "$pid.$born" eq $mine;
    if (born($pid) eq $born && -e $mark) { note "overlaps", "$name with $pid under $lock" } else { unlink $mark }
}
my $child = fork // die;
if (!$child) { pass; exit }
note "$name.pid", $$;
pass;
waitpid $child, 0;
unlink "$folder/$lock/$mine";
exit 7;
"#;

/// Where schedules are played.
struct Stage {
    server: Server,
    notes: Notes,
    mark: String,
}

impl Stage {
    fn new(seed: u64) -> Self {
        let stage = Self { server: Server::start(&[]), notes: Notes::new(), mark: format!("SCHEDULES=of{seed}") };
        stage.notes.write("witness", WITNESS);
        stage
    }

    /// golock with a lock that some others want, too, in Redis or on this host, and that lock's name.
    fn golock(&self, dice: &Dice, timed: bool) -> (Golock, String) {
        let (name, value) = self.mark.split_once('=').unwrap();
        let golock = graceless(self.server.port()).env(name, value).set("WAIT", "1000000");
        let golock = if timed { golock.set("TIMEOUT", "1").set("KILL_AFTER", "1") } else { golock };
        let (lock, number) = (dice.below(3), dice.below(3));
        let (place, golock) = match lock {
            0 => (
                "here",
                golock.unset("HOST").unset("PORT").set("LOCAL", "yes").set("LOCAL_DIR", self.notes.path("locks")),
            ),
            1 => ("redis", golock.set("LEASE", "60")),
            _ => ("redis", golock),
        };
        let lock = format!("{place}{number}");
        (golock.set("KEY", &lock), lock)
    }

    fn witness(&self, lock: &str, name: &str) -> [std::ffi::OsString; 5] {
        let (script, folder) = (self.notes.path("witness"), self.notes.folder());
        ["perl".into(), script.into(), folder.into(), lock.into(), name.into()]
    }

    fn lets_end(&self, name: &str) {
        self.notes.write(&format!("{name}.open"), "");
    }

    /// The job of this schedule, if it runs.
    fn job(&self, name: &str) -> Option<Pid> {
        self.notes.read(&format!("{name}.pid")).trim().parse().ok().and_then(Pid::from_raw).filter(|&job| is_alive(job))
    }

    /// Asserts what holds when all schedules have been played.
    #[track_caller]
    fn assert_in_order(&self) {
        until("nothing is left of any schedule", || inheriting(&self.mark).is_empty());
        assert_eq!(self.notes.read("overlaps"), "");
        assert_eq!(self.server.locks(), [""; 0]);
    }
}

/// Something that is done to a job or its golock.
#[derive(Clone, Copy, Debug)]
enum Act {
    Send(Signal),
    SendJob(Signal),
    LetEnd,
}

const ACTS: [Act; 9] = [
    Act::Send(Signal::STOP),
    Act::Send(Signal::TSTP),
    Act::Send(Signal::CONT),
    Act::Send(Signal::CONT),
    Act::Send(Signal::TERM),
    Act::SendJob(Signal::STOP),
    Act::SendJob(Signal::TSTP),
    Act::SendJob(Signal::CONT),
    Act::LetEnd,
];

/// Plays the schedule of this number by signals.
fn play(stage: &Stage, seed: u64) {
    let dice = Dice::new(seed);
    let (name, timed) = (format!("by-signals-{seed}"), dice.below(8) == 0);
    let (golock, lock) = stage.golock(&dice, timed);
    let golock = golock.args(stage.witness(&lock, &name));
    // A process group of its own, in a session in which it can be continued.
    let host = Host::default();
    let pid = host.start(&golock.prelude(r#"exec perl -e 'setpgrp; exec @ARGV' "$0" "$@""#));
    let mut acts = Vec::new();
    for _ in 0..dice.below(7) {
        holds_within(dice.span(0, 40), || false);
        let act = ACTS[dice.index(ACTS.len())];
        act_out(stage, &host, pid, &name, act);
        acts.push(act);
    }
    let told = acts.iter().any(|act| matches!(act, Act::Send(Signal::TERM))) || dice.below(2) == 0;
    if told {
        act_out(stage, &host, pid, &name, Act::Send(Signal::TERM));
    }
    if !timed {
        stage.lets_end(&name);
    }
    let done = wait(stage, &host, pid, &name);
    let expected: &[i32] = match (told, timed) {
        // It may come before golock has learned to forward it, and after the job has ended.
        (true, _) => &[143, -15, 7, 202],
        (false, true) if !acts.iter().any(|act| matches!(act, Act::LetEnd)) => &[202],
        (false, true) => &[202, 7],
        (false, false) => &[7],
    };
    let lines = usize::from(done.code == 202);
    assert!(
        expected.contains(&done.code) && done.stderr.lines().count() == lines && done.stdout.is_empty(),
        "schedule {seed}, {expected:?} expected after {acts:?}: {done:?}"
    );
}

fn act_out(stage: &Stage, host: &Host, golock: Pid, name: &str, act: Act) {
    match act {
        Act::Send(signal) => drop(host.signal(signal, Some(golock))),
        Act::SendJob(signal) => {
            // As long as it is golock's child, its number is not another's.
            if let Some(job) = stage.job(name).filter(|&job| parent(job) == Some(golock)) {
                let _ = kill_process(job, signal);
            }
        }
        Act::LetEnd => stage.lets_end(name),
    }
}

/// Waits for the end of a golock which, with its job, is continued whenever it is stopped.
#[track_caller]
fn wait(stage: &Stage, host: &Host, golock: Pid, name: &str) -> crate::support::Done {
    let ended = holds_within(WATCHDOG, || {
        for (pid, act) in [(Some(golock), Act::Send(Signal::CONT)), (stage.job(name), Act::SendJob(Signal::CONT))] {
            if pid.is_some_and(is_stopped) {
                act_out(stage, host, golock, name, act);
            }
        }
        !is_alive(golock)
    });
    assert!(ended, "schedule {name}: golock does not end");
    host.wait()
}

/// Plays this many schedules, so many at a time, with a seed for each.
#[expect(clippy::print_stdout, reason = "it is shown where a test fails")]
fn play_all(count: u64, workers: usize, play: impl Fn(&Stage, u64) + Sync) {
    let seed = seed();
    println!("GOLOCK_SOAK_SEED={seed}");
    let stage = Stage::new(seed);
    let seeds: Vec<u64> = (seed..seed + count).collect();
    abreast(workers, &seeds, |&seed| play(&stage, seed));
    stage.assert_in_order();
}

#[test]
fn whatever_signals_do_to_a_job_golock_ends_as_it_should() {
    play_all(700, 16, play);
}

/// Plays the schedule of this number by a keyboard, at a shell.
fn play_by_keys(stage: &Stage, seed: u64) {
    let dice = Dice::new(seed);
    let (name, timed) = (format!("by-keys-{seed}"), dice.below(8) == 0);
    let (golock, lock) = stage.golock(&dice, timed);
    let shell = Shell::start(&golock.env("LOCK", &lock).env("NAME", &name));
    shell.ask(&format!(
        r#"J="perl {} {} $LOCK $NAME""#,
        stage.notes.path("witness").display(),
        stage.notes.folder().display()
    ));
    let ways = ["$G $J", "$G $J | cat", "$G $J </dev/null", "$G $J &", "for one in 1; do $G $J; done"];
    shell.line(ways[dice.index(ways.len())]);
    let mut keys = Vec::new();
    for _ in 0..dice.below(6) {
        holds_within(dice.span(0, 60), || false);
        let key = match (shell.has_terminal(), dice.below(4)) {
            (true, 0 | 1) => "fg\n",
            (true, 2) => "bg\n",
            (true, _) => "kill %%\n",
            (false, 0) => CTRL_C,
            (false, _) => CTRL_Z,
        };
        shell.desk.hit(key);
        keys.push(key);
    }
    if !timed {
        stage.lets_end(&name);
    }
    // Whatever is typed while the shell does not wait for it may be lost.
    let ended = holds_within(WATCHDOG, || {
        let stopped: Vec<Pid> = inheriting(&name).into_iter().filter(|&pid| is_stopped(pid)).collect();
        if shell.has_terminal() && !stopped.is_empty() {
            shell.desk.hit("fg\n");
        } else if stopped.iter().any(|&pid| command_line(pid).starts_with("bash ")) {
            // A part of the line that was stopped before it was a program: the shell waits until the others are, too.
            shell.desk.hit(CTRL_Z);
        }
        holds_within(Duration::from_millis(200), || inheriting(&name) == [shell.pid()])
    });
    assert!(ended, "schedule {seed}: something is left after {keys:?}: {}", shell.desk.shown());
    shell.wait_for_prompt();
    let shown = shell.desk.shown();
    assert!(
        !shown.contains("golock: ") || (timed && shown.matches("golock: ").count() == 1),
        "schedule {seed}: {shown}"
    );
}

#[test]
fn whatever_keys_do_to_a_job_golock_ends_as_it_should() {
    play_all(300, 8, play_by_keys);
}
