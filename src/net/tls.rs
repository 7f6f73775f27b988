//! TLS 1.2 and 1.3 by rustls, over a [`Socket`], so that every step of a handshake has the exchange's deadline.

use super::connection::Wire;
use super::dial::Socket;
use super::{Failure, Identity, Trust};
use rustix::net::sockopt;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore,
    SignatureScheme,
};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Sessions to remember: that of one server, and of the node that it redirects to.
const SESSIONS: usize = 2;

/// The most that is read of a PEM file; the certificates that a distribution trusts take 250 KB.
const PEM_LIMIT: u64 = 16 * 1024 * 1024;

/// Alerts about bytes that were lost on the way, and about the server's own troubles.
const PASSING: [AlertDescription; 6] = [
    AlertDescription::UnexpectedMessage,
    AlertDescription::BadRecordMac,
    AlertDescription::RecordOverflow,
    AlertDescription::DecodeError,
    AlertDescription::InternalError,
    AlertDescription::UserCanceled,
];

/// Why TLS failed.
pub use rustls::Error;

/// Why TLS cannot be set up.
#[derive(Debug)]
pub enum SetupError {
    /// The file cannot be read.
    Unreadable(PathBuf, io::Error),
    /// The section of the file that begins at this line is broken (0: there is none of the kind); what was looked for.
    BadPem(PathBuf, usize, &'static str),
    /// The client certificate and key, in these files, do not go together or are of no use.
    BadIdentity(PathBuf, PathBuf, Error),
    /// The rest.
    Other(Error),
}

/// What TLS needs for every connection of a run, and the session to resume.
pub(super) struct Tls(Arc<ClientConfig>);

impl Tls {
    pub(super) fn new(trust: &Trust, identity: Option<&Identity>) -> Result<Self, SetupError> {
        let provider = Arc::new(ring::default_provider());
        let verifier = Arc::new(verifier(trust, provider.signature_verification_algorithms)?);
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(SetupError::Other)?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(Identity { chain, key }) => {
                let certificates = sections(chain, "certificate")?;
                let secret = sections::<PrivateKeyDer<'_>>(key, "unencrypted private key")?.swap_remove(0);
                builder
                    .with_client_auth_cert(certificates, secret)
                    .map_err(|error| SetupError::BadIdentity(chain.clone(), key.clone(), error))?
            }
        };
        config.resumption = Resumption::in_memory_sessions(SESSIONS);
        Ok(Self(Arc::new(config)))
    }

    /// The handshake with `host` on `socket`. Only the first bytes tell whether there is a TLS server at all.
    pub(super) fn wrap<'a>(&self, host: &str, mut socket: Socket<'a>) -> Result<Box<dyn Wire<'a> + 'a>, Failure> {
        // A handshake writes twice in a row; nothing is gained by holding back the second.
        sockopt::set_tcp_nodelay(&socket.fd, true).map_err(|errno| Failure::Connect(errno.into()))?;
        let name = ServerName::try_from(host.to_owned()).map_err(|_| Failure::BadServerName)?;
        let mut session = ClientConnection::new(Arc::clone(&self.0), name).map_err(Failure::Tls)?;
        while session.is_handshaking() {
            session.complete_io(&mut socket).map_err(|error| match failure(error) {
                failure @ (Failure::Io(_) | Failure::Closed) if session.protocol_version().is_none() => {
                    Failure::NoHandshake(Box::new(failure))
                }
                failure => failure,
            })?;
        }
        Ok(Box::new(rustls::StreamOwned::new(session, socket)))
    }
}

impl<'a> Wire<'a> for rustls::StreamOwned<ClientConnection, Socket<'a>> {
    fn socket(&mut self) -> &mut Socket<'a> {
        &mut self.sock
    }

    fn close(&mut self) {
        // Without this some servers take the end for an attack, and forget the session.
        self.conn.send_close_notify();
        let _ = self.conn.write_tls(&mut self.sock);
    }
}

/// The failure that `error`, from a rustls stream, stands for.
pub(super) fn failure(error: io::Error) -> Failure {
    if error.kind() == ErrorKind::UnexpectedEof {
        return Failure::Closed;
    }
    match error.downcast::<Error>() {
        Ok(error) => Failure::Tls(error),
        Err(error) => Failure::Io(error),
    }
}

/// Whether the server would fail the same way again: it is not trusted, or does not trust us, or speaks another TLS.
pub(super) fn is_final(error: &Error) -> bool {
    match error {
        Error::InvalidCertificate(_) | Error::PeerIncompatible(_) => true,
        Error::AlertReceived(alert) => !PASSING.contains(alert),
        _ => false,
    }
}

/// The judge of the server's certificate.
fn verifier(trust: &Trust, algorithms: WebPkiSupportedAlgorithms) -> Result<Verifier, SetupError> {
    let (roots, own) = match trust {
        Trust::Anyone => (None, Vec::new()),
        Trust::BuiltIn => (Some(webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect()), Vec::new()),
        Trust::File(path) => {
            let own = sections(path, "certificate")?;
            let mut roots = RootCertStore::empty();
            if roots.add_parsable_certificates(own.iter().cloned()).0 == 0 {
                return Err(SetupError::BadPem(path.clone(), 0, "usable certificate"));
            }
            (Some(roots), own)
        }
    };
    Ok(Verifier { roots, own, algorithms })
}

fn read(path: &Path) -> Result<Vec<u8>, SetupError> {
    crate::config::read_limited(path, PEM_LIMIT).map_err(|error| SetupError::Unreadable(path.to_owned(), error))
}

/// All sections of a PEM file that hold `what`; at least one.
fn sections<T: PemObject>(path: &Path, what: &'static str) -> Result<Vec<T>, SetupError> {
    let text = read(path)?;
    let bad = |line| SetupError::BadPem(path.to_owned(), line, what);
    let (mut sections, mut found) = (T::pem_slice_iter(&text), Vec::new());
    while let Some(section) = sections.next() {
        let done = text.len() - sections.remainder().len();
        found.push(section.map_err(|_| bad(last_section(&text[..done])))?);
    }
    if found.is_empty() { Err(bad(0)) } else { Ok(found) }
}

/// The number of the line on which the last section of `text` begins.
fn last_section(text: &[u8]) -> usize {
    let lines = (1..).zip(text.split(|&byte| byte == b'\n'));
    lines.filter(|(_, line)| line.starts_with(b"-----BEGIN")).last().map_or(0, |(number, _)| number)
}

/// The usual rules, and one more: a self-signed certificate that stands itself in the file of trusted ones is trusted,
/// for the names that it holds, even if it calls itself a CA. That is what `openssl req -x509` makes, and what OpenSSL and Go
/// accept. Whatever the certificate, whoever shows it must have its key.
#[derive(Debug)]
struct Verifier {
    /// None: any certificate will do.
    roots: Option<RootCertStore>,
    own: Vec<CertificateDer<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(roots) = &self.roots else { return Ok(ServerCertVerified::assertion()) };
        let parsed = ParsedCertificate::try_from(certificate)?;
        match verify_server_cert_signed_by_trust_anchor(&parsed, roots, intermediates, now, self.algorithms.all) {
            // "Other" is the refusal of a CA as a server, which comes after the check of its dates.
            Err(Error::InvalidCertificate(CertificateError::Other(_))) if self.own.contains(certificate) => {}
            verdict => verdict?,
        }
        verify_server_name(&parsed, name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
