//! `redis://` and `rediss://` URLs (<https://www.iana.org/assignments/uri-schemes/prov/redis>): another way to say host,
//! port, user, password, database and TLS. Errors never repeat the URL, which may hold a password.

use super::table::Id;
use super::value;

/// What a URL says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Url {
    pub(super) tls: bool,
    pub(super) user: Option<Vec<u8>>,
    pub(super) password: Option<Vec<u8>>,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) database: u32,
}

const DEFAULT_PORT: u16 = 6379;

/// Reads `redis[s]://[user[:password]@]host[:port][/db]`. Everything but the port and the database may be
/// percent-encoded, and must be where it holds one of `@ : / [ ] ? # %`.
pub(super) fn parse(text: &[u8]) -> Result<Url, &'static str> {
    let text = std::str::from_utf8(text).map_err(|_| "not UTF-8")?;
    let (tls, rest) = match (text.strip_prefix("redis://"), text.strip_prefix("rediss://")) {
        (Some(rest), _) => (false, rest),
        (_, Some(rest)) => (true, rest),
        _ => return Err("neither redis:// nor rediss://"),
    };
    if rest.contains(['?', '#']) {
        return Err("a query or fragment means nothing here (percent-encode ? and #)");
    }
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (userinfo, address) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (user, password) = userinfo.split_once(':').map_or((userinfo, None), |(user, word)| (user, Some(word)));
    let (host, port) = host_and_port(address)?;
    let database = match path {
        "" => 0,
        digits => number(Id::Db, digits).ok_or("the part behind the host is not a database number")?,
    };
    let some = |part: &str| decode(part).map(|bytes| Some(bytes).filter(|bytes| !bytes.is_empty()));
    let (user, password) = (some(user)?, some(password.unwrap_or_default())?);
    if user.is_some() && password.is_none() {
        return Err("a user without a password");
    }
    Ok(Url { tls, user, password, host, port, database })
}

fn host_and_port(address: &str) -> Result<(String, u16), &'static str> {
    let (host, port) = match address.strip_prefix('[') {
        Some(rest) => {
            let (host, behind) = rest.split_once(']').ok_or("a [ without its ]")?;
            (host, behind.strip_prefix(':').or(behind.is_empty().then_some("")).ok_or("no : before the port")?)
        }
        None => address.split_once(':').unwrap_or((address, "")),
    };
    let host = String::from_utf8(decode(host)?).map_err(|_| "the host is not UTF-8")?;
    if host.is_empty() {
        return Err("no host");
    }
    let port = match port {
        "" => DEFAULT_PORT,
        digits => number(Id::Port, digits).ok_or("the port is not a number from 1 to 65535")?,
    };
    Ok((host, port))
}

/// `digits` as a value of `setting`.
fn number<T: TryFrom<u64>>(setting: Id, digits: &str) -> Option<T> {
    value::read(setting.row(), digits.as_bytes())?.try_into().ok()
}

/// Undoes percent-encoding (RFC 3986, section 2.1). NUL is refused: it ends a name early where C is asked.
fn decode(text: &str) -> Result<Vec<u8>, &'static str> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        let hex = rest.get(..2).filter(|hex| hex.iter().all(u8::is_ascii_hexdigit));
        let byte = hex.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        bytes.push(byte.filter(|&byte| byte != 0).ok_or("a % without two hex digits behind it")?);
        rest = &rest[2..];
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_parts_are_read() {
        let url = parse(b"rediss://app:p%40ss%3a%25%ff@redis.example:6380/7").unwrap();
        let expected = Url {
            tls: true,
            user: Some(b"app".to_vec()),
            password: Some(b"p@ss:%\xff".to_vec()),
            host: "redis.example".to_owned(),
            port: 6380,
            database: 7,
        };
        assert_eq!(url, expected);
    }

    #[test]
    fn what_is_missing_has_a_default() {
        let url = parse(b"redis://h").unwrap();
        let expected = Url { tls: false, user: None, password: None, host: "h".to_owned(), port: 6379, database: 0 };
        assert_eq!(url, expected);
        let url = parse(b"redis://:word:with:colons@[::1]/").unwrap();
        assert_eq!((url.user, url.password), (None, Some(b"word:with:colons".to_vec())));
        assert_eq!((url.host.as_str(), url.port), ("::1", 6379));
        assert_eq!(parse(b"redis://[fe80::1%25eth0]:1").unwrap().host, "fe80::1%eth0");
        assert_eq!(parse(b"redis://a@b:c@h").unwrap().password, Some(b"c".to_vec()));
    }

    #[test]
    fn errors_do_not_repeat_the_url() {
        for text in [
            "http://secret@h",
            "redis:secret",
            "redis://",
            "redis://:secret@",
            "redis://h:0",
            "redis://h:65536",
            "redis://h:secret",
            "redis://h/secret",
            "redis://h/-1",
            "redis://h/1/2",
            "redis://secret@h",
            "redis://h?secret",
            "redis://:secret%4@h",
            "redis://:secret%zz@h",
            "redis://:secret%00@h",
            "redis://[::1",
            "redis://[::1]6379",
            "redis://h/#secret",
            "redis://h/9999999999",
            "redis://:%+1secret@h",
        ] {
            let error = parse(text.as_bytes()).expect_err(text);
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
