//! The config file, in the form that cronlock's users have: what `source` would read as plain assignments. It is parsed,
//! never executed; where bash would expand something, the line is refused, because the value would be another.

/// An assignment of the file: line number, name, value.
pub(super) type Assignment<'a> = (usize, &'a [u8], &'a [u8]);

/// The assignments of `text`; or the number of a line that is not one.
pub(super) fn parse(text: &[u8]) -> Result<Vec<Assignment<'_>>, usize> {
    let lines = (1..).zip(text.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii));
    let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with(b"#"));
    lines.map(|(number, line)| assignment(line).map(|(name, value)| (number, name, value)).ok_or(number)).collect()
}

/// `[export ]NAME=value[ # comment]`.
fn assignment(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let line = match line.strip_prefix(b"export") {
        Some(rest) if rest.starts_with(b" ") || rest.starts_with(b"\t") => rest.trim_ascii_start(),
        _ => line,
    };
    let equals = line.iter().position(|&byte| byte == b'=')?;
    let (name, value) = (&line[..equals], &line[equals + 1..]);
    let is_name = matches!(name, [b'A'..=b'Z' | b'a'..=b'z' | b'_', rest @ ..]
        if rest.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_'));
    let (value, rest, special): (_, _, &[u8]) = match value {
        [quote @ (b'"' | b'\''), quoted @ ..] => {
            let end = quoted.iter().position(|byte| byte == quote)?;
            (&quoted[..end], &quoted[end + 1..], if *quote == b'"' { b"$`\\\0" } else { b"\0" })
        }
        plain => {
            let end = plain.iter().position(u8::is_ascii_whitespace).unwrap_or(plain.len());
            (&plain[..end], &plain[end..], b"$`\\\"';&|<>()~\0")
        }
    };
    let comment = rest.trim_ascii_start();
    let ends = comment.is_empty() || (comment.starts_with(b"#") && comment.len() < rest.len());
    (is_name && ends && !value.iter().any(|byte| special.contains(byte))).then_some((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_assignments_are_read_as_bash_would() {
        let text = b"# settings\n\nCRONLOCK_HOST=\"redis.example # 1\"\nexport CRONLOCK_DB=3 # three\n\
            \tCRONLOCK_AUTH='pa$$ \"word\"\\'  \r\nA=\nB=a#b\n_c1=\"\"\nexport=1";
        let found = parse(text).unwrap();
        let expected: Vec<(usize, &[u8], &[u8])> = vec![
            (3, b"CRONLOCK_HOST", b"redis.example # 1"),
            (4, b"CRONLOCK_DB", b"3"),
            (5, b"CRONLOCK_AUTH", b"pa$$ \"word\"\\"),
            (6, b"A", b""),
            (7, b"B", b"a#b"),
            (8, b"_c1", b""),
            (9, b"export", b"1"),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_line_of_any_other_form_is_named() {
        for line in [
            "rm -rf /",
            "source x",
            "A",
            "1A=1",
            "A B=1",
            "=1",
            "A =1",
            "A=1 2",
            "A=\"1",
            "A='1",
            "A=\"1\"2",
            "A=\"1\"#x",
            "A=$B",
            "A=\"$B\"",
            "A=`b`",
            "A=$(b)",
            "A=1;b",
            "A=1&",
            "A=1|b",
            "A=1>b",
            "A=a\\ b",
            "A=\"a\\\"b\"",
            "A=a'b'",
            "A=~/x",
            "A=(1)",
            "A=a\0b",
            "export A",
            "A+=1",
            "A[0]=1",
            "if true; then",
        ] {
            assert_eq!(parse(format!("A=1\n{line}\n").as_bytes()), Err(2), "{line}");
        }
    }
}
