use super::name::beside;
use super::record::{number, word};
use super::{Error, Record, Status};
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

const UNEXPECTED: &str = "redis sent an unexpected reply to EVAL with SCAN";

/// A job that has a record: the full name of its lock, and what is known of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Entry {
    pub name: Vec<u8>,
    pub status: Status,
}

/// The jobs whose records begin with `prefix`, and whether only one node of a cluster was asked.
pub fn list(redis: &mut dyn Exchange, prefix: &[u8]) -> Result<(Vec<Entry>, bool), Error> {
    let start = [prefix, b"run."].concat();
    let pattern = pattern(&start);
    let (mut entries, mut is_of_one_node, mut cursor, mut size) = (Vec::new(), false, b"0".to_vec(), PAGE);
    for _ in 0..PAGES {
        let count = size.to_string();
        let scan: [&[u8]; 6] = [b"EVAL", SCAN.as_bytes(), b"0", &cursor, &pattern, count.as_bytes()];
        let text = match redis.exchange(Repeat::Always, &|_, request| request.push(&scan))?.only() {
            Some(Reply::Bulk(text)) if text.is_empty() && size > 1 => {
                size /= 2;
                continue;
            }
            Some(Reply::Bulk(text)) => text,
            other => return Err(Error::of("EVAL with SCAN", other, UNEXPECTED)),
        };
        let page = Page::read(&text, prefix).ok_or(Error::Failed(UNEXPECTED))?;
        is_of_one_node |= page.is_of_one_node;
        entries.append(&mut read_records(redis, &page)?);
        cursor = page.next.to_vec();
        if cursor == b"0" || entries.len() >= LIMIT {
            break;
        }
    }
    // SCAN may name a key more than once.
    entries.sort_unstable_by(|one, other| one.name.cmp(&other.name));
    entries.dedup_by(|one, other| one.name == other.name);
    Ok((entries, is_of_one_node))
}

/// What SCAN takes for whatever begins with `start`.
fn pattern(start: &[u8]) -> Vec<u8> {
    let mut pattern = Vec::new();
    for &byte in start {
        if b"*?[]^\\".contains(&byte) {
            pattern.push(b'\\');
        }
        pattern.push(byte);
    }
    pattern.push(b'*');
    pattern
}

/// What [`SCAN`] has found.
struct Page<'p> {
    is_of_one_node: bool,
    now: Option<u64>,
    next: &'p [u8],
    /// The keys of records, and the names of their locks.
    jobs: Vec<(&'p [u8], &'p [u8])>,
}

impl<'p> Page<'p> {
    fn read(mut rest: &'p [u8], prefix: &[u8]) -> Option<Self> {
        let start = [prefix, b"run."].concat();
        let (cluster, now, next) = (word(&mut rest)?, number(word(&mut rest)?)?, word(&mut rest)?);
        let mut jobs = Vec::new();
        while !rest.is_empty() {
            let length = number(word(&mut rest)?)?;
            let (key, behind) = rest.split_at_checked(usize::try_from(length).ok()?)?;
            rest = behind;
            let Some(name) = key.strip_prefix(&start[..]) else { continue };
            let name = name.strip_prefix(b"{").and_then(|name| name.strip_suffix(b"}")).unwrap_or(name);
            // A lock may be called `run.` something, too.
            if beside(prefix, b"run.", name).as_deref() == Some(key) {
                jobs.push((key, name));
            }
        }
        let is_cursor = !next.is_empty() && next.iter().all(u8::is_ascii_digit);
        let (is_of_one_node, now) = (cluster == b"1", Some(now).filter(|now| *now > 0));
        is_cursor.then_some(Self { is_of_one_node, now, next, jobs })
    }
}

/// Reads the records of a page and their locks, in one write.
fn read_records(redis: &mut dyn Exchange, page: &Page<'_>) -> Result<Vec<Entry>, Error> {
    let answer = redis.exchange(Repeat::Always, &|_, request| {
        for (key, name) in &page.jobs {
            request.push(&[b"GET", key]);
            request.push(&[b"GET", name]);
        }
        request.informs = request.commands;
    })?;
    let mut entries = Vec::new();
    for ((_, name), replies) in page.jobs.iter().zip(answer.replies.chunks(2)) {
        if let [Reply::Bulk(record), lock] = replies {
            // What is longer than a token is not a lock's, and does not have to be kept.
            let value =
                if let Reply::Bulk(value) = lock { Some(value.iter().take(99).copied().collect()) } else { None };
            let status = Status { value, now: page.now, record: Record::parse(record), ..Status::default() };
            entries.push(Entry { name: name.to_vec(), status });
        }
    }
    Ok(entries)
}
