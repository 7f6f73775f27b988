//! The same for everything about TLS.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, date_time_ymd};
use rustls::ALL_VERSIONS;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::sign::CertifiedKey;

use super::scenes::{Stage, Told, golock};
use crate::support::scripted::send;
use crate::support::tls::Secured;
use crate::support::tls::certificates::{Authority, KeyKind, Papers, as_ca, encrypted, openssl, pem};
use crate::support::tls::foreign::Foreign;
use crate::support::tls::front::{Always, Front, config, load};
use crate::support::tls::odd::{ODDITIES, odd};
use crate::support::{Golock, Scripted};

/// Servers, their certificates, and a job.
struct Fair {
    authority: Authority,
    stage: Stage,
}

impl Fair {
    /// golock for the TLS server on this port.
    fn golock(&self, port: u16) -> Golock {
        let golock = golock(port).set("HOST", "localhost").set("TLS", "yes").set("TLS_CA", self.authority.file());
        golock.set("REDIS_TIMEOUT", "30").set("VERBOSE", "yes").args(self.stage.job("exit 3"))
    }

    /// What golock says of a server with these papers.
    fn meets(&self, papers: &Papers) -> Told {
        let front = Front::start(config(papers, ALL_VERSIONS));
        self.golock(front.port()).run().into()
    }

    /// What it says of one that shows this certificate, and signs with the key of `signer`.
    fn is_shown(&self, shown: &Papers, signer: &Papers) -> Told {
        let mut config = config(&self.authority.issue(&["localhost"]), ALL_VERSIONS);
        let key = any_supported_type(&load(signer).1).unwrap();
        config.cert_resolver = Arc::new(Always(Arc::new(CertifiedKey::new(vec![load(shown).0], key))));
        self.golock(Front::start(config).port()).run().into()
    }

    /// What it says of a server of OpenSSL with these papers and options.
    fn shakes_hands(&self, papers: &Papers, words: &[&str]) -> Told {
        self.golock(Foreign::start(papers, words).port()).run().into()
    }

    fn issue(&self, change: impl FnOnce(&mut CertificateParams)) -> Papers {
        self.authority.issue_for(&KeyKind::P256.generate(), &["localhost"], change)
    }
}

pub(super) fn tls() -> Vec<Told> {
    let fair = Fair { authority: Authority::new(), stage: Stage::new() };
    [certificates(&fair), reasons(&fair), ports(&fair), files(&fair), sessions(&fair)].into_iter().flatten().collect()
}

fn certificates(fair: &Fair) -> Vec<Told> {
    let (namesake, stranger) = (Authority::new(), Authority::named("Another CA"));
    let for_clients = |params: &mut CertificateParams| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    };
    let hostile = fair.issue(|params| {
        params.subject_alt_names = vec![rcgen::SanType::DnsName("red\u{7}is".try_into().unwrap())];
    });
    let papers = [
        fair.issue(|params| params.not_after = date_time_ymd(2020, 1, 1)),
        fair.issue(|params| params.not_before = date_time_ymd(2900, 1, 1)),
        fair.issue(for_clients),
        fair.authority.issue(&["redis.example"]),
        fair.authority.issue(&[]),
        namesake.issue(&["localhost"]),
        stranger.issue(&["localhost"]),
        fair.authority.self_signed(&["localhost"], as_ca),
        hostile,
    ];
    let mut told: Vec<Told> = papers.iter().map(|papers| fair.meets(papers)).collect();
    let front = Front::start(config(&papers[0], ALL_VERSIONS));
    let unnamed = fair.golock(front.port());
    told.push(unnamed.clone().set("TLS_NAME", "not a name").run().into());
    told.extend(ODDITIES.map(|oddity| {
        let odd = odd(&fair.authority, &KeyKind::P256.generate(), oddity);
        fair.is_shown(&odd, &odd)
    }));
    told.push(unnamed.set("TLS_CA", "").set("TLS_SKIP_VERIFY", "yes").run().into());
    told
}

/// Servers of OpenSSL that no golock can speak with.
fn reasons(fair: &Fair) -> Vec<Told> {
    let papers = fair.authority.issue(&["localhost"]);
    let p521 = fair.authority.write(&openssl(&["ecparam", "-name", "secp521r1", "-genkey", "-noout"], ""));
    let words = ["req", "-x509", "-new", "-subj", "/CN=p521", "-sha256", "-key", p521.to_str().unwrap()];
    let ca = fair.authority.write(&openssl(&words, ""));
    let request = openssl(&["req", "-new", "-subj", "/CN=x", "-key", papers.key.to_str().unwrap()], "");
    let words = ["x509", "-req", "-sha256", "-CA", ca.to_str().unwrap(), "-CAkey", p521.to_str().unwrap()];
    let names = fair.authority.write("subjectAltName=DNS:localhost\n");
    let words = [&words[..], &["-set_serial", "3", "-extfile", names.to_str().unwrap()]].concat();
    let certificate = fair.authority.write(&openssl(&words, &request));
    let small = fair.authority.write(&openssl(&["genrsa", "1024"], ""));
    let words = ["req", "-x509", "-new", "-subj", "/CN=small", "-key", small.to_str().unwrap()];
    let small = Papers { certificate: fair.authority.write(&openssl(&words, "")), key: small };
    let trusting = |papers: &Papers, ca: &Path| -> Told {
        let server = Foreign::start(papers, &[]);
        fair.golock(server.port()).set("TLS_CA", ca).run().into()
    };
    vec![
        fair.is_shown(&papers, &fair.authority.issue(&["localhost"])),
        fair.shakes_hands(&papers, &["-groups", "P-521"]),
        trusting(&Papers { certificate, key: papers.key.clone() }, &ca),
        trusting(&small, &small.certificate),
    ]
}

fn ports(fair: &Fair) -> Vec<Told> {
    let secured = Secured::start(&["--tls-auth-clients", "yes"]);
    let alert = fair.golock(secured.server.port()).set("TLS_CA", secured.authority.file()).run();
    // It waits for the end of a line.
    let plain = fair.golock(fair.stage.server.port()).set("REDIS_TIMEOUT", "1").run();
    let answers = |answer: &'static [u8]| -> Told {
        let server = Scripted::start(move |_, stream| {
            let _ = std::io::Read::read(&mut { stream }, &mut [0; 4096]);
            send(stream, answer);
        });
        fair.golock(server.port()).run().into()
    };
    let told = golock(secured.server.port()).args(fair.stage.job("exit 3")).run();
    // Plain text; nothing; a server's hello without anything in it; an alert that it is the wrong version.
    let odd = [
        answers(b"-ERR x\r\n"),
        answers(b""),
        answers(b"\x16\x03\x03\0\x04\x02\0\0\0"),
        answers(b"\x15\x03\x03\0\x02\x02\x46"),
    ];
    [alert.into(), plain.into(), told.into()].into_iter().chain(odd).collect()
}

fn files(fair: &Fair) -> Vec<Told> {
    let own = fair.authority.issue(&["localhost"]);
    let other = fair.authority.issue(&["localhost"]);
    let write = |text: &str| fair.authority.write(text);
    let broken = pem(&own.certificate).replacen("-----\nMI", "-----\n!!", 1);
    let not_one = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let run = |name: &str, file: &std::path::Path| fair.golock(1).set(name, file).run();
    let with = |certificate: &std::path::Path, key: &std::path::Path| {
        fair.golock(1).set("TLS_CERT", certificate).set("TLS_KEY", key).run()
    };
    let done = [
        run("TLS_CA", "/nowhere".as_ref()),
        run("TLS_CA", &write("no section")),
        run("TLS_CA", &write(&broken)),
        run("TLS_CA", &write(not_one)),
        run("TLS_CA", &write("-----BEGIN CERTIFICATE")),
        run("TLS_CA", &write("-----BEGIN A\u{7}B-----\n-----END A\u{7}B-----\n")),
        with(&own.certificate, &write(&openssl(&["genrsa", "1024"], ""))),
        with(&own.certificate, &other.key),
        with(&own.certificate, &write(&encrypted(&pem(&own.key)))),
    ];
    done.into_iter().map(Told::from).collect()
}

/// A file of certificates that makes no sense any more when the job has ended.
fn sessions(fair: &Fair) -> Vec<Told> {
    let papers = fair.authority.issue(&["localhost"]);
    let front = Front::answering(config(&papers, ALL_VERSIONS), |command, asked| match command[0].as_str() {
        "SET" => "+OK\r\n".into(),
        "GET" => format!("${}\r\n{}\r\n", asked[0][2].len(), asked[0][2]),
        _ if asked.len() > 1 => format!("${}\r\n{}\r\n", asked[0][2].len(), asked[0][2]),
        _ => ":1\r\n".into(),
    });
    let trusted = fair.authority.write(&fair.authority.pem());
    let script = format!("echo nonsense >'{}'", trusted.display());
    let golock = golock(front.port()).set("HOST", "localhost").set("TLS", "yes").set("TLS_CA", &trusted);
    let done = golock.set("VERBOSE", "yes").args(fair.stage.job(&script)).run();
    assert!(fs::read_to_string(&trusted).unwrap().starts_with("nonsense"), "{done:?}");
    vec![done.into()]
}
