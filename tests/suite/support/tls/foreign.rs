//! A TLS server that only shakes hands, with ciphers, curves and certificates that neither Redis nor rustls would take.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use super::certificates::Papers;

/// `openssl s_server` on a port of 127.0.0.1.
pub(crate) struct Foreign {
    child: Child,
    port: u16,
}

impl Foreign {
    /// With these papers; `words` follow on its command line.
    #[track_caller]
    pub(crate) fn start(papers: &Papers, words: &[&str]) -> Self {
        let mut child = Command::new("openssl")
            .args(["s_server", "-www", "-accept", "127.0.0.1:0", "-cipher", "ALL:@SECLEVEL=0", "-cert"])
            .arg(&papers.certificate)
            .arg("-key")
            .arg(&papers.key)
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the tests need the openssl command");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = lines.find_map(|line| line.unwrap().strip_prefix("ACCEPT 127.0.0.1:")?.parse().ok());
        Self { child, port: port.expect("openssl s_server listens") }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
