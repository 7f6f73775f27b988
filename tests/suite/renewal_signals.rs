//! A renewal that hangs is nobody else's business: signals, the job's end and its timeout are dealt with at once.
//!
//! How soon "at once" is depends on the machine. But a golock that waited for its renewal would come to the rest only when
//! that is given up, after a sixth of the lease; so each is tried several times, and the quickest must be well before
//! that.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::job_tools::{pristine, status};
use crate::support::tenant::{STEADY, Tenant, leasing};
use crate::support::{Done, Proxy, Server, each, until};

/// The lease, whose first renewal comes after a third of it.
const LEASE: &str = "9";

/// How long a renewal may hang until it is given up.
const ATTEMPT: Duration = Duration::from_millis(1500);

/// What a job does to note the signals that it gets.
const LISTENING: &str = r#"for name in HUP INT QUIT TERM USR1 USR2; do trap "echo $name >>$0/log" $name; done"#;

/// A job whose lease is just being renewed, by a Redis that is frozen.
struct Hanging {
    tenant: Tenant,
    proxy: Proxy,
    server: Server,
    since: Instant,
}

impl Hanging {
    /// With a password, golock already hangs when it logs in.
    fn start(password: &str, timeout: &str, character: &str) -> Self {
        let server = Server::start(&["--requirepass", password]);
        let proxy = Proxy::start(server.port());
        let golock = leasing(proxy.port(), LEASE).set("AUTH", password).set("TIMEOUT", timeout).prelude(&pristine());
        let tenant = Tenant::start(&golock, character);
        server.stop();
        let mut hanging = Self { tenant, proxy, server, since: Instant::now() };
        hanging.wait_for_connection(1);
        hanging
    }

    /// Waits for golock to have made more connections than this.
    fn wait_for_connection(&mut self, before: usize) {
        until("a renewal hangs", || self.proxy.connections() > before);
        self.since = Instant::now();
    }

    /// Lets Redis answer, and returns how golock ended.
    fn thaw(self) -> Done {
        self.server.cont();
        self.tenant.golock.wait()
    }
}

/// The shortest of some tries at the same time.
fn quickest(attempt: impl Fn() -> Duration + Sync) -> Duration {
    let times = Mutex::new(Vec::new());
    each(&[1, 2, 3], |_| {
        let time = attempt();
        times.lock().unwrap().push(time);
    });
    times.into_inner().unwrap().into_iter().min().unwrap()
}

#[test]
fn a_signal_during_a_renewal_is_forwarded_at_once() {
    const SIGNALS: [(&str, Signal); 6] = [
        ("TERM", Signal::TERM),
        ("HUP", Signal::HUP),
        ("INT", Signal::INT),
        ("QUIT", Signal::QUIT),
        ("USR1", Signal::USR1),
        ("USR2", Signal::USR2),
    ];
    each(&["", "secret"], |password| {
        let mut hanging = Hanging::start(password, "0", LISTENING);
        let mut times = Vec::new();
        for (count, (_, signal)) in (1..).zip(SIGNALS) {
            let connections = hanging.proxy.connections();
            hanging.tenant.golock.signal(signal);
            hanging.tenant.notes.lines("log", count);
            times.push(hanging.since.elapsed());
            // The renewal was broken off, and begins again.
            hanging.wait_for_connection(connections);
        }
        println!("{times:?}");
        assert!(times.iter().min().unwrap() < &(ATTEMPT / 2), "{times:?}");
        assert_eq!(hanging.tenant.notes.lines("log", SIGNALS.len()), SIGNALS.map(|(name, _)| name));
        hanging.tenant.notes.write("open", "");
        hanging.thaw().assert_silent(7);
    });
}

#[test]
fn the_end_of_the_job_during_a_renewal_is_noticed_at_once() {
    let time = quickest(|| {
        let hanging = Hanging::start("", "0", STEADY);
        hanging.tenant.notes.write("open", "");
        until("golock knows that the job has ended", || status(hanging.tenant.job).is_empty());
        let time = hanging.since.elapsed();
        hanging.thaw().assert_silent(7);
        time
    });
    assert!(time < ATTEMPT / 2, "{time:?}");
}

#[test]
fn a_timeout_during_a_renewal_is_kept() {
    // It comes in the middle of the renewal, which begins after three seconds.
    let time = quickest(|| {
        let hanging = Hanging::start("", "4", STEADY);
        until("the job is killed", || !hanging.tenant.lives());
        let time = hanging.since.elapsed();
        hanging.thaw().assert_one_line(202, &["sh", "4 s"]);
        time
    });
    assert!(time < ATTEMPT * 7 / 8, "{time:?}");
}
