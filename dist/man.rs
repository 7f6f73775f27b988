//! The man page: the prose of `golock.1.in`, with the settings from the table.

use golock::config::{Id, PREFIX, Setting, TABLE};
use std::fmt::Write;

const PROSE: &str = include_str!("golock.1.in");

/// What one line of help does not say.
const MORE: &[(Id, &str)] = &[
    (
        Id::Host,
        "An IPv6 address may stand in brackets. A value that begins with a slash is a Unix socket. \
         A port goes into PORT.",
    ),
    (Id::User, "Without it, AUTH sends the password alone."),
    (Id::Auth, "Everybody on the host can see it on the command line, and root and the same user in the environment."),
    (
        Id::AuthFile,
        "One newline at its end is dropped. It is read again for each connection, unless it is a pipe. Excludes AUTH.",
    ),
    (Id::Db, "SELECT is sent only when it is not 0."),
    (
        Id::Url,
        "Excludes HOST, PORT, USER, AUTH, AUTH_FILE, DB and TLS. The scheme valkey[s] means the same. \
         Write a special character in a name or a password as %XX.",
    ),
    (
        Id::RedisTimeout,
        "Looking up the name, connecting and logging in is one exchange; sending a request and reading its \
         replies is another.",
    ),
    (Id::Backoff, "0, 5, 10, 15, 20 seconds, up to a fifth less at random."),
    (
        Id::Grace,
        "At most RELEASE. Make it longer than the difference between the hosts' clocks, and shorter than the \
         interval between runs.",
    ),
    (Id::Release, "At least 1 second. Make it longer than the command ever takes."),
    (Id::Timeout, "At its end the command's process group gets SIGKILL, and golock exits 202."),
    (Id::KillAfter, "With 0 there is no SIGTERM. It needs TIMEOUT or LEASE, unless it stands in the config file."),
    (Id::Key, "The hash is the MD5, in hexadecimal, of the command and its arguments, joined by spaces."),
    (Id::KeyFormat, "The format cronlock hashes a newline after the command line, golock does not."),
    (Id::Reset, "Needs a command or KEY, and runs nothing. See NOTES."),
    (Id::TlsSkipVerify, "Whoever can redirect the connection then gets the password."),
    (Id::TlsCa, "Without it, the file that SSL_CERT_FILE names is used."),
    (Id::TlsName, "For a server behind a tunnel, one that is named by its address, or the nodes of a cluster."),
    (Id::Lease, "At least 3 seconds; 0 means none. See NOTES."),
    (Id::Wait, "There is no queue: whoever asks first when the lock is free gets it."),
    (Id::Record, "See RECORDS."),
    (Id::MaxAge, "With 0, never. It needs RECORD. See RECORDS."),
    (Id::Local, "Excludes LEASE, and options that are about Redis. See NOTES."),
    (Id::LocalDir, "Default: see FILES."),
];

/// The page, in the man macros.
pub(crate) fn page() -> String {
    let rows = TABLE.iter().fold(String::new(), |mut rows, setting| {
        // Writing to a string cannot fail.
        let _ = write!(rows, ".TP\n{}\n{}\n", head(setting), body(setting));
        rows
    });
    PROSE.replace("@VERSION@", env!("CARGO_PKG_VERSION")).replace("@SETTINGS@\n", &rows)
}

fn head(setting: &Setting) -> String {
    let option = escaped(&setting.option());
    let operand = setting.kind.operand().map_or(String::new(), |operand| format!(" \\fI{operand}\\fR"));
    format!("\\fB\\-\\-{option}\\fR{operand}, \\fB{PREFIX}{}\\fR", setting.name)
}

fn body(setting: &Setting) -> String {
    let more = MORE.iter().find(|(id, _)| id.row().name == setting.name).map_or("", |(_, more)| more);
    let prose = lines(&format!("{}. {more}", capitalised(setting.help)));
    let default = match setting.default {
        "" => String::new(),
        default => format!("\nDefault: \\fB{}\\fR", escaped(default)),
    };
    prose + &default
}

/// Each sentence on lines of its own, none of them long, as manuals are written.
fn lines(prose: &str) -> String {
    let mut text = String::new();
    let mut width = 0;
    for word in prose.split_whitespace() {
        let begins = width == 0 || text.ends_with('.') || width + word.len() >= 78;
        text += if text.is_empty() {
            ""
        } else if begins {
            "\n"
        } else {
            " "
        };
        width = if begins { word.len() } else { width + 1 + word.len() };
        text += word;
    }
    escaped(&text)
}

/// Text as roff shows it: a hyphen that may be copied, and no escapes.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-")
}

/// A sentence begins with a capital, but for the form of a URL.
fn capitalised(help: &str) -> String {
    let (first, rest) = help.split_at(1);
    if help.contains("://") { help.to_owned() } else { first.to_uppercase() + rest }
}
