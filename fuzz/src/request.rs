//! What a server reads: commands as arrays of bulk strings.

/// A command and its arguments.
pub(crate) type Words = Vec<Vec<u8>>;

/// The complete commands at the start of `bytes`.
pub(crate) fn commands(mut bytes: &[u8]) -> Vec<Words> {
    let mut commands = Vec::new();
    while let Some((words, rest)) = next_command(bytes) {
        commands.push(words);
        bytes = rest;
    }
    commands
}

fn next_command(bytes: &[u8]) -> Option<(Words, &[u8])> {
    let (count, mut rest) = next_length(b'*', bytes)?;
    let mut words = Words::new();
    for _ in 0..count {
        let (length, tail) = next_length(b'$', rest)?;
        let (word, tail) = tail.split_at_checked(length)?;
        words.push(word.to_vec());
        rest = tail.strip_prefix(b"\r\n")?;
    }
    Some((words, rest))
}

fn next_length(kind: u8, bytes: &[u8]) -> Option<(usize, &[u8])> {
    let end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
    let digits = str::from_utf8(bytes[..end].strip_prefix(&[kind])?).ok()?;
    Some((digits.parse().ok()?, &bytes[end + 2..]))
}
