//! A TLS server of which a test decides everything, and sees what a Redis does not tell.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{HandshakeKind, ServerConfig, ServerConnection, Stream, SupportedProtocolVersion};

use super::certificates::Papers;
use crate::support::resp::{Words, commands};
use crate::support::scripted::Scripted;

/// What has happened on one connection.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Visit {
    /// How it began; nothing if TLS did not come about.
    pub(crate) handshake: Option<HandshakeKind>,
    /// Whether the client said goodbye before it hung up.
    pub(crate) goodbye: bool,
}

/// Shows this certificate to everybody, and signs with this key, whether it belongs to it or not.
#[derive(Debug)]
pub(crate) struct Always(pub(crate) Arc<CertifiedKey>);

impl ResolvesServerCert for Always {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

/// A TLS server whose answers are written here.
pub(crate) struct Front {
    clients: Scripted,
    visits: Arc<Mutex<BTreeMap<usize, Visit>>>,
}

/// The settings of a server that shows these papers and speaks these versions.
pub(crate) fn config(papers: &Papers, versions: &[&'static SupportedProtocolVersion]) -> ServerConfig {
    config_with(ring::default_provider(), papers, versions)
}

/// The same on a provider with fewer abilities.
pub(crate) fn config_with(
    provider: CryptoProvider,
    papers: &Papers,
    versions: &[&'static SupportedProtocolVersion],
) -> ServerConfig {
    let (certificate, key) = load(papers);
    ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap()
}

/// The certificate and the key in these files.
pub(crate) fn load(papers: &Papers) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
    let certificate = CertificateDer::from_pem_file(&papers.certificate).unwrap();
    (certificate, PrivateKeyDer::from_pem_file(&papers.key).unwrap())
}

impl Front {
    /// Answers like a Redis on which every lock is free.
    pub(crate) fn start(config: ServerConfig) -> Self {
        Self::answering(config, |command, asked| match command[0].as_str() {
            "SET" => "+OK\r\n".into(),
            // What was set; and whoever has set it may keep it.
            _ if asked[0][0] == "SET" => format!("${}\r\n{}\r\n", asked[0][2].len(), asked[0][2]),
            _ => ":1\r\n".into(),
        })
    }

    /// Answers each command with what `answer` makes of it, and of all that came on its connection so far.
    pub(crate) fn answering(
        config: ServerConfig,
        answer: impl Fn(&Words, &[Words]) -> String + Send + Sync + 'static,
    ) -> Self {
        let (config, visits) = (Arc::new(config), Arc::<Mutex<BTreeMap<_, _>>>::default());
        let clients = Scripted::start({
            let visits = Arc::clone(&visits);
            move |index, stream| {
                let visit = serve(ServerConnection::new(Arc::clone(&config)).unwrap(), stream, &answer);
                visits.lock().unwrap().insert(index, visit);
            }
        });
        Self { clients, visits }
    }

    /// Where it listens on 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.clients.port()
    }

    /// How many connections it has accepted.
    pub(crate) fn connections(&self) -> usize {
        self.clients.connections()
    }

    /// The connections that have ended, in order of arrival.
    pub(crate) fn visits(&self) -> Vec<Visit> {
        self.visits.lock().unwrap().values().copied().collect()
    }
}

fn serve(mut session: ServerConnection, mut stream: &TcpStream, answer: &impl Fn(&Words, &[Words]) -> String) -> Visit {
    let (mut request, mut answered, mut chunk) = (Vec::new(), 0, [0; 4096]);
    let mut tls = Stream::new(&mut session, &mut stream);
    let goodbye = loop {
        // rustls tells an end with a goodbye (no bytes) from one without (an error).
        match tls.read(&mut chunk) {
            Ok(0) => break true,
            Ok(count) => request.extend_from_slice(&chunk[..count]),
            Err(_) => break false,
        }
        let asked = commands(&request);
        let replies: String = asked.iter().skip(answered).map(|command| answer(command, &asked)).collect();
        answered = asked.len();
        if tls.write_all(replies.as_bytes()).and_then(|()| tls.flush()).is_err() {
            break false;
        }
    };
    Visit { handshake: session.handshake_kind(), goodbye }
}
