//! `[TLS_CA]^[TLS_CERT]^[TLS_KEY]`: the PEM files of TLS, through the real set-up of a client.

use super::shown::assert_line;
use super::text_file::TextFile;
use golock::net::{Credentials, Endpoint, Server, TlsOptions, Trust};
use std::cell::RefCell;
use std::path::Path;
use std::time::Duration;

thread_local! {
    static FILES: RefCell<[TextFile; 3]> = RefCell::new([TextFile::new(), TextFile::new(), TextFile::new()]);
}

/// Makes a client that trusts the first file, and shows the certificate in the second if there are three.
pub fn pem(input: &[u8]) {
    FILES.with_borrow_mut(|files| {
        let texts: Vec<_> = input.splitn(3, |&byte| byte == b'^').collect();
        for (file, text) in files.iter_mut().zip(&texts) {
            file.write(text);
        }
        let [ca, chain, key] = files.each_ref().map(TextFile::path);
        let identity = (texts.len() == 3).then(|| (chain.into(), key.into()));
        let made = Credentials::read(Some(&server(TlsOptions {
            trust: Trust::File("TLS_CA", ca.into()),
            identity,
            name: None,
        })));
        let named: Vec<_> = [ca, chain, key].into_iter().zip(texts).collect();
        match made {
            Ok(_) => assert!(begins_section(named[0].1), "whom is it to trust?"),
            Err(why) => assert_named(&why.to_string(), &named),
        }
    });
}

fn server(tls: TlsOptions) -> Server {
    Server {
        endpoint: Endpoint::Tcp("localhost".into(), 1),
        user: None,
        password: None,
        auth_file: None,
        config_file: None,
        database: 0,
        tls: Some(tls),
        timeout: Duration::from_secs(5),
        attempts: 0,
        backoff: Duration::ZERO,
    }
}

fn begins_section(text: &[u8]) -> bool {
    // Also one with too few dashes, which is an error.
    text.windows(7).any(|part| part == b"-BEGIN ")
}

/// The message begins with one of the files, and perhaps with the line in it on which a section begins.
fn assert_named(message: &str, files: &[(&Path, &[u8])]) {
    assert_line(message);
    // Its setting comes first.
    let named = |text: &'_ str| text.split_once(' ').map(|(_, named)| named.to_owned()).unwrap_or_default();
    let message = named(message);
    let behind = |path: &Path| message.strip_prefix(&path.display().to_string());
    let found = files.iter().find_map(|(path, text)| Some((behind(path)?, text)));
    let (rest, text) = found.unwrap_or_else(|| panic!("none of our files: {message}"));
    if let Some((number, _)) = rest.strip_prefix(':').and_then(|rest| rest.split_once(": ")) {
        let number: usize = number.parse().unwrap_or_else(|_| panic!("not a line: {message}"));
        let line = text.split(|&byte| byte == b'\n').nth(number.saturating_sub(1)).expect("a line that exists");
        assert!(number == 0 || begins_section(line), "{message}: no section begins there");
    } else if let Some(other) = rest.strip_prefix(" and ") {
        assert!(files.iter().any(|(path, _)| named(other).starts_with(&path.display().to_string())), "{message}");
    } else {
        assert!(rest.starts_with(": "), "{message}");
    }
}
