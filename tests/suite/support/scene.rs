//! The usual set-up: one lock, one job, and a proxy between golock and the server.

use std::sync::atomic::{AtomicU32, Ordering};

use super::{Fault, Golock, Job, Proxy, Server};

/// A predecessor's lock, from the year 2017, whose owner crashed before it could set a TTL.
pub(crate) const STALE: &str = "1500000000";

/// What PTTL says of a key that does not exist.
const GONE: i64 = -2;

/// A lock name that no other test uses (always of the same length), the job that it protects, and golock's way to Redis.
pub(crate) struct Scene<'s> {
    /// The server behind the proxy.
    pub(crate) server: &'s Server,
    /// What golock connects to.
    pub(crate) proxy: Proxy,
    /// What golock runs.
    pub(crate) job: Job,
    key: String,
}

impl<'s> Scene<'s> {
    /// A scene in which nothing breaks.
    pub(crate) fn new(server: &'s Server, job: Job) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let key = format!("scene{:05}", NEXT.fetch_add(1, Ordering::SeqCst));
        Self { server, proxy: Proxy::start(server.port()), job, key }
    }

    /// Breaks the connection of this index.
    #[must_use]
    pub(crate) fn fault(mut self, index: usize, fault: Fault) -> Self {
        self.proxy = self.proxy.fault(index, fault);
        self
    }

    /// The lock's full name.
    pub(crate) fn name(&self) -> String {
        format!("cronlock.{}", self.key)
    }

    /// What is recorded of the lock's runs.
    #[track_caller]
    pub(crate) fn record(&self) -> Option<String> {
        self.server.get(&format!("cronlock.run.{{{}}}", self.name()))
    }

    /// golock in this scene: without grace, and reconnecting at once.
    pub(crate) fn golock(&self) -> Golock {
        Golock::new(self.proxy.port())
            .set("KEY", &self.key)
            .set("GRACE", "0")
            .set("RECONNECT_BACKOFF", "0")
            .args(self.job.command())
    }

    /// Asserts that the job ran once, and that the lock is gone.
    #[track_caller]
    pub(crate) fn assert_released(&self) {
        self.assert_released_within(0);
    }

    /// Asserts that the job ran once, and that the lock ends in at most so many seconds: with 0, that it is gone.
    #[track_caller]
    pub(crate) fn assert_released_within(&self, seconds: i64) {
        assert_eq!(self.job.runs(), 1);
        match (seconds, self.server.pttl(&self.name())) {
            (0, left) => assert_eq!(left, GONE),
            (_, left) => assert!((1..=seconds * 1000).contains(&left), "{left} ms of {seconds} s are left"),
        }
    }

    /// Asserts that the job never ran.
    #[track_caller]
    pub(crate) fn assert_not_run(&self) {
        assert_eq!(self.job.runs(), 0);
    }
}
