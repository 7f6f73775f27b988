//! Redis Cluster: a lock is found on whichever node it lives, also when it moves.

use crate::support::cluster::{Cluster, record};
use crate::support::{Golock, Job, Proxy, each, until};

/// golock for a server that will be of use sooner or later.
fn patient(port: u16, key: &str, job: &Job) -> Golock {
    Golock::new(port)
        .set("KEY", key)
        .set("GRACE", "0")
        .set("RECONNECT_ATTEMPTS", "50")
        .set("RECONNECT_BACKOFF", "1")
        .args(job.command())
}

fn name(key: &str) -> String {
    format!("cronlock.{key}")
}

#[test]
fn every_node_leads_to_every_lock() {
    let cluster = Cluster::start();
    let pairs: Vec<(usize, usize)> = (0..3).flat_map(|asked| (0..3).map(move |owner| (asked, owner))).collect();
    each(&pairs, |&(asked, owner)| {
        let key = cluster.key_on(owner, &format!("asked{asked}-"));
        let (port, home, name) = (cluster.node(asked).port(), cluster.node(owner), name(&key));
        let job = Job::gated(7);
        let running = patient(port, &key, &job).spawn();
        job.wait_running();
        assert!(home.get(&name).is_some());

        let status = Golock::new(port).set("KEY", &key).args(["--status"]);
        let (held, skipping) = (status.run(), Job::exits(0));
        assert_eq!((held.code, held.stderr.as_str()), (200, ""), "{held:?}");
        assert!(held.stdout.starts_with(&format!("{name} running ttl=")), "{held:?}");
        patient(port, &key, &skipping).run().assert_silent(200);
        assert_eq!(skipping.runs(), 0);

        job.open_gate();
        running.wait().assert_silent(7);
        assert_eq!((job.runs(), home.get(&name)), (1, None));

        home.set(&name, "1999999999");
        Golock::new(port).set("KEY", &key).args(["--reset"]).run().assert_silent(200);
        assert_eq!(home.get(&name), None);
        let free = status.run();
        assert_eq!((free.code, &*free.stderr), (0, ""), "{free:?}");
        assert!(free.stdout.starts_with(&format!("{name} free host=")), "{free:?}");
        // The record stands beside the lock, and nowhere else.
        let records = |node: usize| cluster.node(node).query::<usize>(&["EXISTS", &record(&key)]);
        assert_eq!(records(owner), 1);
    });
}

#[test]
fn a_lock_that_moves_during_the_job_is_released_where_it_went() {
    let cluster = Cluster::start();
    // Where golock asks: the old home, the new one, and the one that has nothing to do with it.
    each(&[0, 1, 2], |&asked| {
        let key = cluster.key_on(0, &format!("moving{asked}-"));
        let job = Job::gated(7);
        let running = patient(cluster.node(asked).port(), &key, &job).spawn();
        job.wait_running();
        cluster.begin_move(&key, 0, 1);
        cluster.end_move(&key, 0, 1);
        assert!(cluster.node(1).get(&name(&key)).is_some());
        job.open_gate();
        running.wait().assert_silent(7);
        assert_eq!((job.runs(), cluster.node(1).get(&name(&key))), (1, None));
        let record = cluster.node(1).get(&record(&key)).unwrap();
        assert!(record.contains(" result=7 "), "{record}");
    });
}

#[test]
fn a_slot_that_is_on_its_way_is_waited_for() {
    let cluster = Cluster::start();
    let key = cluster.key_on(0, "free");
    let (proxy, job) = (Proxy::start(cluster.node(0).port()), Job::exits(7));
    cluster.begin_move(&key, 0, 1);
    let running = patient(proxy.port(), &key, &job).spawn();
    until_told(&proxy, &["ASK"]);
    cluster.end_move(&key, 0, 1);
    running.wait().assert_silent(7);
    assert_eq!((job.runs(), cluster.node(1).get(&name(&key))), (1, None));
}

#[test]
fn a_lock_that_went_before_its_slot_is_waited_for() {
    let cluster = Cluster::start();
    // Whether its record went with it. Before Redis 7 it does not matter to the node.
    each(&[(true, &["ASK"][..]), (false, &["TRYAGAIN", "ASK"])], |&(record_went, errors)| {
        let key = cluster.key_on(0, errors[0]);
        let (proxy, job) = (Proxy::start(cluster.node(0).port()), Job::gated(7));
        let running = patient(proxy.port(), &key, &job).spawn();
        job.wait_running();
        cluster.begin_move(&key, 0, 1);
        if record_went {
            cluster.move_record(&key, 0, 1);
        }
        job.open_gate();
        until_told(&proxy, errors);
        cluster.end_move(&key, 0, 1);
        running.wait().assert_silent(7);
        assert_eq!((job.runs(), cluster.node(1).get(&name(&key))), (1, None));
    });
}

/// Waits until golock has met one of these errors, has come again, and has met it again.
fn until_told(proxy: &Proxy, codes: &[&str]) {
    let errors: Vec<_> = codes.iter().map(|code| format!("-{code} ")).collect();
    let is_told = |reply: &[u8]| errors.iter().any(|error| reply.starts_with(error.as_bytes()));
    until("golock meets trouble", || proxy.records().iter().filter(|record| is_told(&record.reply)).count() >= 2);
}

#[test]
fn a_cluster_that_is_down_is_waited_for() {
    let cluster = Cluster::start();
    let key = cluster.key_on(0, "down");
    let proxy = Proxy::start(cluster.node(0).port());
    let job = Job::exits(7);
    cluster.change_slots("DELSLOTS", &key);
    let running = patient(proxy.port(), &key, &job).spawn();
    until_told(&proxy, &["CLUSTERDOWN"]);
    cluster.change_slots("ADDSLOTS", &key);
    running.wait().assert_silent(7);
    assert_eq!((job.runs(), cluster.node(0).get(&name(&key))), (1, None));
}
