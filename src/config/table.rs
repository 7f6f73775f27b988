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
    /// A whole number.
    Number,
    /// A span in whole seconds, or a number with `s`, `m`, `h` or `d`.
    Time,
    /// Yes or no.
    Switch,
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
    /// One line for people.
    pub help: &'static str,
}

/// What stands before every name.
pub const PREFIX: &str = "CRONLOCK_";

macro_rules! settings {
    ($($id:ident $name:literal $kind:expr, $default:literal, $help:literal;)*) => {
        /// Names a setting.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs)]
        pub enum Id { $($id),* }

        /// All settings, in the order in which help shows them.
        pub(super) const TABLE: &[Setting] = &[$(Setting { name: $name, kind: $kind, default: $default, help: $help }),*];

        /// The settings' names in code, in the order of [`TABLE`].
        pub(super) const IDS: &[Id] = &[$(Id::$id),*];
    };
}

settings! {
    Host "HOST" Kind::Bytes, "localhost", "host name, IPv4 or IPv6 address, or the path of a Unix socket";
    Port "PORT" Kind::Number, "6379", "port";
    User "USER" Kind::Bytes, "", "ACL user; without it AUTH sends the password alone";
    Auth "AUTH" Kind::Secret, "", "password";
    AuthFile "AUTH_FILE" Kind::Path, "", "file that holds the password";
    Db "DB" Kind::Number, "0", "database number";
    Url "URL" Kind::Secret, "", "redis[s]://[user[:password]@]host[:port][/db], instead of the above and TLS";
    RedisTimeout "REDIS_TIMEOUT" Kind::Time, "30", "time that one exchange with Redis may take";
    Attempts "RECONNECT_ATTEMPTS" Kind::Number, "5", "reconnects after the first try";
    Backoff "RECONNECT_BACKOFF" Kind::Time, "5", "what the wait before each further reconnect grows by";
    Grace "GRACE" Kind::Time, "40", "time that a lock persists at least";
    Release "RELEASE" Kind::Time, "86400", "time that a lock persists at most";
    Timeout "TIMEOUT" Kind::Time, "0", "time after which the command is killed; 0: no limit";
    KillAfter "KILL_AFTER" Kind::Time, "0", "SIGTERM at TIMEOUT, and SIGKILL this much later";
    Key "KEY" Kind::Bytes, "", "name of the lock; default: a hash of the command line";
    KeyFormat "KEY_FORMAT" Kind::Bytes, "cronlock", "whose hash of the command line: cronlock or golock (Go)";
    Prefix "PREFIX" Kind::Bytes, "cronlock.", "put before KEY";
    Reset "RESET" Kind::Switch, "no", "delete the lock and exit 200";
    Verbose "VERBOSE" Kind::Switch, "no", "tell on stderr what happens";
    ShowKey "SHOW_KEY" Kind::Switch, "no", "print the lock's full name on stderr";
    Tls "TLS" Kind::Switch, "no", "TLS 1.2 or 1.3";
    TlsSkipVerify "TLS_SKIP_VERIFY" Kind::Switch, "no", "accept any certificate";
    TlsCa "TLS_CA" Kind::Path, "", "PEM file of CAs to trust instead of the built-in ones";
    TlsCert "TLS_CERT" Kind::Path, "", "PEM client certificate chain, with TLS_KEY";
    TlsKey "TLS_KEY" Kind::Path, "", "PEM client key, with TLS_CERT";
    Lease "LEASE" Kind::Time, "0", "hold the lock by a lease of this length, renewed while the command runs";
    Wait "WAIT" Kind::Time, "0", "time to wait for a held lock";
    SkipExit "SKIP_EXIT" Kind::Number, "200", "exit code when the lock is held by another";
    Local "LOCAL" Kind::Switch, "no", "lock on this host alone, without Redis";
    LocalDir "LOCAL_DIR" Kind::Path, "", "folder of the local locks";
    Config "CONFIG" Kind::Path, "", "config file; default: /etc/cronlock.conf if it exists";
}

impl Id {
    /// The setting's row.
    pub fn row(self) -> &'static Setting {
        &TABLE[IDS.iter().position(|&id| id == self).unwrap_or(0)]
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
    pub fn of_option(option: &str) -> Option<Self> {
        TABLE.iter().position(|row| row.option() == option).map(|at| IDS[at])
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
            assert_eq!(Id::of_option(&row.option()), Some(id));
            assert_eq!(id.row().name, row.name);
        }
        assert_eq!(Id::of_option("redis-timeout"), Some(Id::RedisTimeout));
        assert_eq!(Id::of_option("REDIS_TIMEOUT"), None);
    }
}
