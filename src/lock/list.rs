use super::name::beside;
use super::record::{number, word};
use super::status::{self, STATUS};
use super::{Error, Status, eval};
use crate::exchange::{Exchange, Repeat};
use crate::resp::Reply;

/// The most keys that Redis looks at in one call, so that others wait for it for some tenths of a millisecond.
const PAGE: u32 = 250;

/// The most jobs that are looked at in one write, and how short their keys are.
const JOBS: usize = 1000;
const KEY_LIMIT: usize = 1000;

/// The most jobs that are listed, whatever a server sends.
pub const LIMIT: usize = 100_000;

/// The most pages that are asked for: a database of some fifty million keys.
const PAGES: u32 = 100_000;

/// One page of SCAN from the cursor `ARGV[1]`: the keys that match `ARGV[2]`, of `ARGV[3]` that are looked at. Keys that are
/// too long to be ours are left out. Changes nothing.
///
/// Result: 1 if this is a node of a cluster, else 0, and the next cursor, each with a space behind it; then each key behind
/// its length and a space. Nothing, if that is more than one reply may hold: then a smaller page is needed.
const SCAN: &str = "local c=redis.pcall('CLUSTER','INFO') \
    local s=redis.call('SCAN',ARGV[1],'MATCH',ARGV[2],'COUNT',ARGV[3]) local l={c.err and '0 ' or '1 ',s[1],' '} \
    for _,k in ipairs(s[2]) do if #k<1000 then l[#l+1]=#k..' '..k end end \
    local r=table.concat(l) return #r<60000 and r or ''";

/// What a node of a cluster says of a key that is, or may be, on another node.
const MOVING: [&[u8]; 3] = [b"MOVED ", b"ASK ", b"TRYAGAIN "];

/// A job that has a record: the full name of its lock, and what is known of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Entry {
    pub name: Vec<u8>,
    pub status: Status,
}

/// The jobs whose records begin with `prefix`, and a remark if these are not all.
pub fn list(redis: &mut dyn Exchange, prefix: &[u8]) -> Result<(Vec<Entry>, Option<&'static str>), Error> {
    let start = [prefix, b"run."].concat();
    let pattern = pattern(&start);
    let (mut entries, mut note, mut cursor, mut size) = (Vec::new(), None, b"0".to_vec(), PAGE);
    for pages in 1.. {
        let count = size.to_string();
        let scan: [&[u8]; 6] = [b"EVAL", SCAN.as_bytes(), b"0", &cursor, &pattern, count.as_bytes()];
        let text = match redis.exchange(Repeat::Always, &|_, request| request.push(&scan))?.only() {
            Some(Reply::Bulk(text)) if text.is_empty() && size > 1 => {
                size /= 2;
                continue;
            }
            Some(Reply::Bulk(text)) => text,
            other => return Err(Error::of("EVAL with SCAN", other)),
        };
        let page = Page::read(&text, prefix).ok_or(Error::Unexpected("EVAL"))?;
        if page.is_of_one_node {
            note = Some("these are the jobs of one node of a cluster");
        }
        // A page of a server's own making could hold thousands.
        for jobs in page.jobs.chunks(JOBS) {
            entries.append(&mut look_at_jobs(redis, jobs)?);
        }
        cursor = page.next.to_vec();
        if cursor == b"0" {
            break;
        }
        if pages >= PAGES || entries.len() >= LIMIT {
            note = Some("these are not all jobs: the database is too large");
            break;
        }
    }
    // SCAN may name a key more than once.
    entries.sort_unstable_by(|one, other| one.name.cmp(&other.name));
    entries.dedup_by(|one, other| one.name == other.name);
    Ok((entries, note))
}

/// The pattern of SCAN for all that begins with `start`.
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
    next: &'p [u8],
    /// The keys of records, and the names of their locks.
    jobs: Vec<(&'p [u8], &'p [u8])>,
}

impl<'p> Page<'p> {
    fn read(mut rest: &'p [u8], prefix: &[u8]) -> Option<Self> {
        let start = [prefix, b"run."].concat();
        let (cluster, next) = (word(&mut rest)?, word(&mut rest)?);
        let mut jobs = Vec::new();
        while !rest.is_empty() {
            let length = number(word(&mut rest)?)?;
            let length = usize::try_from(length).ok().filter(|&length| length < KEY_LIMIT)?;
            let (key, behind) = rest.split_at_checked(length)?;
            rest = behind;
            let Some(name) = key.strip_prefix(&start[..]) else { continue };
            let name = name.strip_prefix(b"{").and_then(|name| name.strip_suffix(b"}")).unwrap_or(name);
            // A lock may be called `run.` something, too.
            if beside(prefix, b"run.", name).as_deref() == Some(key) {
                jobs.push((key, name));
            }
        }
        let is_cursor = !next.is_empty() && next.iter().all(u8::is_ascii_digit);
        is_cursor.then_some(Self { is_of_one_node: cluster == b"1", next, jobs })
    }
}

/// Looks at jobs of a page, in one write: by a script for each, which cuts what is too long to be read whole.
fn look_at_jobs(redis: &mut dyn Exchange, jobs: &[(&[u8], &[u8])]) -> Result<Vec<Entry>, Error> {
    let answer = redis.exchange(Repeat::Always, &|_, request| {
        for (key, name) in jobs {
            eval(request, STATUS, &[], &[name, key]);
        }
        request.informs = request.commands;
    })?;
    let mut entries = Vec::new();
    for ((_, name), reply) in jobs.iter().zip(answer.replies) {
        let status = match reply {
            Reply::Bulk(text) => {
                let (status, record) = status::read(&text).ok_or(Error::Unexpected("EVAL"))?;
                if record.is_empty() {
                    continue;
                }
                status
            }
            // A key of another kind stands where the lock should be: nobody can take it.
            Reply::Error(words) if words.windows(9).any(|part| part == b"WRONGTYPE") => Status::held(Vec::new()),
            // Its slot is moving to another node.
            Reply::Error(words) if MOVING.iter().any(|code| words.starts_with(code)) => continue,
            other => return Err(Error::of("EVAL", Some(other))),
        };
        entries.push(Entry { name: name.to_vec(), status });
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::super::scripted::{refusal, script, silence, timed};
    use super::super::{Record, Ttl};
    use super::*;
    use crate::clock::Instant;
    use crate::exchange::{Answer, Build, Unanswered};

    const LINE: &str = "fence=1 host=a pid=1 program=b start=1 end=2 result=0 ok=2 failed=0 first=1";

    fn bulk(text: &str) -> Reply {
        Reply::Bulk(text.into())
    }

    fn page(head: &str, keys: &[&str]) -> Reply {
        bulk(&keys.iter().fold(format!("{head} "), |text, key| format!("{text}{} {key}", key.len())))
    }

    fn wrong() -> Reply {
        Reply::Error(b"WRONGTYPE Operation against a key".to_vec())
    }

    #[test]
    fn all_pages_are_asked_for_and_their_jobs_looked_at_in_one_write() {
        let token = "1234567890123456789";
        let mut redis = timed([
            (0, Some(vec![page("0 7", &["p*run.{p*b}", "p*run.p*{t}a"])])),
            (0, Some(vec![bulk(&format!("-2 5 0 {LINE}")), bulk(&format!("9 5 19 {token}no record"))])),
            (0, Some(vec![page("1 8", &["p*run.x", "another"])])),
            (0, Some(vec![page("0 0", &["p*run.{p*b}", "p*run.{p*gone}", "p*run.{p*hash}", "p*run.{p*moves}"])])),
            (0, Some(vec![bulk("-2 6 0 later"), bulk("9 6 1 1"), wrong(), Reply::Error(b"ASK 1 h:1".to_vec())])),
        ]);
        let found = list(&mut redis, b"p*").unwrap();
        let status = Status { now: Some(5), ..Status::default() };
        let a = Status { value: Some(token.into()), ttl: Ttl::Seconds(9), ..status.clone() };
        let b = Status { record: Record::parse(LINE.as_bytes()), ..status };
        let jobs = [("p*b", b), ("p*hash", Status::held(Vec::new())), ("p*{t}a", a)];
        let jobs = jobs.map(|(name, status)| Entry { name: name.into(), status });
        assert_eq!(found, (jobs.to_vec(), Some("these are the jobs of one node of a cluster")));
        let records = [
            "EVAL 0 p*b p*run.{p*b} EVAL 0 p*{t}a p*run.p*{t}a",
            "EVAL 0 p*b p*run.{p*b} EVAL 0 p*gone p*run.{p*gone} EVAL 0 p*hash p*run.{p*hash} \
             EVAL 0 p*moves p*run.{p*moves}",
        ];
        let scan = |cursor: &str| format!("EVAL 0 {cursor} p\\*run.* 250");
        assert_eq!(redis.asked, [&scan("0"), records[0], &scan("7"), &scan("8"), records[1]]);
    }

    #[test]
    fn what_redis_does_not_let_us_see_is_a_failure() {
        for (reply, error) in [
            (refusal(), Error::Refused("EVAL", b"NOPERM".to_vec())),
            (bulk("-2 5"), Error::Unexpected("EVAL")),
            (Reply::Integer(1), Error::Unexpected("EVAL")),
        ] {
            let mut redis = script([Some(page("0 0", &["p.run.{p.b}"])), Some(reply)]);
            assert_eq!(list(&mut redis, b"p.").unwrap_err(), error);
        }
    }

    #[test]
    fn what_the_scripts_would_have_cut_or_left_out_is_no_answer() {
        let long = |length: usize| "x".repeat(length);
        let of = |key: &str, status: &str| {
            let mut redis = script([Some(page("0 0", &[key])), Some(bulk(status))]);
            list(&mut redis, b"p.").map(|(entries, _)| entries.len())
        };
        assert_eq!(of(&format!("p.run.{{p.{}}}", long(1000)), "-2 5 0 x"), Err(Error::Unexpected("EVAL")));
        assert_eq!(of("p.run.{p.b}", &format!("9 5 99 {}{}", long(99), long(999))), Ok(1));
        assert_eq!(of("p.run.{p.b}", &format!("9 5 100 {}x", long(100))), Err(Error::Unexpected("EVAL")));
        assert_eq!(of("p.run.{p.b}", &format!("9 5 1 x{}", long(1000))), Err(Error::Unexpected("EVAL")));
    }

    #[test]
    fn thousands_of_jobs_are_looked_at_in_parts() {
        let keys: Vec<String> = (0..2500).map(|number| format!("p.run.{{p.{number}}}")).collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let looks = [1000, 1000, 500].map(|jobs| vec![bulk("-2 5 0 "); jobs]);
        let mut redis = timed([vec![page("0 0", &keys)]].into_iter().chain(looks).map(|replies| (0, Some(replies))));
        assert_eq!(list(&mut redis, b"p."), Ok((Vec::new(), None)));
    }

    /// Finds nothing, and never the end.
    struct Endless;

    impl Exchange for Endless {
        fn exchange(&mut self, _: Repeat, _: Build<'_>) -> Result<Answer, Unanswered> {
            Ok(Answer { replies: vec![page("0 1", &[])], asked: Instant::ZERO, repeated: false })
        }
    }

    #[test]
    fn a_list_without_end_has_one() {
        let note = list(&mut Endless, b"p.").unwrap().1;
        assert_eq!(note, Some("these are not all jobs: the database is too large"));
    }

    #[test]
    fn a_page_that_is_too_large_for_a_reply_is_asked_for_in_parts() {
        let mut redis = script([Some(bulk("")), Some(bulk("")), Some(page("0 0", &[]))]);
        assert!(list(&mut redis, b"p.").unwrap().0.is_empty());
        assert_eq!(redis.asked, ["250", "125", "62"].map(|size| format!("EVAL 0 0 p.run.* {size}")));
        let mut redis = script((0..8).map(|_| Some(bulk(""))));
        assert_eq!(list(&mut redis, b"p.").unwrap_err(), Error::Unexpected("EVAL"), "not even one key has room");
    }

    #[test]
    fn an_answer_that_is_no_page_is_a_failure() {
        for text in ["x", "0 ", "0 x ", "0 0 3 ab", "0 0 x ab", "0 0 3"] {
            assert_eq!(list(&mut script([Some(bulk(text))]), b"p.").unwrap_err(), Error::Unexpected("EVAL"), "{text}");
        }
        let odd = list(&mut script([Some(Reply::Integer(1))]), b"p.").unwrap_err();
        assert_eq!(odd, Error::Unexpected("EVAL with SCAN"));
        let refused = Error::Refused("EVAL with SCAN", b"NOPERM".to_vec());
        assert_eq!(list(&mut script([Some(refusal())]), b"p.").unwrap_err(), refused);
        assert_eq!(list(&mut script([None]), b"p.").unwrap_err(), Error::Exchange(silence()));
    }
}
