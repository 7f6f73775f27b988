use md5::{Digest, Md5};
use std::fmt::Write;

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
    if let Some(key) = key {
        return [prefix, key].concat();
    }
    let mut line = command.join(&b' ');
    if format == KeyFormat::Cronlock {
        line.push(b'\n');
    }
    [prefix, digest(&line).as_bytes()].concat()
}

/// The key beside the lock `name` whose own name begins with `prefix` and `kind`, in the same slot of a cluster
/// (<https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/>, "Hash tags"): that of its record (`run.`),
/// or by which one host of a fleet tells that it is overdue (`late.`). `None` for a name with braces that allow no such key.
pub fn beside(prefix: &[u8], kind: &[u8], name: &[u8]) -> Option<Vec<u8>> {
    let (open, close): (&[u8], &[u8]) = if hashed(name) == name { (b"{", b"}") } else { (b"", b"") };
    let key = [prefix, kind, open, name, close].concat();
    (hashed(&key) == hashed(name)).then_some(key)
}

/// The part of `key` that decides about its slot: what stands between the first brace and the next closing one, if that
/// is not empty, and else all of it.
fn hashed(key: &[u8]) -> &[u8] {
    let open = key.iter().position(|&byte| byte == b'{').map(|at| &key[at + 1..]);
    let tag = open.and_then(|rest| rest.iter().position(|&byte| byte == b'}').map(|end| &rest[..end]));
    tag.filter(|tag| !tag.is_empty()).unwrap_or(key)
}

/// The MD5 of `text` in lower-case hex. It tells names apart; it protects nothing.
pub fn digest(text: &[u8]) -> String {
    let mut hex = String::new();
    for byte in Md5::digest(text) {
        // Writing to a string cannot fail.
        let _ = write!(hex, "{byte:02x}");
    }
    hex
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

    #[test]
    fn a_record_lives_in_the_slot_of_its_lock() {
        let record =
            |prefix: &str, name: &str| beside(prefix.as_bytes(), b"run.", name.as_bytes()).map(String::from_utf8);
        let some = |key: &str| Some(Ok(key.to_owned()));
        assert_eq!(record("cronlock.", "cronlock.a"), some("cronlock.run.{cronlock.a}"));
        assert_eq!(record("", "a{}b"), None, "an empty tag counts for nothing, and its braces end ours");
        assert_eq!(record("cronlock.", "cronlock.{tag}a"), some("cronlock.run.cronlock.{tag}a"));
        assert_eq!(record("{p}", "{p}a"), some("{p}run.{p}a"));
        assert_eq!(record("p{", "p{a"), None, "the brace of the prefix comes first");
        assert_eq!(record("p.", "p.a}b"), None);
        assert_eq!(record("p.", "p.a{b"), some("p.run.{p.a{b}"));
    }
}
