//! TLS to a real Redis: whom golock trusts, and how it says who it is.

use std::path::Path;

use rcgen::{ExtendedKeyUsagePurpose, date_time_ymd};

use crate::support::tls::certificates::{Authority, KeyKind, Papers, as_ca, pem, traditional};
use crate::support::tls::{Secured, VERSIONS, with_versions};
use crate::support::{Golock, Job, Scene, each};

/// What is wrong with a server's certificate.
#[derive(Clone, Copy, Debug)]
enum Flaw {
    Expired,
    NotYetValid,
    OtherName,
    OtherAddress,
    Nameless,
    ForClients,
    SelfSigned,
    /// As `openssl req -x509` makes it: a CA, although it is meant for one server.
    SelfSignedCa,
}

const FLAWS: &[Flaw] = &[
    Flaw::Expired,
    Flaw::NotYetValid,
    Flaw::OtherName,
    Flaw::OtherAddress,
    Flaw::Nameless,
    Flaw::ForClients,
    Flaw::SelfSigned,
    Flaw::SelfSignedCa,
];

impl Flaw {
    fn issue(self, authority: &Authority) -> Papers {
        let key = KeyKind::P256.generate();
        let here: &[&str] = &["localhost"];
        match self {
            Self::Expired => authority.issue_for(&key, here, |params| params.not_after = date_time_ymd(2020, 1, 1)),
            Self::NotYetValid => {
                authority.issue_for(&key, here, |params| params.not_before = date_time_ymd(2900, 1, 1))
            }
            Self::OtherName => authority.issue(&["redis.example"]),
            Self::OtherAddress => authority.issue(&["192.0.2.1"]),
            Self::Nameless => authority.issue(&[]),
            Self::ForClients => authority.issue_for(&key, here, |params| {
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            }),
            Self::SelfSigned => authority.self_signed(here, |_| ()),
            Self::SelfSignedCa => authority.self_signed(here, as_ca),
        }
    }

    /// What golock must say of the server's certificate.
    fn reason(self) -> &'static str {
        match self {
            Self::Expired => "has expired",
            Self::NotYetValid => "is not valid yet; is the clock right?",
            Self::OtherName => "is for another name: redis.example",
            Self::OtherAddress => "is for another name: 192.0.2.1",
            Self::Nameless => "is for another name: it has no subjectAltName, and a CN does not count",
            Self::ForClients => "is not meant for servers (extendedKeyUsage)",
            Self::SelfSigned => "is of a CA that is not trusted",
            Self::SelfSignedCa => "is not trusted: it is that of a CA, or self-signed",
        }
    }
}

/// Asserts that golock gave up at the first connection, and said just why.
#[track_caller]
fn assert_refused(scene: &Scene<'_>, golock: &Golock, reason: &str) {
    let (name, port) = (scene.name(), scene.proxy.port());
    let done = golock.run();
    let found = done.stderr.replace("127.0.0.1", "localhost");
    let expected =
        format!("golock: sh did not run: cannot take the lock {name}: redis at localhost:{port}: {reason}\n");
    assert_eq!((done.code, found), (201, expected));
    scene.assert_not_run();
    assert_eq!(scene.proxy.connections(), 1);
}

/// The same for a certificate of the server's that is not accepted.
#[track_caller]
fn assert_flawed(scene: &Scene<'_>, golock: &Golock, flaw: &str) {
    assert_refused(scene, golock, &format!("the server's certificate {flaw}"));
}

/// Asserts that the job ran, and that it cost two connections.
#[track_caller]
fn assert_served(scene: &Scene<'_>, golock: &Golock) {
    golock.run().assert_silent(7);
    scene.assert_released();
    assert_eq!(scene.proxy.connections(), 2);
}

#[test]
fn every_kind_of_key_serves_with_every_other() {
    each(&with_versions(&KeyKind::ALL), |&(version, kind)| {
        let issue = |authority: &Authority| authority.issue_for(&kind.generate(), &["localhost"], |_| ());
        let words = ["--tls-protocols", version, "--tls-auth-clients", "optional"];
        let secured = Secured::with(Authority::new(), issue, &words);
        for own in KeyKind::ALL.map(Some).into_iter().chain([None]) {
            let scene = Scene::new(&secured.server, Job::exits(7));
            let papers = own.map(|own| secured.authority.issue_for(&own.generate(), &["client"], |_| ()));
            assert_served(&scene, &papers.iter().fold(secured.golock(&scene), Golock::identity));
        }
    });
}

#[test]
fn a_server_may_be_known_by_its_address() {
    each(&VERSIONS, |version| {
        let issue = |authority: &Authority| authority.issue(&["127.0.0.1"]);
        let secured = Secured::with(Authority::new(), issue, &["--tls-protocols", version]);
        let scene = Scene::new(&secured.server, Job::exits(7));
        assert_served(&scene, &secured.golock(&scene).set("HOST", "127.0.0.1"));
        let other = Scene::new(&secured.server, Job::exits(7));
        assert_flawed(&other, &secured.golock(&other), "is for another name: localhost");
    });
}

#[test]
fn a_url_can_ask_for_tls() {
    let secured = Secured::start(&["--requirepass", "p@ss"]);
    let scene = Scene::new(&secured.server, Job::exits(7));
    let url = format!("rediss://:p%40ss@localhost:{}/3", scene.proxy.port());
    assert_served(&scene, &secured.golock(&scene).unset("HOST").unset("PORT").unset("TLS").set("URL", url));
}

#[test]
fn password_and_database_go_through_tls() {
    let secured = Secured::start(&["--requirepass", "secret"]);
    let scene = Scene::new(&secured.server, Job::gated(7));
    let running = secured.golock(&scene).set("AUTH", "secret").set("DB", "3").spawn();
    scene.job.wait_running();
    assert_eq!(secured.server.locks(), [format!("3:{}", scene.name())]);
    scene.job.open_gate();
    running.wait().assert_silent(7);
    assert_eq!((secured.server.locks().len(), scene.proxy.connections()), (0, 2));
    for record in scene.proxy.records() {
        assert!(!String::from_utf8_lossy(&record.request).contains("secret"));
    }
}

#[test]
fn the_trusted_ca_can_be_named_in_several_ways() {
    let secured = Secured::start(&[]);
    let own = secured.authority.file();
    // Of the same name, as a CA and its successor are.
    let stranger = Authority::new().pem();
    let bundle = secured.authority.write(&format!("# of both\n{stranger}\nand more\n{}", pem(&own)));
    let dos = secured.authority.write(&pem(&own).replace('\n', "\r\n"));
    let missing = own.with_file_name("missing");
    each(&[(&own, &missing), (&bundle, &missing), (&dos, &missing)], |(named, default)| {
        let scene = Scene::new(&secured.server, Job::exits(7));
        assert_served(&scene, &secured.golock(&scene).set("TLS_CA", named).env("SSL_CERT_FILE", default));
    });
    each(&[&own, &bundle, &dos], |default| {
        let scene = Scene::new(&secured.server, Job::exits(7));
        assert_served(&scene, &secured.golock(&scene).set("TLS_CA", "").env("SSL_CERT_FILE", default));
    });
}

#[test]
fn a_ca_that_was_not_named_is_not_trusted() {
    let (stranger, namesake) = (Authority::named("Another CA"), Authority::new());
    each(&VERSIONS, |version| {
        let secured = Secured::start(&["--tls-protocols", version]);
        let refused = |trusted: &Path, default: &Path, reason| {
            let scene = Scene::new(&secured.server, Job::exits(7));
            let golock = secured.golock(&scene).set("TLS_CA", trusted).env("SSL_CERT_FILE", default);
            assert_flawed(&scene, &golock, reason);
        };
        let (none, known) = (Path::new(""), secured.authority.file());
        // Without a file, only the CAs of the public web are trusted.
        refused(none, none, "is of a CA that is not trusted");
        refused(none, &stranger.file(), "is of a CA that is not trusted");
        refused(&stranger.file(), &known, "is of a CA that is not trusted");
        refused(&namesake.file(), &known, "is not of the trusted CA, but of one with the same name");
    });
}

#[test]
fn a_flawed_certificate_is_refused_at_once_and_the_flaw_named() {
    each(&with_versions(FLAWS), |&(version, flaw)| {
        let secured = Secured::with(Authority::new(), |authority| flaw.issue(authority), &["--tls-protocols", version]);
        let scene = Scene::new(&secured.server, Job::exits(7));
        assert_flawed(&scene, &secured.golock(&scene), flaw.reason());
    });
}

#[test]
fn whoever_asks_for_it_trusts_everybody() {
    each(&with_versions(FLAWS), |&(version, flaw)| {
        let secured = Secured::with(Authority::new(), |authority| flaw.issue(authority), &["--tls-protocols", version]);
        let scene = Scene::new(&secured.server, Job::exits(7));
        assert_served(&scene, &secured.golock(&scene).set("TLS_SKIP_VERIFY", "yes"));
        let scene = Scene::new(&secured.server, Job::exits(7));
        assert_served(&scene, &secured.golock(&scene).set("TLS_CA", "").set("TLS_SKIP_VERIFY", "yes"));
    });
}

#[test]
fn trusting_everybody_is_told_to_those_who_listen() {
    let secured = Secured::start(&[]);
    let told = |skip| {
        let scene = Scene::new(&secured.server, Job::exits(7));
        let done = secured.golock(&scene).set("TLS_SKIP_VERIFY", skip).set("VERBOSE", "yes").run();
        assert_eq!(done.code, 7, "{done:?}");
        done.stderr.contains("certificate")
    };
    assert_eq!((told("yes"), told("no")), (true, false));
}

#[test]
fn a_self_signed_certificate_can_be_trusted_by_itself() {
    // As a plain certificate, and as the CA that `openssl req -x509` makes of it.
    each(&with_versions(&[Flaw::SelfSigned, Flaw::SelfSignedCa]), |&(version, kind)| {
        let mut certificate = None;
        let issue = |authority: &Authority| {
            let papers = kind.issue(authority);
            certificate = Some(papers.certificate.clone());
            papers
        };
        let secured = Secured::with(Authority::new(), issue, &["--tls-protocols", version]);
        let certificate = certificate.unwrap();
        let scene = Scene::new(&secured.server, Job::exits(7));
        assert_served(&scene, &secured.golock(&scene).set("TLS_CA", &certificate));
        let other = Scene::new(&secured.server, Job::exits(7));
        let golock = secured.golock(&other).set("TLS_CA", &certificate).set("HOST", "127.0.0.1");
        assert_flawed(&other, &golock, "is for another name: localhost");
    });
}

#[test]
fn a_self_signed_certificate_that_has_expired_is_not_trusted_even_by_itself() {
    let mut certificate = None;
    let issue = |authority: &Authority| {
        let papers = authority.self_signed(&["localhost"], |params| {
            as_ca(params);
            params.not_after = date_time_ymd(2020, 1, 1);
        });
        certificate = Some(papers.certificate.clone());
        papers
    };
    let secured = Secured::with(Authority::new(), issue, &[]);
    let scene = Scene::new(&secured.server, Job::exits(7));
    assert_flawed(&scene, &secured.golock(&scene).set("TLS_CA", certificate.unwrap()), "has expired");
}

#[test]
fn every_form_of_client_key_opens() {
    let forms = [
        (KeyKind::P256, "BEGIN PRIVATE KEY"),
        (KeyKind::P256, "BEGIN EC PRIVATE KEY"),
        (KeyKind::P384, "BEGIN PRIVATE KEY"),
        (KeyKind::P384, "BEGIN EC PRIVATE KEY"),
        (KeyKind::Rsa, "BEGIN PRIVATE KEY"),
        (KeyKind::Rsa, "BEGIN RSA PRIVATE KEY"),
        (KeyKind::Ed25519, "BEGIN PRIVATE KEY"),
    ];
    each(&with_versions(&forms), |&(version, (kind, form))| {
        let secured = Secured::start(&["--tls-auth-clients", "yes", "--tls-protocols", version]);
        let mut papers = secured.authority.issue_for(&kind.generate(), &["client"], |_| ());
        if form != "BEGIN PRIVATE KEY" {
            papers.key = secured.authority.write(&traditional(&pem(&papers.key)));
        }
        assert!(pem(&papers.key).contains(form));
        let scene = Scene::new(&secured.server, Job::exits(7));
        assert_served(&scene, &secured.golock(&scene).identity(&papers));
    });
}

#[test]
fn certificate_and_key_can_share_a_file() {
    let secured = Secured::start(&["--tls-auth-clients", "yes"]);
    let papers = secured.authority.issue(&["client"]);
    let both = secured.authority.write(&(pem(&papers.key) + &pem(&papers.certificate)));
    let scene = Scene::new(&secured.server, Job::exits(7));
    assert_served(&scene, &secured.golock(&scene).identity(&Papers { certificate: both.clone(), key: both }));
}

#[test]
fn a_client_that_the_server_does_not_know_is_told_so() {
    let stranger = Authority::new();
    each(&VERSIONS, |version| {
        let secured = Secured::start(&["--tls-auth-clients", "yes", "--tls-protocols", version]);
        let expired = secured.authority.issue_for(&KeyKind::P256.generate(), &["client"], |params| {
            params.not_after = date_time_ymd(2020, 1, 1);
        });
        let missing = if *version == "TLSv1.3" { "CertificateRequired" } else { "HandshakeFailure" };
        for (papers, alert, hint) in [
            (None, missing, "; does it want a client certificate?"),
            (Some(expired), "CertificateExpired", ""),
            (Some(stranger.issue(&["client"])), "DecryptError", ""),
            (Some(Authority::named("Another CA").issue(&["client"])), "UnknownCA", ""),
        ] {
            let scene = Scene::new(&secured.server, Job::exits(7));
            let golock = papers.iter().fold(secured.golock(&scene), Golock::identity);
            assert_refused(&scene, &golock, &format!("the server ended TLS with the alert {alert}{hint}"));
        }
    });
}
