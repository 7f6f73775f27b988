//! Servers that golock cannot speak with, and why: the reason is called by its name.

use crate::support::tls::certificates::{Authority, KeyKind, Papers, openssl, pem};
use crate::support::tls::foreign::Foreign;
use crate::support::tls::odd::{Oddity, odd};
use crate::support::{Golock, Job, each};

const TOO_SMALL: &str = "the server's certificate depends on an RSA key of 1024 bits; 2048 to 8192 are needed";
const NOTHING_IN_COMMON: &str = "the server ended TLS with the alert HandshakeFailure; it has no cipher suite, curve or kind of \
                                 signature in common with golock";

fn golock(authority: &Authority, port: u16, job: &Job) -> Golock {
    Golock::new(port)
        .set("HOST", "localhost")
        .set("TLS", "yes")
        .set("TLS_CA", authority.file())
        .set("KEY", "reasons")
        .set("RECONNECT_ATTEMPTS", "3")
        .args(job.command())
}

/// Asserts that golock gives up at once, and says just why.
#[track_caller]
fn assert_refused(golock: &Golock, port: u16, job: &Job, reason: &str) {
    let done = golock.run();
    let place = format!("cannot take the lock cronlock.reasons: redis at localhost:{port}");
    assert_eq!((done.code, done.stderr), (201, format!("golock: sh did not run: {place}: {reason}\n")));
    assert_eq!(job.runs(), 0);
}

/// A certificate for `localhost` that OpenSSL signs with these options and this CA.
fn issued(authority: &Authority, ca: &Papers, key: &str, options: &[&str]) -> Papers {
    let key = authority.write(key);
    let extensions = authority.write("subjectAltName=DNS:localhost\n");
    let [ca_file, ca_key, extensions, own] =
        [&ca.certificate, &ca.key, &extensions, &key].map(|path| path.to_str().unwrap());
    let request = openssl(&["req", "-new", "-key", own, "-subj", "/CN=localhost"], "");
    let words = ["x509", "-req", "-CA", ca_file, "-CAkey", ca_key, "-set_serial", "3", "-days", "3"];
    let certificate = openssl(&[&words[..], &["-extfile", extensions], options].concat(), &request);
    Papers { certificate: authority.write(&certificate), key }
}

/// A CA that OpenSSL makes with a key of this kind.
fn ca(authority: &Authority, key: &str) -> Papers {
    let key = authority.write(key);
    let words = ["req", "-x509", "-new", "-subj", "/CN=other", "-days", "3", "-key", key.to_str().unwrap()];
    let certificate = openssl(&[&words[..], &["-addext", "keyUsage=keyCertSign"]].concat(), "");
    Papers { certificate: authority.write(&certificate), key }
}

fn rsa(bits: &str) -> String {
    openssl(&["genrsa", bits], "")
}

fn elliptic(curve: &str) -> String {
    openssl(&["ecparam", "-name", curve, "-genkey", "-noout"], "")
}

fn own(authority: &Authority) -> Papers {
    Papers { certificate: authority.file(), key: authority.write(&authority.key().serialize_pem()) }
}

#[test]
fn a_key_that_is_too_small_is_called_that() {
    each(&["-tls1_2", "-tls1_3"], |version| {
        let authority = Authority::new();
        let small = issued(&authority, &own(&authority), &rsa("1024"), &[]);
        let server = Foreign::start(&small, &[version]);
        for (skip, trusted) in [("no", authority.file()), ("yes", "".into())] {
            let job = Job::exits(7);
            let golock = golock(&authority, server.port(), &job).set("TLS_SKIP_VERIFY", skip).set("TLS_CA", trusted);
            assert_refused(&golock, server.port(), &job, TOO_SMALL);
        }
    });
}

#[test]
fn a_ca_whose_key_is_too_small_is_called_that() {
    let (authority, job) = (Authority::new(), Job::exits(7));
    let small = ca(&authority, &rsa("1024"));
    let server = Foreign::start(&issued(&authority, &small, &rsa("2048"), &[]), &[]);
    let golock = golock(&authority, server.port(), &job).set("TLS_CA", &small.certificate);
    assert_refused(&golock, server.port(), &job, TOO_SMALL);
}

#[test]
fn an_algorithm_that_golock_does_not_know_is_called_that() {
    let authority = Authority::new();
    let p521 = ca(&authority, &elliptic("secp521r1"));
    let cases = [
        (own(&authority), "-sha1", "is signed by an unsupported algorithm, such as SHA-1"),
        (p521.clone(), "-sha512", "is signed by an unsupported algorithm, such as SHA-1"),
        (p521, "-sha256", "depends on an unsupported kind of key, such as P-521"),
    ];
    each(
        &cases.map(|(ca, digest, flaw)| (ca.certificate, ca.key, digest, flaw)),
        |(certificate, key, digest, flaw)| {
            let ca = Papers { certificate: certificate.clone(), key: key.clone() };
            let server = Foreign::start(&issued(&authority, &ca, &elliptic("prime256v1"), &[digest]), &[]);
            let job = Job::exits(7);
            let golock = golock(&authority, server.port(), &job).set("TLS_CA", certificate);
            assert_refused(&golock, server.port(), &job, &format!("the server's certificate {flaw}"));
        },
    );
}

#[test]
fn nothing_in_common_is_called_that() {
    let authority = Authority::new();
    let papers = authority.issue(&["localhost"]);
    let p521 = issued(&authority, &own(&authority), &elliptic("secp521r1"), &[]);
    let cases: [(&Papers, &[&str]); 6] = [
        (&papers, &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-SHA384:@SECLEVEL=0"]),
        (&papers, &["-tls1_2", "-cipher", "ECDHE-ECDSA-CHACHA20-POLY1305"]),
        (&papers, &["-tls1_3", "-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256"]),
        (&papers, &["-groups", "P-521"]),
        (&papers, &["-tls1_2", "-groups", "P-521"]),
        (&p521, &[]),
    ];
    each(&cases, |(papers, words)| {
        let (server, job) = (Foreign::start(papers, words), Job::exits(7));
        assert_refused(&golock(&authority, server.port(), &job), server.port(), &job, NOTHING_IN_COMMON);
    });
}

#[test]
fn an_old_version_is_called_that() {
    let authority = Authority::new();
    let papers = authority.issue(&["localhost"]);
    each(&["-tls1", "-tls1_1"], |version| {
        let (server, job) = (Foreign::start(&papers, &[version]), Job::exits(7));
        let reason = "the server speaks neither TLS 1.2 nor TLS 1.3";
        assert_refused(&golock(&authority, server.port(), &job), server.port(), &job, reason);
    });
}

#[test]
fn a_name_in_the_cn_alone_is_called_that() {
    let authority = Authority::new();
    let nameless = authority.issue(&[]);
    let old = odd(&authority, &KeyKind::P256.generate(), Oddity::Version1);
    let cases = [
        (
            pem(&nameless.certificate),
            nameless.key,
            "is for another name: it has no subjectAltName, and a CN does not count",
        ),
        (pem(&old.certificate), old.key, "is of X.509 version 1: it has only a CN, which does not count"),
    ];
    each(&cases, |(certificate, key, flaw)| {
        let papers = Papers { certificate: authority.write(certificate), key: key.clone() };
        let (server, job) = (Foreign::start(&papers, &[]), Job::exits(7));
        let reason = format!("the server's certificate {flaw}");
        assert_refused(&golock(&authority, server.port(), &job), server.port(), &job, &reason);
    });
}

#[test]
fn a_client_certificate_is_hinted_at_only_when_it_was_asked_for() {
    let authority = Authority::new();
    let (papers, client) = (authority.issue(&["localhost"]), authority.issue(&["client"]));
    let ca = authority.file();
    let asks = ["-Verify", "1", "-CAfile", ca.to_str().unwrap()];
    each(&[("-tls1_2", "HandshakeFailure"), ("-tls1_3", "CertificateRequired")], |(version, alert)| {
        let server = Foreign::start(&papers, &[&asks[..], &[version]].concat());
        let job = Job::exits(7);
        let golock = golock(&authority, server.port(), &job);
        let reason = format!("the server ended TLS with the alert {alert}; does it want a client certificate?");
        assert_refused(&golock, server.port(), &job, &reason);
        // With one, it is not that: what comes then is no Redis.
        let done = golock.identity(&client).set("RECONNECT_ATTEMPTS", "0").set("REDIS_TIMEOUT", "2").run();
        assert!(!done.stderr.contains("client certificate"), "{done:?}");
    });
}
