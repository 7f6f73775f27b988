//! PEM files as OpenSSL reads them, and also sections that are joined without a newline.

use super::x509::{SEQUENCE, is_for_servers, take};
use crate::files::Fresh;
use crate::text::{Escaped, Line};
use crate::words;
use rustls::pki_types::pem::{Error, PemObject, SectionKind};

/// What a file is read for.
pub(super) const AUTHORITY: &str = "CA certificate";
pub(super) const CERTIFICATE: &str = "certificate";
pub(super) const KEY: &str = "private key";

/// What may stand beside certificates and keys, by the end of its label.
const OTHERS: [&[u8]; 4] = [b" KEY", b" PARAMETERS", b" REQUEST", b" CRL"];

/// All sections of `file` that hold `what`; at least one. A section whose beginning is not understood is an error: it
/// may be the very one that is needed.
pub(super) fn sections<T: PemObject>(file: &Fresh, what: &'static str) -> Result<Vec<T>, Line> {
    let (text, path) = (String::from_utf8_lossy(&file.content), file.shown());
    let (mut rest, mut found) = (&*text, Vec::new());
    while let Some((before, behind)) = rest.split_once("-BEGIN ") {
        let margin = before.rsplit('\n').next().unwrap_or_default().trim_start_matches(['\u{feff}', ' ', '\t']);
        rest = behind;
        if margin.starts_with('#') {
            continue;
        }
        let content = match section(behind) {
            Some((label, body, next)) if margin == "----" => {
                rest = next;
                decoded(label, body, what)
            }
            _ => Err("a malformed PEM section".into()),
        };
        let line = || text[..text.len() - behind.len()].matches('\n').count() + 1;
        let content = content.map_err(|why| words!("{}:{}: {}", path, line(), why))?;
        found.extend(content.and_then(|(kind, der)| T::from_pem(kind, der)));
    }
    if found.is_empty() { Err(words!("{}: no usable {} in PEM form in it", path, what)) } else { Ok(found) }
}

/// The label and the body of the section with which `text` goes on, and what follows it.
fn section(text: &str) -> Option<(&str, &str, &str)> {
    let (label, rest) = text.split_once("-----").filter(|(label, _)| !label.contains('\n'))?;
    let (body, rest) = rest.split_once("-----END ").filter(|(body, _)| !body.contains("-BEGIN "))?;
    Some((label, body, rest.strip_prefix(label)?.strip_prefix("-----")?))
}

/// What a section holds, if that may be of use.
fn decoded(label: &str, body: &str, what: &'static str) -> Result<Option<(SectionKind, Vec<u8>)>, Line> {
    // As PKCS#8, and as OpenSSL did it before, with headers in front of the base64.
    let is_encrypted = label.starts_with("ENCRYPTED") || body.contains("ENCRYPTED");
    if is_encrypted && label.as_bytes().ends_with(b"PRIVATE KEY") {
        let refusal = Err("the private key is encrypted; golock needs an unencrypted one".into());
        return if what == KEY { refusal } else { Ok(None) };
    }
    let kind = match label.as_bytes() {
        b"TRUSTED CERTIFICATE" | b"X509 CERTIFICATE" => "CERTIFICATE",
        _ => label,
    };
    let (broken, shown) = (|shown| Err(words!("a broken section: {}", shown)), Escaped(label.as_bytes()));
    let plain = format!("-----BEGIN {kind}-----\n{body}\n-----END {kind}-----\n");
    match <(SectionKind, Vec<u8>)>::from_pem_slice(plain.as_bytes()) {
        Ok((SectionKind::Certificate, mut der)) => {
            let mut behind = &der[..];
            if take(&mut behind, SEQUENCE).is_none() {
                return broken(shown);
            }
            let (length, is_wanted) = (der.len() - behind.len(), what != AUTHORITY || is_for_servers(behind));
            der.truncate(length);
            Ok(is_wanted.then_some((SectionKind::Certificate, der)))
        }
        Ok(content) => Ok(Some(content)),
        Err(Error::NoItemsFound) if OTHERS.iter().any(|end| label.as_bytes().ends_with(end)) => Ok(None),
        Err(Error::NoItemsFound) => Err(words!("a section of an unknown kind: {}", shown)),
        Err(_) => broken(shown),
    }
}
