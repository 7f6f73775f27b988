/// Appends `command`, a list of arguments of any bytes, to `out` as an array of bulk strings.
pub fn encode(out: &mut Vec<u8>, command: &[&[u8]]) {
    header(out, b'*', command.len());
    for argument in command {
        header(out, b'$', argument.len());
        out.extend_from_slice(argument);
        out.extend_from_slice(b"\r\n");
    }
}

fn header(out: &mut Vec<u8>, kind: u8, length: usize) {
    out.push(kind);
    out.extend_from_slice(length.to_string().as_bytes());
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_counted_and_kept_byte_for_byte() {
        let mut out = b"before".to_vec();
        encode(&mut out, &[b"SET", b"", b"a\r\n\0\xff"]);
        assert_eq!(out, b"before*3\r\n$3\r\nSET\r\n$0\r\n\r\n$5\r\na\r\n\0\xff\r\n");
    }
}
