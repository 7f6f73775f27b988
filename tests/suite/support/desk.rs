//! A terminal at which somebody types, and a shell with job control that has it.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::{Read, Write};
use std::thread;

use rustix::fs::{OFlags, fcntl_setfl};
use rustix::process::Pid;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr, tcgetpgrp};

use super::golock::{Golock, Running};
use super::job_tools::{Notes, UNIGNORED, quoted, sleeps, status};
use super::wait::until;
use super::watch::{below, command_line, parent, stat};

/// What these keys send, unless a program has set the terminal otherwise.
pub(crate) const CTRL_C: &str = "\x03";
pub(crate) const CTRL_D: &str = "\x04";
pub(crate) const CTRL_Z: &str = "\x1a";
pub(crate) const CTRL_BACKSLASH: &str = "\x1c";

/// A terminal, seen from the keyboard and the screen.
pub(crate) struct Desk {
    master: File,
    terminal: String,
    shown: RefCell<String>,
}

impl Desk {
    pub(crate) fn new() -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        fcntl_setfl(&master, OFlags::NONBLOCK).unwrap();
        let terminal = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        Self { master: master.into(), terminal, shown: RefCell::default() }
    }

    /// Types.
    pub(crate) fn hit(&self, keys: &str) {
        (&self.master).write_all(keys.as_bytes()).unwrap();
    }

    /// All that the screen has shown so far. To read it makes room for more.
    pub(crate) fn shown(&self) -> String {
        let mut part = [0; 4096];
        // When nothing has the terminal any more, this is an error.
        while let Ok(count @ 1..) = (&self.master).read(&mut part) {
            self.shown.borrow_mut().push_str(&String::from_utf8_lossy(&part[..count]));
        }
        self.shown.borrow().clone()
    }

    /// The process group in the foreground.
    pub(crate) fn foreground(&self) -> Option<Pid> {
        self.shown();
        tcgetpgrp(&self.master).ok()
    }

    /// Waits until this group has the terminal.
    #[track_caller]
    pub(crate) fn wait_for(&self, group: Pid) {
        until("the group has the terminal", || self.foreground() == Some(group));
    }

    /// Whether what is typed is shown, and comes in lines.
    pub(crate) fn is_in_order(&self) -> bool {
        tcgetattr(&self.master).unwrap().local_modes.contains(LocalModes::ECHO | LocalModes::ICANON)
    }

    /// golock in the foreground of this terminal, which it leads the session of, with its output elsewhere, and with this
    /// redirection of its input. The first terminal that a leader of a session without one opens becomes its own.
    pub(crate) fn at(&self, stdin: &str, golock: Golock) -> Golock {
        let open = format!(r#"exec <{}; exec {stdin}; exec "$0" "$@""#, self.terminal);
        golock.prelude(&format!(r#"exec {UNIGNORED} sh -c '{open}' "$0" "$@""#))
    }
}

/// bash with job control, at a desk of its own. It knows golock as `$G`, and the notes' folder as `$D`.
pub(crate) struct Shell {
    pub(crate) desk: Desk,
    pub(crate) notes: Notes,
    bash: Running,
    answers: Cell<u32>,
}

impl Shell {
    /// Starts it, with the settings of this golock in its environment, and waits until it is ready.
    #[track_caller]
    pub(crate) fn start(golock: &Golock) -> Self {
        let (desk, notes) = (Desk::new(), Notes::new());
        let shell = r#"exec <>"$0" >&0 2>&0; exec bash --norc --noprofile --noediting -i"#;
        let prelude = format!(
            r#"export G="$0" D={} PS1="> " TERM=xterm; exec {UNIGNORED} sh -c '{shell}' {}"#,
            quoted(&notes.folder()),
            desk.terminal,
        );
        let bash = golock.clone().prelude(&prelude).spawn();
        let shell = Self { desk, notes, bash, answers: Cell::default() };
        shell.wait_for_prompt();
        shell
    }

    pub(crate) fn pid(&self) -> Pid {
        self.bash.pid()
    }

    /// Whether the shell itself has the terminal, and none of its jobs.
    pub(crate) fn has_terminal(&self) -> bool {
        self.desk.foreground() == Some(self.bash.pid())
    }

    /// Waits until the shell waits for a command.
    #[track_caller]
    pub(crate) fn wait_for_prompt(&self) {
        until("the shell waits for a command", || self.has_terminal() && sleeps(&status(self.bash.pid())));
    }

    /// Enters a line.
    pub(crate) fn line(&self, line: &str) {
        self.desk.hit(&format!("{line}\n"));
    }

    /// Enters a command when the shell waits for one, and returns what it writes.
    #[track_caller]
    pub(crate) fn ask(&self, command: &str) -> String {
        self.wait_for_prompt();
        self.answer(command)
    }

    /// The same for a shell that reads the line in its time.
    #[track_caller]
    pub(crate) fn answer(&self, command: &str) -> String {
        let note = format!("answer{}", self.answers.replace(self.answers.get() + 1));
        self.line(&format!(r#"{{ {command}; echo .; }} >"$D/{note}" 2>&1"#));
        until("the shell has answered", || {
            self.desk.shown();
            self.notes.read(&note).ends_with(".\n")
        });
        self.notes.read(&note).strip_suffix(".\n").unwrap().trim().into()
    }

    /// Interrupts the shell itself at its prompt, which forgets what was typed.
    #[track_caller]
    pub(crate) fn interrupt_at_prompt(&self) {
        let prompts = || self.desk.shown().matches("\n> ").count();
        self.wait_for_prompt();
        let before = prompts();
        self.desk.hit(CTRL_C);
        until("the shell shows its prompt again", || prompts() > before);
    }

    /// Waits for a job in the foreground, which has left its process id in the note `pid`, and for golock to watch over it.
    /// Which of the two has the terminal does not matter: golock forwards the keyboard's signals, and hands the terminal to
    /// a job that reads.
    #[track_caller]
    pub(crate) fn job(&self) -> Pid {
        let job = self.notes.pid("pid");
        until("golock watches over its job", || {
            !self.has_terminal() && parent(job).is_some_and(|golock| sleeps(&status(golock)))
        });
        job
    }
}

impl Drop for Shell {
    /// For a test that fails: what was to be seen.
    #[expect(clippy::print_stdout, reason = "it is shown where a test fails")]
    fn drop(&mut self) {
        if thread::panicking() {
            let session = [self.bash.pid()].into_iter().chain(below(self.bash.pid()));
            // The last field of stat says how a process has ended.
            let line = |pid| (stat(pid), command_line(pid));
            let lines = session.map(line).map(|(stat, words)| {
                format!("{stat:.60} .. {} {words}\n", stat.trim_end().rsplit(' ').next().unwrap_or_default())
            });
            println!("{}\n{}", self.desk.shown(), lines.collect::<String>());
        }
    }
}
