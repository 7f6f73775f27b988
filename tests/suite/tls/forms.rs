//! The forms that PEM files have: golock reads those that OpenSSL reads, and names what it does not read.

use std::path::Path;

use crate::support::tls::Secured;
use crate::support::tls::certificates::{Authority, KeyKind, Papers, armoured, openssl, pem};
use crate::support::{Golock, Job, Scene, Scripted, each};

type Form = fn(&str) -> String;

/// What editors, tools and copying make of a file.
const FORMS: &[(&str, Form)] = &[
    ("a byte order mark", |text| format!("\u{feff}{text}")),
    ("two of them", |text| format!("\u{feff}\u{feff}{text}")),
    ("lines of DOS", |text| text.replace('\n', "\r\n")),
    ("indented by spaces", |text| text.replace('\n', "\n    ").replacen("", "    ", 1)),
    ("indented by tabs", |text| text.replace('\n', "\n\t").replacen("", "\t", 1)),
    ("spaces at the ends of lines", |text| text.replace('\n', "  \n")),
    ("no newline at the end", |text| text.trim_end().into()),
    ("joined without a newline", |text| text.replace("-----\n-----", "----------").trim_end().into()),
    ("empty lines", |text| text.replace('\n', "\n\n")),
    ("text around it", |text| format!("subject=CN = x\nissuer=CN = y\n{text}\nBEGIN and END of it, -- more\n")),
    ("text that is not UTF-8", |text| format!("K\u{f6}ln \u{1f512}\n{text}")),
];

/// The labels that OpenSSL has had for certificates.
const LABELS: [&str; 3] = ["CERTIFICATE", "X509 CERTIFICATE", "TRUSTED CERTIFICATE"];

fn labelled(text: &str, label: &str) -> String {
    text.replace(" CERTIFICATE-----", &format!(" {label}-----"))
}

/// A server that asks for a client certificate, and a stranger's CA to stand beside its own.
struct Hall {
    secured: Secured,
    stranger: Authority,
}

impl Hall {
    fn open() -> Self {
        Self { secured: Secured::start(&["--tls-auth-clients", "yes"]), stranger: Authority::named("Another CA") }
    }

    /// golock with these texts in its files.
    fn golock(&self, scene: &Scene<'_>, ca: &str, certificate: &str, key: &str) -> Golock {
        let write = |text: &str| self.secured.authority.write(text);
        let papers = Papers { certificate: write(certificate), key: write(key) };
        self.secured.golock(scene).set("TLS_CA", write(ca)).identity(&papers)
    }

    #[track_caller]
    fn admit(&self, ca: &str, certificate: &str, key: &str) {
        let scene = Scene::new(&self.secured.server, Job::exits(7));
        self.golock(&scene, ca, certificate, key).run().assert_silent(7);
        scene.assert_released();
    }
}

#[test]
fn every_form_is_read_in_every_file() {
    let hall = Hall::open();
    let both = [hall.stranger.pem(), hall.secured.authority.pem()];
    each(FORMS, |(_, form)| {
        let papers = hall.secured.authority.issue(&["client"]);
        let (certificate, key) = (pem(&papers.certificate), pem(&papers.key));
        // Whichever comes last is read too.
        for ca in [both.concat(), both.iter().rev().cloned().collect()] {
            hall.admit(&form(&ca), &form(&(certificate.clone() + &ca)), &form(&(certificate.clone() + &key)));
        }
    });
}

#[test]
fn bytes_that_are_no_text_do_no_harm() {
    let hall = Hall::open();
    let papers = hall.secured.authority.issue(&["client"]);
    let file = hall.secured.authority.write("");
    std::fs::write(&file, [b"K\xf6ln \0\xff\n", hall.secured.authority.pem().as_bytes()].concat()).unwrap();
    let scene = Scene::new(&hall.secured.server, Job::exits(7));
    hall.secured.golock(&scene).set("TLS_CA", &file).identity(&papers).run().assert_silent(7);
}

#[test]
fn every_label_of_openssl_is_read() {
    let hall = Hall::open();
    let papers = hall.secured.authority.issue(&["client"]);
    let (ca, certificate, key) = (hall.secured.authority.pem(), pem(&papers.certificate), pem(&papers.key));
    each(&LABELS, |label| hall.admit(&labelled(&ca, label), &labelled(&certificate, label), &key));
    // What OpenSSL puts behind the certificate itself.
    let with_trust = |text: &str, words: &[&str]| openssl(&[&["x509", "-trustout"], words].concat(), text);
    let more = ["-setalias", "mine"];
    each(&[&["-addtrust", "serverAuth"][..], &["-addtrust", "anyExtendedKeyUsage"], &more], |words| {
        let trusted = with_trust(&ca, words);
        assert!(trusted.contains("BEGIN TRUSTED CERTIFICATE"));
        hall.admit(&(hall.stranger.pem() + &trusted), &with_trust(&certificate, &["-addtrust", "clientAuth"]), &key);
    });
}

#[test]
fn a_ca_that_is_not_trusted_for_servers_is_not_trusted() {
    let hall = Hall::open();
    let papers = hall.secured.authority.issue(&["client"]);
    let ca = hall.secured.authority.pem();
    let words: [&[&str]; 4] = [
        &["-addtrust", "clientAuth"],
        &["-addreject", "serverAuth"],
        &["-addreject", "anyExtendedKeyUsage"],
        &["-addtrust", "serverAuth", "-addreject", "serverAuth"],
    ];
    each(&words, |words| {
        let distrusted = openssl(&[&["x509", "-trustout"], *words].concat(), &ca);
        let scene = Scene::new(&hall.secured.server, Job::exits(7));
        let golock =
            hall.golock(&scene, &(hall.stranger.pem() + &distrusted), &pem(&papers.certificate), &pem(&papers.key));
        golock.run().assert_one_line(201, &[&scene.name(), "is of a CA that is not trusted"]);
        let golock = hall.golock(&scene, &distrusted, &pem(&papers.certificate), &pem(&papers.key));
        golock.run().assert_one_line(201, &["no usable CA certificate in PEM form in it"]);
        scene.assert_not_run();
    });
}

#[test]
fn what_may_stand_beside_is_passed_over() {
    let hall = Hall::open();
    let key = KeyKind::P256.generate();
    let papers = hall.secured.authority.issue_for(&key, &["client"], |_| ());
    let others = [
        openssl(&["ecparam", "-name", "prime256v1"], ""),
        openssl(&["pkey", "-pubout"], &pem(&papers.key)),
        openssl(&["req", "-new", "-subj", "/CN=x", "-key", papers.key.to_str().unwrap()], ""),
        armoured("X509 CRL", &[0x30, 0]),
        armoured("DH PARAMETERS", &[0x30, 0]),
    ];
    let others = others.concat();
    let (ca, certificate) = (hall.secured.authority.pem(), pem(&papers.certificate));
    hall.admit(&(others.clone() + &ca), &(others.clone() + &certificate), &(others + &pem(&papers.key)));
}

/// golock with this CA file; nobody may be asked.
#[track_caller]
fn assert_named(authority: &Authority, text: &str, why: &str) {
    let (nobody, job, file) = (Scripted::start(|_, _| ()), Job::exits(7), authority.write(text));
    let golock = Golock::new(nobody.port()).set("HOST", "localhost").set("TLS", "yes").set("TLS_CA", &file);
    let done = golock.set("KEY", "forms").args(job.command()).run();
    assert_eq!(
        (done.code, done.stderr),
        (201, format!("golock: sh did not run: TLS_CA {}{why}\n", Path::new(&file).display()))
    );
    assert_eq!((job.runs(), nobody.connections()), (0, 0));
}

#[test]
fn a_beginning_that_is_not_understood_is_named() {
    let authority = Authority::new();
    let good = authority.pem();
    let lines = good.lines().count();
    let (begin, end) = ("-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----");
    let why = format!(":{}: a malformed PEM section", lines + 1);
    let cases = [
        good.replace(begin, "----BEGIN CERTIFICATE-----"),
        good.replace(begin, "------BEGIN CERTIFICATE-----"),
        good.replace(begin, &format!("> {begin}")),
        good.replace(begin, "-----BEGIN CERTIFICATE----"),
        good.replace(begin, "-----BEGIN CERTIFICATE"),
        good.replace(end, ""),
        good.replace(end, "-----END X509 CERTIFICATE-----"),
        good.replace(end, "-----END CERTIFICATE----"),
        good.replace(end, "") + &good,
    ];
    // Behind a good one, which alone would do.
    each(&cases, |text| assert_named(&authority, &format!("{good}{text}"), &why));
}

#[test]
fn a_section_of_an_unknown_kind_is_named() {
    let authority = Authority::new();
    let good = authority.pem();
    let line = good.lines().count() + 2;
    for label in ["PKCS7", "CMS", "ATTRIBUTE CERTIFICATE", "certificate", "X\u{1b}[2J"] {
        let shown = label.replace('\u{1b}', "\\x1b");
        let why = format!(":{line}: a section of an unknown kind: {shown}");
        assert_named(&authority, &format!("{good}\n{}", armoured(label, &[0x30, 0])), &why);
    }
}

#[test]
fn a_commented_section_is_not_read() {
    let secured = Secured::start(&[]);
    let commented = "# ".to_owned() + secured.authority.pem().trim_end().replace('\n', "\n# ").as_str() + "\n";
    let file = secured.authority.write(&(commented.clone() + &Authority::named("Another CA").pem()));
    let scene = Scene::new(&secured.server, Job::exits(7));
    let done = secured.golock(&scene).set("TLS_CA", file).run();
    done.assert_one_line(201, &["is of a CA that is not trusted"]);
    assert_named(&secured.authority, &commented, ": no usable CA certificate in PEM form in it");
}
