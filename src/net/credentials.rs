use super::refusal::redact;
use super::tls::Tls;
use super::{Failure, Kind, Server};
use crate::files::{BOM, Fresh};
use crate::text::{Escaped, Line, Secret};
use crate::words;
use std::mem;

/// The most that is read of a password's file: enough for any, and little even of `/dev/zero`.
const LIMIT: u64 = 64 * 1024;

/// The password and what TLS needs, read from files before signals are caught, because some of them may be pipes, which
/// make us wait; and again for each connection, because secrets are rotated while jobs run.
#[derive(Default)]
pub struct Credentials {
    given: Option<Secret>,
    /// Its content is what was read first, or has worked last.
    file: Option<Fresh>,
    /// What has worked before that.
    earlier: Option<Vec<u8>>,
    /// What was sent last, and what the server has refused last.
    sent: Option<Vec<u8>>,
    refused: Option<Vec<u8>>,
    pub(super) tls: Option<Tls>,
}

impl Credentials {
    /// Reads what `server` needs, if there is one. The words say which file is of no use.
    pub fn read(server: Option<&Server>) -> Result<Self, Line> {
        let Some(server) = server else { return Ok(Self::default()) };
        let file = server.auth_file.as_deref().map(|path| Fresh::read("AUTH_FILE", path, LIMIT)).transpose()?;
        if let Some(file) = file.as_ref().filter(|file| without_newline(&file.content).is_empty()) {
            return Err(words!("{}: it is empty", file.shown()));
        }
        let tls = server.tls.as_ref().map(Tls::new).transpose()?;
        Ok(Self { given: server.password.clone(), file, tls, ..Self::default() })
    }

    /// The password for a new connection: what its file holds now, or has worked last, or before that; the next one, if one
    /// of them was refused just now.
    pub(super) fn password(&mut self) -> Option<Vec<u8>> {
        if let Some(file) = &self.file {
            let known = [file.changed(), Some(file.content.clone()), self.earlier.clone()];
            let known: Vec<_> = known.into_iter().flatten().collect();
            let refused = known.iter().position(|content| self.refused.as_ref() == Some(content));
            let next = refused.map_or(0, |at| (at + 1) % known.len());
            self.sent = known.into_iter().nth(next);
        }
        self.current().map(<[u8]>::to_vec)
    }

    fn current(&self) -> Option<&[u8]> {
        let given = self.given.as_ref().map(|secret| &secret.0[..]);
        given.or_else(|| self.sent.as_deref().map(without_newline))
    }

    pub(super) fn worked(&mut self) {
        if let (Some(file), Some(sent)) = (&mut self.file, &self.sent)
            && file.content != *sent
        {
            self.earlier = Some(mem::replace(&mut file.content, sent.clone()));
        }
    }

    /// The server does not want the password that it got.
    pub(super) fn turned_away(&mut self) {
        self.refused.clone_from(&self.sent);
    }

    pub(super) fn refused(&mut self, command: &'static str, words: &[u8]) -> Box<Failure> {
        let password = self.current().unwrap_or_default();
        let ends = [password.first(), password.last()];
        let is_odd = ends.iter().flatten().any(|end| end.is_ascii_whitespace()) || password.starts_with(BOM);
        let hint = match command {
            "AUTH" if is_odd => "; the password begins or ends with white space or a byte order mark",
            _ => "",
        };
        self.turned_away();
        Failure::new(Kind::Final, words!("{} was refused: {}{}", command, Escaped(words), hint))
    }

    /// `text` without the passwords.
    pub(super) fn redacted(&self, text: &[u8]) -> Vec<u8> {
        let content = self.file.as_ref().map(|file| without_newline(&file.content));
        let earlier = self.earlier.as_deref().map(without_newline);
        let refused = self.refused.as_deref().map(without_newline);
        let mut known: Vec<_> = [self.current(), content, earlier, refused].into_iter().flatten().collect();
        // One may be the beginning of another.
        let mut text = text.to_vec();
        while let Some(longest) = (0..known.len()).max_by_key(|&at| known[at].len()) {
            text = redact(&text, known.swap_remove(longest));
        }
        text
    }
}

/// The password in the content of a file: without one newline at its end.
fn without_newline(content: &[u8]) -> &[u8] {
    content.strip_suffix(b"\n").unwrap_or(content)
}
