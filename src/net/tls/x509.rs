//! The little of X.509 (RFC 5280) that golock reads itself, where rustls does not tell or refuses to look.

use rustls::pki_types::SubjectPublicKeyInfoDer;

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
pub(super) const SEQUENCE: u8 = 0x30;
const CONTEXT_0: u8 = 0xa0;

/// The object identifiers of the purposes serverAuth and anyExtendedKeyUsage.
const PURPOSES: [&[u8]; 2] = [b"\x06\x08\x2b\x06\x01\x05\x05\x07\x03\x01", b"\x06\x04\x55\x1d\x25\x00"];

/// Takes the first element off `input` and returns its content, if it has this tag, and a length in DER's one form for it.
pub(super) fn take<'a>(input: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    let (&[found, first], rest) = input.split_first_chunk()?;
    let (length, rest) = match (first, rest) {
        (0..=0x7f, rest) => (usize::from(first), rest),
        (0x81, [length @ 0x80..=0xff, rest @ ..]) => (usize::from(*length), rest),
        (0x82, [high @ 1..=0xff, low, rest @ ..]) => (usize::from(u16::from_be_bytes([*high, *low])), rest),
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length).filter(|_| found == tag)?;
    *input = rest;
    Some(content)
}

/// The public key of a certificate of any version, whatever else is wrong with it.
pub(super) fn public_key(mut certificate: &[u8]) -> Option<SubjectPublicKeyInfoDer<'_>> {
    let mut fields = take(&mut take(&mut certificate, SEQUENCE)?, SEQUENCE)?;
    let _version = take(&mut fields, CONTEXT_0);
    // The serial number, the algorithm of the signature, the issuer, the validity and the subject.
    for tag in [INTEGER, SEQUENCE, SEQUENCE, SEQUENCE, SEQUENCE] {
        take(&mut fields, tag)?;
    }
    let from_here = fields;
    take(&mut fields, SEQUENCE)?;
    Some(from_here[..from_here.len() - fields.len()].into())
}

/// The size of a certificate's RSA key, if it has one that is too small or too large for ring to verify with.
pub(super) fn unfit_rsa_bits(certificate: &[u8]) -> Option<usize> {
    let key = public_key(certificate)?;
    let mut fields = take(&mut key.as_ref(), SEQUENCE)?;
    take(&mut fields, SEQUENCE)?;
    let mut numbers = take(&mut fields, BIT_STRING)?.strip_prefix(&[0])?;
    let modulus = take(&mut take(&mut numbers, SEQUENCE)?, INTEGER)?;
    let bits = 8 * modulus.strip_prefix(&[0]).unwrap_or(modulus).len();
    (!(2048..=8192).contains(&bits)).then_some(bits)
}

/// Whether a certificate may vouch for servers by what `openssl x509 -trustout` has put behind it (`X509_CERT_AUX`): the
/// purposes that it is trusted for, if they are listed, and those for which it is not.
pub(super) fn is_for_servers(mut behind: &[u8]) -> bool {
    let mut fields = take(&mut behind, SEQUENCE).unwrap_or_default();
    let has_servers = |list: &[u8]| PURPOSES.iter().any(|id| list.windows(id.len()).any(|found| found == *id));
    take(&mut fields, SEQUENCE).is_none_or(has_servers) && !take(&mut fields, CONTEXT_0).is_some_and(has_servers)
}
