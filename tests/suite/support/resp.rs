//! The requests that a client has sent and the replies that it has got, read back from their bytes.

/// A command and its arguments.
pub(crate) type Words = Vec<String>;

/// The complete commands at the start of `bytes`. Anything but an array of bulk strings is not a request of golock's
/// and panics.
pub(crate) fn commands(mut bytes: &[u8]) -> Vec<Words> {
    let mut commands = Vec::new();
    while let Some((command, rest)) = next_command(bytes) {
        commands.push(command);
        bytes = rest;
    }
    commands
}

fn next_command(bytes: &[u8]) -> Option<(Words, &[u8])> {
    let (count, mut rest) = next_length(b'*', bytes)?;
    let mut words = Words::new();
    for _ in 0..count {
        let (length, tail) = next_length(b'$', rest)?;
        words.push(String::from_utf8_lossy(tail.get(..length)?).into_owned());
        rest = tail.get(length + 2..)?;
    }
    Some((words, rest))
}

fn next_length(sign: u8, bytes: &[u8]) -> Option<(usize, &[u8])> {
    let end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
    assert_eq!(bytes[0], sign, "not a request: {:?}", String::from_utf8_lossy(bytes));
    let digits = str::from_utf8(&bytes[1..end]).unwrap();
    Some((digits.parse().unwrap(), &bytes[end + 2..]))
}

/// The bytes of these commands.
pub(crate) fn encoded(commands: &[Words]) -> Vec<u8> {
    let bulk = |word: &String| format!("${}\r\n{word}\r\n", word.len());
    let command = |words: &Words| format!("*{}\r\n", words.len()) + &words.iter().map(bulk).collect::<String>();
    commands.iter().map(command).collect::<String>().into()
}

/// How many replies stand complete at the start of `bytes`: lines, and bulk strings.
pub(crate) fn count_replies(mut bytes: &[u8]) -> usize {
    let mut count = 0;
    while let Some(end) = bytes.windows(2).position(|pair| pair == b"\r\n") {
        let body = match bytes[0] {
            b'$' if bytes[1] != b'-' => next_length(b'$', bytes).unwrap().0 + 2,
            _ => 0,
        };
        let Some(rest) = bytes.get(end + 2 + body..) else { break };
        (bytes, count) = (rest, count + 1);
    }
    count
}
