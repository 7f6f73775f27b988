use crate::clock;

/// The smallest number of 19 digits.
const LEAST: u64 = 1_000_000_000_000_000_000;

/// The value of a lock: 19 random decimal digits that prove whose it is.
///
/// Digits, because both predecessors read the value as the Unix second at which the lock expires, count a non-number
/// as zero, and seize a lock whose second has passed. A number of 19 digits is in the future for both, whatever the
/// clocks say, and fits the 63 bits that they calculate with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Token([u8; Self::DIGITS]);

impl Token {
    /// How many digits a token has.
    pub const DIGITS: usize = 19;

    /// A new token. Cron starts all hosts in the same second, so nothing but chance may tell them apart: of 10,000
    /// hosts two share a token once in 10^11 times.
    pub fn random() -> Self {
        Self::from_number(clock::random())
    }

    /// Spreads `number` over the values from 10^18 to 2^63 - 1.
    pub fn from_number(number: u64) -> Self {
        let mut rest = LEAST + number % (i64::MAX.unsigned_abs() - LEAST + 1);
        let mut digits = [b'0'; Self::DIGITS];
        for digit in digits.iter_mut().rev() {
            *digit += u8::try_from(rest % 10).unwrap_or(0);
            rest /= 10;
        }
        Self(digits)
    }

    /// The digits.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
impl std::fmt::Display for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_is_a_number_of_19_digits_within_63_bits() {
        let span = i64::MAX.unsigned_abs() - LEAST + 1;
        for number in [0, 1, span - 1, span, u64::MAX, clock::random()] {
            let text = Token::from_number(number).to_string();
            assert_eq!(text.len(), 19);
            assert!(text.parse::<i64>().is_ok_and(|value| value.unsigned_abs() >= LEAST), "{text}");
        }
        assert_eq!(Token::from_number(span - 1).to_string(), i64::MAX.to_string());
    }

    #[test]
    fn tokens_differ() {
        assert_ne!(Token::random(), Token::random());
    }
}
