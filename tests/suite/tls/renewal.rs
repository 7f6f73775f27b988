//! Certificates that are renewed while a job runs: the release is the first to meet the new ones.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::tls::certificates::{Authority, Papers, pem};
use crate::support::tls::{Secured, VERSIONS};
use crate::support::{Golock, Job, Scene, each, until};

/// A server, and golock's own copies of the files that it is known by.
struct Office {
    secured: Secured,
    ca: PathBuf,
    papers: Papers,
}

impl Office {
    fn open(version: &str) -> Self {
        let secured = Secured::start(&["--tls-auth-clients", "yes", "--tls-protocols", version]);
        let (ca, papers) = (secured.authority.write(&secured.authority.pem()), secured.authority.issue(&["client"]));
        Self { secured, ca, papers }
    }

    fn golock(&self, scene: &Scene<'_>) -> Golock {
        self.secured.golock(scene).set("TLS_CA", &self.ca).identity(&self.papers).set("RECONNECT_ATTEMPTS", "0")
    }

    /// Has the server show certificates of another CA, and accept only its clients.
    fn change_ca(&self, authority: &Authority) {
        let papers = authority.issue(&["localhost"]);
        let ca = authority.file();
        let files = [("cert-file", &papers.certificate), ("key-file", &papers.key), ("ca-cert-file", &ca)];
        let settings = files.map(|(name, path)| [format!("tls-{name}"), path.to_str().unwrap().into()]);
        let mut words = vec!["CONFIG", "SET"];
        words.extend(settings.iter().flatten().map(String::as_str));
        self.secured.server.query::<()>(&words);
    }

    /// What golock says under -v of a run during which `change` happens.
    fn during(&self, scene: &Scene<'_>, change: impl FnOnce()) -> String {
        let running = self.golock(scene).set("VERBOSE", "yes").spawn();
        scene.job.wait_running();
        change();
        scene.job.open_gate();
        let done = running.wait();
        assert_eq!(done.code, 7, "{done:?}");
        done.stderr
    }
}

/// As who renews a certificate should do it.
fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(new, path).unwrap();
}

#[test]
fn a_renewed_certificate_is_used_for_the_release() {
    each(&VERSIONS, |version| {
        let (office, authority) = (Office::open(version), Authority::named("The next CA"));
        let scene = Scene::new(&office.secured.server, Job::gated(7));
        let told = office.during(&scene, || {
            let papers = authority.issue(&["client"]);
            office.change_ca(&authority);
            replace(&office.ca, &authority.pem());
            replace(&office.papers.certificate, &pem(&papers.certificate));
            replace(&office.papers.key, &pem(&papers.key));
        });
        assert!(!told.contains("what was read before"), "{told}");
        scene.assert_released();
    });
}

/// The server has let golock in before, so that it is not trusted any more does not end the wait.
#[test]
fn a_new_authority_during_a_wait_is_waited_for() {
    let (office, authority) = (Office::open(VERSIONS[1]), Authority::named("The next CA"));
    let server = &office.secured.server;
    let scene = Scene::new(server, Job::exits(7));
    server.set(&scene.name(), "1234567890123456789");
    let waiting = office.golock(&scene).set("WAIT", "1h").set("RECONNECT_ATTEMPTS", "50").spawn();
    // One of them was ours.
    until("golock waits", || !server.query::<String>(&["INFO", "commandstats"]).contains("cmdstat_set:calls=1,"));
    office.change_ca(&authority);
    let known = scene.proxy.connections();
    server.query::<()>(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    until("golock is refused", || scene.proxy.connections() > known + 1);
    let papers = authority.issue(&["client"]);
    replace(&office.ca, &authority.pem());
    replace(&office.papers.certificate, &pem(&papers.certificate));
    replace(&office.papers.key, &pem(&papers.key));
    server.query::<()>(&["DEL", &scene.name()]);
    let done = waiting.wait();
    assert_eq!(done.code, 7, "{done:?}");
    scene.assert_released();
}

#[test]
fn without_the_new_files_the_release_says_why_it_fails() {
    let (office, authority) = (Office::open(VERSIONS[1]), Authority::named("The next CA"));
    let scene = Scene::new(&office.secured.server, Job::gated(7));
    let told = office.during(&scene, || office.change_ca(&authority));
    assert!(told.contains("the server's certificate is of a CA that is not trusted"), "{told}");
}

fn halve(path: &Path) {
    let text = pem(path);
    fs::write(path, &text[..text.len() / 2]).unwrap();
}

type Spoil = fn(&Office);

/// What may happen to files, and what golock says under -v when it reads them for the release.
const SPOILED: &[(Spoil, &str)] = &[
    (|office| halve(&office.ca), ":1: a malformed PEM section"),
    (|office| halve(&office.papers.certificate), ":1: a malformed PEM section"),
    (|office| halve(&office.papers.key), ":1: a malformed PEM section"),
    (|office| fs::write(&office.ca, "soon\n").unwrap(), ": no usable CA certificate in PEM form in it"),
    (only_the_certificate, " do not go together: the key is that of another certificate"),
    // What cannot be read has not changed.
    (|office| fs::write(&office.ca, "").unwrap(), ""),
    (|office| fs::remove_file(&office.papers.key).unwrap(), ""),
    (|office| fs::remove_file(&office.ca).unwrap(), ""),
];

/// The new certificate is there, and its key is not yet.
fn only_the_certificate(office: &Office) {
    replace(&office.papers.certificate, &pem(&office.secured.authority.issue(&["client"]).certificate));
}

#[test]
fn files_that_make_no_sense_leave_what_worked() {
    each(SPOILED, |(spoil, why)| {
        let office = Office::open(VERSIONS[1]);
        let scene = Scene::new(&office.secured.server, Job::gated(7));
        let told = office.during(&scene, || spoil(&office));
        scene.assert_released();
        let is_told = told.contains(&format!("{why}; what was read before is used"));
        assert_eq!(is_told, !why.is_empty(), "{told}");
    });
}
