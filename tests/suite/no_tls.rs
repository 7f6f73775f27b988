//! A golock that was built without TLS says so instead of speaking in the clear.

use crate::support::{Golock, Job, Scripted, each};

#[test]
fn whoever_asks_for_tls_is_told_that_there_is_none() {
    let settings: [&[(&str, &str)]; 5] = [
        &[("TLS", "yes")],
        &[("TLS", "yes"), ("TLS_SKIP_VERIFY", "yes")],
        &[("TLS", "yes"), ("TLS_CA", "/missing.pem")],
        &[("TLS", "yes"), ("TLS_CERT", "/missing.pem"), ("TLS_KEY", "/missing.pem")],
        &[("HOST", ""), ("PORT", ""), ("URL", "rediss://localhost")],
    ];
    each(&settings, |settings| {
        let (nobody, job) = (Scripted::start(|_, _| ()), Job::exits(7));
        let golock = Golock::new(nobody.port()).set("KEY", "key").args(job.command());
        let golock = settings.iter().fold(golock, |golock, (name, value)| golock.set(name, value));
        golock.run().assert_one_line(201, &["TLS", "without"]);
        assert_eq!((job.runs(), nobody.connections()), (0, 0));
    });
}
