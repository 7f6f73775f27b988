//! The one table of settings, from which environment, config file, options and help are made, and what their values mean.

/// What values a setting takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Kind {
    Bytes,
    /// Bytes that are never shown.
    Secret,
    Path,
    /// A whole number, from and to.
    Number(u64, u64),
    /// A span of at least so many seconds. One whose default is 0 can always be turned off by that.
    Time(u64),
    Switch,
}

/// Whether many need a setting, so that `--help` shows it, or few, so that only `--help all` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Rank {
    Common,
    Rare,
}

/// One setting.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct Setting {
    pub id: Id,
    /// `CRONLOCK_` stands before it in the environment and in the file.
    pub name: &'static str,
    pub kind: Kind,
    /// The value where none is given; empty: none.
    pub default: &'static str,
    pub rank: Rank,
    pub help: &'static str,
}

/// What stands before every name.
pub const PREFIX: &str = "CRONLOCK_";

/// The longest span in seconds, some 31 years: TTLs of it are valid in Redis, and no sum of spans overflows.
pub(super) const LONGEST: u64 = 1_000_000_000;

/// Settings of cronlock and its forks that golock does not have: the name (`_` at its end stands for any ending), the
/// value that is refused (empty: any) because the job would run elsewhere, and so twice, and the words that say so.
/// Without words, or with another value, it is ignored.
pub(super) const FOREIGN: [(&str, &str, &str); 4] = [
    ("NTPDATE", "", ""),
    ("SENTINEL_", "", ""),
    ("USE_SENTINEL", "yes", "Sentinel is not supported: name the primary by CRONLOCK_HOST"),
    ("LOCAL_VIP", "", "a host cannot be chosen by its address: run golock on the hosts that may run the job"),
];

macro_rules! settings {
    ($($id:ident $name:literal $kind:ident$(($($limit:expr),+))?, $default:literal, $rank:ident, $help:literal;)*) => {
        /// Names a setting; in the order of [`TABLE`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
        #[allow(missing_docs)]
        pub enum Id { $($id),* }

        /// All settings, in the order in which help shows them.
        pub const TABLE: &[Setting] = &[$(Setting {
            id: Id::$id, name: $name, kind: Kind::$kind$(($($limit),+))?, default: $default, rank: Rank::$rank, help: $help
        }),*];
    };
}

settings! {
    Host "HOST" Bytes, "localhost", Common, "name, address, or path of a socket";
    Port "PORT" Number(1, 65_535), "6379", Common, "port";
    User "USER" Bytes, "", Rare, "ACL user";
    Auth "AUTH" Secret, "", Rare, "password";
    AuthFile "AUTH_FILE" Path, "", Common, "file that holds the password";
    Db "DB" Number(0, 2_147_483_647), "0", Rare, "database number";
    Url "URL" Secret, "", Common, "redis[s]://[user[:password]@]host[:port][/db]";
    RedisTimeout "REDIS_TIMEOUT" Time(1), "30", Rare, "time that one exchange with Redis may take";
    Attempts "RECONNECT_ATTEMPTS" Number(0, 1_000_000), "5", Rare, "reconnects after the first try";
    Backoff "RECONNECT_BACKOFF" Time(0), "5", Rare, "wait added before each further reconnect";
    Grace "GRACE" Time(0), "40", Common, "minimum time that a lock persists";
    Release "RELEASE" Time(1), "86400", Common, "maximum time that a lock persists";
    Timeout "TIMEOUT" Time(0), "0", Common, "time that the command may run; 0: no limit";
    KillAfter "KILL_AFTER" Time(0), "0", Rare, "SIGTERM at TIMEOUT, SIGKILL this much later";
    Key "KEY" Bytes, "", Common, "name of the lock; default: hash of the command";
    KeyFormat "KEY_FORMAT" Bytes, "cronlock", Rare, "whose hash: cronlock or golock (Go)";
    Prefix "PREFIX" Bytes, "cronlock.", Rare, "put before KEY";
    Reset "RESET" Switch, "no", Common, "delete the lock and exit 200";
    Verbose "VERBOSE" Switch, "no", Common, "say on stderr what happens";
    ShowKey "SHOW_KEY" Switch, "no", Rare, "print the lock's full name on stderr";
    Tls "TLS" Switch, "no", Common, "TLS 1.2 or 1.3";
    TlsSkipVerify "TLS_SKIP_VERIFY" Switch, "no", Rare, "accept any certificate";
    TlsCa "TLS_CA" Path, "", Common, "PEM file of CAs to trust, not the built-in ones";
    TlsCert "TLS_CERT" Path, "", Rare, "PEM client certificate chain, with TLS_KEY";
    TlsKey "TLS_KEY" Path, "", Rare, "PEM client key, with TLS_CERT";
    TlsName "TLS_NAME" Bytes, "", Rare, "name in the server's certificate, if not HOST";
    Lease "LEASE" Time(3), "0", Common, "hold the lock by a lease of this length";
    Wait "WAIT" Time(0), "0", Common, "time to wait for a held lock";
    SkipExit "SKIP_EXIT" Number(0, 255), "200", Rare, "exit code if the lock is held by another";
    Record "RECORD" Time(0), "35d", Rare, "time to keep the record of a run; 0: none";
    MaxAge "MAX_AGE" Time(0), "0", Common, "warn if nothing has succeeded for so long";
    Local "LOCAL" Switch, "no", Common, "lock on this host alone, without Redis";
    LocalDir "LOCAL_DIR" Path, "", Rare, "folder of the local locks";
    Config "CONFIG" Path, "", Common, "config file; default: /etc/cronlock.conf";
}

impl Id {
    /// The setting's row.
    pub fn row(self) -> &'static Setting {
        TABLE.iter().find(|row| row.id == self).unwrap_or(&TABLE[0])
    }

    /// Whether it says where Redis is or how it is spoken to.
    pub fn concerns_redis(self) -> bool {
        (Self::Host..=Self::Backoff).contains(&self) || (Self::Tls..=Self::TlsName).contains(&self)
    }

    /// The setting called `name`, without the prefix.
    pub fn named(name: &[u8]) -> Option<Self> {
        TABLE.iter().find(|row| row.name.as_bytes() == name).map(|row| row.id)
    }

    /// The setting of the long option `option`.
    pub fn of_option(option: &[u8]) -> Option<Self> {
        TABLE.iter().find(|row| row.option().as_bytes() == option).map(|row| row.id)
    }
}

impl Kind {
    /// The placeholder that stands for its value; a switch has none.
    pub fn operand(self) -> Option<&'static str> {
        match self {
            Self::Bytes | Self::Secret => Some("TEXT"),
            Self::Path => Some("FILE"),
            Self::Number(..) => Some("N"),
            Self::Time(_) => Some("TIME"),
            Self::Switch => None,
        }
    }
}

impl Setting {
    /// The long option: the name in lower case with dashes.
    pub fn option(&self) -> String {
        self.name.bytes().map(|byte| if byte == b'_' { '-' } else { char::from(byte.to_ascii_lowercase()) }).collect()
    }

    /// What `text` says, if the setting is a number, a time (in seconds), or a switch (0 and 1); 0 for other kinds. `None` if
    /// it does not parse: a bad value is never a default.
    pub fn number(&self, text: &[u8]) -> Option<u64> {
        let (number, least, most) = match self.kind {
            Kind::Number(least, most) => (digits(text)?, least, most),
            Kind::Time(least) => (seconds(text)?, least, LONGEST),
            Kind::Switch => return switch(text),
            Kind::Bytes | Kind::Secret | Kind::Path => return Some(0),
        };
        let turned_off = number == 0 && self.default == "0";
        (turned_off || (least..=most).contains(&number)).then_some(number)
    }
}

/// `90`, or numbers with units, each smaller than the one before: `1d12h`, `1h30m`.
fn seconds(text: &[u8]) -> Option<u64> {
    let (mut sum, mut rest) = (0_u64, text);
    for (unit, length) in [(b'd', 86400), (b'h', 3600), (b'm', 60), (b's', 1)] {
        if let Some(at) = rest.iter().position(|&byte| byte == unit) {
            sum = sum.checked_add(digits(&rest[..at])?.checked_mul(length)?)?;
            rest = &rest[at + 1..];
        }
    }
    if rest.len() == text.len() { digits(text) } else { rest.is_empty().then_some(sum) }
}

fn switch(text: &[u8]) -> Option<u64> {
    let is = |words: [&str; 5]| words.iter().any(|word| text.eq_ignore_ascii_case(word.as_bytes()));
    if is(["yes", "true", "on", "1", "t"]) { Some(1) } else { is(["no", "false", "off", "0", "f"]).then_some(0) }
}

/// Digits only: no sign, no space. Leading zeros do no harm.
fn digits(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok().filter(|text| !text.starts_with('+'))?.parse().ok()
}

/// The one of `names` that `word` most likely means: at most two slips away, or with `word` as its beginning.
pub(super) fn likely<'n>(word: &[u8], names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let most = if word.len() < 4 { 1 } else { 2 };
    let is_start_of = |name: &str| word.len() > 2 && name.as_bytes().starts_with(word);
    let near = |name: &str| if is_start_of(name) { 1 } else { slips(word, name.as_bytes(), most) };
    names.map(|name| (near(name), name)).filter(|(slips, _)| *slips <= most).min().map(|(_, name)| name)
}

/// How many letters must be left out, put in, replaced, or exchanged with the next, to make `two` of `one`. Exact up to
/// `most`, and more than that otherwise.
pub(super) fn slips(one: &[u8], two: &[u8], most: usize) -> usize {
    let same = one.iter().zip(two).take_while(|(a, b)| a == b).count();
    let (one, two) = (&one[same..], &two[same..]);
    let ([a, a_rest @ ..], [b, b_rest @ ..]) = (one, two) else { return one.len().max(two.len()) };
    if most == 0 {
        return 1;
    }
    let least = slips(a_rest, b_rest, most - 1).min(slips(a_rest, two, most - 1)).min(slips(one, b_rest, most - 1));
    let is_swap = a_rest.first() == Some(b) && b_rest.first() == Some(a);
    1 + if is_swap { least.min(slips(&one[2..], &two[2..], most - 1)) } else { least }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_lead_back_to_their_rows() {
        for row in TABLE {
            assert_eq!(Id::named(row.name.as_bytes()), Some(row.id));
            assert_eq!(Id::of_option(row.option().as_bytes()), Some(row.id));
            assert_eq!(row.id.row().name, row.name);
        }
        assert_eq!(Id::of_option(b"redis-timeout"), Some(Id::RedisTimeout));
        assert_eq!(Id::of_option(b"REDIS_TIMEOUT"), None);
    }

    #[test]
    fn spans_have_units() {
        let cases: [(&str, u64); 11] = [
            ("0", 0),
            ("90", 90),
            ("090", 90),
            ("7s", 7),
            ("5m", 300),
            ("2h", 7200),
            ("1d", 86400),
            ("1h30m", 5400),
            ("1d0h1s", 86401),
            ("1000000000", LONGEST),
            ("11574d", 999_993_600),
        ];
        let grace = Id::Grace.row();
        for (text, expected) in cases {
            assert_eq!(grace.number(text.as_bytes()), Some(expected), "{text}");
        }
        let none = "|s|-1|+1| 1|1 |1.5|1w|1S|1ms|0x10|1000000001|12000d|99999999999999999999|99999999999999999999d|\
            1m1h|1m1m|1h30|h30m|1h m|213503982334602d";
        for text in none.split('|') {
            assert_eq!(grace.number(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn a_span_has_a_least_and_0_turns_it_off_where_that_is_the_default() {
        let lease = Id::Lease.row();
        assert_eq!([b"0", b"2", b"3"].map(|text| lease.number(text)), [Some(0), None, Some(3)]);
        assert_eq!((Id::Release.row().number(b"0"), Id::Release.row().number(b"1")), (None, Some(1)));
    }

    #[test]
    fn numbers_have_a_range() {
        let port = Id::Port.row();
        assert_eq!(port.number(b"65535"), Some(65_535));
        for text in ["0", "65536", "-1", "", "x", "1.0", "18446744073709551616"] {
            assert_eq!(port.number(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn switches_take_the_words_of_both_predecessors() {
        for word in ["yes", "YES", "true", "True", "on", "1", "t", "T"] {
            assert_eq!(switch(word.as_bytes()), Some(1), "{word}");
        }
        for word in ["no", "No", "false", "FALSE", "off", "0", "f"] {
            assert_eq!(switch(word.as_bytes()), Some(0), "{word}");
        }
        assert_eq!([b"y   ", b"yes "].map(|word| switch(word)), [None, None]);
    }

    #[test]
    fn every_default_parses() {
        for row in TABLE.iter().filter(|row| !row.default.is_empty()) {
            assert!(row.number(row.default.as_bytes()).is_some(), "{row:?}");
        }
    }

    #[test]
    fn a_slip_leads_to_what_was_meant() {
        let meant = |word: &str| likely(word.as_bytes(), TABLE.iter().map(|row| row.name));
        for (word, name) in
            [("HSOT", "HOST"), ("GRACEE", "GRACE"), ("RELESE", "RELEASE"), ("PROT", "PORT"), ("KYE", "KEY")]
        {
            assert_eq!(meant(word), Some(name), "{word}");
        }
        assert_eq!((meant("RECONNECT"), meant("TIME")), (Some("RECONNECT_ATTEMPTS"), Some("TIMEOUT")));
        assert_eq!((meant("NONSENSE"), meant("X")), (None, None));
        assert_eq!(slips(b"", b"abc", 2), 3);
    }
}
