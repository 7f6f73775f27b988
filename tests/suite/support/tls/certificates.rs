//! Certificates made for a test: an authority and what it issues, as PEM files in a temporary folder.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, PKCS_ECDSA_P256_SHA256,
    PKCS_ECDSA_P384_SHA384,
};
use tempfile::TempDir;

/// The kinds of keys that servers and clients have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyKind {
    P256,
    P384,
    Ed25519,
    Rsa,
}

/// A certificate and its key, as PEM files.
#[derive(Clone, Debug)]
pub(crate) struct Papers {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

/// A CA, and the folder in which it keeps what it has issued.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    dir: TempDir,
    files: AtomicU32,
}

impl KeyKind {
    pub(crate) const ALL: [Self; 4] = [Self::P256, Self::P384, Self::Ed25519, Self::Rsa];

    pub(crate) fn generate(self) -> KeyPair {
        match self {
            Self::P256 => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap(),
            Self::P384 => KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap(),
            // That of rcgen also holds the public key, which OpenSSL does not understand.
            Self::Ed25519 => KeyPair::from_pem(&openssl(&["genpkey", "-algorithm", "ed25519"], "")).unwrap(),
            Self::Rsa => KeyPair::from_pem(rsa_key()).unwrap(),
        }
    }
}

/// ring does not make RSA keys. One serves all tests, because making it takes time.
fn rsa_key() -> &'static str {
    static KEY: OnceLock<String> = OnceLock::new();
    KEY.get_or_init(|| openssl(&["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"], ""))
}

/// The key in the form that OpenSSL wrote before PKCS#8: SEC1 for elliptic curves, PKCS#1 for RSA.
pub(crate) fn traditional(key: &str) -> String {
    openssl(&["pkey", "-traditional"], key)
}

/// The key under a pass phrase.
pub(crate) fn encrypted(key: &str) -> String {
    openssl(&["pkey", "-aes-256-cbc", "-passout", "pass:phrase"], key)
}

/// What the openssl command makes of `input`.
pub(crate) fn openssl(words: &[&str], input: &str) -> String {
    let mut child = Command::new("openssl")
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the tests need the openssl command");
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "openssl {words:?}: {}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// A PEM section.
pub(crate) fn armoured(label: &str, der: &[u8]) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = |group: &[u8]| {
        let number = group.iter().chain(&[0; 2]).take(3).fold(0, |sum, byte| sum << 8 | usize::from(*byte));
        [18, 12, 6, 0]
            .iter()
            .enumerate()
            .map(
                move |(place, shift)| {
                    if place <= group.len() { char::from(DIGITS[number >> shift & 63]) } else { '=' }
                },
            )
            .collect::<String>()
    };
    let lines: Vec<String> = der.chunks(48).map(|line| line.chunks(3).map(digits).collect()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

impl Authority {
    /// What an authority calls itself.
    pub(crate) const NAME: &str = "CA of a test";

    pub(crate) fn new() -> Self {
        Self::named(Self::NAME)
    }

    pub(crate) fn named(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyKind::P256.generate()).unwrap();
        let authority = Self { issuer, dir: TempDir::new().unwrap(), files: AtomicU32::new(0) };
        fs::write(authority.file(), authority.pem()).unwrap();
        authority
    }

    /// The file of its own certificate.
    pub(crate) fn file(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// Its own certificate.
    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// The key with which it signs.
    pub(crate) fn key(&self) -> &KeyPair {
        self.issuer.key()
    }

    /// A new file that nobody else can read.
    pub(crate) fn write(&self, text: &str) -> PathBuf {
        let path = self.dir.path().join(format!("{}.pem", self.files.fetch_add(1, Ordering::SeqCst)));
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        path
    }

    /// A flawless certificate for these names and addresses.
    pub(crate) fn issue(&self, names: &[&str]) -> Papers {
        self.issue_for(&KeyKind::P256.generate(), names, |_| ())
    }

    /// A certificate for this key, changed before it is signed.
    pub(crate) fn issue_for(
        &self,
        key: &KeyPair,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> Papers {
        let certificate = parameters(names, change).signed_by(key, &self.issuer).unwrap();
        Papers { certificate: self.write(&certificate.pem()), key: self.write(&key.serialize_pem()) }
    }

    /// A certificate that vouches for itself. It is kept here, but this authority has not signed it.
    pub(crate) fn self_signed(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Papers {
        let key = KeyKind::P256.generate();
        let certificate = parameters(names, change).self_signed(&key).unwrap();
        Papers { certificate: self.write(&certificate.pem()), key: self.write(&key.serialize_pem()) }
    }
}

fn parameters(names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    let names: Vec<String> = names.iter().copied().map(String::from).collect();
    let mut params = CertificateParams::new(names).unwrap();
    // As in all certificates that were made by hand; it does not count as a name since RFC 6125.
    params.distinguished_name.push(DnType::CommonName, "localhost");
    change(&mut params);
    params
}

/// Makes it what `openssl req -x509` makes: a CA, although it is meant for one server.
pub(crate) fn as_ca(params: &mut CertificateParams) {
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
}

/// What is in a PEM file.
pub(crate) fn pem(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}
