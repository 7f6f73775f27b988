//! What a server reads: commands as arrays of bulk strings.

use std::iter::from_fn;

/// A command and its arguments.
pub(crate) type Words = Vec<Vec<u8>>;

/// The complete commands at the start of `bytes`.
pub(crate) fn commands(bytes: &[u8]) -> Vec<Words> {
    let mut reader = Reader(bytes);
    from_fn(|| reader.command()).collect()
}

/// What has not been read yet.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn command(&mut self) -> Option<Words> {
        let count = self.number(b'*')?;
        (0..count).map(|_| self.number(b'$').and_then(|length| self.word(length))).collect()
    }

    /// The number behind `kind`, on a line of its own.
    fn number(&mut self, kind: u8) -> Option<usize> {
        let line = self.0.split(|&byte| byte == b'\r').next()?;
        let number = str::from_utf8(line.strip_prefix(&[kind])?).ok()?.parse().ok()?;
        self.word(line.len()).map(|_| number)
    }

    /// So many bytes, and the end of a line behind them.
    fn word(&mut self, length: usize) -> Option<Vec<u8>> {
        let (word, rest) = self.0.split_at_checked(length)?;
        self.0 = rest.strip_prefix(b"\r\n")?;
        Some(word.to_vec())
    }
}
