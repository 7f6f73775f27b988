//! A lock that is held by a lease: it stays for as long as the job runs, whatever happens in between that can be mended.

use std::time::Duration;

use rustix::process::Signal;

use crate::support::job_tools::{Notes, graceless};
use crate::support::redis::free_port;
use crate::support::tenant::{NAME, STEADY, STUBBORN, Tenant, job, leasing};
use crate::support::wait::holds_within;
use crate::support::watch::is_alive;
use crate::support::{Action, Data, Direction, Fault, Job, Proxy, Scene, Server, each, until};

/// A number of EVALs since `before`.
fn evals(server: &Server, before: u64) -> u64 {
    server.command_count("eval") - before
}

#[test]
fn a_job_of_three_leases_keeps_its_lock() {
    const LEASE: Duration = Duration::from_secs(3);
    let server = Server::start(&[]);
    let tenant = Tenant::start(&leasing(server.port(), "3"), STEADY);
    let token = server.get(NAME);
    assert!(token.is_some());
    let lost = holds_within(3 * LEASE, || server.get(NAME) != token || !(1..=3000).contains(&server.pttl(NAME)));
    assert!(!lost, "the lock is {:?} for {} ms", server.get(NAME), server.pttl(NAME));
    // One before the job, and then one in every third of a lease; a slow machine may need more of them, or fewer.
    assert!((5..=20).contains(&evals(&server, 0)), "{} EVALs", evals(&server, 0));
    tenant.finish();
    assert_eq!(server.locks(), [""; 0]);
}

#[test]
fn the_job_knows_the_token_of_its_lease() {
    let server = Server::start(&[]);
    let tenant = Tenant::start(&leasing(server.port(), "60"), r#"echo "$GOLOCK_KEY $GOLOCK_TOKEN" >"$0/lock""#);
    assert_eq!(tenant.notes.lines("lock", 1)[0], format!("{NAME} {}", server.get(NAME).unwrap()));
    tenant.finish();
}

/// Something that befalls Redis while a job runs under a lease, and passes.
struct Trouble {
    name: &'static str,
    befall: fn(&Server, &Proxy),
}

impl std::fmt::Debug for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// Freezes Redis for less than a lease: until golock waits for it.
fn freeze(server: &Server, proxy: &Proxy) {
    let connections = proxy.connections();
    server.stop();
    until("a renewal hangs", || proxy.connections() > connections);
    server.cont();
}

/// Cuts golock off, and again, until it gets through.
fn kill_clients(server: &Server, _: &Proxy) {
    let before = evals(server, 0);
    until("the lease is renewed in spite of it", || {
        let _: i64 = server.query(&["CLIENT", "KILL", "TYPE", "normal"]);
        evals(server, before) > 0
    });
}

#[test]
fn what_passes_before_the_lease_ends_is_not_noticed() {
    let troubles = [
        Trouble { name: "frozen", befall: freeze },
        Trouble { name: "clients killed", befall: kill_clients },
        Trouble { name: "restarted", befall: |server, _| server.restart(Data::Kept) },
        Trouble { name: "restarted empty", befall: |server, _| server.restart(Data::Lost) },
    ];
    each(&troubles, |trouble| {
        let server = Server::start(&[]);
        let proxy = Proxy::start(server.port());
        let tenant = Tenant::start(&leasing(proxy.port(), "6"), STEADY);
        let token = server.get(NAME);
        (trouble.befall)(&server, &proxy);
        let before = evals(&server, 0);
        until("the lease is renewed", || evals(&server, before) > 0);
        assert_eq!(server.get(NAME), token);
        assert!((1..=6000).contains(&server.pttl(NAME)));
        tenant.finish();
        assert_eq!(server.locks(), [""; 0]);
    });
}

#[test]
fn the_grace_outlasts_a_shorter_lease() {
    let server = Server::start(&[]);
    each(&["3", "30", "60"], |lease| {
        let scene = Scene::new(&server, Job::exits(7));
        scene.golock().set("GRACE", "40").set("LEASE", lease).run().assert_silent(7);
        scene.assert_released_within(40);
        assert!(server.pttl(&scene.name()) > 31_000, "the grace ends after {} ms", server.pttl(&scene.name()));
    });
}

#[test]
fn release_bounds_the_hold_of_a_lease() {
    let server = Server::start(&[]);
    let tenant = Tenant::start(&leasing(server.port(), "3").set("RELEASE", "4"), STEADY);
    let job = tenant.job;
    tenant.golock.wait().assert_one_line(201, &[NAME, "RELEASE"]);
    assert!(!is_alive(job));
    until("the lock is gone", || server.get(NAME).is_none());
}

#[test]
fn a_lease_longer_than_release_is_as_long_as_release() {
    let server = Server::start(&[]);
    let tenant = Tenant::start(&leasing(server.port(), "1000").set("RELEASE", "60"), STEADY);
    assert!((1..=60_000).contains(&server.pttl(NAME)));
    tenant.finish();
}

#[test]
fn a_lease_that_cannot_be_renewed_is_refused_before_the_job_starts() {
    let server = Server::start(&[]);
    server.query::<()>(&["ACL", "SETUSER", "default", "-eval"]);
    let notes = Notes::new();
    let done = leasing(server.port(), "60").set("GRACE", "40").args(job(&notes, STEADY)).run();
    done.assert_one_line(201, &[NAME, "EVAL", "permissions"]);
    assert!(!notes.path("pid").exists());
    assert_eq!(server.locks(), [""; 0]);
}

#[test]
fn without_eval_a_lock_that_may_expire_any_moment_is_not_deleted() {
    let server = Server::start(&[]);
    server.query::<()>(&["ACL", "SETUSER", "default", "-eval"]);
    leasing(server.port(), "3").args(["true"]).run().assert_one_line(201, &[NAME, "EVAL"]);
    // Between the look and the deletion it could have become another's.
    assert_eq!((server.command_count("set"), server.command_count("del")), (1, 0));
}

#[test]
fn a_lease_that_is_too_short_to_be_renewed_is_refused() {
    each(&["1", "2"], |lease| {
        let port = free_port();
        leasing(port, lease).args(["true"]).run().assert_one_line(201, &["CRONLOCK_LEASE", lease]);
    });
}

#[test]
fn a_lost_reply_before_the_job_starts_costs_nothing() {
    let server = Server::start(&[]);
    // The reply to the first renewal, after those to SET and GET, comes never; the next try is later than the lease.
    let fault =
        Fault { direction: Direction::Reply, at: "+OK\r\n$19\r\n1234567890123456789\r\n".len(), action: Action::Stall };
    let scene = Scene::new(&server, Job::exits(7)).fault(0, fault);
    scene.golock().set("LEASE", "3").set("REDIS_TIMEOUT", "4").run().assert_silent(7);
    scene.assert_released();
}

#[test]
fn orphans_of_the_job_do_not_keep_golock_from_renewing() {
    const ORPHANS: &str = r#"while [ -d "$0" ] && [ ! -e "$0/open" ]; do (sleep 0.01 &); sleep 0.01; done &"#;
    let server = Server::start(&[]);
    // The server takes longer to answer than the next orphan to end.
    let proxy = Proxy::start(server.port()).pace(usize::MAX, Duration::from_millis(100));
    let mut tenant = Tenant::start(&leasing(proxy.port(), "4"), ORPHANS);
    assert!(!holds_within(Duration::from_secs(5), || tenant.golock.has_ended()), "golock has given up");
    tenant.finish();
}

#[test]
fn a_forwarded_signal_does_not_end_the_lease() {
    let server = Server::start(&[]);
    let tenant = Tenant::start(&leasing(server.port(), "3"), STUBBORN);
    tenant.golock.signal(Signal::TERM);
    until("the job is told", || tenant.is_told());
    let before = evals(&server, 0);
    until("the lease is renewed", || evals(&server, before) > 0);
    tenant.finish();
}

#[test]
fn without_a_lease_nothing_is_renewed() {
    let server = Server::start(&[]);
    graceless(server.port()).set("RELEASE", "3").args(["sleep", "1.5"]).run().assert_silent(0);
    assert_eq!(evals(&server, 0), 2, "only before the job and after it is there an EVAL");
}
