//! A Redis with two keys, the lock and the record of its runs, and a clock that the explorer turns. It knows the commands
//! that golock sends, and can refuse some of them as servers do.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex};

use golock::lock::Record;
use golock::resp::{Reply, Request};

use crate::lua;

/// The lock's name.
pub(crate) const NAME: &[u8] = b"lock";

/// The name of the record of its runs.
pub(crate) const RECORD: &[u8] = b"run.{lock}";

/// The Unix second at which the explorer's clock begins.
pub(crate) const EPOCH: u64 = 1_700_000_000;

/// Stands for a value that is not text: a list, say.
pub(crate) const LIST: &[u8] = b"(a list)";

/// A command with its arguments. In the place of a script stands a number for it.
pub(crate) type Command = Vec<Vec<u8>>;

/// One key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Slot {
    pub(crate) value: Option<Vec<u8>>,
    /// The millisecond at which it is gone, if it has a TTL.
    pub(crate) expires: Option<u64>,
}

/// What the server does for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Rules {
    /// EVAL is allowed.
    pub(crate) scripts: bool,
    /// Scripts may ask for the time.
    pub(crate) time: bool,
    /// There is room for the record.
    pub(crate) room: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Redis {
    pub(crate) lock: Slot,
    pub(crate) record: Slot,
    pub(crate) now: u64,
    pub(crate) rules: Rules,
    /// By how many milliseconds its clock was set back.
    pub(crate) behind: u64,
    /// How often it was asked for the time in this millisecond: each takes a microsecond.
    asked: u64,
}

impl Slot {
    fn expire(&mut self, now: u64) -> Option<Vec<u8>> {
        self.expires.filter(|&end| end <= now)?;
        std::mem::take(self).value
    }

    fn set(&mut self, value: &[u8], options: &[&[u8]], now: u64) -> Reply {
        let (condition, span) = match options {
            [condition @ (b"NX" | b"XX"), unit, span] => (Some(*condition), Some((*unit, number(span)))),
            [unit, span] => (None, Some((*unit, number(span)))),
            _ => (None, None),
        };
        if condition.is_some_and(|condition| (condition == b"XX") != self.value.is_some()) {
            return Reply::Nil;
        }
        self.value = Some(value.to_vec());
        self.expires = span.map(|(unit, span)| now + if unit == b"EX" { span * 1000 } else { span });
        Reply::Status(b"OK".to_vec())
    }

    fn get(&self) -> Reply {
        match &self.value {
            Some(value) if value == LIST => error("WRONGTYPE Operation against a key holding the wrong kind of value"),
            Some(value) => Reply::Bulk(value.clone()),
            None => Reply::Nil,
        }
    }

    /// What is left of the TTL, in some unit. TTL rounds to the nearest second.
    fn left(&self, now: u64, half: u64, unit: u64) -> Reply {
        let left = self.expires.map_or(-1, |end| i64::try_from((end - now + half) / unit).unwrap());
        Reply::Integer(if self.value.is_some() { left } else { -2 })
    }
}

impl Redis {
    pub(crate) fn new(rules: Rules) -> Self {
        Self { lock: Slot::default(), record: Slot::default(), now: 0, rules, behind: 0, asked: 0 }
    }

    /// Lets time pass; gives back the value of the lock if it has expired.
    pub(crate) fn pass(&mut self, milliseconds: u64) -> Option<Vec<u8>> {
        (self.now, self.asked) = (self.now + milliseconds, 0);
        self.record.expire(self.now);
        self.lock.expire(self.now)
    }

    /// Sets its clock back. Redis keeps ends and not spans, so its keys last longer by as much.
    pub(crate) fn set_back(&mut self, milliseconds: u64) {
        self.behind += milliseconds;
        for slot in [&mut self.lock, &mut self.record] {
            slot.expires = slot.expires.map(|end| end + milliseconds);
        }
    }

    /// The milliseconds of its clock.
    pub(crate) fn milliseconds(&self) -> u64 {
        EPOCH * 1000 + self.now - self.behind
    }

    /// What is recorded, if that is a record.
    pub(crate) fn run(&self) -> Option<Record> {
        Record::parse(self.record.value.as_deref()?)
    }

    pub(crate) fn answer(&mut self, commands: &[Command]) -> Vec<Reply> {
        commands.iter().map(|command| self.call(command)).collect()
    }

    pub(crate) fn call(&mut self, command: &[Vec<u8>]) -> Reply {
        let (words, now): (Vec<&[u8]>, u64) = (command.iter().map(Vec::as_slice).collect(), self.now);
        match words.as_slice() {
            [b"EVAL", script, keys, more @ ..] if self.rules.scripts => {
                let (keys, arguments) = more.split_at(usize::try_from(number(keys)).unwrap());
                lua::eval(self, script, keys, arguments)
            }
            [b"EVAL", ..] => error("NOPERM this user has no permissions to run the 'eval' command"),
            [b"TIME"] if self.rules.time => {
                self.asked += 1;
                let (seconds, rest) = (self.milliseconds() / 1000, self.milliseconds() % 1000 * 1000 + self.asked);
                Reply::Bulk(format!("{seconds} {rest}").into_bytes())
            }
            [b"TIME"] => error("NOPERM this user has no permissions to run the 'time' command"),
            [b"SET", key, ..] if *key == RECORD && !self.rules.room => {
                error("OOM command not allowed when used memory > 'maxmemory'.")
            }
            [b"SET", key, value, options @ ..] => self.slot(key).set(value, options, now),
            [b"GET", key] => self.slot(key).get(),
            [b"DEL", key] => Reply::Integer(std::mem::take(self.slot(key)).value.is_some().into()),
            [b"TTL", key] => self.slot(key).left(now, 500, 1000),
            [b"PTTL", key] => self.slot(key).left(now, 0, 1),
            [b"PEXPIRE", key, span] if self.slot(key).value.is_some() => {
                self.slot(key).expires = Some(now + number(span));
                Reply::Integer(1)
            }
            other => panic!("this Redis does not know {other:?}"),
        }
    }

    fn slot(&mut self, key: &[u8]) -> &mut Slot {
        match key {
            NAME => &mut self.lock,
            RECORD => &mut self.record,
            other => panic!("there is no key {other:?}"),
        }
    }
}

fn error(words: &str) -> Reply {
    Reply::Error(words.into())
}

fn number(digits: &[u8]) -> u64 {
    str::from_utf8(digits).unwrap().parse().unwrap()
}

/// The texts of the scripts, each of which has a number, so that no state has to hold a text.
static SCRIPTS: LazyLock<Mutex<HashMap<Vec<u8>, String>>> = LazyLock::new(Mutex::default);

/// The text of the script with this number.
pub(crate) fn script(number: &[u8]) -> String {
    SCRIPTS.lock().unwrap()[number].clone()
}

/// The commands of a request, in which `change` may change a script.
pub(crate) fn commands(request: &Request, change: impl Fn(&str) -> String) -> Vec<Command> {
    let mut words = request.bytes.split(|&byte| byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let mut commands = Vec::new();
    while let Some(count) = words.next().and_then(|line| line.strip_prefix(b"*")) {
        // No argument of these worlds holds a line feed, so each is one line behind that of its length.
        let mut command: Command = (0..number(count)).map(|_| words.nth(1).unwrap().to_vec()).collect();
        if command[0] == b"EVAL" {
            let text = change(str::from_utf8(&command[1]).unwrap());
            command[1] = format!("script {:08x}", checksum(text.as_bytes())).into_bytes();
            SCRIPTS.lock().unwrap().insert(command[1].clone(), text);
        }
        commands.push(command);
    }
    commands
}

/// FNV-1a: the same in each thread and each run.
fn checksum(text: &[u8]) -> u32 {
    text.iter().fold(0x811c_9dc5, |sum: u32, &byte| (sum ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}
