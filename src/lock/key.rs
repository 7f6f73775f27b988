use md5::{Digest, Md5};

/// How the command line becomes the default key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyFormat {
    /// As `echo "$@" | md5sum` does: with a newline at the end.
    Cronlock,
    /// As golock (Go) does: without.
    Golock,
}

/// The lock's full name: `prefix` and the key, which is the MD5, in lower-case hex, of `command` joined by single
/// spaces where no key is given.
pub fn name(prefix: &[u8], key: Option<&[u8]>, command: &[&[u8]], format: KeyFormat) -> Vec<u8> {
    let mut name = prefix.to_vec();
    match key {
        Some(key) => name.extend_from_slice(key),
        None => name.extend(command_digest(command, format)),
    }
    name
}

fn command_digest(command: &[&[u8]], format: KeyFormat) -> impl Iterator<Item = u8> {
    let mut line = command.join(&b' ');
    if format == KeyFormat::Cronlock {
        line.push(b'\n');
    }
    digest(&line)
}

/// The MD5 of `text` in lower-case hex. It tells names apart; it protects nothing.
pub fn digest(text: &[u8]) -> impl Iterator<Item = u8> + use<> {
    let digit = |nibble: u8| if nibble < 10 { b'0' + nibble } else { b'a' - 10 + nibble };
    Md5::digest(text).into_iter().flat_map(move |byte| [digit(byte >> 4), digit(byte & 15)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_keys_are_those_of_the_predecessors() {
        let ls = [&b"ls"[..], b"-al"];
        // echo "ls -al" | md5sum; printf '%s' "ls -al" | md5sum
        assert_eq!(name(b"cronlock.", None, &ls, KeyFormat::Cronlock), b"cronlock.116a0615d30dbfdede6a4c955715af7d");
        assert_eq!(name(b"", None, &ls, KeyFormat::Golock), b"c6d3d07ad6f723d5f3d9ead315348230");
    }

    #[test]
    fn a_given_key_is_kept_byte_for_byte() {
        assert_eq!(name(b"p.", Some(b"\xff\n k"), &[b"ls"], KeyFormat::Cronlock), b"p.\xff\n k");
    }
}
