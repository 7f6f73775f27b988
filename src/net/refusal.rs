//! What the server's error replies mean.

use super::{Endpoint, Kind};

/// Errors that are known to last, by their code. All others pass, and are tried again within the budget: those of a server
/// that loads, fails over, cannot save or is full, and those of a proxy whose server is away.
const LASTING: [&[u8]; 5] = [b"NOAUTH", b"WRONGPASS", b"WRONGTYPE", b"DENIED", b"CROSSSLOT"];

/// Those whose code says nothing, by their words. The text is for people, and differs between versions and proxies.
#[rustfmt::skip]
const LASTING_WORDS: [&[u8]; 14] = [
    b"unknown command", b"unsupported", b"not supported", b"not allowed", b"the script can't run", b"ACL failure in script",
    b"wrong number of arguments", b"DB index", b"invalid password", b"no password is set", b"without any password",
    b"Protocol error", b"syntax error", b"user_script",
];

/// Errors that come before anything is done, by their code, and those of a full server and of proxies that have reached none
/// by their words.
#[rustfmt::skip]
const UNDONE: [&[u8]; 12] = [
    b"LOADING", b"BUSY", b"MISCONF", b"OOM", b"READONLY", b"MASTERDOWN", b"NOREPLICAS", b"CLUSTERDOWN", b"TRYAGAIN",
    b"MOVED", b"ASK", b"NOPERM",
];
#[rustfmt::skip]
const UNDONE_WORDS: [&[u8]; 8] = [
    b"max number of clients", b"Connection refused", b"No such file", b"No route to host", b"unreachable",
    b"no healthy upstream", b"no upstream host", b"limit exceeded",
];

/// This many of them, from the first, mean that the server does not do this at all, or not for us: insisting does not
/// help.
const EVEN_IF_INSISTING: usize = 6;

/// How many of its first bytes give a password away.
const TELLING: usize = 6;

/// What follows from the error `words`, got from the server at `asked`; `None` if it is an answer. To whoever insists,
/// because there is a lock to be given up, that is only that a command is not known, or not permitted; to others whatever
/// is known to last.
pub(super) fn classify(words: &[u8], insists: bool, asked: &Endpoint) -> Option<Kind> {
    let has = |part: &&[u8]| words.windows(part.len()).any(|found| found == *part);
    let lasting_words = if insists { &LASTING_WORDS[..EVEN_IF_INSISTING] } else { &LASTING_WORDS };
    match code(words) {
        b"MOVED" => Some(moved(words, asked).map_or(Kind::Busy, Kind::Moved)),
        b"READONLY" => Some(Kind::ReadOnly),
        b"NOPERM" => None,
        b"ERR" if lasting_words.iter().any(has) => None,
        code if LASTING.contains(&code) && !insists => None,
        _ => Some(Kind::Busy),
    }
}

/// Whether a request may be carried out although its answer was the error `words`: a proxy that has passed it on and got no
/// answer says so in words of its own.
pub(super) fn may_be_done(words: &[u8]) -> bool {
    let has = |part: &&[u8]| words.windows(part.len()).any(|found| found == *part);
    let code = &code(words);
    !(UNDONE.contains(code) || LASTING.contains(code) || UNDONE_WORDS.iter().chain(&LASTING_WORDS).any(has))
}

/// The first word. Before Redis 7 an error inside a script is wrapped: `ERR Error running script (…): … -CODE text`.
fn code(words: &[u8]) -> &[u8] {
    let wrapped = words.starts_with(b"ERR Error running script");
    let inner = words.windows(3).rposition(|three| three == b": -").filter(|_| wrapped).map_or(0, |at| at + 3);
    words[inner..].split(|&byte| byte == b' ').next().unwrap_or_default()
}

/// `MOVED slot host:port` (<https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/>): an empty or
/// unknown (`?`) host stands for the one that was asked; an IPv6 address has no brackets. Nothing that holds a control
/// character is a host.
fn moved(words: &[u8], asked: &Endpoint) -> Option<Endpoint> {
    let text = std::str::from_utf8(words).ok().filter(|text| !text.contains(char::is_control))?;
    let (host, port) = text.split(' ').nth(2)?.rsplit_once(':')?;
    let host = match (host, asked) {
        ("" | "?", Endpoint::Tcp(host, _)) => host,
        ("" | "?", Endpoint::Unix(_)) => return None,
        (host, _) => host,
    };
    Some(Endpoint::Tcp(host.to_owned(), port.parse().ok()?))
}

/// `words` without the password: a server, or what stands in its place, may repeat the command that it refuses, or as
/// much of it as it has room for. So the beginning of the password counts as well.
pub(super) fn redact(words: &[u8], password: &[u8]) -> Vec<u8> {
    let (mut clean, mut rest) = (Vec::new(), words);
    while let Some((&first, tail)) = rest.split_first() {
        // Redis repeats arguments with a space for each end of a line.
        let same = |shown: u8, secret: u8| shown == secret || (shown == b' ' && matches!(secret, b'\r' | b'\n'));
        let common = rest.iter().zip(password).take_while(|&(&shown, &secret)| same(shown, secret)).count();
        if common > 0 && common >= password.len().min(TELLING) {
            clean.extend_from_slice(b"***");
            rest = &rest[common..];
        } else {
            clean.push(first);
            rest = tail;
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(words: &str, insists: bool) -> Option<Kind> {
        classify(words.as_bytes(), insists, &Endpoint::Tcp("asked".into(), 1))
    }

    #[test]
    fn only_what_is_known_to_last_is_an_answer() {
        for words in [
            "LOADING Redis is loading the dataset in memory",
            "BUSY Redis is busy running a script.",
            "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk. Commands that \
             may modify the data set are disabled",
            "OOM command not allowed when used memory > 'maxmemory'.",
            "ERR max number of clients reached",
            "ERR max number of clients + cluster connections reached",
            "ERR Connection refused",
            "ERR Connection timed out",
            "upstream failure",
            "ERR Error running script (call to f_1): @user_script:1: @user_script: 1: -MISCONF x",
        ] {
            for insists in [false, true] {
                assert_eq!(judge(words, insists), Some(Kind::Busy), "{words}");
            }
        }
        for words in [
            "NOAUTH Authentication required.",
            "WRONGPASS invalid username-password pair or user is disabled.",
            "WRONGTYPE Operation against a key holding the wrong kind of value",
            "ERR DB index is out of range",
            "ERR wrong number of arguments for 'set' command",
            "ERR invalid password",
            "ERR Protocol error: invalid bulk length",
        ] {
            assert_eq!((judge(words, false), judge(words, true)), (None, Some(Kind::Busy)), "{words}");
        }
        for words in ["NOPERM this user has no permissions to run the 'eval' command", "ERR unknown command `EVAL`"] {
            assert_eq!((judge(words, false), judge(words, true)), (None, None), "{words}");
        }
        assert_eq!(judge("READONLY You can't write against a read only replica.", false), Some(Kind::ReadOnly));
        let wrapped =
            "ERR Error running script (call to f_1): @user_script:1: @user_script: 1: -READONLY You can't write.";
        assert_eq!(judge(wrapped, true), Some(Kind::ReadOnly));
    }

    #[test]
    fn moved_names_the_next_server() {
        let target = |words: &str| match judge(words, false) {
            Some(Kind::Moved(Endpoint::Tcp(host, port))) => format!("{host} {port}"),
            other => format!("{other:?}"),
        };
        assert_eq!(target("MOVED 3999 127.0.0.1:6381"), "127.0.0.1 6381");
        assert_eq!(target("MOVED 3999 ::1:6381"), "::1 6381");
        assert_eq!(target("MOVED 3999 node.example:6381"), "node.example 6381");
        assert_eq!(target("MOVED 3999 :6381"), "asked 6381");
        assert_eq!(target("MOVED 3999 ?:6381"), "asked 6381");
        for words in ["MOVED", "MOVED 1", "MOVED 1 host", "MOVED 1 host:99999", "MOVED 1 a\0b:5", "MOVED 1 a\x1bb:5"] {
            assert_eq!(judge(words, false), Some(Kind::Busy), "{words}");
        }
    }

    #[test]
    fn a_repeated_password_is_blotted_out() {
        assert_eq!(redact(b"unknown 'AUTH' with 'secret' secret", b"secret"), b"unknown 'AUTH' with '***' ***");
        assert_eq!(redact(b"words", b""), b"words");
        assert_eq!(redact(b"args: 'secret-and-lo", b"secret-and-long"), b"args: '***");
        assert_eq!(redact(b"secr secret", b"secret-and-long"), b"secr ***");
        assert_eq!(redact(b"'two  lines'", b"two\r\nlines"), b"'***'");
    }
}
