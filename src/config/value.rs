//! From the bytes of a value to its meaning. What does not parse is an error, never a default.

use std::time::Duration;

/// The longest span, some 31 years: TTLs of it are valid in Redis, and no sum of spans overflows.
const LONGEST: u64 = 1_000_000_000;

/// A whole number from `least` to `most`, in plain digits.
pub(super) fn number(text: &[u8], least: u64, most: u64) -> Result<u64, String> {
    digits(text).filter(|n| (least..=most).contains(n)).ok_or_else(|| format!("not a number from {least} to {most}"))
}

/// A span of at least `least` seconds.
pub(super) fn seconds(text: &[u8], least: u64) -> Result<Duration, String> {
    let (number, unit) = match text.split_last() {
        Some((b's', number)) => (number, 1),
        Some((b'm', number)) => (number, 60),
        Some((b'h', number)) => (number, 3600),
        Some((b'd', number)) => (number, 86400),
        _ => (text, 1),
    };
    let span = digits(number).and_then(|n| n.checked_mul(unit));
    let why = || format!("not a time from {least} to {LONGEST} seconds (as 90, 90s, 5m, 2h or 1d)");
    span.filter(|span| (least..=LONGEST).contains(span)).map(Duration::from_secs).ok_or_else(why)
}

/// Yes or no.
pub(super) fn switch(text: &[u8]) -> Result<bool, String> {
    let is = |words: &[&str]| words.iter().any(|word| text.eq_ignore_ascii_case(word.as_bytes()));
    match (is(&["yes", "true", "on", "1", "t"]), is(&["no", "false", "off", "0", "f"])) {
        (true, _) => Ok(true),
        (_, true) => Ok(false),
        _ => Err("neither yes nor no".to_owned()),
    }
}

/// Digits only: no sign, no space. Leading zeros do no harm.
fn digits(text: &[u8]) -> Option<u64> {
    let plain = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text).ok().filter(|_| plain)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_units() {
        let cases: [(&[u8], u64); 8] = [
            (b"0", 0),
            (b"90", 90),
            (b"090", 90),
            (b"7s", 7),
            (b"5m", 300),
            (b"2h", 7200),
            (b"1d", 86400),
            (b"1000000000", LONGEST),
        ];
        for (text, expected) in cases {
            assert_eq!(seconds(text, 0), Ok(Duration::from_secs(expected)));
        }
        for text in [
            "",
            "s",
            "-1",
            "+1",
            " 1",
            "1 ",
            "1.5",
            "1w",
            "1S",
            "1ms",
            "0x10",
            "1000000001",
            "12000d",
            "99999999999999999999",
        ] {
            assert!(seconds(text.as_bytes(), 0).is_err(), "{text}");
        }
        assert!(seconds(b"0", 1).is_err());
    }

    #[test]
    fn numbers_have_a_range() {
        assert_eq!(number(b"65535", 1, 65_535), Ok(65_535));
        for text in ["0", "65536", "-1", "", "x", "1.0", "18446744073709551616"] {
            assert!(number(text.as_bytes(), 1, 65_535).is_err(), "{text}");
        }
    }

    #[test]
    fn switches_take_the_words_of_both_predecessors() {
        for word in ["yes", "YES", "true", "True", "on", "1", "t", "T"] {
            assert_eq!(switch(word.as_bytes()), Ok(true), "{word}");
        }
        for word in ["no", "No", "false", "FALSE", "off", "0", "f"] {
            assert_eq!(switch(word.as_bytes()), Ok(false), "{word}");
        }
        assert!(switch(b"y").is_err() && switch(b"").is_err() && switch(b"yes ").is_err());
    }
}
