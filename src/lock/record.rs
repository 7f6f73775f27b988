use std::fmt::Write;

/// The fields of a record, in their order. A run that has not ended yet may tell of the one before it behind them (`last`).
const FIELDS: [&str; 10] = ["fence", "host", "pid", "program", "start", "end", "result", "ok", "failed", "first"];

/// The longest record that is believed. Ours have some 200 bytes.
const LIMIT: usize = 999;

/// What a run of our own writes about itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Run {
    /// The host's name.
    pub host: Vec<u8>,
    /// The process id of golock.
    pub pid: u32,
    /// The base name of the command, never an argument.
    pub program: Vec<u8>,
}

/// How a run ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct End {
    /// A code, `signal:9`, `timeout` or `lost`.
    pub result: Vec<u8>,
    /// Whether it was a success.
    pub success: bool,
}

/// What is known of the runs of a lock: one line of text beside it. Times are milliseconds since 1970 by Redis's clock, for
/// a local lock by the host's. It is for people and for the fence; nothing in it decides who holds the lock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// The number of the last run.
    pub fence: u64,
    /// Its host, percent-encoded.
    pub host: Vec<u8>,
    /// The process id of its golock.
    pub pid: Vec<u8>,
    /// The base name of its command, percent-encoded.
    pub program: Vec<u8>,
    /// When it began.
    pub start: u64,
    /// When it ended, if that was recorded.
    pub end: Option<u64>,
    /// How it ended, if that was recorded.
    pub result: Vec<u8>,
    /// When the last success ended.
    pub ok: Option<u64>,
    /// How many runs have failed since.
    pub failed: u64,
    /// When the first record was made.
    pub first: u64,
    /// How the run before ended, and where (`1@web3`), while this one has not ended; `?` for an end that nobody recorded.
    pub last: Vec<u8>,
}

impl Run {
    /// Its fields in a record.
    pub fn identity(&self) -> Vec<u8> {
        let pid = self.pid.to_string();
        [b"host=", &encoded(&self.host)[..], b" pid=", pid.as_bytes(), b" program=", &encoded(&self.program)].concat()
    }
}

/// `value` percent-encoded but for letters, digits and `-._:@/+,`, so that it is one word of plain text.
pub fn encoded(value: &[u8]) -> Vec<u8> {
    let mut text = String::with_capacity(value.len());
    for &byte in value {
        if byte.is_ascii_alphanumeric() || b"-._:@/+,".contains(&byte) {
            text.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text.into_bytes()
}

impl Record {
    /// Reads a record; `None` if that is none.
    pub fn parse(line: &[u8]) -> Option<Self> {
        let mut words = line.split(|&byte| byte == b' ').filter(|_| line.len() <= LIMIT);
        let mut fields = [&b""[..]; FIELDS.len()];
        for (field, name) in fields.iter_mut().zip(FIELDS) {
            *field = words.next()?.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
        }
        let [fence, host, pid, program, start, end, result, ok, failed, first] = fields;
        let number = |digits: &[u8]| std::str::from_utf8(digits).ok()?.parse::<u64>().ok();
        let optional = |digits: &[u8]| if digits.is_empty() { Some(None) } else { number(digits).map(Some) };
        let last = words.next().and_then(|word| word.strip_prefix(b"last=")).unwrap_or_default();
        Some(Self {
            fence: number(fence)?,
            host: host.to_vec(),
            pid: pid.to_vec(),
            program: program.to_vec(),
            start: number(start)?,
            end: optional(end)?,
            result: result.to_vec(),
            ok: optional(ok)?,
            failed: number(failed)?,
            first: number(first)?,
            last: last.to_vec(),
        })
    }

    /// The record of a run that begins `now` (milliseconds), after the one that `before` tells of.
    pub fn begin(before: Option<&Self>, run: &Run, now: u64) -> Self {
        let (host, program) = (encoded(&run.host), encoded(&run.program));
        let begun = Self { host, program, pid: run.pid.to_string().into(), start: now, ..Self::default() };
        let Some(before) = before else { return Self { fence: now * 1000, first: now, ..begun } };
        let result = if before.end.is_none() { b"?" } else { &before.result[..] };
        Self {
            fence: (now * 1000).max(before.fence.saturating_add(1)),
            ok: before.ok,
            failed: before.failed + u64::from(before.end.is_none()),
            first: before.first,
            last: [result, b"@", &before.host].concat(),
            ..begun
        }
    }

    /// The run has ended `now`.
    pub fn end(&mut self, end: &End, now: u64) {
        (self.end, self.result, self.last) = (Some(now), end.result.clone(), Vec::new());
        (self.ok, self.failed) = if end.success { (Some(now), 0) } else { (self.ok, self.failed + 1) };
    }

    /// The line of text.
    pub fn line(&self) -> Vec<u8> {
        let optional = |time: Option<u64>| time.map_or(String::new(), |time| time.to_string());
        let values = [
            self.fence.to_string().as_bytes(),
            &self.host,
            &self.pid,
            &self.program,
            self.start.to_string().as_bytes(),
            optional(self.end).as_bytes(),
            &self.result,
            optional(self.ok).as_bytes(),
            self.failed.to_string().as_bytes(),
            self.first.to_string().as_bytes(),
        ]
        .map(<[u8]>::to_vec);
        let mut words: Vec<_> =
            FIELDS.iter().zip(values).map(|(name, value)| [name.as_bytes(), b"=", &value].concat()).collect();
        if !self.last.is_empty() {
            words.push([b"last=", &self.last[..]].concat());
        }
        words.join(&b' ')
    }

    /// Since when nothing has succeeded: the end of the last success, or the first record.
    pub fn waiting_since(&self) -> u64 {
        self.ok.unwrap_or(self.first)
    }

    /// How the last run that is over ended, and on which host, if there was one.
    pub fn last_end(&self) -> Option<(&[u8], &[u8])> {
        if self.end.is_some() {
            return Some((&self.result, &self.host));
        }
        let at = self.last.iter().position(|&byte| byte == b'@')?;
        Some((&self.last[..at], &self.last[at + 1..]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(host: &str) -> Run {
        Run { host: host.into(), pid: 4711, program: b"backup.sh".to_vec() }
    }

    fn text(record: &Record) -> String {
        String::from_utf8(record.line()).unwrap()
    }

    #[test]
    fn a_run_is_told_from_its_beginning_to_its_end() {
        let mut record = Record::begin(None, &run("web 1"), 1000);
        let begun =
            "fence=1000000 host=web%201 pid=4711 program=backup.sh start=1000 end= result= ok= failed=0 first=1000";
        assert_eq!(text(&record), begun);
        record.end(&End { result: b"3".to_vec(), success: false }, 1500);
        assert_eq!(
            text(&record),
            "fence=1000000 host=web%201 pid=4711 program=backup.sh start=1000 end=1500 result=3 ok= failed=1 first=1000"
        );
        let mut next = Record::begin(Some(&record), &run("web2"), 2000);
        assert_eq!(
            text(&next),
            "fence=2000000 host=web2 pid=4711 program=backup.sh start=2000 end= result= ok= failed=1 first=1000 last=3@web%201"
        );
        assert_eq!((next.last_end(), record.last_end()), (Some((&b"3"[..], &b"web%201"[..])), next.last_end()));
        next.end(&End { result: b"0".to_vec(), success: true }, 2500);
        assert!(text(&next).ends_with(" end=2500 result=0 ok=2500 failed=0 first=1000"), "{}", text(&next));
        assert_eq!((next.waiting_since(), record.waiting_since()), (2500, 1000));
    }

    #[test]
    fn a_run_that_did_not_end_has_failed_and_no_fence_falls() {
        let died = Record { fence: 9_000_000, ..Record::begin(None, &run("a"), 1000) };
        let next = Record::begin(Some(&died), &run("b"), 500);
        assert_eq!((next.fence, next.failed, &next.last[..]), (9_000_001, 1, &b"?@a"[..]));
    }

    #[test]
    fn what_is_written_is_read_and_garbage_is_not() {
        let mut record = Record::begin(Some(&Record::begin(None, &run("a"), 1)), &run("b"), 2);
        assert_eq!(Record::parse(&record.line()), Some(record.clone()));
        record.end(&End { result: b"signal:9".to_vec(), success: false }, 3);
        assert_eq!(Record::parse(&record.line()), Some(record.clone()));
        let line = text(&record);
        for garbage in [
            String::new(),
            "x".into(),
            line.replace("fence=", "fence"),
            line.replace("start=2", "start="),
            line.replace("start=2", "start=-1"),
            line.replace("failed=2", "failed=99999999999999999999"),
            line.replace(" pid=4711", ""),
            line.replace("host=b", &format!("host={}", "b".repeat(1000))),
        ] {
            assert_eq!(Record::parse(garbage.as_bytes()), None, "{garbage}");
        }
    }

    #[test]
    fn a_value_is_one_plain_word() {
        assert_eq!(encoded(b"a.b-c_d:e@f/g+h,i=j k%\n\xff"), b"a.b-c_d:e@f/g+h,i%3Dj%20k%25%0A%FF");
    }
}
