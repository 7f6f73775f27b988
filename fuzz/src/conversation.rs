//! From the text of an input to what a server says.

use super::server::Part;
use std::collections::VecDeque;

/// The most that a repetition makes of one byte, and all of them of one text: beyond all limits.
const LONGEST_RUN: u32 = 17;
const LONGEST_TEXT: usize = 1 << 18;

/// A redirection leads to another host, of the server's choice; here it leads where nobody listens.
const MOVED: &[u8] = b"MOVED";
const MOVED_TO_NOBODY: &[u8] = b"MOVED 1 127.0.0.1:1 ";

/// The parts of `conversation`, with `token` filled in; none if a redirection hides between two texts.
pub(crate) fn parts(conversation: &[u8], token: &[u8]) -> Option<VecDeque<Part>> {
    conversation.split(|&byte| byte == b'^').map(|part| texts(part, token)).collect()
}

fn texts(part: &[u8], token: &[u8]) -> Option<Part> {
    let texts: Part = part.split(|&byte| byte == b'&').map(|text| spoken(text, token)).collect();
    let hidden = moves(&texts.concat()) > texts.iter().map(|text| moves(text)).sum();
    (!hidden).then(|| texts.into_iter().map(lead_nowhere).collect())
}

fn moves(text: &[u8]) -> usize {
    text.windows(MOVED.len()).filter(|part| *part == MOVED).count()
}

/// `text` with the token in its places, and with its repetitions.
fn spoken(text: &[u8], token: &[u8]) -> Vec<u8> {
    let (mut spoken, mut rest) = (Vec::with_capacity(text.len()), text);
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match (byte, tail) {
            (b'@', _) => spoken.extend_from_slice(token),
            (b'`', [power, tail @ ..]) => {
                let last = spoken.last().copied().unwrap_or_default();
                let run = 1 << u32::from(power & 0x1f).min(LONGEST_RUN);
                spoken.resize(LONGEST_TEXT.min(spoken.len() + run), last);
                rest = tail;
            }
            _ => spoken.push(byte),
        }
    }
    spoken
}

fn lead_nowhere(text: Vec<u8>) -> Vec<u8> {
    if moves(&text) == 0 {
        return text;
    }
    let (mut safe, mut rest) = (Vec::new(), &text[..]);
    while let Some((&byte, tail)) = rest.split_first() {
        if let Some(behind) = rest.strip_prefix(MOVED) {
            safe.extend_from_slice(MOVED_TO_NOBODY);
            rest = behind;
        } else {
            safe.push(byte);
            rest = tail;
        }
    }
    safe
}
