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
