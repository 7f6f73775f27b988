//! A primary that fails over to its replica: the release finds the new primary within the retry budget.

use crate::support::forward::Forwarder;
use crate::support::{Done, Golock, Job, Server, until};

/// A primary, its replica, and the address under which golock knows the one that is primary.
struct Pair {
    primary: Server,
    replica: Server,
    address: Forwarder,
}

impl Pair {
    fn start() -> Self {
        // Without it, a primary waits some seconds for more replicas to come.
        let at_once = ["--repl-diskless-sync-delay", "0"];
        let primary = Server::start(&at_once);
        let port = primary.port().to_string();
        let replica = Server::start(&[&at_once[..], &["--replicaof", "127.0.0.1", &port]].concat());
        until("the replica follows", || {
            replica.query::<String>(&["INFO", "replication"]).contains("master_link_status:up")
        });
        let address = Forwarder::start(primary.port());
        Self { primary, replica, address }
    }

    /// The replica becomes the primary, but the address still leads to the old one.
    fn promote(&self) {
        self.replica.query::<()>(&["REPLICAOF", "NO", "ONE"]);
    }

    fn demote(&self) {
        self.primary.query::<()>(&["REPLICAOF", "127.0.0.1", &self.replica.port().to_string()]);
    }

    /// The address follows.
    fn switch(&self) {
        self.address.switch_to(self.replica.port());
    }

    /// Waits until golock has come back `times` times since its first connection.
    fn wait_back(&self, times: usize) {
        until("golock comes back", || self.address.connections() > times);
    }

    /// Runs a job and does `meanwhile` when the replica knows of its lock too; then the job ends, and `afterwards`
    /// happens while golock tries to release. The lock must end released on the new primary, without a word.
    fn survives(mut self, meanwhile: impl FnOnce(&mut Self), afterwards: impl FnOnce(&mut Self)) {
        let job = Job::gated(7);
        let running = golock(&self, &job).spawn();
        job.wait_running();
        until("the replica knows of the lock", || self.replica.get(NAME).is_some());
        meanwhile(&mut self);
        job.open_gate();
        afterwards(&mut self);
        running.wait().assert_silent(7);
        assert_eq!((job.runs(), self.replica.get(NAME)), (1, None));
    }
}

const NAME: &str = "cronlock.failover";

fn golock(pair: &Pair, job: &Job) -> Golock {
    Golock::new(pair.address.port())
        .set("KEY", "failover")
        .set("GRACE", "0")
        .set("REDIS_TIMEOUT", "2")
        .set("RECONNECT_ATTEMPTS", "50")
        .set("RECONNECT_BACKOFF", "1")
        .args(job.command())
}

#[test]
fn a_failover_during_the_job_goes_unnoticed() {
    let failover = |pair: &mut Pair| {
        pair.promote();
        pair.demote();
        pair.switch();
    };
    Pair::start().survives(failover, |_| ());
}

#[test]
fn an_old_primary_that_may_not_write_any_more_is_not_the_end() {
    let failover = |pair: &mut Pair| {
        pair.promote();
        pair.demote();
    };
    let late = |pair: &mut Pair| {
        pair.wait_back(2);
        pair.switch();
    };
    Pair::start().survives(failover, late);
}

#[test]
fn a_dead_primary_is_not_the_end() {
    let crash = |pair: &mut Pair| pair.primary.kill();
    let late = |pair: &mut Pair| {
        pair.wait_back(2);
        pair.promote();
        pair.switch();
    };
    Pair::start().survives(crash, late);
}

#[test]
fn a_frozen_primary_is_not_the_end() {
    let freeze = |pair: &mut Pair| pair.primary.stop();
    let late = |pair: &mut Pair| {
        pair.wait_back(1);
        pair.promote();
        pair.switch();
    };
    Pair::start().survives(freeze, late);
}

#[test]
fn a_failover_before_the_job_costs_no_run() {
    let pair = Pair::start();
    pair.demote();
    let job = Job::exits(7);
    let running = golock(&pair, &job).spawn();
    pair.wait_back(1);
    pair.promote();
    pair.switch();
    running.wait().assert_silent(7);
    assert_eq!((job.runs(), pair.replica.get(NAME)), (1, None));
}

/// Fails over to a server that has never heard of the lock, and lets `then` happen to it before the job ends.
fn forget(then: impl FnOnce(&Server)) -> (Done, Option<String>) {
    let pair = Pair::start();
    let job = Job::gated(7);
    let running = golock(&pair, &job).spawn();
    job.wait_running();
    let successor = Server::start(&[]);
    pair.address.switch_to(successor.port());
    then(&successor);
    job.open_gate();
    let done = running.wait();
    assert_eq!(job.runs(), 1);
    (done, successor.get(NAME))
}

#[test]
fn a_lock_that_the_failover_lost_is_told() {
    let (done, left) = forget(|_| ());
    done.assert_one_line(7, &[NAME, "lost"]);
    assert_eq!(left, None);
}

#[test]
fn a_lock_that_another_took_after_the_failover_is_left_alone() {
    let (done, left) = forget(|successor| successor.set(NAME, "1999999999123456789"));
    done.assert_one_line(7, &[NAME, "lost"]);
    assert_eq!(left.as_deref(), Some("1999999999123456789"));
}
