//! `TLS_NAME`: the name that the server's certificate must hold where it is not that of the host.

use rustls::version::{TLS12, TLS13};

use crate::support::forward::Forwarder;
use crate::support::tls::certificates::Authority;
use crate::support::tls::front::{Front, config};
use crate::support::tls::{Secured, VERSIONS};
use crate::support::{Golock, Job, Scene, each};

fn named(name: &str, version: &str) -> Secured {
    Secured::with(Authority::new(), |authority| authority.issue(&[name]), &["--tls-protocols", version])
}

#[track_caller]
fn assert_served(scene: &Scene<'_>, golock: &Golock) {
    golock.run().assert_silent(7);
    scene.assert_released();
}

#[track_caller]
fn assert_refused(scene: &Scene<'_>, golock: &Golock, reason: &str) {
    golock.run().assert_one_line(201, &[&scene.name(), reason]);
    scene.assert_not_run();
}

#[test]
fn a_tunnel_is_another_host_than_the_one_in_the_certificate() {
    each(&VERSIONS, |version| {
        let secured = named("redis.example", version);
        let tunnel = Forwarder::start(secured.server.port());
        for host in ["localhost", "127.0.0.1"] {
            let scene = Scene::new(&secured.server, Job::exits(7));
            let golock = secured.golock(&scene).set("HOST", host).set("PORT", tunnel.port().to_string());
            assert_refused(&scene, &golock, "is for another name: redis.example");
            assert_served(&scene, &golock.set("TLS_NAME", "redis.example"));
        }
    });
}

#[test]
fn it_may_be_an_address() {
    each(&VERSIONS, |version| {
        let secured = named("192.0.2.1", version);
        let scene = Scene::new(&secured.server, Job::exits(7));
        assert_served(&scene, &secured.golock(&scene).set("TLS_NAME", "192.0.2.1"));
    });
}

#[test]
fn it_counts_in_the_place_of_the_host() {
    let secured = Secured::start(&[]);
    for skip in [false, true] {
        let scene = Scene::new(&secured.server, Job::exits(7));
        let golock = secured.golock(&scene).set("TLS_NAME", "redis.example");
        if skip {
            assert_served(&scene, &golock.set("TLS_SKIP_VERIFY", "yes"));
        } else {
            assert_refused(&scene, &golock, "is for another name: localhost");
        }
    }
}

#[test]
fn a_name_that_is_none_is_told() {
    let secured = Secured::start(&[]);
    each(&["not a name", "a..b", "redis.example:6379"], |name| {
        let scene = Scene::new(&secured.server, Job::exits(7));
        let golock = secured.golock(&scene).set("TLS_NAME", name);
        assert_refused(&scene, &golock, &format!("no certificate can hold the name {name}"));
    });
}

#[test]
fn it_is_the_name_of_all_nodes_of_a_cluster() {
    let secured = named("redis.example", VERSIONS[1]);
    let port = secured.server.port();
    let issued = secured.authority.issue(&["redis.example"]);
    each(&["localhost", "", "127.0.0.1"], |&host| {
        let settings = config(&issued, &[&TLS12, &TLS13]);
        let front = Front::answering(settings, move |_, _| format!("-MOVED 3999 {host}:{port}\r\n"));
        let scene = Scene::new(&secured.server, Job::exits(7));
        let golock = secured.golock(&scene).set("PORT", front.port().to_string());
        assert_refused(&scene, &golock, "is for another name: redis.example");
        assert_served(&scene, &golock.set("TLS_NAME", "redis.example"));
    });
}
