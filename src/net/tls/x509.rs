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

#[cfg(test)]
mod tests {
    use super::*;

    /// An element; the length that it needs is written in the shortest form.
    fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
        let content = parts.concat();
        let [high, low] = u16::try_from(content.len()).unwrap().to_be_bytes();
        let head = match content.len() {
            0..=0x7f => vec![tag, low],
            0x80..=0xff => vec![tag, 0x81, low],
            _ => vec![tag, 0x82, high, low],
        };
        [head, content].concat()
    }

    /// The key and the whole of a certificate with an RSA key of so many bytes.
    fn certificate(modulus: &[u8], version: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let numbers = der(SEQUENCE, &[&der(INTEGER, &[modulus]), &der(INTEGER, &[b"\x01\0\x01"])]);
        let key = der(SEQUENCE, &[&der(SEQUENCE, &[]), &der(BIT_STRING, &[b"\0", &numbers])]);
        let [serial, empty] = [der(INTEGER, &[b"\x07"]), der(SEQUENCE, &[])];
        let signed = der(SEQUENCE, &[version, &serial, &empty, &empty, &empty, &empty, &key]);
        let whole = der(SEQUENCE, &[&signed, &empty, &der(BIT_STRING, &[b"\0"])]);
        (key, whole)
    }

    #[test]
    fn the_key_is_found_whole_or_not_at_all() {
        for version in [&b""[..], b"\xa0\x03\x02\x01\x02"] {
            let (key, whole) = certificate(&[0x80; 256], version);
            assert_eq!(public_key(&whole).as_deref(), Some(&key[..]));
            for length in 0..whole.len() {
                assert_eq!(public_key(&whole[..length]), None, "the first {length} bytes");
            }
        }
    }

    #[test]
    fn a_length_has_one_form() {
        let read = |bytes: &[u8]| take(&mut &bytes[..], SEQUENCE).map(<[u8]>::len);
        let long = [&[SEQUENCE, 0x82, 1, 0][..], &[0; 256]].concat();
        let middle = [&[SEQUENCE, 0x81, 0x80][..], &[0; 128]].concat();
        assert_eq!([&b"\x30\0"[..], b"\x30\x01\0", &middle, &long].map(read), [0, 1, 128, 256].map(Some));
        let padded = [&[SEQUENCE, 0x82, 0, 0x80][..], &[0; 128]].concat();
        for wrong in
            [&b""[..], b"\x30", b"\x30\x01", b"\x30\x80\0\0", b"\x30\x81\x01\0", &padded, b"\x31\0", b"\x30\xff"]
        {
            assert_eq!(read(wrong), None, "{wrong:x?}");
        }
    }

    #[test]
    fn only_rsa_keys_of_the_wrong_size_are_unfit() {
        let unfit = |modulus: &[u8]| unfit_rsa_bits(&certificate(modulus, b"").1);
        assert_eq!(unfit(&[&[0][..], &[0xff; 128]].concat()), Some(1024));
        assert_eq!(unfit(&[0x7f; 255]), Some(2040));
        assert_eq!(unfit(&[&[0][..], &[0xff; 256]].concat()), None);
        assert_eq!(unfit(&[&[0][..], &[0xff; 1024]].concat()), None);
        assert_eq!(unfit(&[0x7f; 1025]), Some(8200));
        // As a point of a curve, which is no sequence of numbers.
        assert_eq!(unfit_rsa_bits(b"\x30\0"), None);
    }

    #[test]
    fn what_openssl_puts_behind_a_certificate_decides() {
        let [servers, any] = PURPOSES;
        let clients = b"\x06\x08\x2b\x06\x01\x05\x05\x07\x03\x02";
        let aux = |trusted: Option<&[u8]>, rejected: Option<&[u8]>| {
            let trusted = trusted.map_or(Vec::new(), |list| der(SEQUENCE, &[list]));
            let rejected = rejected.map_or(Vec::new(), |list| der(CONTEXT_0, &[list]));
            is_for_servers(&der(SEQUENCE, &[&trusted, &rejected, &der(0x0c, &[b"name"])]))
        };
        let both = [&clients[..], servers].concat();
        for (trusted, rejected) in
            [(None, None), (Some(servers), None), (Some(any), None), (Some(&both[..]), Some(&clients[..]))]
        {
            assert!(aux(trusted, rejected), "{trusted:x?} {rejected:x?}");
        }
        for (trusted, rejected) in
            [(Some(&clients[..]), None), (None, Some(servers)), (None, Some(any)), (Some(servers), Some(&both[..]))]
        {
            assert!(!aux(trusted, rejected), "{trusted:x?} {rejected:x?}");
        }
        assert!(is_for_servers(b""));
    }
}
