use super::refusal::redact;
use super::tls::Tls;
use super::{Failure, Kind, Server};
use crate::files::{BOM, Fresh};
use crate::text::{Escaped, Line};
use crate::words;

/// The most that is read of a password's file: enough for any, and little even of `/dev/zero`.
const LIMIT: u64 = 64 * 1024;

/// How many passwords are known at most.
const MOST: usize = 3;

/// The password and what TLS needs, read from files before signals are caught, because some of them may be pipes, which
/// make us wait; and again for each connection, because secrets are rotated while jobs run.
#[derive(Default)]
pub struct Credentials {
    /// The passwords: the one that was read last, and those that have worked before it.
    known: Vec<Vec<u8>>,
    /// Which of them was sent last, and whether the server did not want it.
    at: usize,
    is_refused: bool,
    /// Whether the first of them was read while the job ran, and has not worked yet.
    is_unproven: bool,
    file: Option<Fresh>,
    pub(super) tls: Option<Tls>,
}

impl Credentials {
    /// Reads what `server` needs, if there is one. The words say which file is of no use.
    pub fn read(server: Option<&Server>) -> Result<Self, Line> {
        let Some(server) = server else { return Ok(Self::default()) };
        let file = server.auth_file.as_deref().map(|path| Fresh::read("AUTH_FILE", path, LIMIT)).transpose()?;
        let read = file.as_ref().map(|file| without_newline(&file.content).to_vec());
        if let Some(file) = file.as_ref().filter(|_| read.as_ref().is_some_and(Vec::is_empty)) {
            return Err(words!("{}: it is empty", file.shown()));
        }
        let tls = server.tls.as_ref().map(Tls::new).transpose()?;
        let given = server.password.as_ref().map(|secret| secret.0.clone());
        Ok(Self { known: given.or(read).into_iter().collect(), file, tls, ..Self::default() })
    }

    /// The password for a new connection: what its file holds, if that has changed; or the one that was sent last; or the
    /// next one, if that was refused.
    pub(super) fn password(&mut self) -> Option<Vec<u8>> {
        if let Some(file) = &mut self.file
            && let Some(content) = file.changed()
        {
            let password = without_newline(&content).to_vec();
            if self.is_unproven {
                self.known.remove(0);
            }
            self.known.retain(|known| *known != password);
            self.known.insert(0, password);
            self.known.truncate(MOST);
            (file.content, self.at, self.is_unproven) = (content, 0, true);
        } else if self.is_refused {
            self.at = (self.at + 1) % self.known.len().max(1);
        }
        self.is_refused = false;
        self.known.get(self.at).cloned()
    }

    pub(super) fn worked(&mut self) {
        self.is_unproven &= self.at != 0;
    }

    /// The server does not want the password that it got.
    pub(super) fn turned_away(&mut self) {
        self.is_refused = true;
    }

    pub(super) fn refused(&mut self, command: &'static str, words: &[u8]) -> Box<Failure> {
        let password = self.known.get(self.at).map_or(&b""[..], Vec::as_slice);
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
        self.known.iter().fold(text.to_vec(), |text, password| redact(&text, password))
    }
}

/// The password in the content of a file: without one newline at its end.
fn without_newline(content: &[u8]) -> &[u8] {
    content.strip_suffix(b"\n").unwrap_or(content)
}
