//! Certificates as hardly a tool makes them, written byte by byte.

use rcgen::{KeyPair, PublicKeyData, SigningKey};

use super::certificates::{Authority, Papers, armoured};

/// What is odd about a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Oddity {
    /// X.509 v1, which knows no extensions: what OpenSSL made before 3.2 unless it was told otherwise.
    Version1,
    NegativeSerial,
    /// Longer than the 20 bytes of RFC 5280.
    LongSerial,
    CriticalExtension,
    /// Signed with an algorithm that nobody knows.
    UnknownSignature,
    /// Not signed by whoever it names.
    WrongSignature,
    /// Valid until before it begins.
    Dates,
    /// DER of another kind.
    NoCertificate,
}

pub(crate) const ODDITIES: [Oddity; 8] = [
    Oddity::Version1,
    Oddity::NegativeSerial,
    Oddity::LongSerial,
    Oddity::CriticalExtension,
    Oddity::UnknownSignature,
    Oddity::WrongSignature,
    Oddity::Dates,
    Oddity::NoCertificate,
];

const ECDSA_WITH_SHA256: &[u8] = b"\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02";
const COMMON_NAME: &[u8] = b"\x06\x03\x55\x04\x03";
const SUBJECT_ALT_NAME: &[u8] = b"\x06\x03\x55\x1d\x11";
const UNKNOWN: &[u8] = b"\x06\x03\x2a\x03\x04";
const TRUE: &[u8] = b"\x01\x01\xff";

/// An element of DER.
fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let length = u16::try_from(content.len()).unwrap();
    let [high, low] = length.to_be_bytes();
    let head = match length {
        0..=0x7f => vec![tag, low],
        0x80..=0xff => vec![tag, 0x81, low],
        _ => vec![tag, 0x82, high, low],
    };
    [head, content].concat()
}

fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    der(0x30, parts)
}

fn name(common_name: &str) -> Vec<u8> {
    let value = der(0x0c, &[common_name.as_bytes()]);
    sequence(&[&der(0x31, &[&sequence(&[COMMON_NAME, &value])])])
}

fn dates(from: &str, to: &str) -> Vec<u8> {
    sequence(&[&der(0x17, &[from.as_bytes()]), &der(0x17, &[to.as_bytes()])])
}

/// A certificate of `authority` for `localhost` and this key.
pub(crate) fn odd(authority: &Authority, key: &KeyPair, oddity: Oddity) -> Papers {
    let algorithm = sequence(&[if oddity == Oddity::UnknownSignature { UNKNOWN } else { ECDSA_WITH_SHA256 }]);
    let serial = match oddity {
        Oddity::NegativeSerial => vec![0xff],
        Oddity::LongSerial => vec![0x11; 30],
        _ => vec![7],
    };
    let validity = if oddity == Oddity::Dates {
        dates("400101000000Z", "250101000000Z")
    } else {
        dates("250101000000Z", "400101000000Z")
    };
    let names = der(4, &[&sequence(&[&der(0x82, &[b"localhost"])])]);
    let odd = sequence(&[UNKNOWN, TRUE, &der(4, &[b"?"])]);
    let more = if oddity == Oddity::CriticalExtension { &odd[..] } else { b"" };
    let extensions = der(0xa3, &[&sequence(&[&sequence(&[SUBJECT_ALT_NAME, &names]), more])]);
    let version = der(0xa0, &[&der(2, &[&[2]])]);
    let (version, extensions) =
        if oddity == Oddity::Version1 { (&b""[..], &b""[..]) } else { (&version[..], &extensions[..]) };
    let (issuer, subject, spki) = (name(Authority::NAME), name("localhost"), key.subject_public_key_info());
    let serial = der(2, &[&serial]);
    let signed = sequence(&[version, &serial, &algorithm, &issuer, &validity, &subject, &spki, extensions]);
    let signer = if oddity == Oddity::WrongSignature { key } else { authority.key() };
    let signature = der(3, &[&[0], &signer.sign(&signed).unwrap()]);
    let parts: &[&[u8]] = if oddity == Oddity::NoCertificate { &[&serial] } else { &[&signed, &algorithm, &signature] };
    let certificate = armoured("CERTIFICATE", &sequence(parts));
    Papers { certificate: authority.write(&certificate), key: authority.write(&key.serialize_pem()) }
}
