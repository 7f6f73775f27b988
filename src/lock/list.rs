use super::{Error, Record, Status, of_record};
use crate::exchange::{Exchange, Repeat};
use crate::resp::Reply;

/// How many keys Redis looks at in one call at most, so that others wait for it some tenths of a millisecond.
const PAGE: u32 = 250;

/// The most jobs that are listed, whatever a server sends.
pub const LIMIT: usize = 100_000;

/// The most pages that are asked for: a database of some fifty million keys.
const PAGES: u32 = 100_000;

/// One page of SCAN from the cursor `ARGV[1]`: the keys that match `ARGV[2]`, of `ARGV[3]` that are looked at. Keys that are
/// too long to be ours are left out. Changes nothing.
///
/// Result: 1 if this is a node of a cluster, else 0, the milliseconds of Redis's clock (0 if that cannot be asked), and the
/// next cursor, each with a space behind it; then each key behind its length and a space. Nothing, if that is more than one
/// reply may hold: the page is to be smaller.
const SCAN: &str = "local c,t=redis.pcall('CLUSTER','INFO'),redis.pcall('TIME') \
    local s=redis.call('SCAN',ARGV[1],'MATCH',ARGV[2],'COUNT',ARGV[3]) \
    local l={c.err and '0 ' or '1 ',t.err and '0 ' or string.format('%.0f ',t[1]*1000+math.floor(t[2]/1000)),s[1],' '} \
    for _,k in ipairs(s[2]) do if #k<1000 then l[#l+1]=#k..' '..k end end \
    local r=table.concat(l) return #r<60000 and r or ''";

/// A job that has a record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// The lock's full name.
    pub name: Vec<u8>,
    /// What is known of it.
    pub status: Status,
}

/// All that was found.
#[derive(Debug, Default)]
pub struct Listing {
    /// The jobs, in no order.
    pub entries: Vec<Entry>,
    /// Whether only one node of a cluster was asked.
    pub is_of_one_node: bool,
}

/// Lists the jobs whose records begin with `prefix`.
pub fn list(redis: &mut dyn Exchange, prefix: &[u8]) -> Result<Listing, Error> {
    let start = [prefix, b"run."].concat();
    let pattern = [&escaped(&start)[..], b"*"].concat();
    let (mut listing, mut cursor, mut size) = (Listing::default(), b"0".to_vec(), PAGE);
    for _ in 0..PAGES {
        let count = size.to_string();
        let scan: [&[u8]; 6] = [b"EVAL", SCAN.as_bytes(), b"0", &cursor, &pattern, count.as_bytes()];
        let page = match redis.exchange(Repeat::Always, &|_, request| request.push(&scan))?.only() {
            Some(Reply::Bulk(page)) if page.is_empty() && size > 1 => {
                size /= 2;
                continue;
            }
            Some(Reply::Bulk(page)) => page,
            Some(Reply::Error(words)) => return Err(Error::Refused("EVAL with SCAN", words)),
            _ => return Err(unexpected()),
        };
        let page = Page::read(&page).ok_or_else(unexpected)?;
        listing.is_of_one_node |= page.is_of_one_node;
        read_records(redis, prefix, &page, &mut listing.entries)?;
        cursor = page.next.to_vec();
        if cursor == b"0" || listing.entries.len() >= LIMIT {
            break;
        }
    }
    // SCAN may name a key more than once.
    listing.entries.sort_by(|one, other| one.name.cmp(&other.name));
    listing.entries.dedup_by(|one, other| one.name == other.name);
    Ok(listing)
}

fn unexpected() -> Error {
    Error::Failed("redis sent an unexpected reply to EVAL with SCAN")
}

/// `text` so that SCAN takes it literally.
fn escaped(text: &[u8]) -> Vec<u8> {
    let escape = |&byte: &u8| if b"*?[]^\\".contains(&byte) { vec![b'\\', byte] } else { vec![byte] };
    text.iter().flat_map(escape).collect()
}

/// What [`SCAN`] has found.
struct Page<'p> {
    is_of_one_node: bool,
    now: Option<u64>,
    next: &'p [u8],
    keys: Vec<&'p [u8]>,
}

impl<'p> Page<'p> {
    fn read(text: &'p [u8]) -> Option<Self> {
        let mut parts = text.splitn(4, |&byte| byte == b' ');
        let (cluster, now, next, mut rest) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let mut keys = Vec::new();
        while !rest.is_empty() {
            let space = rest.iter().position(|&byte| byte == b' ')?;
            let length = std::str::from_utf8(&rest[..space]).ok()?.parse().ok()?;
            let (key, behind) = rest[space + 1..].split_at_checked(length)?;
            keys.push(key);
            rest = behind;
        }
        let now = std::str::from_utf8(now).ok()?.parse().ok().filter(|now| *now > 0);
        let is_cursor = !next.is_empty() && next.iter().all(u8::is_ascii_digit);
        is_cursor.then_some(Self { is_of_one_node: cluster == b"1", now, next, keys })
    }
}

/// Reads the records of a page, whose keys begin with `prefix`, and their locks, in one write. A key that has no record's
/// name is not one: a lock may be called `run.` something, too.
fn read_records(
    redis: &mut dyn Exchange,
    prefix: &[u8],
    page: &Page<'_>,
    entries: &mut Vec<Entry>,
) -> Result<(), Error> {
    let start = [prefix, b"run."].concat();
    let named = page.keys.iter().filter_map(|key| Some((*key, name_of(key.strip_prefix(&start[..])?))));
    let jobs: Vec<_> = named.filter(|(key, name)| of_record(prefix, name).as_deref() == Some(*key)).collect();
    if jobs.is_empty() {
        return Ok(());
    }
    let answer = redis.exchange(Repeat::Always, &|_, request| {
        for (key, name) in &jobs {
            request.push(&[b"GET", key]);
            request.push(&[b"GET", name]);
        }
        request.informs = request.commands;
    })?;
    for ((_, name), replies) in jobs.iter().zip(answer.replies.chunks(2)) {
        if let [Reply::Bulk(record), lock] = replies {
            // What is longer than a token is not a lock's, and does not have to be kept.
            let value =
                if let Reply::Bulk(value) = lock { Some(value.iter().take(99).copied().collect()) } else { None };
            let status = Status { value, now: page.now, record: Record::parse(record), ..Status::default() };
            entries.push(Entry { name: name.to_vec(), status });
        }
    }
    Ok(())
}

/// The lock's name in that of its record.
fn name_of(key: &[u8]) -> &[u8] {
    key.strip_prefix(b"{").and_then(|rest| rest.strip_suffix(b"}")).unwrap_or(key)
}

#[cfg(test)]
mod tests {
    use super::super::scripted::{refusal, script, silence, timed};
    use super::*;

    const LINE: &str = "fence=1 host=a pid=1 program=b start=1 end=2 result=0 ok=2 failed=0 first=1";

    fn bulk(text: &str) -> Reply {
        Reply::Bulk(text.into())
    }

    fn page(head: &str, keys: &[&str]) -> Reply {
        bulk(&keys.iter().fold(format!("{head} "), |text, key| format!("{text}{} {key}", key.len())))
    }

    #[test]
    fn all_pages_are_asked_for_and_their_records_read_in_one_write() {
        let mut redis = timed([
            (0, Some(vec![page("0 5 7", &["p*run.{p*b}", "p*run.p*{t}a"])])),
            (0, Some(vec![bulk(LINE), Reply::Nil, bulk("no record"), bulk(&"x".repeat(200))])),
            (0, Some(vec![page("1 0 8", &["p*run.x", "another"])])),
            (0, Some(vec![page("0 6 0", &["p*run.{p*b}", "p*run.{p*gone}"])])),
            (0, Some(vec![bulk("later"), Reply::Nil, Reply::Nil, bulk("1")])),
        ]);
        let found = list(&mut redis, b"p*").unwrap();
        let status = |value: Option<&str>, record: Option<&str>| {
            let (value, record) = (value.map(Into::into), record.and_then(|line| Record::parse(line.as_bytes())));
            Status { value, now: Some(5), record, ..Status::default() }
        };
        let a = Entry { name: b"p*{t}a".to_vec(), status: status(Some(&"x".repeat(99)), None) };
        let b = Entry { name: b"p*b".to_vec(), status: status(None, Some(LINE)) };
        assert_eq!((found.entries, found.is_of_one_node), (vec![b, a], true));
        let records = [
            "GET p*run.{p*b} GET p*b GET p*run.p*{t}a GET p*{t}a",
            "GET p*run.{p*b} GET p*b GET p*run.{p*gone} GET p*gone",
        ];
        let scan = |cursor: &str| format!("EVAL 0 {cursor} p\\*run.* 250");
        assert_eq!(redis.asked, [&scan("0"), records[0], &scan("7"), &scan("8"), records[1]]);
    }

    #[test]
    fn a_page_that_is_too_large_for_a_reply_is_asked_for_in_parts() {
        let mut redis = script([Some(bulk("")), Some(bulk("")), Some(page("0 1 0", &[]))]);
        assert!(list(&mut redis, b"p.").unwrap().entries.is_empty());
        assert_eq!(redis.asked, ["250", "125", "62"].map(|size| format!("EVAL 0 0 p.run.* {size}")));
        let mut redis = script((0..8).map(|_| Some(bulk(""))));
        assert_eq!(list(&mut redis, b"p.").unwrap_err(), unexpected(), "not even one key has room");
    }

    #[test]
    fn an_answer_that_is_no_page_is_a_failure() {
        for text in ["x", "0 1 ", "0 1 x ", "0 1 0 3 ab", "0 1 0 x ab", "0 1 0 3"] {
            assert_eq!(list(&mut script([Some(bulk(text))]), b"p.").unwrap_err(), unexpected(), "{text}");
        }
        assert_eq!(list(&mut script([Some(Reply::Integer(1))]), b"p.").unwrap_err(), unexpected());
        let refused = Error::Refused("EVAL with SCAN", b"NOPERM".to_vec());
        assert_eq!(list(&mut script([Some(refusal())]), b"p.").unwrap_err(), refused);
        assert_eq!(list(&mut script([None]), b"p.").unwrap_err(), Error::Exchange(silence()));
    }
}
