//! Certificates that break the rules: where any will do they do, and prove all the same that the server has their key.

use std::sync::Arc;

use rustls::crypto::ring::sign::any_supported_type;
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{ServerConfig, SupportedProtocolVersion};

use crate::support::tls::certificates::{Authority, KeyKind, Papers};
use crate::support::tls::front::{Always, Front, config, load};
use crate::support::tls::odd::{ODDITIES, Oddity, odd};
use crate::support::tls::{Secured, with_versions};
use crate::support::{Done, Golock, Job, Scene, each};

const KINDS: [KeyKind; 4] = KeyKind::ALL;

/// A server that shows the certificate of `papers` and signs with the key of `signer`.
fn server(papers: &Papers, signer: &Papers, version: &'static SupportedProtocolVersion) -> ServerConfig {
    let key = any_supported_type(&load(signer).1).unwrap();
    let certified = CertifiedKey::new(vec![load(papers).0], key);
    // rustls itself would take no such certificate, nor one with another key.
    let authority = Authority::new();
    let mut config = config(&authority.issue(&["localhost"]), &[version]);
    config.cert_resolver = Arc::new(Always(Arc::new(certified)));
    config
}

fn visit(authority: &Authority, front: &Front, skip: &str) -> (Done, Job) {
    let job = Job::exits(7);
    let golock = Golock::new(front.port())
        .set("HOST", "localhost")
        .set("TLS", "yes")
        .set("TLS_SKIP_VERIFY", skip)
        .set("TLS_CA", authority.file())
        .set("KEY", "odd")
        .set("GRACE", "0")
        .args(job.command());
    (golock.run(), job)
}

fn cases() -> Vec<(&'static SupportedProtocolVersion, KeyKind, Oddity)> {
    let kinds = KINDS.iter().flat_map(|kind| ODDITIES.map(|oddity| (*kind, oddity)));
    kinds.flat_map(|(kind, oddity)| [&TLS12, &TLS13].map(|version| (version, kind, oddity))).collect()
}

/// What golock must say of it where it does not take any; nothing, if it takes this one.
fn flaw(oddity: Oddity) -> &'static str {
    match oddity {
        Oddity::NegativeSerial | Oddity::LongSerial => "",
        Oddity::Version1 => "the server's certificate is of X.509 version 1: it has only a CN, which does not count",
        Oddity::CriticalExtension => "the server's certificate is not acceptable: UnsupportedCriticalExtension",
        Oddity::UnknownSignature => "the server's certificate is signed by an unsupported algorithm, such as SHA-1",
        Oddity::WrongSignature => "the server's certificate is not of the trusted CA, but of one with the same name",
        Oddity::Dates => "the server's certificate has expired",
        Oddity::NoCertificate => "the server's certificate is not X.509",
    }
}

#[test]
fn a_certificate_of_any_shape_will_do_where_any_will() {
    each(&cases(), |&(version, kind, oddity)| {
        let authority = Authority::new();
        let papers = odd(&authority, &kind.generate(), oddity);
        let front = Front::start(server(&papers, &papers, version));
        for skip in ["yes", "no"] {
            let (done, job) = visit(&authority, &front, skip);
            // What is no certificate has no key either.
            let takes_any = skip == "yes" && oddity != Oddity::NoCertificate;
            if takes_any || flaw(oddity).is_empty() {
                done.assert_silent(7);
                assert_eq!(job.runs(), 1);
            } else {
                done.assert_one_line(201, &["cronlock.odd", flaw(oddity)]);
                assert_eq!(job.runs(), 0);
            }
        }
    });
}

#[test]
fn a_certificate_of_any_shape_is_of_no_use_without_its_key() {
    each(&cases(), |&(version, kind, oddity)| {
        let authority = Authority::new();
        let papers = odd(&authority, &kind.generate(), oddity);
        let thief = authority.issue_for(&KeyKind::P256.generate(), &["localhost"], |_| ());
        let thief = if kind == KeyKind::Rsa { papers_of_another_rsa_key(&authority) } else { thief };
        let front = Front::start(server(&papers, &thief, version));
        let (done, job) = visit(&authority, &front, "yes");
        let reason = match oddity {
            Oddity::NoCertificate => flaw(oddity),
            _ => "the server does not have the key of its certificate",
        };
        done.assert_one_line(201, &["cronlock.odd", reason]);
        assert_eq!((job.runs(), front.connections()), (0, 1));
    });
}

/// The tests share one RSA key.
fn papers_of_another_rsa_key(authority: &Authority) -> Papers {
    let words = ["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"];
    let key = rcgen::KeyPair::from_pem(&crate::support::tls::certificates::openssl(&words, "")).unwrap();
    authority.issue_for(&key, &["localhost"], |_| ())
}

#[test]
fn old_certificates_serve_on_both_sides_of_a_real_redis() {
    each(&with_versions(&[KeyKind::P256, KeyKind::Ed25519, KeyKind::Rsa]), |&(version, kind)| {
        let old = |authority: &Authority| odd(authority, &kind.generate(), Oddity::Version1);
        let words = ["--tls-auth-clients", "yes", "--tls-protocols", version];
        let secured = Secured::with(Authority::new(), old, &words);
        let scene = Scene::new(&secured.server, Job::exits(7));
        let golock = secured.golock(&scene).identity(&old(&secured.authority)).set("TLS_SKIP_VERIFY", "yes");
        golock.run().assert_silent(7);
        scene.assert_released();
    });
}
