use super::refusal::redact;
use super::tls::Tls;
use super::{Failure, Kind, Server};
use crate::files::{BOM, Fresh};
use crate::text::{Escaped, Line, Secret};
use crate::words;

/// The most that is read of a password's file: enough for any, and little even of `/dev/zero`.
const LIMIT: u64 = 64 * 1024;

/// The password and what TLS needs, read from files before signals are caught, because some of them may be pipes, which
/// make us wait; and again for each connection, because secrets are rotated while jobs run.
#[derive(Default)]
pub struct Credentials {
    given: Option<Secret>,
    file: Option<Fresh>,
    /// What the file holds now, if that has not worked yet.
    unproven: Option<Vec<u8>>,
    /// The password that the server has refused last.
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

    /// The password that was read last and has worked, if one has.
    fn proven(&self) -> Option<&[u8]> {
        let given = self.given.as_ref().map(|secret| &secret.0[..]);
        given.or_else(|| Some(without_newline(&self.file.as_ref()?.content)))
    }

    /// The password for a new connection: what its file holds now, unless the server has just refused that; then the
    /// one that has worked before, which may still do.
    pub(super) fn password(&mut self) -> Option<Vec<u8>> {
        let changed = self.file.as_ref().and_then(Fresh::changed);
        self.unproven = changed.filter(|content| self.refused.as_deref() != Some(without_newline(content)));
        self.current().map(<[u8]>::to_vec)
    }

    fn current(&self) -> Option<&[u8]> {
        self.unproven.as_deref().map(without_newline).or(self.proven())
    }

    pub(super) fn worked(&mut self) {
        if let (Some(content), Some(file)) = (self.unproven.take(), &mut self.file) {
            file.content = content;
        }
    }

    /// The server does not want the password that it got.
    pub(super) fn turned_away(&mut self) {
        self.refused = self.current().map(<[u8]>::to_vec);
    }

    pub(super) fn refused(&mut self, kind: Kind, command: &'static str, words: &[u8]) -> Box<Failure> {
        let password = self.current().unwrap_or_default();
        let ends = [password.first(), password.last()];
        let is_odd = ends.iter().flatten().any(|end| end.is_ascii_whitespace()) || password.starts_with(BOM);
        let hint = match command {
            "AUTH" if is_odd => "; the password begins or ends with white space or a byte order mark",
            _ => "",
        };
        self.turned_away();
        Failure::new(kind, words!("{} was refused: {}{}", command, Escaped(words), hint))
    }

    /// `text` without the passwords.
    pub(super) fn redacted(&self, text: &[u8]) -> Vec<u8> {
        let unproven = self.unproven.as_deref().map(without_newline).unwrap_or_default();
        redact(&redact(text, unproven), self.proven().unwrap_or_default())
    }
}

/// The password in the content of a file: without one newline at its end.
fn without_newline(content: &[u8]) -> &[u8] {
    content.strip_suffix(b"\n").unwrap_or(content)
}
