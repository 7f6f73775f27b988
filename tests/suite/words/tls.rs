//! The same for everything about TLS.

use std::fs;

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, date_time_ymd};
use rustls::ALL_VERSIONS;

use super::scenes::{Stage, Told, golock};
use crate::support::scripted::send;
use crate::support::tls::Secured;
use crate::support::tls::certificates::{Authority, KeyKind, Papers, as_ca, encrypted, pem};
use crate::support::tls::front::{Front, config};
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

    fn issue(&self, change: impl FnOnce(&mut CertificateParams)) -> Papers {
        self.authority.issue_for(&KeyKind::P256.generate(), &["localhost"], change)
    }
}

pub(super) fn tls() -> Vec<Told> {
    let fair = Fair { authority: Authority::new(), stage: Stage::new() };
    [certificates(&fair), ports(&fair), files(&fair), sessions(&fair)].into_iter().flatten().collect()
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
    told.push(unnamed.set("TLS_CA", "").set("TLS_SKIP_VERIFY", "yes").run().into());
    told
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
