//! What a run behind a bad line may come to.

use std::thread;
use std::time::Duration;

use super::{Done, Golock, STALE, Scene};

/// The length of the grace, where there is one: it does not end during a test.
pub(crate) const GRACE: i64 = 3_000;

/// The milliseconds of the grace, and of the usual RELEASE.
const GRACE_END: i64 = GRACE * 1000;
const RELEASE_END: i64 = 86_400_000;

/// All that a run may come to, in its exit code, its words, the runs of its job, the lock that it leaves, and its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The job ran once, its exit code came back without a word, and the lock is released or in grace.
    Done,
    /// The same, but the lock is still there for a while, because a DEL that was not answered may be under way.
    Lingers,
    /// As `Done` with one line, because nobody said that the lock is released.
    Unheard,
    /// The job ran once, its exit code came back, and one line says that the lock may stay. It does, until RELEASE.
    Kept,
    /// The job did not run, 201 and one line say so, and the lock is as it was before.
    NotTaken,
    /// The same, but the line says that the lock may stay, because nobody said that it was given back.
    GivenBackUnheard,
    /// The job did not run, 201 and one line say so and that the lock may stay. It does, for nobody, until RELEASE.
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
        let (mut both, name) = (redis::pipe(), scene.name());
        both.cmd("GET").arg(&name).cmd("PTTL").arg(&name);
        let (value, left): (Option<String>, i64) = both.query(&mut scene.server.connection()).unwrap();
        match (value.as_deref(), left) {
            (None, -2) => Self::Nothing,
            (Some(STALE), -1) => Self::Stale,
            (Some(token), 1..=GRACE_END) if is_token(token) => Self::Grace,
            (Some(token), 1..=RELEASE_END) if is_token(token) => Self::Token,
            other => panic!("not a state in which a lock may be: {other:?}"),
        }
    }
}

impl Outcome {
    /// What this run with this grace has come to; anything that is not among the outcomes fails the test.
    #[track_caller]
    pub(crate) fn of(scene: &Scene<'_>, done: &Done, grace: i64) -> Self {
        let released = if grace == 0 { Standing::Nothing } else { Standing::Grace };
        let (silent, ran, standing) = (done.stderr.is_empty(), scene.job.runs(), Standing::of(scene));
        if silent {
            done.assert_silent(scene.job.code());
        } else {
            done.assert_one_line(if ran == 0 { 201 } else { scene.job.code() }, &[&scene.name()]);
        }
        let may_stay = done.stderr.contains("; it may stay locked for up to 86400 s");
        match (ran, silent, may_stay, standing) {
            (1, true, false, standing) if standing == released => Self::Done,
            (1, true, false, Standing::Grace) => Self::Lingers,
            (1, false, true, standing) if standing == released => Self::Unheard,
            (1, false, true, Standing::Token) => Self::Kept,
            (0, false, false, Standing::Nothing | Standing::Stale) => Self::NotTaken,
            (0, false, true, Standing::Nothing | Standing::Stale) => Self::GivenBackUnheard,
            (0, false, true, Standing::Token) => Self::Orphaned,
            other => panic!("not an outcome: {other:?}, {done:?}"),
        }
    }

    /// Asserts what the record says of the first run of this lock, if there is one: however often its beginning or its
    /// end was written, it is one run, of a job that has failed.
    #[track_caller]
    pub(crate) fn assert_recorded(self, scene: &Scene<'_>) {
        let record = scene.record().unwrap_or_default();
        let said = match self {
            Self::Done | Self::Lingers | Self::Unheard => format!(" result={} ok= failed=1 first=", scene.job.code()),
            Self::Kept => " end= result= ok= failed=0 first=".into(),
            Self::NotTaken | Self::GivenBackUnheard | Self::Orphaned => return,
        };
        assert!(record.contains(&said) && !record.contains(" last="), "{said:?} is not in {record:?}");
    }

    /// Asserts what the next run comes to, when nothing breaks any more: it runs its job, unless the lock stands.
    #[track_caller]
    pub(crate) fn assert_next(self, scene: &Scene<'_>, golock: Golock, grace: i64) {
        let (before, code) = (scene.job.runs(), scene.job.code());
        let is_free = match self {
            Self::Done | Self::Unheard => grace == 0,
            Self::NotTaken | Self::GivenBackUnheard => true,
            Self::Lingers | Self::Kept | Self::Orphaned => false,
        };
        let golock = golock.set("PORT", scene.server.port().to_string()).set("REDIS_TIMEOUT", "30");
        // Whoever waits means to run later: on a slow machine the run before might have served for this one.
        let golock = if is_free { golock.set("WAIT", "30") } else { golock };
        golock.run().assert_silent(if is_free { code } else { 200 });
        assert_eq!(scene.job.runs(), before + usize::from(is_free));
    }
}

/// Whether `attempt`, given a way to run golock with a `REDIS_TIMEOUT`, shows what it is to show. Only a line that stands still
/// is cut short by the deadline: an attempt that met it elsewhere, because the machine is slow, shows nothing, and is
/// made again with more time.
pub(crate) fn with_time(stands_still: bool, mut attempt: impl FnMut(&dyn Fn(Golock) -> Done) -> bool) -> bool {
    let timeouts: &[u64] = if stands_still { &[1, 2, 4, 8, 16, 32] } else { &[30] };
    timeouts.iter().any(|&seconds| {
        attempt(&|golock| {
            let running = golock.set("REDIS_TIMEOUT", seconds.to_string()).spawn();
            if stands_still {
                // It cannot end sooner, and to look for the end of so many costs more than they do.
                thread::sleep(Duration::from_secs(seconds));
            }
            running.wait()
        })
    })
}
