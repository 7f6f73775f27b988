//! TLS 1.2 and 1.3 by rustls, over a [`Socket`], so that every step of a handshake has the exchange's deadline.

mod failure;
mod pem;
mod provider;
mod verify;
mod x509;

use super::connection::{AnyStream, Stream};
use super::socket::Socket;
use super::{Failure, Kind, Outcome, TlsOptions, Trust};
use crate::files::Fresh;
use crate::text::{Escaped, Line, Log};
use crate::words;
use failure::Said;
use pem::sections;
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ClientConnection, RootCertStore, SignatureScheme};
use std::io::{self, ErrorKind, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use verify::Verifier;

/// Tickets to remember: eight for each server, which is ours and the node that it redirects to.
const TICKETS: usize = 16;

/// The most that is read of a PEM file; the certificates that a distribution trusts take 250 KB.
const PEM_LIMIT: u64 = 16 * 1024 * 1024;

/// What TLS needs for every connection of a run, and the session to resume.
pub(super) struct Tls {
    options: TlsOptions,
    /// What was read last: the file of CAs, the client's certificate and its key, as far as they are named.
    files: Vec<Fresh>,
    config: Arc<ClientConfig>,
    identity: Arc<Identity>,
}

impl Tls {
    /// Reads the files that `options` name.
    pub(super) fn new(options: &TlsOptions) -> Result<Self, Line> {
        let identity = options.identity.iter().flat_map(|(chain, key)| [("TLS_CERT", chain), ("TLS_KEY", key)]);
        let authorities = if let Trust::File(name, path) = &options.trust { Some((*name, path)) } else { None };
        let files = authorities.into_iter().chain(identity);
        Self::of(options, files.map(|(name, path)| Fresh::read(name, path, PEM_LIMIT)).collect::<Result<_, _>>()?)
    }

    /// What these files come to.
    fn of(options: &TlsOptions, files: Vec<Fresh>) -> Result<Self, Line> {
        let (authorities, own) = files.split_at(usize::from(matches!(options.trust, Trust::File(..))));
        let certified = if let [chain, key] = own { Some(Arc::new(certified(chain, key)?)) } else { None };
        let identity = Arc::new(Identity { certified, is_missed: AtomicBool::new(false) });
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider::provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| words!("TLS: {}", Escaped(error.to_string().as_bytes())))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier(options, authorities.first())?))
            .with_client_cert_resolver(identity.clone());
        config.resumption = Resumption::in_memory_sessions(TICKETS);
        Ok(Self { options: options.clone(), files, config: Arc::new(config), identity })
    }

    pub(super) fn note(&self) -> &'static str {
        if self.options.trust == Trust::Anyone { " by TLS, whatever its certificate" } else { " by TLS" }
    }

    /// Reads the files again: certificates are renewed while jobs run. What cannot be read, or makes no sense together,
    /// leaves things as they were.
    fn refresh(&mut self, log: &dyn Log) {
        if self.files.iter().all(|file| file.changed().is_none()) {
            return;
        }
        match Self::of(&self.options, self.files.iter().map(Fresh::renewed).collect()) {
            Ok(renewed) => *self = renewed,
            Err(why) => log.debug(words!("{}; what was read before is used", why)),
        }
    }

    /// The handshake with `host` on `socket`.
    pub(super) fn wrap<'a>(&mut self, host: &str, socket: Socket<'a>, log: &dyn Log) -> Outcome<AnyStream<'a>> {
        self.refresh(log);
        self.identity.is_missed.store(false, Relaxed);
        let name = self.options.name.as_deref().unwrap_or(host);
        let Ok(server) = ServerName::try_from(name.to_owned()) else {
            let why = words!("no certificate can hold the name {}", Escaped(name.as_bytes()));
            return Err(Failure::new(Kind::Final, why));
        };
        let tls = ClientConnection::new(Arc::clone(&self.config), server).map_err(io::Error::other)?;
        let mut session = Session { tls, socket };
        while session.tls.is_handshaking() {
            session.advance().map_err(|error| {
                // Only the first bytes tell whether there is a TLS server at all.
                let said = match session.tls.protocol_version() {
                    _ if self.identity.is_missed.load(Relaxed) => Said::Request,
                    Some(_) => Said::Hello,
                    None => Said::Nothing,
                };
                failure::failure(error, said)
            })?;
        }
        Ok(Box::new(session))
    }
}

impl From<io::Error> for Box<Failure> {
    fn from(error: io::Error) -> Self {
        failure::failure(error, Said::Hello)
    }
}

/// A TLS session on a socket. What ends the handshake on our side leaves together with the first request.
struct Session<'a> {
    tls: ClientConnection,
    socket: Socket<'a>,
}

impl Session<'_> {
    fn send(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            self.tls.write_tls(&mut self.socket)?;
        }
        Ok(())
    }

    /// Sends what there is to send, and reads once.
    fn advance(&mut self) -> io::Result<()> {
        self.send()?;
        if self.tls.read_tls(&mut self.socket)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.tls.process_new_packets().map(|_| ()).map_err(|error| {
            // The alert that tells the server why.
            let _ = self.send();
            io::Error::other(error)
        })
    }
}

impl Read for Session<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.tls.reader().read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.advance()?,
                done => return done,
            }
        }
    }
}

impl Write for Session<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.tls.writer().write(bytes)?;
        self.send()?;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> Stream<'a> for Session<'a> {
    fn socket(&mut self) -> &mut Socket<'a> {
        &mut self.socket
    }

    fn close(&mut self) {
        // Without this some servers take the end for an attack, and forget the session.
        self.tls.send_close_notify();
        let _ = self.send();
    }
}

/// The certificate of our own, which servers may ask for.
#[derive(Debug)]
struct Identity {
    certified: Option<Arc<CertifiedKey>>,
    /// Whether a server has asked for one, and there is none.
    is_missed: AtomicBool,
}

impl ResolvesClientCert for Identity {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.is_missed.store(self.certified.is_none(), Relaxed);
        self.certified.clone()
    }

    fn has_certs(&self) -> bool {
        self.certified.is_some()
    }
}

/// The client's certificate as it is: it is the server that has to understand it.
fn certified(chain: &Fresh, key: &Fresh) -> Result<CertifiedKey, Line> {
    let certificates = sections::<CertificateDer<'_>>(chain, pem::CERTIFICATE)?;
    let secret = sections::<PrivateKeyDer<'_>>(key, pem::KEY)?.swap_remove(0);
    let (chain, path) = (chain.shown(), key.shown());
    let key = any_supported_type(&secret);
    let key = key.map_err(|_| words!("{}: not a key of RSA (2048 to 4096 bits), P-256, P-384 or Ed25519", path))?;
    match (x509::public_key(&certificates[0]), key.public_key()) {
        (Some(one), Some(other)) if one != other => {
            Err(words!("{} and {} do not go together: the key is that of another certificate", chain, path))
        }
        _ => Ok(CertifiedKey::new(certificates, key)),
    }
}

/// The judge of the server's certificate.
fn verifier(options: &TlsOptions, authorities: Option<&Fresh>) -> Result<Verifier, Line> {
    let (mut roots, mut own) = (RootCertStore::empty(), Vec::new());
    match authorities {
        _ if options.trust == Trust::Anyone => return Ok(Verifier { roots: None, own }),
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(file) => {
            own = sections::<CertificateDer<'_>>(file, pem::AUTHORITY)?;
            if roots.add_parsable_certificates(own.iter().map(|own| CertificateDer::from(&own[..]))).0 == 0 {
                return Err(words!("{}: no usable CA certificate in PEM form in it", file.shown()));
            }
        }
    }
    Ok(Verifier { roots: Some(roots), own })
}
