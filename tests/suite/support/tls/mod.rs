//! A redis-server that speaks TLS, with the certificates that belong to it.

pub(crate) mod certificates;
pub(crate) mod foreign;
pub(crate) mod front;
pub(crate) mod odd;
pub(crate) mod trickle;

use self::certificates::{Authority, Papers};
use super::{Golock, Scene, Server};

/// The versions of TLS that golock speaks, as redis-server calls them.
pub(crate) const VERSIONS: [&str; 2] = ["TLSv1.2", "TLSv1.3"];

/// Each of `cases` with each version.
pub(crate) fn with_versions<C: Copy>(cases: &[C]) -> Vec<(&'static str, C)> {
    VERSIONS.iter().flat_map(|version| cases.iter().map(|case| (*version, *case))).collect()
}

/// A server that speaks only TLS.
pub(crate) struct Secured {
    pub(crate) authority: Authority,
    pub(crate) server: Server,
}

impl Secured {
    /// With a flawless certificate for `localhost`; `args` follow on its command line.
    #[track_caller]
    pub(crate) fn start(args: &[&str]) -> Self {
        Self::with(Authority::new(), |authority| authority.issue(&["localhost"]), args)
    }

    /// With the certificate that `choose` has the authority issue.
    #[track_caller]
    pub(crate) fn with(authority: Authority, choose: impl FnOnce(&Authority) -> Papers, args: &[&str]) -> Self {
        let papers = choose(&authority);
        let trusted = authority.file();
        let files = [
            ("--tls-cert-file", &papers.certificate),
            ("--tls-key-file", &papers.key),
            ("--tls-ca-cert-file", &trusted),
        ];
        let own = files.iter().flat_map(|(option, path)| [*option, path.to_str().unwrap()]);
        let all: Vec<&str> = own.chain(["--tls-auth-clients", "no"]).chain(args.iter().copied()).collect();
        let server = Server::start_tls(&all);
        Self { authority, server }
    }

    /// golock in this scene, by the name `localhost` and with trust in the server's authority.
    pub(crate) fn golock(&self, scene: &Scene<'_>) -> Golock {
        scene.golock().set("HOST", "localhost").set("TLS", "yes").set("TLS_CA", self.authority.file())
    }

    /// The same for whoever counts connections: of several addresses, as `localhost` has, each gets a quarter of a second at
    /// first, which is at times too little on a busy machine, and costs one more.
    pub(crate) fn at_one_address(&self, scene: &Scene<'_>) -> Golock {
        self.golock(scene).set("HOST", "127.0.0.1").set("TLS_NAME", "localhost")
    }
}

impl Golock {
    /// Shows this certificate to servers.
    #[must_use]
    pub(crate) fn identity(self, papers: &Papers) -> Self {
        self.set("TLS_CERT", &papers.certificate).set("TLS_KEY", &papers.key)
    }
}
