use super::plain::{Released, Whose, delete_or_set, look};
use super::record::End;
use super::{Error, Lease, eval, milliseconds};
use crate::clock::Instant;
use crate::exchange::{Answer, Exchange, Repeat};
use crate::resp::Reply;
use std::cell::Cell;
use std::time::Duration;

/// Gives up the lock `KEYS[1]` if its value is the token `ARGV[1]`: at once, or when `ARGV[2]` milliseconds have passed if
/// that is not 0. Only if `ARGV[3]` is 1, because the lock has a lease, may that be later than it expires anyway. There
/// is no SET in it, so it works on a Redis that is out of memory.
///
/// Result: 1, 0 for a foreign value, -1 if there is none.
///
/// Repeated, it finds the lock gone, or in a grace that is as long as before.
const RELEASE: &str = "local v,c=redis.call('GET',KEYS[1]),1 if not v then c=-1 elseif v~=ARGV[1] then c=0 \
    else local g,p=tonumber(ARGV[2]),redis.call('PTTL',KEYS[1]) if g==0 then redis.call('DEL',KEYS[1]) \
    elseif ARGV[3]=='1' or p<0 or p>g then redis.call('PEXPIRE',KEYS[1],ARGV[2]) end end ";

/// The end of [`RELEASE`] where nothing is recorded.
const UNRECORDED: &str = "return c";

/// The end of [`RELEASE`] that writes the end of the run into the record `KEYS[2]`, if it has none and the token stands
/// there: else it is another run's. The token stays, so that a confirmation which is still under way finds the run ended.
///
/// - `ARGV[4]`: 0 if no command ran. Then `start` becomes 0, because the run has not served for another host.
/// - `ARGV[5]`: the result.
/// - `ARGV[6]`: 1 if that is a success.
/// - `ARGV[7]`: for how many milliseconds the record is kept then.
/// - `ARGV[8]`: for how many milliseconds the run took at most: Redis may have been away at its end.
///
/// Result: the same, a space, and the record as it stands then, or why nothing was recorded; cut, where it is too long to be
/// one.
///
/// Repeated, it finds the end written, and leaves it. Whatever fails in it leaves the lock as it is.
const RECORDED: &str = "local t,r=redis.pcall('TIME'),redis.pcall('GET',KEYS[2]) \
    local e=t.err or r and r.err if not e then \
    local f,w,s,o,b,i,l=string.match(r or '',\
    '^fence=(%d+) (host=%S* pid=%d* program=%S*) start=(%d+) end= result= ok=(%d*) failed=(%d+) first=(%d+)(.*)') \
    if f and string.find(l,' by='..ARGV[1],1,true) then \
    local n=string.format('%.0f',math.min(t[1]*1000+math.floor(t[2]/1000),s+ARGV[8])) \
    if ARGV[6]=='1' then o,b=n,0 else b=b+1 end if ARGV[4]=='0' then s=0 end \
    r='fence='..f..' '..w..' start='..s..' end='..n..' result='..ARGV[5]..' ok='..o\
    ..' failed='..string.format('%.0f',b)..' first='..i..' by='..ARGV[1] e=redis.pcall('SET',KEYS[2],r,'PX',ARGV[7]).err end end \
    return c..' '..string.sub(e or r or '',1,999)";

/// How often the release without EVAL starts again when its last step, which cannot be repeated, was not answered.
const ROUNDS: u32 = 3;

/// How long a command that was not answered is taken to be under way, at least: something between us and Redis may hold it.
const UNDER_WAY: Duration = Duration::from_secs(30);

/// The outcome of a release that was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// What became of the lock.
    pub lock: Released,
    /// The record as it stands, or why nothing was recorded; `None` where there is no record.
    pub record: Option<Vec<u8>>,
}

/// Releases the lock of `lease`, which is to persist until its grace is over; `margin` is how long a command to Redis
/// may be under way. `end` is written into the record. If it fails, the lock may have been released all the same.
pub fn release(redis: &mut dyn Exchange, lease: &Lease, margin: Duration, end: &End) -> Result<Release, Error> {
    if !lease.eval_refused {
        match release_by_eval(redis, lease, end) {
            Err(Error::Refused(..)) => {}
            done => return done,
        }
    }
    release_without_eval(redis, lease, margin).map(|lock| Release { lock, record: None })
}

fn release_by_eval(redis: &mut dyn Exchange, lease: &Lease, end: &End) -> Result<Release, Error> {
    let (name, token, grace_end) = (&lease.options.name, lease.token.as_bytes(), lease.grace_end);
    let lengthen: &[u8] = if lease.options.lease.is_some() { b"1" } else { b"0" };
    // If no command ran, the beginning may be recorded although the answer that told of it was lost.
    let record = lease.options.record.as_ref().filter(|_| lease.fence.is_some() || !end.ran);
    let script = [RELEASE, record.map_or(UNRECORDED, |_| RECORDED)].concat();
    let answer = redis.exchange(Repeat::Always, &|now, request| {
        let grace = milliseconds(grace_end.since(now).unwrap_or_default());
        let about_lock = [token, grace.as_bytes(), lengthen];
        let Some(record) = record else { return eval(request, &script, &[name], &about_lock) };
        let digit = |is: bool| [b'0' + u8::from(is)];
        let (ran, success, keep) = (digit(end.ran), digit(end.success), milliseconds(record.keep));
        let took = milliseconds(end.took);
        let about_run = [&ran, &end.result[..], &success, keep.as_bytes(), took.as_bytes()];
        eval(request, &script, &[name, &record.key], &[&about_lock[..], &about_run].concat());
    })?;
    let grace = grace_end.since(answer.asked).unwrap_or_default();
    // Until then a lock that we have released stands there with our token.
    let grace_is_over = grace_end.since(redis.now()).is_none();
    let (was_ours, record) = judge(answer, grace_is_over)?;
    let lock = match was_ours {
        true if grace.is_zero() => Released::Free,
        true => Released::InGrace(grace),
        false => Released::Lost,
    };
    Ok(Release { lock, record })
}

/// Whether it was ours when it was released, and the record. A lock that is gone or another's after a repetition may have
/// been released the first time, if its grace is over.
fn judge(answer: Answer, grace_is_over: bool) -> Result<(bool, Option<Vec<u8>>), Error> {
    let repeated = answer.repeated;
    let (code, record) = match answer.only() {
        Some(Reply::Integer(code)) => (code.to_string().into_bytes(), None),
        Some(Reply::Bulk(text)) => {
            let (code, record) = text.split_at(text.iter().position(|&byte| byte == b' ').unwrap_or(text.len()));
            (code.to_vec(), record.get(1..).map(<[u8]>::to_vec))
        }
        other => return Err(Error::of("EVAL", other)),
    };
    match &code[..] {
        b"1" => Ok((true, record)),
        b"0" | b"-1" => Ok((repeated && grace_is_over, record)),
        _ => Err(Error::Unexpected("EVAL")),
    }
}

/// The release where the server refuses EVAL. Its second step is never repeated without the first.
fn release_without_eval(redis: &mut dyn Exchange, lease: &Lease, margin: Duration) -> Result<Released, Error> {
    let (mut last, lock) = (Error::Failed("redis did not answer"), (&lease.options.name[..], &lease.token));
    let mut end = lease.grace_end;
    for round in 0..ROUNDS {
        match look(redis, lock.0, lock.1)? {
            Whose::Ours => {}
            // The first time, DEL may have released it, and another may have taken it since.
            Whose::Gone | Whose::Another(_) if round > 0 && end > lease.grace_end => return Ok(Released::Free),
            Whose::Gone if round > 0 => return Ok(Released::Free),
            Whose::Gone | Whose::Another(_) => return Ok(Released::Lost),
        }
        // A release lengthens nothing: the grace is cut where the lock ends, to whole seconds, because it is sent in such.
        let left = |end: Instant, now| end.since(now).unwrap_or_default();
        let whole = |now| left(end, now).min(Duration::from_secs(left(lease.valid_until, now).as_secs()));
        let deletes = Cell::new(whole(redis.now()).is_zero());
        let rest = |now| {
            let rest = whole(now);
            deletes.set(deletes.get() || rest.is_zero());
            rest
        };
        match delete_or_set(redis, lock, (lease.valid_until, margin), &rest) {
            Err(Error::Exchange(error)) => {
                // A DEL without an answer may still be under way: what it meets must not be another's lock.
                if error.may_be_done && deletes.get() {
                    end = redis.now() + margin.max(UNDER_WAY);
                }
                last = error.into();
            }
            done => return done,
        }
    }
    Err(last)
}

/// Deletes the lock `name`, whoever holds it; whether there was one.
pub fn reset(redis: &mut dyn Exchange, name: &[u8]) -> Result<bool, Error> {
    match redis.exchange(Repeat::Always, &|_, request| request.push(&[b"DEL", name]))?.only() {
        Some(Reply::Integer(count @ (0 | 1))) => Ok(count == 1),
        other => Err(Error::of("DEL", other)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::scripted::{Scripted, at, lease, own, refusal, script, silence, timed};
    use super::super::{Recording, Run};
    use super::*;

    const MARGIN: Duration = Duration::from_secs(1);

    type Outcome = Result<Released, Error>;

    fn released(lease: &Lease, redis: &mut Scripted) -> Outcome {
        release(redis, lease, MARGIN, &End::default()).map(|release| release.lock)
    }

    /// The release of a lock that lasts until so many milliseconds after now, with so many of grace, where EVAL is refused.
    fn plainly(replies: impl IntoIterator<Item = Option<Reply>>, lasts: u64, grace: u64) -> (Outcome, Vec<String>) {
        let mut redis = script([Some(refusal())].into_iter().chain(replies));
        let mut lease = lease(100_000 + lasts, 60, None);
        lease.grace_end = at(100_000 + grace);
        (released(&lease, &mut redis), redis.asked.split_off(1))
    }

    #[test]
    fn a_release_is_free_or_in_grace() {
        for (grace, with_lease, outcome, asked) in [
            (0, None, Released::Free, "EVAL 1 k TOKEN 0 0"),
            (1, None, Released::InGrace(Duration::from_millis(1)), "EVAL 1 k TOKEN 1 0"),
            (1500, Some(6), Released::InGrace(Duration::from_millis(1500)), "EVAL 1 k TOKEN 1500 1"),
        ] {
            let (mut lease, mut redis) = (lease(105_000, 60, with_lease), script([Some(Reply::Integer(1))]));
            lease.grace_end = at(100_000 + grace);
            assert_eq!((released(&lease, &mut redis), redis.asked), (Ok(outcome), vec![asked.to_owned()]));
        }
    }

    #[test]
    fn the_rest_of_the_grace_is_that_of_when_it_is_sent() {
        let (mut lease, mut redis) = (lease(160_000, 60, None), timed([(0, Some(vec![Reply::Integer(1)]))]));
        (lease.grace_end, redis.now) = (at(140_000), at(139_000));
        assert_eq!(released(&lease, &mut redis), Ok(Released::InGrace(Duration::from_secs(1))));
        assert_eq!(redis.asked, ["EVAL 1 k TOKEN 1000 0"]);
    }

    #[test]
    fn the_end_is_recorded_where_the_beginning_was() {
        let mut lease = lease(105_000, 60, None);
        let run = Run { host: b"h".to_vec(), pid: 1, program: b"p".to_vec() };
        lease.options.record = Some(Recording { key: b"r".to_vec(), keep: Duration::from_mins(1), run });
        let end = End { result: b"3".to_vec(), success: false, ran: true, took: Duration::from_millis(42) };
        let mut redis = script([Some(Reply::Integer(1))]);
        let done = release(&mut redis, &lease, MARGIN, &end);
        assert_eq!(done, Ok(Release { lock: Released::Free, record: None }));
        assert_eq!(redis.asked, ["EVAL 1 k TOKEN 0 0"], "there is no fence");
        let void = End { result: b"201".to_vec(), ..End::default() };
        let mut redis = script([Some(Reply::Bulk(b"1 ".to_vec()))]);
        assert!(release(&mut redis, &lease, MARGIN, &void).is_ok());
        assert_eq!(redis.asked, ["EVAL 2 k r TOKEN 0 0 0 201 0 60000 0"], "its beginning may be recorded all the same");
        lease.fence = Some(9);
        let mut redis = script([Some(Reply::Bulk(b"1 fence=9 more".to_vec()))]);
        let record = Some(b"fence=9 more".to_vec());
        let done = release(&mut redis, &lease, MARGIN, &end);
        assert_eq!(done, Ok(Release { lock: Released::Free, record }));
        assert_eq!(redis.asked, ["EVAL 2 k r TOKEN 0 0 1 3 0 60000 42"]);
        let success = End { result: b"0".to_vec(), success: true, ran: true, took: Duration::ZERO };
        let mut redis = script([Some(Reply::Bulk(b"-1 ".to_vec()))]);
        let done = release(&mut redis, &lease, MARGIN, &success);
        assert_eq!(done, Ok(Release { lock: Released::Lost, record: Some(Vec::new()) }));
        assert_eq!(redis.asked, ["EVAL 2 k r TOKEN 0 0 1 0 1 60000 0"]);
    }

    #[test]
    fn where_eval_was_refused_before_it_is_not_tried_again() {
        let (mut lease, mut redis) = (lease(105_000, 60, None), script([Some(own()), Some(Reply::Integer(1))]));
        lease.eval_refused = true;
        assert_eq!((released(&lease, &mut redis), redis.asked.len()), (Ok(Released::Free), 2));
    }

    #[test]
    fn without_eval_it_looks_and_then_deletes_or_shortens() {
        let (ok, grace) = (|| Some(Reply::Status(b"OK".to_vec())), Duration::from_millis);
        let odd = || Err(Error::Unexpected("the release"));
        for (reply, milliseconds, outcome, step) in [
            (Some(Reply::Integer(1)), 0, Ok(Released::Free), "DEL k"),
            (Some(Reply::Integer(0)), 0, Ok(Released::Lost), "DEL k"),
            (ok(), 0, odd(), "DEL k"),
            (ok(), 1500, Ok(Released::InGrace(grace(1500))), "SET k TOKEN XX EX 2"),
            (ok(), 2000, Ok(Released::InGrace(grace(2000))), "SET k TOKEN XX EX 2"),
            (Some(Reply::Nil), 2001, Ok(Released::Lost), "SET k TOKEN XX EX 3"),
            (Some(Reply::Integer(1)), 2000, odd(), "SET k TOKEN XX EX 2"),
            (Some(refusal()), 0, Err(Error::Refused("the release", b"NOPERM".to_vec())), "DEL k"),
            (ok(), 9000, Ok(Released::InGrace(grace(5000))), "SET k TOKEN XX EX 5"),
        ] {
            assert_eq!(
                plainly([Some(own()), reply], 5000, milliseconds),
                (outcome, vec!["GET k".to_owned(), step.to_owned()])
            );
        }
        let (cut, asked) = plainly([Some(own()), ok()], 5500, 9000);
        assert_eq!(
            (cut, &*asked[1]),
            (Ok(Released::InGrace(grace(5000))), "SET k TOKEN XX EX 5"),
            "it lengthens nothing"
        );
    }

    #[test]
    fn without_eval_what_is_not_surely_ours_is_left_alone() {
        let looked = |reply, lasts| plainly([reply], lasts, 0).0;
        assert_eq!(looked(Some(Reply::Bulk(b"another".to_vec())), 5000), Ok(Released::Lost));
        assert_eq!(looked(Some(Reply::Nil), 5000), Ok(Released::Lost));
        assert_eq!(looked(Some(refusal()), 5000), Err(Error::Refused("GET", b"NOPERM".to_vec())));
        assert_eq!(looked(Some(Reply::Integer(1)), 5000), Err(Error::Unexpected("GET")));
        assert_eq!(looked(Some(own()), 1000), Ok(Released::LeftToExpire));
        assert_eq!(plainly([Some(own()), Some(Reply::Integer(1))], 1001, 0).0, Ok(Released::Free));
    }

    #[test]
    fn the_margin_is_that_of_when_it_is_sent() {
        let (mut lease, looked) = (lease(105_000, 60, None), (4000, Some(vec![own()])));
        lease.eval_refused = true;
        assert_eq!(released(&lease, &mut timed([looked])), Ok(Released::LeftToExpire));
    }

    #[test]
    fn without_eval_a_lost_reply_leads_to_another_look() {
        let again = |more: &[Option<Reply>]| plainly([&[Some(own()), None], more].concat(), 50_000, 0).0;
        assert_eq!(again(&[Some(Reply::Nil)]), Ok(Released::Free));
        // Another may have taken it since.
        assert_eq!(again(&[Some(Reply::Bulk(b"another".to_vec()))]), Ok(Released::Free));
        // The first DEL may still be under way.
        let set = [Some(own()), None, Some(own()), Some(Reply::Status(b"OK".to_vec()))];
        let (released, asked) = plainly(set.clone(), 50_000, 0);
        assert_eq!(released, Ok(Released::InGrace(UNDER_WAY)));
        assert_eq!(asked, ["GET k", "DEL k", "GET k", "SET k TOKEN XX EX 30"]);
        // A release lengthens nothing.
        assert_eq!(plainly(set, 5000, 0).0, Ok(Released::InGrace(Duration::from_secs(5))));
        assert_eq!(again(&[Some(own()), None, Some(own()), None]), Err(Error::Exchange(silence())));
    }

    #[test]
    fn a_reset_says_whether_there_was_a_lock() {
        let reset = |reply| reset(&mut script([Some(reply)]), b"k");
        assert_eq!((reset(Reply::Integer(0)), reset(Reply::Integer(1))), (Ok(false), Ok(true)));
        assert_eq!(reset(Reply::Integer(2)), Err(Error::Unexpected("DEL")));
        assert_eq!(reset(refusal()), Err(Error::Refused("DEL", b"NOPERM".to_vec())));
    }

    #[test]
    fn a_loss_is_told_only_if_it_is_certain() {
        for (number, repeated, grace_is_over, ours) in [
            (1, false, false, true),
            (1, true, true, true),
            (0, false, true, false),
            (-1, false, true, false),
            (0, true, false, false),
            (-1, true, false, false),
            (0, true, true, true),
            (-1, true, true, true),
        ] {
            for reply in [Reply::Integer(number), Reply::Bulk(format!("{number} x").into())] {
                let record = matches!(reply, Reply::Bulk(_)).then(|| b"x".to_vec());
                let answer = Answer { replies: vec![reply], asked: at(0), repeated };
                let case = format!("{number} {repeated} {grace_is_over}");
                assert_eq!(judge(answer, grace_is_over), Ok((ours, record)), "{case}");
            }
        }
    }

    #[test]
    fn nonsense_is_not_a_release() {
        let judged = |reply| judge(Answer { replies: vec![reply], asked: at(0), repeated: true }, true);
        assert_eq!(judged(refusal()), Err(Error::Refused("EVAL", b"NOPERM".to_vec())));
        let odd = [Reply::Integer(2), Reply::Nil, Reply::Bulk(b"2".to_vec()), Reply::Bulk(b"11 x".to_vec())];
        for reply in odd.into_iter().chain([Reply::Bulk(Vec::new()), Reply::Status(b"OK".to_vec())]) {
            assert_eq!(judged(reply), Err(Error::Unexpected("EVAL")));
        }
    }
}
