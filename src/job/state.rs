//! Supervision as a table: what happens to a job, and what follows. DESIGN.md shows the same table.

/// The state of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// It runs.
    Running,
    /// It was stopped, by Ctrl-Z or any other signal that stops, and we have not continued it.
    Stopped,
    /// It has to end, because its time is up.
    Stopping,
    /// It has to end, because its lock is lost.
    Lost,
    /// It has ended, as it had to, but other processes of its group have not.
    Leaderless,
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// A signal has come that would end golock, and is forwarded.
    Signal,
    /// SIGUSR1 or SIGUSR2 has come.
    UserSignal,
    /// golock has to stop (SIGTSTP; SIGTTIN and SIGTTOU in the background).
    Suspend,
    /// Another process of golock's group wants the terminal, which is in the foreground.
    Share,
    /// The job was stopped.
    JobStopped,
    /// The job was stopped where nobody would continue golock if it stopped as well.
    JobHalted,
    /// The job was stopped because it wants the terminal, which golock may give.
    JobWantsTerminal,
    /// The job is stopped because it wants the terminal, and nobody will ever give it.
    TerminalDenied,
    /// The job has ended, and with it its group, as far as that is to be waited for.
    JobEnded,
    /// The job has ended, and others of its group have not.
    LeaderEnded,
    /// TIMEOUT is reached.
    Timeout,
    /// The time that it had to end is over.
    KillDue,
    /// The lock is to be renewed.
    RenewalDue,
    /// A renewal has found the lock to be another's.
    RenewalFailed,
    /// The lock was not renewed in time.
    LeaseOver,
    /// golock was continued, after it was stopped or for the sake of the job.
    Continued,
    /// A look at the lock of a stopped job has found that it is still ours.
    LockHolds,
    /// It has found that the lock is over, or may be.
    LockOver,
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Nothing.
    Nothing,
    /// Forward the signal.
    Forward,
    /// Forward the signal and wake the job, so that the signal reaches it.
    ForwardAndWake,
    /// Stop the job.
    StopJob,
    /// Take the terminal back and stop ourselves.
    StopOurselves,
    /// The same, and stop the job, should somebody else have continued it.
    StopBoth,
    /// Take the terminal back, for the others of our group.
    Share,
    /// Give the job the terminal, and wake it.
    Give,
    /// Give it the terminal, unless that is for others too, and wake it.
    Offer,
    /// Hang up, and wake it.
    HangUp,
    /// Look at the lock.
    Look,
    /// Wake the job, so that it can end.
    Wake,
    /// SIGTERM, and SIGKILL after `KILL_AFTER`.
    Terminate,
    /// The same, or SIGKILL at once, as the lost lock requires.
    Lose,
    /// SIGKILL.
    Kill,
    /// Renew the lock.
    Renew,
    /// Wait for the rest of the group.
    Gather,
    /// The job is over.
    Finish,
}

impl State {
    /// The next state, and the action that follows from `event`.
    #[expect(clippy::match_same_arms, reason = "each line is a row of the table, or a part of one")]
    pub fn on(self, event: Event) -> (Self, Action) {
        use Action::{
            Finish, Forward, ForwardAndWake, Gather, Give, HangUp, Kill, Look, Lose, Nothing, Offer, Renew, Share,
            StopBoth, StopJob, StopOurselves, Terminate, Wake,
        };
        use State::{Leaderless, Lost, Running, Stopped, Stopping};
        match (event, self) {
            (Event::Signal, Running | Stopped) => (Running, ForwardAndWake),
            (Event::Signal, state) => (state, ForwardAndWake),
            (Event::UserSignal, state) => (state, Forward),
            (Event::Suspend, Running) => (Running, StopJob),
            (Event::Suspend, Stopped) => (Stopped, StopBoth),
            (Event::Suspend, state) => (state, Nothing),
            (Event::Share, state) => (state, Share),
            (Event::JobStopped, Running | Stopped) => (Stopped, StopOurselves),
            (Event::JobHalted, Running | Stopped) => (Stopped, Nothing),
            (Event::JobStopped | Event::JobHalted, Leaderless) => (Leaderless, Nothing),
            (Event::JobStopped | Event::JobHalted, state) => (state, Wake),
            (Event::JobWantsTerminal, Running | Stopped) => (Running, Give),
            (Event::JobWantsTerminal, state) => (state, Give),
            (Event::TerminalDenied, Stopped) => (Running, HangUp),
            (Event::TerminalDenied, state) => (state, Nothing),
            (Event::JobEnded, state) => (state, Finish),
            (Event::LeaderEnded, Running | Stopped) => (self, Finish),
            (Event::LeaderEnded, _) => (Leaderless, Gather),
            (Event::Timeout, Running | Stopped) => (Stopping, Terminate),
            (Event::Timeout, state) => (state, Nothing),
            (Event::KillDue, Running | Stopped) => (self, Nothing),
            (Event::KillDue, state) => (state, Kill),
            (Event::RenewalDue, Lost) => (Lost, Nothing),
            (Event::RenewalDue, state) => (state, Renew),
            (Event::RenewalFailed | Event::LeaseOver, Leaderless) => (Leaderless, Lose),
            (Event::RenewalFailed | Event::LeaseOver, Lost) => (Lost, Nothing),
            (Event::RenewalFailed | Event::LeaseOver, _) => (Lost, Lose),
            (Event::Continued, Running) => (Running, Offer),
            (Event::Continued, Stopped) => (Stopped, Look),
            (Event::Continued, Stopping | Lost) => (self, Wake),
            (Event::Continued, Leaderless) => (Leaderless, Nothing),
            (Event::LockHolds, Stopped) => (Running, Offer),
            (Event::LockOver, Stopped) => (Lost, Lose),
            (Event::LockHolds | Event::LockOver, state) => (state, Nothing),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATES: [State; 5] = [State::Running, State::Stopped, State::Stopping, State::Lost, State::Leaderless];

    #[rustfmt::skip]
    const EVENTS: [Event; 18] = [
        Event::Signal, Event::UserSignal, Event::Suspend, Event::Share, Event::JobStopped, Event::JobHalted,
        Event::JobWantsTerminal, Event::TerminalDenied, Event::JobEnded, Event::LeaderEnded, Event::Timeout,
        Event::KillDue, Event::RenewalDue, Event::RenewalFailed, Event::LeaseOver, Event::Continued, Event::LockHolds,
        Event::LockOver,
    ];

    /// `JobWantsTerminal` as `job wants terminal`.
    fn words(name: &str) -> String {
        let parts = name.chars().map(|c| if c.is_uppercase() { format!(" {}", c.to_lowercase()) } else { c.into() });
        parts.collect::<String>().trim_start().to_owned()
    }

    fn cell(state: State, event: Event) -> String {
        let (next, action) = state.on(event);
        let action = if action == Action::Nothing { "-".to_owned() } else { words(&format!("{action:?}")) };
        if next == state { action } else { format!("{next:?}: {action}") }
    }

    /// The table as DESIGN.md shows it.
    fn table() -> String {
        let head = std::iter::once("event".to_owned()).chain(STATES.iter().map(|state| format!("{state:?}"))).collect();
        let row = |event: &Event| {
            let cells = STATES.iter().map(|&state| cell(state, *event));
            std::iter::once(words(&format!("{event:?}"))).chain(cells).collect()
        };
        let rows: Vec<Vec<String>> = std::iter::once(head).chain(EVENTS.iter().map(row)).collect();
        let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap();
        let rule = (0..=STATES.len()).map(|column| "-".repeat(width(column))).collect();
        let line = |row: &Vec<String>| {
            let cells = row.iter().enumerate().map(|(column, cell)| format!("| {cell:0$} ", width(column)));
            cells.collect::<String>() + "|\n"
        };
        [&rows[0], &rule].into_iter().chain(&rows[1..]).map(line).collect()
    }

    #[test]
    fn design_shows_every_cell() {
        let (begin, end) = ("<!-- the table of src/job/state.rs -->\n", "<!-- end of the table -->");
        let shown = include_str!("../../DESIGN.md").split_once(begin).unwrap().1.split_once(end).unwrap().0;
        assert!(shown == table(), "DESIGN.md is to show this table:\n{}", table());
    }

    #[test]
    fn a_job_that_is_to_end_ends() {
        for (state, event) in STATES.iter().flat_map(|&state| EVENTS.map(|event| (state, event))) {
            let is_to_end = |state| !matches!(state, State::Running | State::Stopped);
            let (next, action) = state.on(event);
            assert!(!is_to_end(state) || is_to_end(next), "{state:?} on {event:?} runs on");
            assert!(state != State::Lost || next != State::Stopping, "on {event:?} a lost lock is forgotten");
            // The end of a leader is that of the job only where nobody else is waited for.
            let is_end = event == Event::JobEnded || (event == Event::LeaderEnded && !is_to_end(state));
            assert_eq!(action == Action::Finish, is_end, "{state:?} on {event:?}");
        }
    }
}
