//! Time passes between any two steps: what depends on it is that of the attempt, and nothing starts on a lock that may be
//! over by the time that its answer comes.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::{Arc, Mutex};

use crate::support::forward::forward;
use crate::support::gate::{Gate, Withheld};
use crate::support::job_tools::graceless;
use crate::support::resp::count_replies;
use crate::support::scripted::send;
use crate::support::successor::{SUCCESSOR, assert_untouched, take_over};
use crate::support::{
    Action, Data, Direction, Fault, Golock, Job, Proxy, Record, Scene, Scripted, Server, each, until,
};

/// The milliseconds that a reconnect waits at least with a backoff of a second, of which up to a fifth is left out.
const PAUSE: i64 = 800;

const NAME: &str = "cronlock.late";

/// The rest of the grace in each EVAL that releases, in order.
fn rests(records: &[Record]) -> Vec<i64> {
    let commands = records[1..].iter().flat_map(Record::commands);
    commands.map(|words| words[3 + words[2].parse::<usize>().unwrap() + 1].parse().unwrap()).collect()
}

#[test]
fn each_attempt_at_a_release_sends_the_rest_of_the_grace_as_it_is_then() {
    let server = Server::start(&[]);
    let lost = |direction| Fault { direction, at: 0, action: Action::Close };
    // Whether the attempts reached the server, and whether there is a record.
    each(&[(Direction::Request, "35d"), (Direction::Reply, "35d"), (Direction::Reply, "0")], |&(direction, record)| {
        let scene = Scene::new(&server, Job::exits(7)).fault(1, lost(direction)).fault(2, lost(direction));
        let golock = scene.golock().set("RECORD", record).set("GRACE", "1000").set("RECONNECT_BACKOFF", "1");
        golock.run().assert_silent(7);
        until("golock's connections end", || scene.proxy.open() == 0);
        // The first reconnect is at once, the second after a pause.
        let rests = rests(&scene.proxy.records());
        assert!(matches!(rests[..], [first, second, third] if first >= second && second - third >= PAUSE), "{rests:?}");
        assert!((1..=rests[2]).contains(&server.pttl(&scene.name())));
    });
}

#[test]
fn without_eval_too_the_rest_of_the_grace_is_that_of_the_attempt() {
    let server = Server::start(&[]);
    server.query::<()>(&["ACL", "SETUSER", "default", "-eval"]);
    // The reply to SET, behind that to GET; then two connections on which it looks again in vain.
    let found = "$19\r\n1234567890123456789\r\n".len();
    let lost = |at| Fault { direction: Direction::Reply, at, action: Action::Close };
    let scene = Scene::new(&server, Job::exits(7)).fault(1, lost(found)).fault(2, lost(0)).fault(3, lost(0));
    scene.golock().set("GRACE", "1000").set("RECONNECT_BACKOFF", "3").run().assert_silent(7);
    until("golock's connections end", || scene.proxy.open() == 0);
    let commands = scene.proxy.records()[1..].iter().flat_map(Record::commands).collect::<Vec<_>>();
    let rests: Vec<i64> =
        commands.iter().filter(|words| words[0] == "SET").map(|words| words[5].parse().unwrap()).collect();
    assert!(matches!(rests[..], [first, second] if first - second >= 2), "{commands:?}");
}

#[test]
fn a_redis_that_restarts_while_the_job_ends_does_not_lengthen_the_grace() {
    let server = Server::start(&[]);
    let scene = Scene::new(&server, Job::gated(7));
    let running =
        scene.golock().set("GRACE", "1000").set("RECONNECT_ATTEMPTS", "50").set("RECONNECT_BACKOFF", "1").spawn();
    scene.job.wait_running();
    server.save();
    server.kill();
    scene.job.open_gate();
    until("golock has come back after a pause", || scene.proxy.connections() > 3);
    server.restart(Data::Kept);
    running.wait().assert_silent(7);
    // What the server was told is less than the grace by the pause at least.
    assert!((1..=1_000_000 - PAUSE).contains(&server.pttl(&scene.name())), "{}", server.pttl(&scene.name()));
}

#[test]
fn only_a_lease_is_lengthened_by_the_grace() {
    const SHORT: i64 = 100_000;
    let server = Server::start(&[]);
    each(&[("0", "35d"), ("0", "0"), ("3600", "35d")], |&(lease, record)| {
        let scene = Scene::new(&server, Job::gated(7));
        let golock = scene.golock().set("LEASE", lease).set("RECORD", record).set("GRACE", "1000");
        let running = golock.spawn();
        scene.job.wait_running();
        server.query::<()>(&["PEXPIRE", &scene.name(), &SHORT.to_string()]);
        scene.job.open_gate();
        running.wait().assert_silent(7);
        let left = server.pttl(&scene.name());
        assert_eq!((left > 0, left > SHORT), (true, lease != "0"), "{left} ms are left of a lease of {lease} s");
    });
}

/// golock for the lock `late`, which waits as long as it must for an answer.
fn patient(port: u16, release: &str) -> Golock {
    graceless(port).set("KEY", "late").set("RELEASE", release).set("REDIS_TIMEOUT", "1h")
}

/// Runs golock, of which the answer to the exchange of this index comes when its lock has expired and `meanwhile` has
/// happened.
fn late(server: &Server, exchange: usize, golock: impl Fn(Golock) -> Golock, meanwhile: impl FnOnce()) -> (i32, usize) {
    let (line, job) = (Withheld::start(server.port(), exchange), Job::exits(7));
    let running = golock(patient(line.port(), "4")).args(job.command()).spawn();
    line.wait_answered();
    until("the lock expires", || server.get(NAME).is_none());
    meanwhile();
    line.release();
    let done = running.wait();
    (done.code, job.runs())
}

/// The exchanges of a run before its command starts.
const ACQUIRE: usize = 0;
const CONFIRM: usize = 1;

#[test]
fn an_answer_that_comes_when_another_has_the_lock_starts_nothing() {
    each(&[ACQUIRE, CONFIRM], |&exchange| {
        let server = Server::start(&[]);
        let taken = late(&server, exchange, |golock| golock, || take_over(&server, NAME));
        assert_eq!(taken, (200, 0));
        assert_untouched(&server, NAME);
    });
}

#[test]
fn an_answer_that_comes_when_the_lock_is_over_sets_it_again() {
    each(&[ACQUIRE, CONFIRM], |&exchange| {
        let server = Server::start(&[]);
        // With a RELEASE of a few seconds it may be over again when the job ends, which is told then.
        assert_eq!(late(&server, exchange, |golock| golock, || ()), (7, 1));
    });
    let server = Server::start(&[]);
    let (line, job) = (Withheld::start(server.port(), ACQUIRE), Job::gated(7));
    let running = patient(line.port(), "86400").set("LEASE", "3600").args(job.command()).spawn();
    line.wait_answered();
    server.query::<()>(&["DEL", NAME]);
    line.release();
    job.wait_running();
    assert!((1..=3_600_000).contains(&server.pttl(NAME)), "{} ms", server.pttl(NAME));
    job.open_gate();
    running.wait().assert_silent(7);
}

#[test]
fn where_eval_is_refused_nothing_starts_on_a_lock_that_may_be_over() {
    each(&[true, false], |&is_taken| {
        let server = Server::start(&[]);
        server.query::<()>(&["ACL", "SETUSER", "default", "-eval"]);
        let meanwhile = || {
            if is_taken {
                take_over(&server, NAME);
            }
        };
        let (line, job) = (Withheld::start(server.port(), ACQUIRE), Job::exits(7));
        let running = patient(line.port(), "4").args(job.command()).spawn();
        line.wait_answered();
        until("the lock expires", || server.get(NAME).is_none());
        meanwhile();
        line.release();
        if is_taken {
            running.wait().assert_silent(200);
        } else {
            running.wait().assert_one_line(201, &[NAME, "cannot keep", "the lock is gone"]);
        }
        assert_eq!(job.runs(), 0);
        assert_eq!(server.get(NAME).as_deref(), is_taken.then_some(SUCCESSOR));
    });
}

#[test]
#[cfg(target_os = "linux")]
fn a_golock_that_stands_still_before_the_start_gives_the_lock_back() {
    let (server, job) = (Server::start(&[]), Job::exits(7));
    // Its second signalfd4 comes after the confirmation. A tenth of RELEASE may pass.
    let inject = "-e trace=signalfd4 -e inject=signalfd4:delay_enter=4000000:when=2";
    let golock = graceless(server.port()).set("KEY", "late").set("RELEASE", "30");
    let golock = golock.prelude(&format!(r#"exec strace -qq -o /dev/null {inject} "$0" "$@""#));
    golock.args(job.command()).run().assert_one_line(201, &["did not run", "stood still for too long"]);
    assert_eq!((job.runs(), server.get(NAME)), (0, None));
}

#[test]
fn a_lock_counts_from_its_confirmation() {
    let server = Server::start(&[]);
    let (line, job) = (Withheld::start(server.port(), ACQUIRE), Job::gated(7));
    let running = patient(line.port(), "1000").set("GRACE", "500").args(job.command()).spawn();
    line.wait_answered();
    // As if the answer had been under way for long.
    server.query::<()>(&["PEXPIRE", NAME, "400000"]);
    line.release();
    job.wait_running();
    assert!(server.pttl(NAME) > 900_000, "{} ms", server.pttl(NAME));
    job.open_gate();
    running.wait().assert_silent(7);
    assert!((400_001..=500_000).contains(&server.pttl(NAME)), "{} ms", server.pttl(NAME));
}

/// Two hosts of one tick, of which one reaches Redis when the other's run and its grace are over. A record says so; where
/// there is none, whoever comes later than its own grace does not ask any more, or does not use what it got.
#[test]
fn a_host_that_is_late_does_not_run_the_tick_again() {
    // What the user may do; nothing is recorded without EVAL, nor without TIME.
    let cases = [("+@all", "35d", 200), ("+@all", "0", 201), ("-eval", "35d", 201), ("-time", "35d", 201)];
    each(&cases, |&(rule, record, code)| {
        let server = Server::start(&["--user", "plain", "on", ">secret", "~*", "+@all", rule]);
        let (gate, port) = (Arc::new(Gate::default()), server.port());
        let line = Scripted::start({
            let gate = Arc::clone(&gate);
            move |index, client| {
                // The second reconnect comes after a pause that is longer than the grace.
                if index > 1 {
                    gate.wait();
                    forward(client, port);
                }
            }
        });
        let golock = |port: u16| {
            let golock = patient(port, "86400").set("GRACE", "1").set("RECONNECT_BACKOFF", "3");
            golock.set("USER", "plain").set("AUTH", "secret").set("RECORD", record)
        };
        let (first, second) = (Job::exits(0), Job::exits(0));
        let late = golock(line.port()).args(second.command()).spawn();
        until("the other host has been started", || line.connections() > 0);
        golock(port).args(first.command()).run().assert_silent(0);
        until("its grace is over", || server.get(NAME).is_none());
        gate.open();
        let done = late.wait();
        assert_eq!((done.code, first.runs(), second.runs()), (code, 1, 0), "{done:?}");
        // What could only be refused is not even asked for.
        assert!(record != "0" || server.command_count("set") == 1, "{done:?}");
    });
}

#[test]
fn a_proxy_between_two_answers_changes_nothing() {
    // The line as such, with nothing withheld for long.
    let server = Server::start(&[]);
    let proxy = Proxy::start(server.port());
    let (line, job) = (Withheld::start(proxy.port(), CONFIRM), Job::exits(7));
    line.release();
    patient(line.port(), "1000").args(job.command()).run().assert_silent(7);
    assert_eq!((job.runs(), server.get(NAME), proxy.connections()), (1, None, 2));
}

/// Passes the first exchange of a client on to the server on `port`, and returns what the client sends then.
fn keep_second(mut client: &TcpStream, port: u16) -> Vec<u8> {
    let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    let (mut request, mut reply) = (vec![0; 1 << 16], Vec::new());
    let length = client.read(&mut request).unwrap();
    server.write_all(&request[..length]).unwrap();
    while count_replies(&reply) < 2 {
        let mut chunk = [0; 256];
        let length = server.read(&mut chunk).unwrap();
        reply.extend_from_slice(&chunk[..length]);
    }
    send(client, reply);
    let length = client.read(&mut request).unwrap();
    request.truncate(length);
    request
}

#[test]
fn a_confirmation_that_comes_after_the_end_of_its_run_begins_nothing() {
    let server = Server::start(&[]);
    // Whoever waits for the lock takes no other run for its own.
    each(&[("0", "0"), ("0", "5"), ("1000", "5")], |&(grace, wait)| {
        let (kept, job) = (Arc::new(Mutex::new(Vec::new())), Job::exits(7));
        let line = Scripted::start({
            let (kept, port) = (Arc::clone(&kept), server.port());
            move |index, client| {
                if index == 0 {
                    *kept.lock().unwrap() = keep_second(client, port);
                } else {
                    forward(client, port);
                }
            }
        });
        let key = format!("late-{grace}-{wait}");
        let golock = graceless(line.port()).set("KEY", &key).set("GRACE", grace).set("WAIT", wait);
        golock.args(job.command()).run().assert_silent(7);
        let (lock, record) = (format!("cronlock.{key}"), format!("cronlock.run.{{cronlock.{key}}}"));
        let seen = || (server.get(&lock), server.get(&record), server.pttl(&lock) > 1_000_000);
        let before = seen();
        let mut late = TcpStream::connect((Ipv4Addr::LOCALHOST, server.port())).unwrap();
        late.write_all(&kept.lock().unwrap()).unwrap();
        assert!(late.read(&mut [0; 64]).unwrap() > 0);
        assert_eq!((seen(), job.runs()), (before, 1));
    });
}

#[test]
fn a_renewal_that_comes_after_the_release_changes_nothing() {
    let server = Server::start(&[]);
    each(&["0", "1000"], |grace| {
        let (kept, job) = (Arc::new(Mutex::new(Vec::new())), Job::gated(7));
        let line = Scripted::start({
            let (kept, port) = (Arc::clone(&kept), server.port());
            move |index, mut client| {
                if index == 1 {
                    let mut request = vec![0; 1 << 16];
                    let length = client.read(&mut request).unwrap();
                    *kept.lock().unwrap() = request[..length].to_vec();
                } else {
                    forward(client, port);
                }
            }
        });
        let key = format!("renewed-{grace}");
        let golock = graceless(line.port()).set("KEY", &key).set("GRACE", grace).set("LEASE", "3");
        let running = golock.args(job.command()).spawn();
        until("it has renewed after all", || line.connections() > 2);
        job.open_gate();
        running.wait().assert_silent(7);
        let lock = format!("cronlock.{key}");
        let seen = || (server.get(&lock), server.pttl(&lock) / 500_000);
        let before = seen();
        let mut late = TcpStream::connect((Ipv4Addr::LOCALHOST, server.port())).unwrap();
        late.write_all(&kept.lock().unwrap()).unwrap();
        assert!(late.read(&mut [0; 64]).unwrap() > 0);
        assert_eq!(seen(), before);
    });
}
