//! The scripts, run by the Lua that Redis uses, so that what is checked is their text.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use golock::resp::Reply;
use mlua::{Function, Lua, LuaString, Table, Value, Variadic};

use crate::redis::{Redis, script};

/// Lua with `redis.call` and `redis.pcall`, and the scripts that it has compiled.
struct Interpreter {
    lua: Lua,
    redis: Rc<RefCell<Option<Redis>>>,
    scripts: RefCell<HashMap<Vec<u8>, Function>>,
}

thread_local! {
    static INTERPRETER: Interpreter = Interpreter::new().unwrap();
}

/// Runs a script. Lua has this Redis meanwhile, because what it calls outlives any borrow.
pub(crate) fn eval(redis: &mut Redis, script: &[u8], keys: &[&[u8]], arguments: &[&[u8]]) -> Reply {
    INTERPRETER.with(|interpreter| {
        interpreter.redis.replace(Some(redis.clone()));
        let reply = interpreter.run(script, keys, arguments);
        *redis = interpreter.redis.take().unwrap();
        reply
    })
}

impl Interpreter {
    fn new() -> mlua::Result<Self> {
        let (lua, redis) = (Lua::new(), Rc::<RefCell<Option<Redis>>>::default());
        let table = lua.create_table()?;
        for (name, raises) in [("call", true), ("pcall", false)] {
            let state = Rc::clone(&redis);
            let call = lua.create_function(move |lua, words: Variadic<LuaString>| {
                let command: Vec<Vec<u8>> = words.iter().map(|word| word.as_bytes().to_vec()).collect();
                let reply = state.borrow_mut().as_mut().unwrap().call(&command);
                into_lua(lua, &command, reply, raises)
            })?;
            table.set(name, call)?;
        }
        lua.globals().set("redis", table)?;
        Ok(Self { lua, redis, scripts: RefCell::default() })
    }

    fn run(&self, number: &[u8], keys: &[&[u8]], arguments: &[&[u8]]) -> Reply {
        let compiled = self.scripts.borrow().get(number).cloned();
        let function = compiled.unwrap_or_else(|| {
            let function = self.lua.load(script(number)).into_function().unwrap();
            self.scripts.borrow_mut().insert(number.to_vec(), function.clone());
            function
        });
        for (name, words) in [("KEYS", keys), ("ARGV", arguments)] {
            let words = words.iter().map(|word| self.lua.create_string(word).unwrap());
            self.lua.globals().set(name, self.lua.create_sequence_from(words).unwrap()).unwrap();
        }
        match function.call::<Value>(()) {
            Ok(value) => from_lua(value),
            // What the script has done before stays done.
            Err(error) => Reply::Error(format!("ERR Error running script: {error}").into_bytes()),
        }
    }
}

/// As Redis gives replies to scripts: "no value" is false, and an error is raised, or is a table.
fn into_lua(lua: &Lua, command: &[Vec<u8>], reply: Reply, raises: bool) -> mlua::Result<Value> {
    Ok(match reply {
        Reply::Nil => Value::Boolean(false),
        Reply::Integer(number) => Value::Integer(number),
        Reply::Bulk(bytes) if command[0] == b"TIME" => {
            let parts = bytes.split(|&byte| byte == b' ').map(|part| lua.create_string(part).unwrap());
            Value::Table(lua.create_sequence_from(parts)?)
        }
        Reply::Bulk(bytes) => Value::String(lua.create_string(bytes)?),
        Reply::Status(words) => Value::Table(named(lua, "ok", &words)?),
        Reply::Error(words) if raises => return Err(mlua::Error::runtime(String::from_utf8_lossy(&words))),
        Reply::Error(words) => Value::Table(named(lua, "err", &words)?),
    })
}

fn named(lua: &Lua, name: &str, words: &[u8]) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    table.set(name, lua.create_string(words)?)?;
    Ok(table)
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
