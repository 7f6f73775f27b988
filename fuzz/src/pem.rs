//! `[TLS_CA]^[TLS_CERT]^[TLS_KEY]`: the PEM files of TLS, through the real set-up of a client.

use super::session::{signals, story};
use super::text_file::TextFile;
use golock::net::{Client, Endpoint, Identity, Login, Retry, Server, SetupError, TlsMode, Trust};
use std::cell::RefCell;
use std::path::Path;
use std::time::Duration;

const RETRY: Retry = Retry { timeout: Duration::from_secs(5), attempts: 0, backoff: Duration::ZERO };

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
        let identity = (texts.len() == 3).then(|| Identity { chain: chain.into(), key: key.into() });
        let tls = TlsMode::On(Trust::File(ca.into()), identity);
        let server = Server { endpoint: Endpoint::Tcp("localhost".into(), 1), login: Login::default(), tls };
        let made = signals(|signals| Client::new(server, RETRY, signals, story()).map(|_| ()));
        let named: Vec<_> = [ca, chain, key].into_iter().zip(texts).collect();
        match made {
            Ok(()) => assert!(named[0].1.windows(10).any(|part| part == b"-----BEGIN"), "whom is it to trust?"),
            Err(error) => assert_named(&error, &named),
        }
    });
}

/// The error names one of the files, and in it the first line of a section, or none where there is no section.
fn assert_named(error: &SetupError, files: &[(&Path, &[u8])]) {
    let message = error.to_string();
    match error {
        SetupError::BadPem(path, line, _) => {
            let (_, text) = files.iter().find(|(known, _)| known == path).expect("one of our files");
            let found = text.split(|&byte| byte == b'\n').nth(line.saturating_sub(1)).expect("a line that exists");
            assert!(*line == 0 || found.starts_with(b"-----BEGIN"), "{message}: no section begins there");
            let place =
                if *line == 0 { format!("{}: ", path.display()) } else { format!("{}:{line}: ", path.display()) };
            assert!(message.starts_with(&place), "{message}");
        }
        SetupError::BadIdentity(chain, key, _) => {
            assert!([chain, key].iter().all(|path| message.contains(&path.display().to_string())), "{message}");
        }
        SetupError::Unreadable(..) | SetupError::Other(_) => panic!("{message}"),
    }
}
