//! Which server golock speaks to: one whose certificate is trusted, and that has its key.

use super::provider::ALGORITHMS;
use super::x509::{public_key, unfit_rsa_bits};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::verify_tls13_signature_with_raw_key;
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use webpki::RawPublicKeyEntity;

/// The usual rules, and one more: a self-signed certificate that is itself in the file of trusted ones is trusted, for
/// the names that it holds, even if it calls itself a CA. That is what `openssl req -x509` makes, and what OpenSSL and
/// Go accept. Whatever the certificate, whoever shows it must have its key.
#[derive(Debug)]
pub(super) struct Verifier {
    /// None: any certificate will do.
    pub(super) roots: Option<RootCertStore>,
    pub(super) own: Vec<CertificateDer<'static>>,
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
        match verify_server_cert_signed_by_trust_anchor(&parsed, roots, intermediates, now, ALGORITHMS.all) {
            // The refusal of a CA as a server comes after the check of its dates.
            Err(Error::InvalidCertificate(CertificateError::Other(error)))
                if matches!(error.0.downcast_ref(), Some(webpki::Error::CaUsedAsEndEntity))
                    && self.own.contains(certificate) => {}
            Err(error @ Error::InvalidCertificate(CertificateError::BadSignature)) => {
                let mut chain = [certificate].into_iter().chain(intermediates).chain(&self.own);
                return Err(chain.find_map(|link| unfit(link)).unwrap_or(error));
            }
            verdict => verdict?,
        }
        verify_server_name(&parsed, name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        proven(certificate, |key| {
            let Ok(key) = RawPublicKeyEntity::try_from(key) else { return false };
            let mut algorithms = ALGORITHMS.mapping.iter().filter(|(scheme, _)| *scheme == signed.scheme);
            let is_by = |algorithm| key.verify_signature(algorithm, message, signed.signature()).is_ok();
            algorithms.any(|(_, algorithms)| algorithms.iter().any(|algorithm| is_by(*algorithm)))
        })
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        proven(certificate, |key| verify_tls13_signature_with_raw_key(message, key, signed, &ALGORITHMS).is_ok())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ALGORITHMS.supported_schemes()
    }
}

/// The proof that the server has signed the handshake with the key of its certificate, which need be nothing more than
/// the envelope of a key.
fn proven(
    certificate: &[u8],
    is_signed: impl FnOnce(&SubjectPublicKeyInfoDer<'_>) -> bool,
) -> Result<HandshakeSignatureValid, Error> {
    let key = public_key(certificate).ok_or(CertificateError::BadEncoding)?;
    if is_signed(&key) {
        return Ok(HandshakeSignatureValid::assertion());
    }
    let stolen = || Error::General("the server does not have the key of its certificate".into());
    Err(unfit(certificate).unwrap_or_else(stolen))
}

/// The refusal of an RSA key for its size.
fn unfit(certificate: &[u8]) -> Option<Error> {
    let bits = unfit_rsa_bits(certificate)?;
    Some(Error::General(format!(
        "the server's certificate depends on an RSA key of {bits} bits; 2048 to 8192 are needed"
    )))
}
