//! Time as golock measures it.
//!
//! Spans are taken on `CLOCK_BOOTTIME`, which counts the time that a host is suspended, because a lock expires in Redis
//! while a laptop sleeps. The wall clock only judges what a predecessor left behind, and dates the records of local locks.

use nix::time::{ClockId, clock_gettime};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

// Unless told to ask the kernel itself, rustix goes through libc here, whose time has 32 bits, and takes it for 64.
#[cfg(all(target_arch = "mips", target_env = "musl", not(rustix_use_experimental_asm)))]
compile_error!("every deadline would be wrong: build with --cfg=rustix_use_experimental_asm, as dist/build does");

/// A point in time on this host's boot-time clock, in nanoseconds: they are enough for 584 years.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

#[allow(missing_docs)]
impl Instant {
    pub const NEVER: Self = Self(u64::MAX);
    pub const ZERO: Self = Self(0);

    pub fn now() -> Self {
        // It cannot fail: every Linux that golock runs on has this clock.
        Self(clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(0, |now| nanoseconds(now.into())))
    }

    pub fn after(span: Duration) -> Self {
        Self::now() + span
    }

    pub fn before(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(nanoseconds(span)))
    }

    /// The time left until this instant; `None` once it has passed. An expired deadline gets no extra second.
    pub fn remaining(self) -> Option<Duration> {
        self.since(Self::now())
    }

    /// The time from `earlier` to this instant; `None` if it is not later.
    pub fn since(self, earlier: Self) -> Option<Duration> {
        (self > earlier).then(|| Duration::from_nanos(self.0 - earlier.0))
    }

    pub fn has_passed(self) -> bool {
        self <= Self::now()
    }
}

impl std::ops::Add<Duration> for Instant {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(nanoseconds(span)))
    }
}

/// std's own goes through 128 bits.
fn nanoseconds(span: Duration) -> u64 {
    span.as_secs().saturating_mul(1_000_000_000).saturating_add(span.subsec_nanos().into())
}

/// Wakes `poll(2)` at an instant even if the host was suspended meanwhile; poll's own timeout does not count that time.
pub struct Timer(OwnedFd);

impl Timer {
    /// A timer that is not set; `None` where the system has none.
    pub fn new() -> Option<Self> {
        timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK).ok().map(Self)
    }

    /// Sets it to `instant`; false if that fails.
    pub fn set(&self, instant: Instant) -> bool {
        let it_interval = Timespec::default();
        let Ok(it_value) = Timespec::try_from(Duration::from_nanos(instant.0)) else { return false };
        timerfd_settime(&self.0, TimerfdTimerFlags::ABSTIME, &Itimerspec { it_interval, it_value }).is_ok()
    }
}

impl AsFd for Timer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Milliseconds since 1970 by the wall clock; 0 if it stands before that.
pub fn unix_milliseconds() -> u64 {
    milliseconds(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// `span` in whole milliseconds, rounded down. std's own goes through 128 bits.
pub fn milliseconds(span: Duration) -> u64 {
    span.as_secs().saturating_mul(1000).saturating_add(span.subsec_millis().into())
}

/// A number nobody can predict, from the keys that std draws from the operating system for its hash maps.
pub fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish()
}

/// `span` without up to a fifth of it at random, so that the hosts of a fleet do not act in step.
pub fn jittered(span: Duration) -> Duration {
    let thousandths = u32::try_from(random() % 1000).unwrap_or(0);
    span.saturating_sub(span / 5 * thousandths / 1000)
}
