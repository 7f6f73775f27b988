//! The files that TLS needs: what is wrong with them is said before anybody is asked, in one line that names the file.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::support::tls::Secured;
use crate::support::tls::certificates::{Authority, KeyKind, Papers, encrypted, openssl, pem};
use crate::support::tls::odd::{Oddity, odd};
use crate::support::{Golock, Job, Scene, Scripted, each};

/// An authority and a client's papers, to be spoiled.
struct Desk {
    authority: Authority,
    papers: Papers,
}

impl Desk {
    fn new() -> Self {
        let authority = Authority::new();
        let papers = authority.issue(&["client"]);
        Self { authority, papers }
    }

    fn golock(&self, port: u16, job: &Job) -> Golock {
        Golock::new(port)
            .set("HOST", "localhost")
            .set("KEY", "files")
            .set("TLS", "yes")
            .set("TLS_CA", self.authority.file())
            .identity(&self.papers)
            .args(job.command())
    }

    /// Runs golock with another file in the place of one, and expects to hear of it before anybody was asked.
    fn refuse(&self, setting: &str, file: &Path, words: &[&str]) {
        let (nobody, job) = (Scripted::start(|_, _| ()), Job::exits(7));
        let done = self.golock(nobody.port(), &job).set(setting, file).run();
        done.assert_one_line(201, words);
        assert_eq!((job.runs(), nobody.connections()), (0, 0));
        assert_holds_no_key(&done.stderr, &pem(&self.papers.key));
    }
}

impl Desk {
    /// The same, and that this is all that is said of the file.
    fn refuse_exactly(&self, setting: &str, file: &Path, why: &str) {
        let (nobody, job) = (Scripted::start(|_, _| ()), Job::exits(7));
        let done = self.golock(nobody.port(), &job).set(setting, file).run();
        assert_eq!((done.code, done.stderr), (201, format!("golock: sh did not run: {setting} {}{why}\n", name(file))));
        assert_eq!((job.runs(), nobody.connections()), (0, 0));
    }
}

/// Asserts that no line of the key is in the text, not even a broken one.
fn assert_holds_no_key(text: &str, key: &str) {
    for line in key.lines().filter(|line| !line.starts_with("-----")) {
        assert!(!text.contains(&line[..16]), "a part of the key is in {text:?}");
    }
}

fn name(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The PEM text with a sign that base64 does not have in the line of this number (from 1).
fn broken_at(text: &str, line: usize) -> String {
    let mut lines: Vec<String> = text.lines().map(String::from).collect();
    lines[line - 1].replace_range(3..4, "!");
    lines.join("\n") + "\n"
}

const SECRET: &str = "Xyzzy-7302";

const FILES: [&str; 3] = ["TLS_CA", "TLS_CERT", "TLS_KEY"];

#[test]
fn a_file_that_is_not_there_is_named() {
    let desk = Desk::new();
    let missing = desk.authority.file().with_file_name("missing.pem");
    each(&FILES, |setting| desk.refuse(setting, &missing, &[name(&missing), "No such file"]));
}

#[test]
fn a_missing_default_ca_is_named() {
    let desk = Desk::new();
    let (nobody, job) = (Scripted::start(|_, _| ()), Job::exits(7));
    let golock = desk.golock(nobody.port(), &job).set("TLS_CA", "").env("SSL_CERT_FILE", "/missing/default.pem");
    golock.run().assert_one_line(201, &["/missing/default.pem", "No such file"]);
    assert_eq!((job.runs(), nobody.connections()), (0, 0));
}

#[test]
fn a_folder_is_no_file() {
    let desk = Desk::new();
    let folder = desk.authority.file().parent().unwrap().to_owned();
    each(&FILES, |setting| desk.refuse(setting, &folder, &[name(&folder)]));
}

#[test]
fn a_file_without_what_it_should_hold_is_named() {
    let desk = Desk::new();
    let write = |text: &str| desk.authority.write(text);
    let (certificate, key) = (&desk.papers.certificate, &desk.papers.key);
    let binary = write("");
    fs::write(&binary, [0x30, 0x82, 0x01, 0x0a, 0xff, 0x00]).unwrap();
    let hollow = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let wrong: [(&str, PathBuf, &str); 10] = [
        ("TLS_CA", write(""), ": it is empty"),
        ("TLS_CA", write("not PEM\n"), ": no usable CA certificate in PEM form in it"),
        ("TLS_CA", write(hollow), ":1: a broken section: CERTIFICATE"),
        ("TLS_CA", binary.clone(), ": no usable CA certificate in PEM form in it"),
        ("TLS_CA", key.clone(), ": no usable CA certificate in PEM form in it"),
        ("TLS_CERT", write(""), ": it is empty"),
        ("TLS_CERT", key.clone(), ": no usable certificate in PEM form in it"),
        ("TLS_KEY", write(""), ": it is empty"),
        ("TLS_KEY", binary, ": no usable private key in PEM form in it"),
        ("TLS_KEY", certificate.clone(), ": no usable private key in PEM form in it"),
    ];
    each(&wrong, |(setting, file, why)| desk.refuse_exactly(setting, file, why));
}

#[test]
fn a_key_under_a_pass_phrase_is_of_no_use() {
    let desk = Desk::new();
    let key = pem(&desk.papers.key);
    // As PKCS#8, and with headers, as OpenSSL did it before.
    let old = openssl(&["ec", "-aes-256-cbc", "-passout", "pass:phrase"], &key);
    assert!(old.contains("Proc-Type: 4,ENCRYPTED"));
    each(&[encrypted(&key), old], |key| {
        let file = desk.authority.write(&format!("# mine\n{key}"));
        desk.refuse_exactly("TLS_KEY", &file, ":2: the private key is encrypted; golock needs an unencrypted one");
        // It does no harm where nobody looks for a key.
        let chain = desk.authority.write(&(key.clone() + &pem(&desk.papers.certificate)));
        desk.refuse_exactly("TLS_KEY", Path::new("/missing"), ": No such file or directory");
        let (nobody, job) = (Scripted::start(|_, _| ()), Job::exits(7));
        let done = desk.golock(nobody.port(), &job).set("TLS_CERT", &chain).set("RECONNECT_ATTEMPTS", "0").run();
        assert!(nobody.connections() == 1, "{done:?}");
    });
}

#[test]
fn a_key_that_nobody_verifies_is_of_no_use() {
    let desk = Desk::new();
    let forms: [&[&str]; 3] =
        [&["genrsa", "1024"], &["genpkey", "-algorithm", "ed448"], &["ecparam", "-name", "secp521r1", "-genkey"]];
    each(&forms, |words| {
        let file = desk.authority.write(&openssl(words, ""));
        desk.refuse_exactly("TLS_KEY", &file, ": not a key of RSA (2048 to 4096 bits), P-256, P-384 or Ed25519");
    });
}

#[test]
fn a_broken_section_is_named_by_file_and_line() {
    let desk = Desk::new();
    let (good, key) = (pem(&desk.authority.file()), pem(&desk.papers.key));
    let second = good.lines().count() + 2;
    let write = |text: &str| desk.authority.write(text);
    let unfinished = good.replace("-----END CERTIFICATE-----", "");
    let wrong = [
        ("TLS_CA", write(&broken_at(&good, 2)), 1),
        ("TLS_CA", write(&unfinished), 1),
        ("TLS_CA", write(&format!("{good}\n{}", broken_at(&good, 2))), second),
        ("TLS_CA", write(&format!("{good}\n{unfinished}")), second),
        // A key before it is not what is looked for, but has lines all the same.
        ("TLS_CA", write(&format!("{key}{}", broken_at(&good, 2))), key.lines().count() + 1),
        ("TLS_CERT", write(&broken_at(&good, 2)), 1),
        ("TLS_CERT", write(&format!("{good}\n{}", broken_at(&good, 3))), second),
        ("TLS_KEY", write(&broken_at(&key, 2)), 1),
        ("TLS_KEY", write(&format!("# mine\n\n{}", broken_at(&key, 3))), 3),
        ("TLS_KEY", write(&key.replace("-----END PRIVATE KEY-----", "")), 1),
    ];
    each(&wrong, |(setting, file, line)| desk.refuse(setting, file, &[&format!("{}:{line}: ", name(file))]));
}

#[test]
fn a_key_of_another_certificate_is_noticed() {
    let desk = Desk::new();
    let other = desk.authority.issue(&["other"]).key;
    let why = "do not go together: the key is that of another certificate";
    desk.refuse(
        "TLS_KEY",
        &other,
        &[&format!("TLS_CERT {} and TLS_KEY {} {why}", name(&desk.papers.certificate), name(&other))],
    );
    let old = odd(&desk.authority, &KeyKind::P256.generate(), Oddity::Version1);
    desk.refuse("TLS_CERT", &old.certificate, &[why]);
}

#[test]
fn certificate_and_key_need_each_other() {
    let desk = Desk::new();
    let nowhere = Path::new("");
    desk.refuse("TLS_CERT", nowhere, &["CRONLOCK_TLS_CERT", "CRONLOCK_TLS_KEY"]);
    desk.refuse("TLS_KEY", nowhere, &["CRONLOCK_TLS_CERT", "CRONLOCK_TLS_KEY"]);
}

#[test]
fn a_key_that_everybody_can_read_draws_one_warning() {
    let secured = Secured::start(&["--tls-auth-clients", "yes"]);
    let papers = secured.authority.issue(&["client"]);
    for mode in [0o600, 0o640, 0o604, 0o644] {
        fs::set_permissions(&papers.key, Permissions::from_mode(mode)).unwrap();
        let is_reached = crate::users::lets_in(&papers.key, true);
        let scene = Scene::new(&secured.server, Job::exits(7));
        let done = secured.golock(&scene).identity(&papers).run();
        if mode & 0o004 == 0 || !is_reached {
            done.assert_silent(7);
        } else {
            done.assert_one_line(7, &["warning", name(&papers.key)]);
        }
    }
}

#[test]
fn neither_key_nor_password_is_in_any_output() {
    let secured = Secured::start(&["--tls-auth-clients", "yes", "--requirepass", SECRET]);
    let papers = secured.authority.issue(&["client"]);
    let url = |scene: &Scene<'_>| format!("rediss://:{SECRET}@localhost:{}", scene.proxy.port());
    // Known to the server, and not.
    for identity in [&papers, &secured.authority.self_signed(&["client"], |_| ())] {
        let scene = Scene::new(&secured.server, Job::exits(7));
        let golock = secured.golock(&scene).identity(identity).set("VERBOSE", "yes");
        let by_url = golock.clone().unset("HOST").unset("PORT").unset("TLS").set("URL", url(&scene));
        for done in [golock.set("AUTH", SECRET).run(), by_url.run()] {
            let told = done.stdout + &done.stderr;
            assert!(told.contains(&scene.name()) && !told.contains(SECRET), "{told}");
            assert_holds_no_key(&told, &pem(&identity.key));
        }
    }
}
