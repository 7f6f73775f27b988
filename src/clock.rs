//! Time as golock measures it.
//!
//! Spans are taken on a monotonic clock that also counts the time a host is suspended (`CLOCK_BOOTTIME` where the
//! platform has it): a lock expires in Redis while a laptop sleeps. The wall clock serves one purpose only, to judge
//! the value of a predecessor's lock.

use nix::time::{ClockId, clock_gettime};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

// Unless told to ask the kernel itself, rustix goes through libc here, whose time has 32 bits, and takes it for 64.
#[cfg(all(target_arch = "mips", target_env = "musl", not(rustix_use_experimental_asm)))]
compile_error!("every deadline would be wrong: build with --cfg=rustix_use_experimental_asm, as dist/build does");

#[cfg(target_os = "linux")]
const CLOCK: ClockId = ClockId::CLOCK_BOOTTIME;
#[cfg(not(target_os = "linux"))]
const CLOCK: ClockId = ClockId::CLOCK_MONOTONIC;

/// A point in time of this host's monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(Duration);

impl Moment {
    /// A moment that does not come.
    pub const NEVER: Self = Self(Duration::MAX);

    /// The first moment of this clock.
    pub const ZERO: Self = Self(Duration::ZERO);

    /// The present.
    pub fn now() -> Self {
        // It cannot fail for a clock that the platform has.
        Self(clock_gettime(CLOCK).map_or(Duration::ZERO, Duration::from))
    }

    /// The moment `span` from now.
    pub fn after(span: Duration) -> Self {
        Self::now() + span
    }

    /// What is left until this moment, or nothing once it has come. There is no "a little longer".
    pub fn remaining(self) -> Option<Duration> {
        self.since(Self::now())
    }

    /// What lies between `earlier` and this moment, or nothing if it is not later.
    pub fn since(self, earlier: Self) -> Option<Duration> {
        self.0.checked_sub(earlier.0).filter(|left| !left.is_zero())
    }

    /// Whether this moment is past.
    pub fn has_come(self) -> bool {
        self.remaining().is_none()
    }

    /// The moment `span` before this one.
    pub fn before(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(span))
    }

    /// How long ago this moment was; zero if it is still to come.
    pub fn elapsed(self) -> Duration {
        Self::now().0.saturating_sub(self.0)
    }
}

impl std::ops::Add<Duration> for Moment {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(span))
    }
}

/// Wakes `poll(2)` at a moment even if the host was suspended meanwhile; poll's own timeout does not count that time.
pub struct Alarm(OwnedFd);

impl Alarm {
    /// An alarm that is not set; none where the platform has none.
    pub fn new() -> Option<Self> {
        #[cfg(target_os = "linux")]
        return timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK).ok().map(Self);
        #[cfg(not(target_os = "linux"))]
        None
    }

    /// Sets it to `moment`; false if that fails.
    pub fn set(&self, moment: Moment) -> bool {
        let it_interval = Timespec::default();
        let Ok(it_value) = Timespec::try_from(moment.0) else { return false };
        timerfd_settime(&self.0, TimerfdTimerFlags::ABSTIME, &Itimerspec { it_interval, it_value }).is_ok()
    }
}

impl AsFd for Alarm {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Milliseconds since 1970 by the wall clock; 0 if it stands before that.
pub fn unix_milliseconds() -> u64 {
    milliseconds(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// `span` in milliseconds.
pub fn milliseconds(span: Duration) -> u64 {
    span.as_secs().saturating_mul(1000).saturating_add(span.subsec_millis().into())
}

/// A number nobody can predict, from the keys that std draws from the operating system for its hash maps.
pub fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish()
}

/// `span`, of which up to a fifth is left out at random, so that a fleet does not act in step.
pub fn jittered(span: Duration) -> Duration {
    let thousandths = u32::try_from(random() % 1000).unwrap_or(0);
    span.saturating_sub(span / 5 * thousandths / 1000)
}
