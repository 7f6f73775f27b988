//! What the server's error replies mean for the connection.

use super::{Endpoint, Failure};

/// Errors of a server that is not ready yet, or no longer the one to ask. They pass, so they count as a lost
/// connection. The text after the code is for people and differs between versions.
const PASSING: [&[u8]; 8] =
    [b"LOADING", b"MASTERDOWN", b"CLUSTERDOWN", b"TRYAGAIN", b"ASK", b"NOREPLICAS", b"BUSY", b"READONLY"];

/// Redis and Redis Cluster word it differently from here on.
const FULL: &[u8] = b"ERR max number of clients";

/// How much of the beginning of a password tells of it.
const TELLING: usize = 6;

/// What stands in the place of a password that a server repeats to us.
const REDACTED: &[u8] = b"***";

/// What in the error `words`, got from the server at `asked`, keeps the exchange from counting; most errors do not.
pub(super) fn obstacle(words: &[u8], asked: &Endpoint) -> Option<Failure> {
    let code = code(words);
    if code == b"MOVED" {
        return Some(moved(words, asked).map_or_else(|| Failure::Busy(words.to_vec()), Failure::Moved));
    }
    (PASSING.contains(&code) || words.starts_with(FULL)).then(|| Failure::Busy(words.to_vec()))
}

/// The first word. Before Redis 7 an error inside a script is wrapped: `ERR Error running script (…): … -CODE text`.
fn code(words: &[u8]) -> &[u8] {
    let wrapped = words.starts_with(b"ERR Error running script");
    let inner = words.windows(3).rposition(|three| three == b": -").filter(|_| wrapped).map_or(0, |at| at + 3);
    words[inner..].split(|&byte| byte == b' ').next().unwrap_or_default()
}

/// `MOVED slot host:port` (<https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/>): an empty or
/// unknown (`?`) host stands for the one that was asked; an IPv6 address has no brackets.
fn moved(words: &[u8], asked: &Endpoint) -> Option<Endpoint> {
    let text = std::str::from_utf8(words).ok()?;
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
            clean.extend_from_slice(REDACTED);
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

    fn judge(words: &str) -> Option<Failure> {
        obstacle(words.as_bytes(), &Endpoint::Tcp("asked".into(), 1))
    }

    #[test]
    fn passing_errors_are_known_by_their_code_alone() {
        for words in [
            "LOADING Redis is loading the dataset in memory",
            "BUSY Redis is busy running a script.",
            "READONLY",
            "ERR max number of clients reached",
            "ERR max number of clients + cluster connections reached",
            "ERR Error running script (call to f_1): @user_script:1: @user_script: 1: -READONLY You can't write.",
        ] {
            assert!(matches!(judge(words), Some(Failure::Busy(_))), "{words}");
        }
        for words in ["ERR DB index is out of range", "BUSYKEY x", "OOM x", "NOAUTH x", "ERR READONLY", "ERR x: -BUSY"]
        {
            assert!(judge(words).is_none(), "{words}");
        }
    }

    #[test]
    fn moved_names_the_next_server() {
        let target = |words: &str| match judge(words) {
            Some(Failure::Moved(Endpoint::Tcp(host, port))) => format!("{host} {port}"),
            other => format!("{other:?}"),
        };
        assert_eq!(target("MOVED 3999 127.0.0.1:6381"), "127.0.0.1 6381");
        assert_eq!(target("MOVED 3999 ::1:6381"), "::1 6381");
        assert_eq!(target("MOVED 3999 node.example:6381"), "node.example 6381");
        assert_eq!(target("MOVED 3999 :6381"), "asked 6381");
        assert_eq!(target("MOVED 3999 ?:6381"), "asked 6381");
        for words in ["MOVED", "MOVED 1", "MOVED 1 host", "MOVED 1 host:99999"] {
            assert!(matches!(judge(words), Some(Failure::Busy(_))), "{words}");
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
