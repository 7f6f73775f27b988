//! `redis://` and `rediss://` URLs (<https://www.iana.org/assignments/uri-schemes/prov/redis>): another way to say host,
//! port, user, password, database and TLS. Errors never repeat the URL, which may hold a password.

use super::table::Id;
use crate::text::percent_decoded;

/// The settings that a URL stands for, and their values; empty where it does not mention one.
pub(super) type Parts = [(Id, Vec<u8>); 6];

/// The schemes, and whether they are with TLS.
const SCHEMES: [(&str, &str); 4] =
    [("redis://", "no"), ("valkey://", "no"), ("rediss://", "yes"), ("valkeys://", "yes")];

/// Reads `redis[s]://[user[:password]@]host[:port][/db]`. Everything but the port and the database may be
/// percent-encoded, and must be where it holds one of `@ : / [ ] ? # %`.
pub(super) fn parse(text: &[u8]) -> Result<Parts, &'static str> {
    let text = std::str::from_utf8(text).map_err(|_| "not UTF-8")?;
    let (rest, tls) = without_scheme(text)?;
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    match path.as_bytes().first() {
        Some(b'/') if path.contains('@') => return Err("a / in a user's name or a password must be written as %2F"),
        Some(b'?') if path.contains('@') => return Err("a ? in a user's name or a password must be written as %3F"),
        Some(b'#') if path.contains('@') => return Err("a # in a user's name or a password must be written as %23"),
        _ if path.contains(['?', '#']) => return Err("a query or fragment means nothing here"),
        _ => {}
    }
    let (userinfo, address) = authority.rsplit_once('@').unwrap_or(("", authority));
    if userinfo.contains('@') {
        return Err("an @ in a user's name or a password must be written as %40");
    }
    let (user, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
    let (host, port) = match address.strip_prefix('[').map(|rest| rest.split_once(']')) {
        Some(None) => return Err("a [ without its ]"),
        Some(Some((host, ""))) => (host, ""),
        Some(Some((host, behind))) => (host, behind.strip_prefix(':').ok_or("no : before the port")?),
        None => address.split_once(':').unwrap_or((address, "")),
    };
    let is_ipv6 = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit() || b":.%".contains(&byte));
    if port.contains(':') && !address.starts_with('[') && is_ipv6(host) {
        return Err("an IPv6 address must be written as [ADDRESS]");
    }
    if host.is_empty() {
        return Err("no host; a Unix socket is HOST=/PATH");
    }
    if !port.is_empty() && Id::Port.row().number(port.as_bytes()).is_none() {
        return Err("the port is not a number from 1 to 65535");
    }
    let database = path.strip_prefix('/').unwrap_or(path);
    if !database.is_empty() && Id::Db.row().number(database.as_bytes()).is_none() {
        return Err("the part behind the host is not a database number");
    }
    let (user, password) = (decode(user)?, decode(password)?);
    if !user.is_empty() && password.is_empty() {
        return Err("a user without a password; a password alone is :PASSWORD@");
    }
    let host = decode(host)?;
    std::str::from_utf8(&host).map_err(|_| "the host is not UTF-8")?;
    Ok([
        (Id::Host, host),
        (Id::Port, port.into()),
        (Id::User, user),
        (Id::Auth, password),
        (Id::Db, database.into()),
        (Id::Tls, tls.into()),
    ])
}

fn without_scheme(text: &str) -> Result<(&str, &'static str), &'static str> {
    let rest = SCHEMES.iter().find_map(|(scheme, tls)| Some((text.strip_prefix(scheme)?, *tls)));
    let is_socket = text.starts_with("unix:") || text.starts_with('/');
    let socket = "a Unix socket is HOST=/PATH, not a URL";
    rest.ok_or(if is_socket { socket } else { "neither redis:// nor rediss://" })
}

/// Undoes percent-encoding. NUL is refused: for C, it would end a name early.
fn decode(text: &str) -> Result<Vec<u8>, &'static str> {
    let bytes = percent_decoded(text.as_bytes()).ok_or("a % without two hex digits behind it; itself it is %25")?;
    if bytes.contains(&0) { Err("%00, a NUL, which nothing here can hold") } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `text` says, with a space between its parts.
    fn said(text: &str) -> String {
        let parts = parse(text.as_bytes()).unwrap_or_else(|why| panic!("{text}: {why}"));
        parts.map(|(_, value)| value.escape_ascii().to_string()).join(" ")
    }

    #[test]
    fn all_parts_are_read() {
        assert_eq!(
            said("rediss://app:p%40ss%3a%25%ff@redis.example:6380/7"),
            "redis.example 6380 app p@ss:%\\xff 7 yes"
        );
        assert_eq!(said("valkey://h"), "h     no");
        assert_eq!(said("valkeys://h"), "h     yes");
    }

    #[test]
    fn what_is_missing_is_empty() {
        assert_eq!(said("redis://h"), "h     no");
        assert_eq!(said("redis://:word:with:colons@[::1]/"), "::1   word:with:colons  no");
        assert_eq!(said("redis://[fe80::1%25eth0]:1"), "fe80::1%eth0 1    no");
    }

    #[test]
    fn errors_name_the_slip_and_do_not_repeat_the_url() {
        for (text, why) in [
            ("http://secret@h", "neither redis:// nor rediss://"),
            ("redis:secret", "neither redis:// nor rediss://"),
            ("unix:///run/secret", "a Unix socket is HOST=/PATH, not a URL"),
            ("redis://", "no host; a Unix socket is HOST=/PATH"),
            ("redis://:secret@", "no host; a Unix socket is HOST=/PATH"),
            ("redis://h:0", "the port is not a number from 1 to 65535"),
            ("redis://h:65536", "the port is not a number from 1 to 65535"),
            ("redis://h:secret", "the port is not a number from 1 to 65535"),
            ("redis://h/secret", "the part behind the host is not a database number"),
            ("redis://h/-1", "the part behind the host is not a database number"),
            ("redis://h/1/2", "the part behind the host is not a database number"),
            ("redis://h/9999999999", "the part behind the host is not a database number"),
            ("redis://secret@h", "a user without a password; a password alone is :PASSWORD@"),
            ("redis://:secret@::1:1", "an IPv6 address must be written as [ADDRESS]"),
            ("redis://h?secret", "a query or fragment means nothing here"),
            ("redis://h/#secret", "a query or fragment means nothing here"),
            ("redis://h/1?secret", "a query or fragment means nothing here"),
            ("redis://:sec/ret@h", "a / in a user's name or a password must be written as %2F"),
            ("redis://:sec?ret@h", "a ? in a user's name or a password must be written as %3F"),
            ("redis://:sec#ret@h", "a # in a user's name or a password must be written as %23"),
            ("redis://:sec@ret@h", "an @ in a user's name or a password must be written as %40"),
            ("redis://:secret%4@h", "a % without two hex digits behind it; itself it is %25"),
            ("redis://:secret%zz@h", "a % without two hex digits behind it; itself it is %25"),
            ("redis://:%+1secret@h", "a % without two hex digits behind it; itself it is %25"),
            ("redis://:secret%00@h", "%00, a NUL, which nothing here can hold"),
            ("redis://[::1", "a [ without its ]"),
            ("redis://[::1]6379", "no : before the port"),
            ("redis://%ff", "the host is not UTF-8"),
        ] {
            assert_eq!(parse(text.as_bytes()), Err(why), "{text}");
        }
    }
}
