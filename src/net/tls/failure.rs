//! Why TLS failed, for people who have to mend it.

use crate::net::{Failure, Kind};
use crate::text::{Escaped, Line};
use crate::words;
use rustls::{AlertDescription as Alert, CertificateError, Error, InvalidMessage, PeerIncompatible};
use std::io;

/// Alerts about bytes that were lost on the way, and about the server's own troubles.
#[rustfmt::skip]
const PASSING: [Alert; 6] = [
    Alert::UnexpectedMessage, Alert::BadRecordMac, Alert::RecordOverflow, Alert::DecodeError, Alert::InternalError,
    Alert::UserCanceled,
];

/// What the server has said before TLS failed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Said {
    Nothing,
    Hello,
    /// It has asked for a client certificate, and there is none.
    Request,
}

/// The failure that `error`, from a TLS stream, stands for. It is final if the server would fail the same way again: it is
/// not trusted, or does not trust us, or speaks another TLS.
pub(super) fn failure(error: io::Error, said: Said) -> Box<Failure> {
    let error = match error.downcast() {
        Ok(error) => error,
        Err(error) if said == Said::Nothing => {
            let why = Failure::io(&error).why;
            return Failure::lost(words!("{} in the TLS handshake; is it a port without TLS?", why));
        }
        Err(error) => return Failure::io(&error),
    };
    let is_final = match &error {
        Error::InvalidCertificate(_) | Error::PeerIncompatible(_) | Error::General(_) => true,
        Error::AlertReceived(alert) => !PASSING.contains(alert),
        _ => false,
    };
    Failure::new(if is_final { Kind::Final } else { Kind::Lost }, explained(&error, said))
}

fn explained(error: &Error, said: Said) -> Line {
    match error {
        Error::InvalidCertificate(error) => words!("the server's certificate {}", flaw(error)),
        Error::AlertReceived(Alert::ProtocolVersion)
        | Error::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13) => {
            "the server speaks neither TLS 1.2 nor TLS 1.3".into()
        }
        Error::AlertReceived(alert) => {
            let hint = match (alert, said) {
                (Alert::HandshakeFailure | Alert::InsufficientSecurity, Said::Nothing) => {
                    "; it has no cipher suite, curve or kind of signature in common with golock"
                }
                (Alert::CertificateRequired, _) | (_, Said::Request) => "; does it want a client certificate?",
                _ => "",
            };
            words!("the server ended TLS with the alert {}{}", Escaped(format!("{alert:?}").as_bytes()), hint)
        }
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => "no TLS: it looks like a port without TLS".into(),
        // The words of the verifier.
        Error::General(why) => words!("{}", Escaped(why.as_bytes())),
        other => words!("TLS: {}", Escaped(other.to_string().as_bytes())),
    }
}

/// What is wrong with the server's certificate.
fn flaw<'a>(error: &'a CertificateError) -> Line {
    use CertificateError as E;
    let own_words = match error {
        E::Expired | E::ExpiredContext { .. } => "has expired",
        E::NotValidYet | E::NotValidYetContext { .. } => "is not valid yet; is the clock right?",
        E::UnknownIssuer => "is of a CA that is not trusted",
        E::BadSignature => "is not of the trusted CA, but of one with the same name",
        E::BadEncoding => "is not X.509",
        E::InvalidPurposeContext { .. } => "is not meant for servers (extendedKeyUsage)",
        E::UnsupportedSignatureAlgorithmContext { .. } => "is signed by an unsupported algorithm, such as SHA-1",
        E::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "depends on an unsupported kind of key, such as P-521"
        }
        E::NotValidForNameContext { presented, .. } if presented.is_empty() => {
            "is for another name: it has no subjectAltName, and a CN does not count"
        }
        E::NotValidForNameContext { presented, .. } => {
            // They look like DnsName("redis.example") and IpAddress(192.0.2.1).
            let bare = |name: &'a String| name.split(['(', '"', ')']).skip(1).find(|part| !part.is_empty());
            let names: Vec<_> = presented.iter().filter_map(bare).collect();
            return words!("is for another name: {}", Escaped(names.join(", ").as_bytes()));
        }
        E::Other(error) => match error.0.downcast_ref() {
            Some(webpki::Error::CaUsedAsEndEntity) => "is not trusted: it is that of a CA, or self-signed",
            Some(webpki::Error::UnsupportedCertVersion) => {
                "is of X.509 version 1: it has only a CN, which does not count"
            }
            _ => return words!("is not acceptable: {}", Escaped(error.to_string().as_bytes())),
        },
        _ => return words!("is not acceptable: {}", Escaped(error.to_string().as_bytes())),
    };
    own_words.into()
}
