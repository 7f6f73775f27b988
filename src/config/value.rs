//! From the bytes of a value to its meaning. What does not parse is an error, never a default.

use super::table::{Kind, Setting};

/// The longest span in seconds, some 31 years: TTLs of it are valid in Redis, and no sum of spans overflows.
pub(super) const LONGEST: u64 = 1_000_000_000;

/// What `text` says as a value of `setting`, if that is a number, a time (in seconds), or a switch (0 and 1); 0 for
/// other kinds. None if it does not parse.
pub(super) fn read(setting: &Setting, text: &[u8]) -> Option<u64> {
    let (number, least, most) = match setting.kind {
        Kind::Number(least, most) => (digits(text)?, least, most),
        Kind::Time(least) => (seconds(text)?, least, LONGEST),
        Kind::Switch => (u64::from(switch(text)?), 0, 1),
        Kind::Bytes | Kind::Secret | Kind::Path => return Some(0),
    };
    let turned_off = number == 0 && setting.default == "0";
    (turned_off || (least..=most).contains(&number)).then_some(number)
}

fn seconds(text: &[u8]) -> Option<u64> {
    let (number, unit) = match text {
        [number @ .., b's'] => (number, 1),
        [number @ .., b'm'] => (number, 60),
        [number @ .., b'h'] => (number, 3600),
        [number @ .., b'd'] => (number, 86400),
        _ => (text, 1),
    };
    digits(number)?.checked_mul(unit)
}

fn switch(text: &[u8]) -> Option<bool> {
    let is = |words: [&str; 5]| words.iter().any(|word| text.eq_ignore_ascii_case(word.as_bytes()));
    match (is(["yes", "true", "on", "1", "t"]), is(["no", "false", "off", "0", "f"])) {
        (true, _) => Some(true),
        (_, true) => Some(false),
        _ => None,
    }
}

/// Digits only: no sign, no space. Leading zeros do no harm.
pub(super) fn digits(text: &[u8]) -> Option<u64> {
    let plain = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text).ok().filter(|_| plain)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::super::table::Id;
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
        let grace = Id::Grace.row();
        for (text, expected) in cases {
            assert_eq!(read(grace, text), Some(expected));
        }
        let none = "|s|-1|+1| 1|1 |1.5|1w|1S|1ms|0x10|1000000001|12000d|99999999999999999999|99999999999999999999d";
        for text in none.split('|') {
            assert_eq!(read(grace, text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn a_span_has_a_least_and_0_turns_it_off_where_that_is_the_default() {
        let lease = Id::Lease.row();
        assert_eq!([b"0", b"2", b"3"].map(|text| read(lease, text)), [Some(0), None, Some(3)]);
        assert_eq!((read(Id::Release.row(), b"0"), read(Id::Release.row(), b"1")), (None, Some(1)));
    }

    #[test]
    fn numbers_have_a_range() {
        let port = Id::Port.row();
        assert_eq!(read(port, b"65535"), Some(65_535));
        for text in ["0", "65536", "-1", "", "x", "1.0", "18446744073709551616"] {
            assert_eq!(read(port, text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn switches_take_the_words_of_both_predecessors() {
        for word in ["yes", "YES", "true", "True", "on", "1", "t", "T"] {
            assert_eq!(switch(word.as_bytes()), Some(true), "{word}");
        }
        for word in ["no", "No", "false", "FALSE", "off", "0", "f"] {
            assert_eq!(switch(word.as_bytes()), Some(false), "{word}");
        }
        assert_eq!([b"y   ", b"yes "].map(|word| switch(word)), [None, None]);
    }

    #[test]
    fn every_default_parses() {
        for row in super::super::table::TABLE.iter().filter(|row| !row.default.is_empty()) {
            assert!(read(row, row.default.as_bytes()).is_some(), "{row:?}");
        }
    }
}
