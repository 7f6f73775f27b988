//! Text for people, in one line each. Bytes from outside enter it through [`Escaped`] alone: [`words!`](crate::words) takes
//! nothing that is not [`Shown`], and neither bytes nor strings that were made at run time are.

use std::ffi::OsStr;
use std::fmt::{self, Display, Formatter, Write};
use std::io;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

/// The most bytes that are shown of a text from outside.
const LIMIT: usize = 300;

/// The sink for lines that only VERBOSE shows: all that lower floors know of reporting.
pub trait Log {
    /// Shows `line`, if it is wanted.
    fn debug(&self, line: Line);
}

/// What may stand in a text as it is: it holds no control character and no secret.
pub trait Shown: Display {}

/// A text that only [`words!`](crate::words) makes, or that is a literal in the program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line(String);

/// Bytes from outside, made fit for one line of a terminal or a mail: printable ASCII, at most 300 bytes of it.
#[derive(Clone, Copy)]
pub struct Escaped<'a>(pub &'a [u8]);

/// Why a system call failed, in the system's words without their number.
pub struct Cause<'a>(pub &'a io::Error);

/// A span as people say it: `45 s`, `3 h 12 min`, `3 d 2 h`.
pub struct Span(pub Duration);

/// A span in seconds, to the millisecond.
pub struct Seconds(pub Duration);

/// A time in milliseconds since 1970, as RFC 3339 writes it in UTC, to the second.
pub struct Utc(pub u64);

/// Bytes that nothing shows.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(pub Vec<u8>);

/// Makes a [`Line`]: as `format!`, but of values that are [`Shown`], and without names inside the braces, which would not
/// be looked at: behind `concat!` they do not compile.
#[macro_export]
macro_rules! words {
    ($format:literal $(, $value:expr)* $(,)?) => {
        $crate::text::Line::made_of(format_args!(concat!($format) $(, $crate::text::shown(&$value))*))
    };
}

/// `value` itself; it compiles only for what may be shown.
pub fn shown<T: Shown + ?Sized>(value: &T) -> &T {
    value
}

impl From<&'static str> for Line {
    fn from(text: &'static str) -> Self {
        Self(text.into())
    }
}

impl Line {
    /// For [`words!`](crate::words).
    pub fn made_of(parts: fmt::Arguments<'_>) -> Self {
        Self(parts.to_string())
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'a> Escaped<'a> {
    /// A path, or another word of the system's.
    pub fn path(word: &'a (impl AsRef<OsStr> + ?Sized)) -> Self {
        Self(word.as_ref().as_bytes())
    }
}

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("\"\"");
        }
        let mut left = LIMIT;
        for &byte in self.0 {
            let plain = matches!(byte, b' '..=b'~');
            let width = if plain { 1 } else { byte.escape_ascii().len() };
            let Some(rest) = left.checked_sub(width) else { return f.write_str("...") };
            left = rest;
            // A quote or a backslash of a readable text stays as it is.
            if plain { f.write_char(char::from(byte))? } else { write!(f, "{}", byte.escape_ascii())? }
        }
        Ok(())
    }
}

impl Display for Cause<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        let number = text.as_bytes().windows(11).position(|part| part == b" (os error ");
        Escaped(&text.as_bytes()[..number.unwrap_or(text.len())]).fmt(f)
    }
}

impl Display for Span {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0.as_secs() {
            seconds @ ..60 => write!(f, "{seconds} s"),
            seconds @ ..3600 => write!(f, "{} min {} s", seconds / 60, seconds % 60),
            seconds @ ..86400 => write!(f, "{} h {} min", seconds / 3600, seconds / 60 % 60),
            seconds => write!(f, "{} d {} h", seconds / 86400, seconds / 3600 % 24),
        }
    }
}

impl Display for Seconds {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}", self.0.as_secs(), self.0.subsec_millis())
    }
}

impl Display for Utc {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let seconds = self.0 / 1000;
        let (year, month, day) = date(seconds / 86400);
        let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

/// Year, month and day so many days after 1970-01-01. The cycle of 400 years is taken to begin on a 1 March, so that the
/// day that leap years add is the last of a year.
fn date(days: u64) -> (u64, u64, u64) {
    let (cycle, day) = ((days + 719_468) / 146_097, (days + 719_468) % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (year, day) = (cycle * 400 + year, day - (153 * month + 2) / 5 + 1);
    if month < 10 { (year, month + 3, day) } else { (year + 1, month - 9, day) }
}

impl Display for Line {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

macro_rules! are_shown {
    ($($kind:ty),*) => { $(impl Shown for $kind {})* };
}
are_shown!(&'static str, u8, u16, u32, u64, usize, i32, SocketAddr, Line, Escaped<'_>, Cause<'_>, Span, Seconds, Utc);

/// Undoes percent-encoding (RFC 3986, section 2.1); `None` for a `%` without two hex digits behind it.
pub fn percent_decoded(text: &[u8]) -> Option<Vec<u8>> {
    let hex = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    let mut parts = text.split(|&byte| byte == b'%');
    let mut bytes = parts.next()?.to_vec();
    for part in parts {
        let (&[high, low], rest) = part.split_first_chunk()?;
        bytes.push(hex(high)? << 4 | hex(low)?);
        bytes.extend_from_slice(rest);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_outside_is_one_short_printable_line() {
        let shown = |bytes: &[u8]| Escaped(bytes).to_string();
        assert_eq!(shown(b"a \"b\" \\ c"), "a \"b\" \\ c");
        assert_eq!(shown(b"\x1b[2J\r\n\xff"), "\\x1b[2J\\r\\n\\xff");
        assert_eq!(shown(b""), "\"\"");
        assert_eq!(shown(&[b'x'; 300]), "x".repeat(300));
        assert_eq!(shown(&[b'x'; 301]), "x".repeat(300) + "...");
        assert_eq!(shown(&[0; 100]), "\\x00".repeat(75) + "...");
    }

    #[test]
    fn the_systems_words_have_no_number() {
        let refused = io::Error::from_raw_os_error(111);
        assert_eq!(words!("{}", Cause(&refused)).to_string(), "Connection refused");
        assert_eq!(Cause(&io::Error::other("a\nb")).to_string(), "a\\nb");
    }

    #[test]
    fn spans_and_times_are_readable() {
        let spans = [0, 59, 60, 3599, 3600, 11_520, 86_400, 266_400];
        let shown = spans.map(|seconds| Span(Duration::from_secs(seconds)).to_string());
        assert_eq!(shown, ["0 s", "59 s", "1 min 0 s", "59 min 59 s", "1 h 0 min", "3 h 12 min", "1 d 0 h", "3 d 2 h"]);
        // date -u -d @1709164799 +%FT%TZ, and so on
        for (second, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_164_799, "2024-02-28T23:59:59Z"),
            (1_709_251_200, "2024-03-01T00:00:00Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(Utc(second * 1000 + 999).to_string(), expected);
        }
    }

    #[test]
    fn percent_encoding_is_undone_or_refused() {
        let decoded = |text: &str| percent_decoded(text.as_bytes());
        assert_eq!(decoded("p%40ss%3a%25%Ff"), Some(b"p@ss:%\xff".to_vec()));
        for broken in ["%", "%4", "a%4g", "%+1", "%-1", "%%41"] {
            assert_eq!(decoded(broken), None, "{broken}");
        }
    }

    #[test]
    fn a_secret_is_not_shown() {
        assert_eq!(format!("{:?}", Secret(b"hunter2".to_vec())), "Secret");
    }
}
