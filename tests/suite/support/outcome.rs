//! What a run behind a bad line may come to.

use super::{Done, Golock, STALE, Scene};

/// The length of the grace, where there is one: it does not end during a test.
pub(crate) const GRACE: i64 = 3_000;

/// The usual RELEASE.
const RELEASE: i64 = 86_400;

/// All that a run may come to, in its exit code, its words, the runs of its job, and the lock that it leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The job ran once, its exit code came back without a word, and the lock is released or in grace.
    Done,
    /// The same with one line, because nobody said that the lock is released.
    Unheard,
    /// The job ran once, its exit code came back, and one line says that the lock may stay. It does, until RELEASE.
    Kept,
    /// The job did not run, 201 and one line say so, and the lock is as it was before.
    NotTaken,
    /// The same, but the lock stands, for nobody, until RELEASE: only the answer was lost.
    Orphaned,
}

/// What stands under the lock's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Nothing,
    /// A predecessor's lock, untouched.
    Stale,
    /// A token that ends with the grace.
    Grace,
    /// A token that ends with RELEASE.
    Token,
}

impl Standing {
    #[track_caller]
    fn of(scene: &Scene<'_>) -> Self {
        let is_token = |value: &str| value.len() == 19 && value.bytes().all(|byte| byte.is_ascii_digit());
        match (scene.server.get(&scene.name()).as_deref(), scene.server.pttl(&scene.name())) {
            (None, -2) => Self::Nothing,
            (Some(STALE), -1) => Self::Stale,
            (Some(token), 1..=3_000_000) if is_token(token) => Self::Grace,
            (Some(token), left) if is_token(token) && (1..=RELEASE * 1000).contains(&left) => Self::Token,
            other => panic!("not a state in which a lock may be: {other:?}"),
        }
    }
}

impl Outcome {
    /// What this run has come to; anything that is not among the outcomes fails the test.
    #[track_caller]
    pub(crate) fn of(scene: &Scene<'_>, done: &Done) -> Self {
        let (silent, standing) = (done.stderr.is_empty(), Standing::of(scene));
        if silent {
            done.assert_silent(scene.job.code());
        } else {
            done.assert_one_line(done.code, &[&scene.name()]);
        }
        match (done.code == scene.job.code(), scene.job.runs(), silent, standing) {
            (true, 1, true, Standing::Nothing | Standing::Grace) => Self::Done,
            (true, 1, false, Standing::Nothing | Standing::Grace) => Self::Unheard,
            (true, 1, false, Standing::Token) => Self::Kept,
            (false, 0, false, Standing::Nothing | Standing::Stale) if done.code == 201 => Self::NotTaken,
            (false, 0, false, Standing::Token) if done.code == 201 => Self::Orphaned,
            (_, runs, ..) => panic!("not an outcome: {runs} runs of the job, {standing:?}, {done:?}"),
        }
    }

    /// Asserts what the next run comes to, when nothing breaks any more: it runs its job, unless the lock is another's
    /// or in grace.
    #[track_caller]
    pub(crate) fn assert_next(self, scene: &Scene<'_>, golock: Golock) {
        let (runs, standing) = (scene.job.runs(), Standing::of(scene));
        let is_free = matches!(standing, Standing::Nothing | Standing::Stale);
        assert_eq!(is_free, self.frees() && standing != Standing::Grace, "{self:?}, {standing:?}");
        let done = golock.set("PORT", scene.server.port().to_string()).set("REDIS_TIMEOUT", "30").run();
        done.assert_silent(if is_free { scene.job.code() } else { 200 });
        assert_eq!(scene.job.runs(), runs + usize::from(is_free));
    }

    fn frees(self) -> bool {
        matches!(self, Self::Done | Self::Unheard | Self::NotTaken)
    }
}

/// Whether `attempt`, given a `REDIS_TIMEOUT`, shows what it is to show. Only a line that stands still is cut short by the
/// deadline: an attempt that met it elsewhere, because the machine is slow, shows nothing, and is made again with more time.
pub(crate) fn with_time(stands_still: bool, attempt: impl FnMut(&str) -> bool) -> bool {
    let timeouts: &[&str] = if stands_still { &["1", "2", "4", "8", "16", "32"] } else { &["30"] };
    timeouts.iter().copied().any(attempt)
}
