//! A Redis with one key and a clock that the explorer turns. It knows the commands that golock sends; scripts are run by
//! the Lua that Redis uses, so that what is checked is their text.

use std::cell::RefCell;
use std::collections::HashMap;

use golock::resp::Reply;
use mlua::{Function, Lua, Value, Variadic};

/// Commands with their arguments, as they are sent together.
pub(crate) type Request = Vec<Vec<Vec<u8>>>;

/// The one key, and whether scripts are allowed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Redis {
    pub(crate) value: Option<Vec<u8>>,
    /// The millisecond at which the key is gone, if it has a TTL.
    pub(crate) expires: Option<u64>,
    pub(crate) now: u64,
    scripts: bool,
}

impl Redis {
    pub(crate) fn new(scripts: bool) -> Self {
        Self { value: None, expires: None, now: 0, scripts }
    }

    /// Lets time pass; gives back what has expired.
    pub(crate) fn pass(&mut self, milliseconds: u64) -> Option<Vec<u8>> {
        self.now += milliseconds;
        self.expires.filter(|&end| end <= self.now)?;
        self.delete()
    }

    fn delete(&mut self) -> Option<Vec<u8>> {
        self.expires = None;
        self.value.take()
    }

    pub(crate) fn answer(&mut self, request: &Request) -> Vec<Reply> {
        request.iter().map(|command| self.call(command)).collect()
    }

    fn call(&mut self, command: &[Vec<u8>]) -> Reply {
        let words: Vec<&[u8]> = command.iter().map(Vec::as_slice).collect();
        match words.as_slice() {
            [b"SET", _, value, options @ ..] => self.set(value, options),
            [b"GET", _] => self.value.clone().map_or(Reply::Nil, Reply::Bulk),
            [b"DEL", _] => Reply::Integer(self.delete().is_some().into()),
            [b"TTL", _] => Reply::Integer(self.left(500, 1000)),
            [b"PTTL", _] => Reply::Integer(self.left(0, 1)),
            [b"PEXPIRE", _, span] if self.value.is_some() => {
                self.expires = Some(self.now + number(span));
                Reply::Integer(1)
            }
            [b"EVAL", script, b"1", _, ..] if self.scripts => self.eval(script, &command[3..4], &command[4..]),
            [b"EVAL", ..] => Reply::Error(b"NOPERM this user has no permissions to run the 'eval' command".to_vec()),
            other => panic!("this Redis does not know {other:?}"),
        }
    }

    fn set(&mut self, value: &[u8], options: &[&[u8]]) -> Reply {
        let (condition, span) = match options {
            [condition @ (b"NX" | b"XX"), unit, span] => (Some(*condition), Some((*unit, number(span)))),
            [unit, span] => (None, Some((*unit, number(span)))),
            _ => (None, None),
        };
        if condition.is_some_and(|condition| (condition == b"XX") != self.value.is_some()) {
            return Reply::Nil;
        }
        self.value = Some(value.to_vec());
        self.expires = span.map(|(unit, span)| self.now + if unit == b"EX" { span * 1000 } else { span });
        Reply::Status(b"OK".to_vec())
    }

    /// What is left of the TTL, in some unit. TTL rounds to the nearest second.
    fn left(&self, half: u64, unit: u64) -> i64 {
        let left = self.expires.map_or(-1, |end| i64::try_from((end - self.now + half) / unit).unwrap());
        if self.value.is_some() { left } else { -2 }
    }

    /// Lua has this Redis while the script runs, because what it calls outlives any borrow.
    fn eval(&mut self, script: &[u8], keys: &[Vec<u8>], arguments: &[Vec<u8>]) -> Reply {
        INTERPRETER.with(|interpreter| {
            interpreter.redis.replace(Some(self.clone()));
            let reply = interpreter.run(script, keys, arguments);
            *self = interpreter.redis.take().unwrap();
            reply
        })
    }
}

fn number(digits: &[u8]) -> u64 {
    str::from_utf8(digits).unwrap().parse().unwrap()
}

/// Lua with `redis.call`, and the scripts that it has compiled.
struct Interpreter {
    lua: Lua,
    redis: std::rc::Rc<RefCell<Option<Redis>>>,
    scripts: RefCell<HashMap<Vec<u8>, Function>>,
}

thread_local! {
    static INTERPRETER: Interpreter = Interpreter::new().unwrap();
}

impl Interpreter {
    fn new() -> mlua::Result<Self> {
        let (lua, redis) = (Lua::new(), std::rc::Rc::<RefCell<Option<Redis>>>::default());
        let state = std::rc::Rc::clone(&redis);
        let call = lua.create_function(move |lua, words: Variadic<mlua::LuaString>| {
            let command: Vec<Vec<u8>> = words.iter().map(|word| word.as_bytes().to_vec()).collect();
            let reply = state.borrow_mut().as_mut().unwrap().call(&command);
            into_lua(lua, reply)
        })?;
        let table = lua.create_table()?;
        table.set("call", call)?;
        lua.globals().set("redis", table)?;
        Ok(Self { lua, redis, scripts: RefCell::default() })
    }

    fn run(&self, script: &[u8], keys: &[Vec<u8>], arguments: &[Vec<u8>]) -> Reply {
        let compiled = self.scripts.borrow().get(script).cloned();
        let function = compiled.unwrap_or_else(|| {
            let function = self.lua.load(script).into_function().unwrap();
            self.scripts.borrow_mut().insert(script.to_vec(), function.clone());
            function
        });
        for (name, words) in [("KEYS", keys), ("ARGV", arguments)] {
            let words = words.iter().map(|word| self.lua.create_string(word).unwrap());
            self.lua.globals().set(name, self.lua.create_sequence_from(words).unwrap()).unwrap();
        }
        from_lua(function.call::<Value>(()).unwrap())
    }
}

/// As Redis gives replies to scripts: "no value" is false.
fn into_lua(lua: &Lua, reply: Reply) -> mlua::Result<Value> {
    Ok(match reply {
        Reply::Nil => Value::Boolean(false),
        Reply::Integer(number) => Value::Integer(number),
        Reply::Bulk(bytes) | Reply::Status(bytes) => Value::String(lua.create_string(bytes)?),
        Reply::Error(words) => return Err(mlua::Error::runtime(String::from_utf8_lossy(&words))),
    })
}

/// As Redis takes what scripts return.
fn from_lua(value: Value) -> Reply {
    match value {
        Value::Nil | Value::Boolean(false) => Reply::Nil,
        Value::Integer(number) => Reply::Integer(number),
        #[allow(clippy::cast_possible_truncation, clippy::as_conversions, reason = "Redis drops the fraction, too")]
        Value::Number(number) => Reply::Integer(number as i64),
        Value::String(bytes) => Reply::Bulk(bytes.as_bytes().to_vec()),
        other => panic!("a script of golock's returned {other:?}"),
    }
}
