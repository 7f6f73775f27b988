//! TLS 1.2 and 1.3 by rustls, over a [`Socket`], so that every step of a handshake has the exchange's deadline.

mod provider;

use super::connection::Stream;
use super::credentials::unreadable;
use super::socket::Socket;
use super::{Failure, Identity, Kind, TlsOptions, Trust};
use crate::files::Fresh;
use crate::text;
use crate::text::{Escaped, Line, Log};
use crate::words;
use rustix::net::sockopt;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, Error, InvalidMessage,
    RootCertStore, SignatureScheme,
};
use std::io;
use std::path::Path;
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

/// What TLS needs for every connection of a run, and the session to resume.
pub(super) struct Tls {
    options: TlsOptions,
    files: Files,
    config: Arc<ClientConfig>,
}

impl Tls {
    /// Reads the files that `options` name.
    pub(super) fn new(options: &TlsOptions) -> Result<Self, Line> {
        let files = Files::read(options)?;
        let config = files.config(options)?;
        Ok(Self { options: options.clone(), files, config })
    }

    /// What is told of a connection.
    pub(super) fn note(&self) -> &'static str {
        if self.options.trust == Trust::Anyone { " by TLS, whatever its certificate" } else { " by TLS" }
    }

    /// Reads the files again: certificates are renewed while jobs run. What cannot be read, or makes no sense together,
    /// leaves things as they were.
    fn refresh(&mut self, log: &dyn Log) {
        let Some(files) = self.files.changed() else { return };
        match files.config(&self.options) {
            Ok(config) => (self.files, self.config) = (files, config),
            Err(why) => log.debug(text!("{}; what was read before is used", why)),
        }
    }

    /// The handshake with `host` on `socket`. Only the first bytes tell whether there is a TLS server at all.
    pub(super) fn wrap<'a>(
        &mut self,
        host: &str,
        mut socket: Socket<'a>,
        log: &dyn Log,
    ) -> Result<Box<dyn Stream<'a> + 'a>, Failure> {
        self.refresh(log);
        // A handshake writes twice in a row; nothing is gained by holding back the second.
        sockopt::set_tcp_nodelay(&socket.fd, true).map_err(|errno| Failure::io(&errno.into()))?;
        let name = self.options.name.as_deref().unwrap_or(host).to_owned();
        let name =
            ServerName::try_from(name).map_err(|_| Failure::new(Kind::Final, "no certificate can hold this name"))?;
        let session = ClientConnection::new(Arc::clone(&self.config), name);
        let mut session = session.map_err(|error| tls_failure(&error))?;
        while session.is_handshaking() {
            session.complete_io(&mut socket).map_err(|error| {
                let is_tls = error.kind() == io::ErrorKind::InvalidData;
                let failure = failure(error);
                if is_tls || session.protocol_version().is_some() {
                    return failure;
                }
                Failure::new(failure.kind, words!("{} in the TLS handshake; is it a port without TLS?", failure.why))
            })?;
        }
        Ok(Box::new(rustls::StreamOwned::new(session, socket)))
    }
}

impl<'a> Stream<'a> for rustls::StreamOwned<ClientConnection, Socket<'a>> {
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
    match error.downcast::<Error>() {
        Ok(error) => tls_failure(&error),
        Err(error) => Failure::io(&error),
    }
}

/// Final, if the server would fail the same way again: it is not trusted, or does not trust us, or speaks another TLS.
fn tls_failure(error: &Error) -> Failure {
    let is_final = match error {
        Error::InvalidCertificate(_) | Error::PeerIncompatible(_) => true,
        Error::AlertReceived(alert) => !PASSING.contains(alert),
        _ => false,
    };
    Failure::new(if is_final { Kind::Final } else { Kind::Lost }, explained(error))
}

/// What is wrong, for people who have to mend it.
fn explained(error: &Error) -> Line {
    match error {
        Error::InvalidCertificate(error) => certificate(error),
        Error::AlertReceived(alert) => {
            let wants = matches!(alert, AlertDescription::CertificateRequired | AlertDescription::HandshakeFailure);
            let hint = if wants { "; does it want a client certificate?" } else { "" };
            words!("the server ended TLS with the alert {}{}", Escaped(format!("{alert:?}").as_bytes()), hint)
        }
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => "no TLS: it looks like a port without TLS".into(),
        other => words!("TLS: {}", Escaped(other.to_string().as_bytes())),
    }
}

fn certificate(error: &CertificateError) -> Line {
    let why: Line = match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "has expired".into(),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "is not valid yet; is the clock right?".into()
        }
        CertificateError::UnknownIssuer => "is of a CA that is not trusted".into(),
        CertificateError::NotValidForNameContext { presented, .. } if presented.is_empty() => {
            "is for another name: it holds no name that counts (subjectAltName)".into()
        }
        CertificateError::NotValidForNameContext { presented, .. } => {
            // Each looks like DnsName("redis.example").
            let names: Vec<_> = presented.iter().map(|name| name.split('"').nth(1).unwrap_or(name)).collect();
            words!("is for another name: {}", Escaped(names.join(", ").as_bytes()))
        }
        CertificateError::BadSignature => "is not of the trusted CA, but of one with the same name".into(),
        CertificateError::Other(error) if error.to_string() == "CaUsedAsEndEntity" => {
            "is not trusted: it is that of a CA, or self-signed".into()
        }
        CertificateError::Other(error) => words!("is not acceptable: {}", Escaped(error.to_string().as_bytes())),
        other => words!("is not acceptable: {}", Escaped(other.to_string().as_bytes())),
    };
    words!("the server's certificate {}", why)
}

/// What the files held that were read last.
struct Files {
    authorities: Option<Fresh>,
    identity: Option<(Fresh, Fresh)>,
}

impl Files {
    fn read(options: &TlsOptions) -> Result<Self, Line> {
        let read = |path: &Path| Fresh::read(path, PEM_LIMIT).map_err(|error| unreadable(path, &error));
        let authorities = match &options.trust {
            Trust::File(path) => Some(read(path)?),
            Trust::BuiltIn | Trust::Anyone => None,
        };
        let identity = match &options.identity {
            Some(Identity { chain, key }) => Some((read(chain)?, read(key)?)),
            None => None,
        };
        Ok(Self { authorities, identity })
    }

    /// What they hold now, if that is something else.
    fn changed(&self) -> Option<Self> {
        let identity = self.identity.iter().flat_map(|(chain, key)| [chain, key]);
        if self.authorities.iter().chain(identity).all(|file| file.changed().is_none()) {
            return None;
        }
        let now = |file: &Fresh| file.renewed();
        let identity = self.identity.as_ref().map(|(chain, key)| (now(chain), now(key)));
        Some(Self { authorities: self.authorities.as_ref().map(now), identity })
    }

    /// What they come to.
    fn config(&self, options: &TlsOptions) -> Result<Arc<ClientConfig>, Line> {
        let provider = Arc::new(provider::provider());
        let verifier = Arc::new(self.verifier(options, provider.signature_verification_algorithms)?);
        let other = |error: Error| words!("TLS: {}", Escaped(error.to_string().as_bytes()));
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(other)?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => {
                let certificates = sections(chain, "certificate")?;
                let secret = sections::<PrivateKeyDer<'_>>(key, "unencrypted private key")?.swap_remove(0);
                builder.with_client_auth_cert(certificates, secret).map_err(|error| {
                    let (chain, key) = (Escaped::path(chain.path()), Escaped::path(key.path()));
                    let why = error.to_string();
                    words!("{} and {} do not go together: {}", chain, key, Escaped(why.as_bytes()))
                })?
            }
        };
        config.resumption = Resumption::in_memory_sessions(SESSIONS);
        Ok(Arc::new(config))
    }

    /// The judge of the server's certificate.
    fn verifier(&self, options: &TlsOptions, algorithms: WebPkiSupportedAlgorithms) -> Result<Verifier, Line> {
        let (roots, own) = match (&options.trust, &self.authorities) {
            (Trust::Anyone, _) => (None, Vec::new()),
            (_, None) => (Some(webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect()), Vec::new()),
            (_, Some(file)) => {
                let own = sections(file, "certificate")?;
                let mut roots = RootCertStore::empty();
                if roots.add_parsable_certificates(own.iter().cloned()).0 == 0 {
                    return Err(words!("{}: no usable certificate in PEM form in it", Escaped::path(file.path())));
                }
                (Some(roots), own)
            }
        };
        Ok(Verifier { roots, own, algorithms })
    }
}

/// All sections of a PEM file that hold `what`; at least one.
fn sections<T: PemObject>(file: &Fresh, what: &'static str) -> Result<Vec<T>, Line> {
    let (text, path) = (file.content(), Escaped::path(file.path()));
    let (mut sections, mut found) = (T::pem_slice_iter(text), Vec::new());
    while let Some(section) = sections.next() {
        let done = text.len() - sections.remainder().len();
        found.push(section.map_err(|_| words!("{}:{}: a broken {}", path, last_section(&text[..done]), what))?);
    }
    if found.is_empty() { Err(words!("{}: no {} in PEM form in it", path, what)) } else { Ok(found) }
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
