//! Which replies a server must have sent for what golock believes.

use super::server::{Turn, is};
use golock::lock::{Acquired, Confirmed, Entry, Lease, Record, Release, Released, Status, Token, Ttl};
use golock::resp::Reply;
use std::time::{SystemTime, UNIX_EPOCH};

type Claim<T> = Box<dyn Fn(&T) -> bool>;

/// What must be true of the requests of a step and of the replies to them.
pub(crate) enum Proof {
    /// Of one of them.
    One(Claim<Turn>),
    /// Of all of them together.
    All(Claim<[Turn]>),
}

impl Proof {
    pub(crate) fn holds(&self, turns: &[Turn]) -> bool {
        match self {
            Self::One(proof) => turns.iter().any(proof),
            Self::All(proof) => proof(turns),
        }
    }
}

fn one(proof: impl Fn(&Turn) -> bool + 'static) -> Proof {
    Proof::One(Box::new(proof))
}

fn bulk(bytes: &[u8]) -> Reply {
    Reply::Bulk(bytes.to_vec())
}

/// The replies to SET and GET, and to another GET if there was one.
fn asked_for(turn: &Turn) -> Option<(Reply, Reply, Option<Reply>)> {
    let mut replies = turn.replies().into_iter();
    let (set, get, record) = (replies.next()?, replies.next()?, replies.next());
    (is(set.0, "SET") && is(get.0, "GET")).then(|| (set.1, get.1, record.map(|(_, reply)| reply)))
}

/// Only GET says who holds the lock.
pub(crate) fn acquired(acquired: Acquired, token: &Token) -> Proof {
    let token = bulk(token.as_bytes());
    let got = move |value: Reply| one(move |turn| asked_for(turn).is_some_and(|(_, get, _)| get == value));
    match acquired {
        Acquired::Ours => got(token),
        Acquired::Stale(value) => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after 1970").as_secs();
            let second = str::from_utf8(&value).ok().and_then(|value| value.parse::<u64>().ok());
            assert!(second.is_some_and(|second| second <= now), "{} is not stale", value.escape_ascii());
            got(Reply::Bulk(value))
        }
        Acquired::Held(status) => {
            // Or it was looked at once more.
            let again = seen(status.clone());
            Proof::All(Box::new(move |turns| {
                let is_told = |turn: &Turn| {
                    let Some((_, get, record)) = asked_for(turn) else { return [false; 2] };
                    let (value, is_others) = (status.value.clone().unwrap_or_default(), get != token);
                    let is_whole = get == Reply::Bulk(value) && is_record(record.as_ref(), status.record.as_ref());
                    [is_others && is_whole, is_others && matches!(get, Reply::Bulk(_))]
                };
                let told = |which: usize| turns.iter().any(|turn| is_told(turn)[which]);
                told(0) || (told(1) && again.holds(turns))
            }))
        }
    }
}

/// Whether `record` is what stands in `reply`.
fn is_record(reply: Option<&Reply>, record: Option<&Record>) -> bool {
    let read = if let Some(Reply::Bulk(line)) = reply { Record::parse(line) } else { None };
    read.as_ref() == record
}

/// Nothing has taken the lock that would have to be given back: each SET was refused, or found the lock held, or what
/// it has set was seen to be gone.
pub(crate) fn not_taken() -> Proof {
    let cannot_hold = |turn: &Turn| {
        let replies = turn.replies();
        let is_set = turn.asked.first().is_some_and(|command| is(command, "SET"));
        match replies.first().map(|(_, reply)| reply) {
            _ if !is_set => true,
            // HTTP, or TLS.
            None => matches!(turn.sent.first(), Some(b'H' | 0x15)),
            Some(Reply::Status(_)) => matches!(replies.get(1), Some((_, Reply::Nil))),
            Some(_) => true,
        }
    };
    Proof::All(Box::new(move |turns| turns.iter().all(cannot_hold)))
}

/// The token in front says that the lock is ours, and what follows it all else.
pub(crate) fn confirmed(confirmed: Confirmed, lease: &Lease) -> Proof {
    let (token, fence, eval_refused) = (lease.token.clone(), lease.fence, lease.eval_refused);
    let found = |turns: &[Turn], reply: &Reply| turns.iter().any(|turn| turn.only("GET").as_ref() == Some(reply));
    let own = bulk(token.as_bytes());
    let is_told = move |turn: &Turn, turns: &[Turn]| match (&confirmed, turn.only("EVAL")) {
        // Then GET has said once more that it is ours.
        (Confirmed::Ours(Some(words)), Some(Reply::Error(error))) => {
            eval_refused && *words == error && found(turns, &own)
        }
        (Confirmed::Ours(note), Some(Reply::Bulk(text))) if !eval_refused => {
            match text.strip_prefix(token.as_bytes()) {
                Some(b"") => note.is_none() && fence.is_none(),
                Some([b' ', words @ ..]) => match fence {
                    Some(fence) => note.is_none() && number(words) == Some(fence),
                    None => note.as_deref() == Some(words),
                },
                _ => false,
            }
        }
        (Confirmed::Served, Some(reply)) => reply == bulk(&[token.as_bytes(), b" served"].concat()),
        (Confirmed::Lost(value), Some(Reply::Error(_))) => {
            eval_refused && bulk(value) != own && found(turns, &bulk(value))
        }
        (Confirmed::Lost(value), Some(reply)) => value != token.as_bytes() && reply == bulk(value),
        _ => false,
    };
    Proof::All(Box::new(move |turns| turns.iter().any(|turn| is_told(turn, turns))))
}

fn number(digits: &[u8]) -> Option<u64> {
    str::from_utf8(digits).ok()?.parse().ok()
}

/// Only a reply that begins with the token, or is the value of another, is an answer.
pub(crate) fn renewed(renewed: bool, token: &Token) -> Proof {
    let token = token.clone();
    one(move |turn| {
        let Some(Reply::Bulk(text)) = turn.only("EVAL") else { return false };
        let behind = text.strip_prefix(token.as_bytes());
        matches!(behind, Some([] | [b' ', ..])) == renewed
    })
}

/// The last command that was answered says what became of the lock; before it, only EVAL knows of the record.
pub(crate) fn released(release: Release, token: &Token) -> Proof {
    let token = bulk(token.as_bytes());
    let is_told = move |turn: &Turn, turns: &[Turn]| {
        let Release { lock, record } = &release;
        if let Some(reply) = turn.only("EVAL") {
            let (code, told) = match reply {
                Reply::Integer(code) => (code.to_string().into_bytes(), None),
                Reply::Bulk(text) => match text.iter().position(|&byte| byte == b' ') {
                    Some(space) => (text[..space].to_vec(), Some(text[space + 1..].to_vec())),
                    None => (text, None),
                },
                _ => return false,
            };
            let is_one_of = |codes: &[&[u8]]| codes.contains(&&code[..]);
            // Gone, or another's: it was released by a request whose reply was lost.
            let is_done = matches!(lock, Released::Free | Released::InGrace(_)) && is_one_of(&[b"1", b"0", b"-1"]);
            return *record == told && (is_done || (*lock == Released::Lost && is_one_of(&[b"0", b"-1"])));
        }
        let [get, delete, set] = ["GET", "DEL", "SET"].map(|name| turn.only(name));
        record.is_none()
            && match lock {
                // After a DEL without an answer another may have it.
                Released::Free => {
                    let is_tried =
                        turns.iter().any(|turn| turn.asked.first().is_some_and(|command| is(command, "DEL")));
                    let is_others = matches!(&get, Some(value @ Reply::Bulk(_)) if *value != token);
                    get == Some(Reply::Nil) || delete == Some(Reply::Integer(1)) || (is_tried && is_others)
                }
                Released::InGrace(_) => matches!(set, Some(Reply::Status(_))),
                Released::Lost => {
                    let is_other = get.is_some_and(|value| {
                        value == Reply::Nil || (matches!(value, Reply::Bulk(_)) && value != token)
                    });
                    is_other || delete == Some(Reply::Integer(0)) || set == Some(Reply::Nil)
                }
                Released::LeftToExpire => get == Some(token.clone()),
            }
    };
    Proof::All(Box::new(move |turns| turns.iter().any(|turn| is_told(turn, turns))))
}

/// What EVAL says of a lock, or GET where EVAL is refused.
pub(crate) fn seen(status: Status) -> Proof {
    one(move |turn| {
        if let Some(Reply::Bulk(text)) = turn.only("EVAL") {
            return told(&text) == Some(status.clone());
        }
        let replies: Vec<_> = turn.replies().into_iter().filter(|(command, _)| is(command, "GET")).collect();
        let value = match replies.first() {
            Some((_, Reply::Nil)) => None,
            Some((_, Reply::Bulk(value))) => Some(value.clone()),
            _ => return false,
        };
        let is_all = replies.len() == turn.asked.len() && (status.ttl, status.now) == (Ttl::Unknown, None);
        is_all && value == status.value && is_record(replies.get(1).map(|(_, reply)| reply), status.record.as_ref())
    })
}

/// `TTL MILLISECONDS LENGTH VALUE[RECORD]`, the value with that length.
fn told(text: &[u8]) -> Option<Status> {
    let mut parts = text.splitn(4, |&byte| byte == b' ');
    let mut number = || str::from_utf8(parts.next()?).ok()?.parse::<i128>().ok();
    let (ttl, now, length) = (number()?, number()?, number()?);
    let rest = parts.next()?;
    let (value, record) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    let ttl_of = |ttl: i128| if ttl == -1 { Some(Ttl::Never) } else { Some(Ttl::Seconds(u64::try_from(ttl).ok()?)) };
    let now = u64::try_from(now).ok()?;
    Some(Status {
        value: (ttl != -2).then(|| value.to_vec()),
        ttl: if ttl == -2 { Ttl::Unknown } else { ttl_of(ttl)? },
        now: Some(now).filter(|now| *now != 0),
        record: Record::parse(record),
        ..Status::default()
    })
}

/// DEL says whether there was a lock.
pub(crate) fn deleted(found: bool) -> Proof {
    one(move |turn| turn.only("DEL") == Some(Reply::Integer(found.into())))
}

/// Of each entry a script has told, which was asked for its lock and its record.
pub(crate) fn listed(entries: Vec<Entry>) -> Proof {
    let is_told = |entry: &Entry, turn: &Turn| {
        turn.replies().into_iter().any(|(asked, reply)| {
            let [eval, _, keys, name, record] = &asked[..] else { return false };
            let key = record.strip_prefix(b"p.run.");
            let is_beside = key.is_some_and(|key| key == [b"{", &name[..], b"}"].concat() || key == &name[..]);
            eval == b"EVAL"
                && keys == b"0"
                && *name == entry.name
                && is_beside
                && match &reply {
                    Reply::Bulk(text) => told(text).as_ref() == Some(&entry.status),
                    Reply::Error(_) => entry.status == Status::held(Vec::new()),
                    _ => false,
                }
        })
    };
    Proof::All(Box::new(move |turns| entries.iter().all(|entry| turns.iter().any(|turn| is_told(entry, turn)))))
}

/// Whoever has not been told that another has set the key tells.
pub(crate) fn overdue(ours: bool) -> Proof {
    one(move |turn| turn.only("SET").is_some_and(|reply| (reply != Reply::Nil) == ours))
}
