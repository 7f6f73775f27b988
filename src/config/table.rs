//! The one table of settings. Environment, config file, options and help are made from it.

/// What values a setting takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any bytes but NUL.
    Bytes,
    /// A secret: any bytes, never shown.
    Secret,
    /// A path.
    Path,
    /// A whole number, from and to.
    Number(u64, u64),
    /// A span of at least so many seconds: whole seconds, or a number with `s`, `m`, `h` or `d`. One whose default is 0
    /// can always be turned off by that.
    Time(u64),
    /// Yes or no.
    Switch,
}

/// Who has use for a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rank {
    /// Many: `--help` shows it.
    Common,
    /// Few: `--help all` shows it.
    Rare,
}

/// One setting.
#[derive(Debug)]
pub struct Setting {
    /// Its name; `CRONLOCK_` stands before it in the environment and in the file.
    pub name: &'static str,
    /// What values it takes.
    pub kind: Kind,
    /// The value where none is given; empty: none.
    pub default: &'static str,
    /// Who has use for it.
    pub rank: Rank,
    /// One line for people.
    pub help: &'static str,
}

/// What stands before every name.
pub const PREFIX: &str = "CRONLOCK_";

macro_rules! settings {
    ($($id:ident $name:literal $kind:ident$(($($limit:expr),+))?, $default:literal, $rank:ident, $help:literal;)*) => {
        /// Names a setting.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs)]
        pub enum Id { $($id),* }

        /// All settings, in the order in which help shows them.
        pub const TABLE: &[Setting] = &[$(Setting {
            name: $name, kind: Kind::$kind$(($($limit),+))?, default: $default, rank: Rank::$rank, help: $help
        }),*];

        /// The settings' names in code, in the order of [`TABLE`].
        pub(super) const IDS: &[Id] = &[$(Id::$id),*];
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
    Backoff "RECONNECT_BACKOFF" Time(0), "5", Rare, "what the wait before each grows by";
    Grace "GRACE" Time(0), "40", Common, "time that a lock persists at least";
    Release "RELEASE" Time(1), "86400", Common, "time that a lock persists at most";
    Timeout "TIMEOUT" Time(0), "0", Common, "time that the command may run; 0: no limit";
    KillAfter "KILL_AFTER" Time(0), "0", Rare, "SIGTERM at TIMEOUT, SIGKILL so much later";
    Key "KEY" Bytes, "", Common, "name of the lock; default: hash of the command";
    KeyFormat "KEY_FORMAT" Bytes, "cronlock", Rare, "whose hash: cronlock or golock (Go)";
    Prefix "PREFIX" Bytes, "cronlock.", Rare, "put before KEY";
    Reset "RESET" Switch, "no", Common, "delete the lock and exit 200";
    Verbose "VERBOSE" Switch, "no", Common, "tell on stderr what happens";
    ShowKey "SHOW_KEY" Switch, "no", Rare, "print the lock's full name on stderr";
    Tls "TLS" Switch, "no", Common, "TLS 1.2 or 1.3";
    TlsSkipVerify "TLS_SKIP_VERIFY" Switch, "no", Rare, "accept any certificate";
    TlsCa "TLS_CA" Path, "", Common, "PEM file of CAs to trust, not the built-in ones";
    TlsCert "TLS_CERT" Path, "", Rare, "PEM client certificate chain, with TLS_KEY";
    TlsKey "TLS_KEY" Path, "", Rare, "PEM client key, with TLS_CERT";
    Lease "LEASE" Time(3), "0", Common, "hold the lock by a lease of this length";
    Wait "WAIT" Time(0), "0", Common, "time to wait for a held lock";
    SkipExit "SKIP_EXIT" Number(0, 255), "200", Rare, "exit code if the lock is held by another";
    Local "LOCAL" Switch, "no", Common, "lock on this host alone, without Redis";
    LocalDir "LOCAL_DIR" Path, "", Rare, "folder of the local locks";
    Config "CONFIG" Path, "", Common, "config file; default: /etc/cronlock.conf";
}

impl Id {
    /// The setting's row.
    pub fn row(self) -> &'static Setting {
        &TABLE[self.index()]
    }

    /// The number of its row.
    pub(super) fn index(self) -> usize {
        IDS.iter().position(|&id| id == self).unwrap_or(0)
    }

    /// Whether it says where Redis is or how it is spoken to.
    pub fn concerns_redis(self) -> bool {
        use Id::{Attempts, Auth, AuthFile, Backoff, Db, Host, Port, RedisTimeout, Url, User};
        use Id::{Tls, TlsCa, TlsCert, TlsKey, TlsSkipVerify};
        matches!(self, Host | Port | User | Auth | AuthFile | Db | Url | RedisTimeout | Attempts | Backoff)
            || matches!(self, Tls | TlsSkipVerify | TlsCa | TlsCert | TlsKey)
    }

    /// The setting called `name`, without the prefix.
    pub fn named(name: &[u8]) -> Option<Self> {
        TABLE.iter().position(|row| row.name.as_bytes() == name).map(|at| IDS[at])
    }

    /// The setting of the long option `option`: the name in lower case with dashes.
    pub fn of_option(option: &[u8]) -> Option<Self> {
        TABLE.iter().position(|row| row.option().as_bytes() == option).map(|at| IDS[at])
    }
}

impl Kind {
    /// What people are shown for a value; a switch needs none.
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
        self.name.to_ascii_lowercase().replace('_', "-")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_lead_back_to_their_rows() {
        for (row, &id) in TABLE.iter().zip(IDS) {
            assert_eq!(Id::named(row.name.as_bytes()), Some(id));
            assert_eq!(Id::of_option(row.option().as_bytes()), Some(id));
            assert_eq!(id.row().name, row.name);
        }
        assert_eq!(Id::of_option(b"redis-timeout"), Some(Id::RedisTimeout));
        assert_eq!(Id::of_option(b"REDIS_TIMEOUT"), None);
    }
}
