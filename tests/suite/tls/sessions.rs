//! What only the other side of a TLS connection can tell: whether a session was resumed, and who can prove what.

use std::sync::Arc;

use rustls::HandshakeKind::{Full, FullWithHelloRetryRequest, Resumed};
use rustls::crypto::{CryptoProvider, ring};
use rustls::server::NoServerSessionStorage;
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{HandshakeKind, ServerConfig, SupportedProtocolVersion};

use crate::support::tls::certificates::{Authority, KeyKind};
use crate::support::tls::front::{Always, Front, config, config_with, load};
use crate::support::tls::{Secured, VERSIONS};
use crate::support::{Golock, Job, Scene, each, until};

fn golock(authority: &Authority, front: &Front, job: &Job) -> Golock {
    Golock::new(front.port())
        .set("HOST", "localhost")
        .set("TLS", "yes")
        .set("TLS_CA", authority.file())
        .set("KEY", "sessions")
        .set("GRACE", "0")
        .set("RECONNECT_BACKOFF", "0")
        .args(job.command())
}

/// The handshakes of a run against a server with these settings.
fn handshakes(authority: &Authority, config: ServerConfig) -> Vec<Option<HandshakeKind>> {
    let (front, job) = (Front::start(config), Job::exits(7));
    golock(authority, &front, &job).run().assert_silent(7);
    assert_eq!(job.runs(), 1);
    until("both connections end", || front.visits().len() >= 2);
    front.visits().iter().map(|visit| visit.handshake).collect()
}

/// What a server can remember a session by.
#[derive(Clone, Copy, Debug)]
enum Memory {
    Ids,
    Tickets,
    Nothing,
}

impl Memory {
    fn apply(self, config: &mut ServerConfig) {
        match self {
            Self::Ids => {}
            Self::Tickets => config.ticketer = ring::Ticketer::new().unwrap(),
            Self::Nothing => config.session_storage = Arc::new(NoServerSessionStorage {}),
        }
    }
}

#[test]
fn the_second_connection_is_resumed_wherever_the_server_remembers() {
    let cases: [(&'static SupportedProtocolVersion, Memory); 6] = [
        (&TLS12, Memory::Ids),
        (&TLS12, Memory::Tickets),
        (&TLS12, Memory::Nothing),
        (&TLS13, Memory::Ids),
        (&TLS13, Memory::Tickets),
        (&TLS13, Memory::Nothing),
    ];
    each(&cases, |&(version, memory)| {
        let authority = Authority::new();
        let mut config = config(&authority.issue(&["localhost"]), &[version]);
        memory.apply(&mut config);
        let second = if matches!(memory, Memory::Nothing) { Full } else { Resumed };
        assert_eq!(handshakes(&authority, config), [Some(Full), Some(second)]);
    });
}

#[test]
fn a_server_that_wants_another_key_exchange_first_asks_for_it() {
    let authority = Authority::new();
    let provider = CryptoProvider { kx_groups: vec![ring::kx_group::SECP384R1], ..ring::default_provider() };
    let config = config_with(provider, &authority.issue(&["localhost"]), &[&TLS13]);
    let handshakes = handshakes(&authority, config);
    assert_eq!((handshakes.len(), handshakes[0]), (2, Some(FullWithHelloRetryRequest)));
}

#[test]
fn the_connection_before_the_job_ends_with_a_goodbye() {
    // Without it some servers forget the session.
    let authority = Authority::new();
    let front = Front::start(config(&authority.issue(&["localhost"]), &[&TLS12, &TLS13]));
    let job = Job::gated(7);
    let running = golock(&authority, &front, &job).spawn();
    job.wait_running();
    until("the first connection ends", || !front.visits().is_empty());
    assert!(front.visits()[0].goodbye);
    job.open_gate();
    running.wait().assert_silent(7);
}

#[test]
fn a_stolen_certificate_is_of_no_use_even_where_any_will_do() {
    let versions: [&'static SupportedProtocolVersion; 2] = [&TLS12, &TLS13];
    each(&versions, |version| {
        for skip in ["no", "yes"] {
            let authority = Authority::new();
            let papers = authority.issue(&["localhost"]);
            let thief = authority.issue_for(&KeyKind::P256.generate(), &["localhost"], |_| ());
            let key = ring::sign::any_supported_type(&load(&thief).1).unwrap();
            let mut config = config(&papers, &[version]);
            config.cert_resolver = Arc::new(Always(Arc::new(CertifiedKey::new(vec![load(&papers).0], key))));
            let (front, job) = (Front::start(config), Job::exits(7));
            let done = golock(&authority, &front, &job).set("TLS_SKIP_VERIFY", skip).run();
            done.assert_one_line(201, &["cronlock.sessions", "the server does not have the key of its certificate"]);
            assert_eq!((job.runs(), front.connections()), (0, 1));
        }
    });
}

#[test]
fn the_second_connection_to_a_real_redis_saves_the_certificate() {
    each(&VERSIONS, |version| {
        let issue = |authority: &Authority| authority.issue_for(&KeyKind::Rsa.generate(), &["localhost"], |_| ());
        let secured = Secured::with(Authority::new(), issue, &["--tls-protocols", version]);
        let scene = Scene::new(&secured.server, Job::exits(7));
        secured.at_one_address(&scene).run().assert_silent(7);
        let [first, second] = [0, 1].map(|index| scene.proxy.records()[index].reply.len());
        // The certificate and the signature with its key make up the most of a full handshake.
        assert!(second * 2 < first, "{version}: {first} and {second} bytes came from the server");
    });
}

#[test]
fn a_real_redis_without_memory_for_sessions_serves_as_well() {
    each(&VERSIONS, |version| {
        let secured = Secured::start(&["--tls-session-caching", "no", "--tls-protocols", version]);
        let scene = Scene::new(&secured.server, Job::exits(7));
        secured.at_one_address(&scene).run().assert_silent(7);
    });
}

#[test]
fn a_node_that_golock_is_sent_to_must_prove_its_own_name() {
    let secured = Secured::start(&[]);
    let port = secured.server.port();
    each(&[("localhost", 7), ("", 7), ("127.0.0.1", 201)], |&(host, code)| {
        let settings = config(&secured.authority.issue(&["localhost"]), &[&TLS12, &TLS13]);
        let front = Front::answering(settings, move |_, _| format!("-MOVED 3999 {host}:{port}\r\n"));
        let scene = Scene::new(&secured.server, Job::exits(7));
        let done = secured.golock(&scene).set("PORT", front.port().to_string()).run();
        if code == 7 {
            done.assert_silent(7);
            scene.assert_released();
        } else {
            done.assert_one_line(201, &[&scene.name(), &format!("127.0.0.1:{port}"), "name", "localhost"]);
            scene.assert_not_run();
        }
    });
}
