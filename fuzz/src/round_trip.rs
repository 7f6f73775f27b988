//! `[number of words of the first command][length][word][length][word]…`: what golock writes is read by a server, and
//! what a server writes is read by golock.

use super::request::{Words, commands};
use golock::resp::{Reply, Request, parse};

/// Sends two commands made of the words, and gets every word back as a reply.
pub fn round_trip(input: &[u8]) {
    let Some((&first, rest)) = input.split_first() else { return };
    let words = words(rest);
    let (left, right) = words.split_at(usize::from(first).min(words.len()));
    let mut request = Request::default();
    request.push(left);
    request.push(right);
    let owned = |command: &[&[u8]]| command.iter().map(|word| word.to_vec()).collect::<Words>();
    assert_eq!(commands(&request.bytes), [owned(left), owned(right)]);
    assert_eq!(request.bytes.len(), size(left) + size(right), "something follows the commands");
    assert_eq!(request.commands, 2);

    let replies: Vec<Reply> = words.into_iter().map(reply).collect();
    let sent: Vec<u8> = replies.iter().flat_map(written).collect();
    assert_read(&sent, &replies);
}

/// Cuts `bytes` into words, each behind a byte with its length; the last may be shorter.
fn words(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut words = Vec::new();
    while let Some((&length, rest)) = bytes.split_first() {
        let (word, rest) = rest.split_at(rest.len().min(length.into()));
        words.push(word);
        bytes = rest;
    }
    words
}

/// How long `command` is on the wire.
fn size(command: &[&[u8]]) -> usize {
    let header = |length: usize| format!("*{length}\r\n").len();
    header(command.len()) + command.iter().map(|word| header(word.len()) + word.len() + 2).sum::<usize>()
}

/// A reply whose kind is the first byte of `word`.
fn reply(word: &[u8]) -> Reply {
    let Some((&kind, rest)) = word.split_first() else { return Reply::Nil };
    let is_line = !rest.iter().any(|byte| b"\r\n".contains(byte));
    match kind {
        b'+' if is_line => Reply::Status(rest.to_vec()),
        b'-' if is_line => Reply::Error(rest.to_vec()),
        b':' => Reply::Integer(rest.iter().fold(0, |number: i64, &byte| number.rotate_left(8) ^ i64::from(byte))),
        _ => Reply::Bulk(word.to_vec()),
    }
}

/// The bytes in which a server sends `reply`.
fn written(reply: &Reply) -> Vec<u8> {
    match reply {
        Reply::Status(line) => [b"+", &line[..], b"\r\n"].concat(),
        Reply::Error(line) => [b"-", &line[..], b"\r\n"].concat(),
        Reply::Integer(number) => format!(":{number}\r\n").into_bytes(),
        Reply::Bulk(bytes) => [format!("${}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat(),
        Reply::Nil => b"$-1\r\n".to_vec(),
    }
}

fn assert_read(mut sent: &[u8], replies: &[Reply]) {
    for reply in replies {
        let Ok(Some((found, used))) = parse(sent) else { panic!("{reply:?} is not read") };
        assert_eq!(found, *reply);
        sent = &sent[used..];
    }
    assert_eq!(parse(sent), Ok(None));
    assert!(sent.is_empty());
}
