//! A lock that golock has taken, or may have taken, and under which no command runs: it is given back whenever one more
//! exchange gets through. Where none does, one line says so and how long the lock may stay.

use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;

use rustix::process::Signal;

use crate::support::forward::forward;
use crate::support::gate::{Gate, Withheld};
use crate::support::job_tools::{EVER, Notes, graceless, pristine};
use crate::support::resp::count_replies;
use crate::support::scripted::{read_commands, send};
use crate::support::{Action, Direction, Fault, Golock, Job, Scene, Scripted, Server, each, until};

/// The replies to SET and GET.
const TAKEN: usize = "+OK\r\n$19\r\n1234567890123456789\r\n".len();

fn impatient(golock: &Golock) -> Golock {
    golock.clone().set("RECONNECT_ATTEMPTS", "0")
}

#[test]
fn a_lock_that_cannot_be_kept_nor_given_back_is_one_line() {
    each(
        &[("0", Action::Close), ("60", Action::Close), ("0", Action::Reset), ("60", Action::Reset)],
        |&(lease, action)| {
            let server = Server::start(&[]);
            let lost = |at| Fault { direction: Direction::Reply, at, action };
            let scene = Scene::new(&server, Job::exits(7)).fault(0, lost(TAKEN)).fault(1, lost(0));
            let stays = format!("; it may stay locked for up to {} s", if lease == "0" { "86400" } else { lease });
            let done = impatient(&scene.golock()).set("LEASE", lease).run();
            done.assert_one_line(201, &["cannot keep", &scene.name(), &stays]);
            assert_eq!(scene.proxy.connections(), 2);
            scene.assert_not_run();
        },
    );
}

#[test]
fn a_lock_that_another_got_in_between_is_skipped_silently() {
    let server = Scripted::start(|_, stream| {
        let commands = read_commands(stream, 2);
        let Some([_, _, token, ..]) = commands.first().map(Vec::as_slice) else { return };
        send(stream, format!("+OK\r\n${}\r\n{token}\r\n", token.len()));
        read_commands(stream, 1);
        send(stream, "$7\r\nanother\r\n");
    });
    let job = Job::exits(7);
    let golock = Golock::new(server.port()).set("KEY", "given").args(job.command());
    each(&["0", "60"], |lease| impatient(&golock).set("LEASE", lease).run().assert_silent(200));
    assert_eq!(job.runs(), 0);
}

#[test]
fn a_run_that_a_signal_keeps_from_beginning_is_recorded_with_its_code() {
    let server = Server::start(&[]);
    each(&[Signal::TERM, Signal::HUP], |&signal| {
        let stalled = Fault { direction: Direction::Reply, at: TAKEN, action: Action::Stall };
        let scene = Scene::new(&server, Job::exits(7)).fault(0, stalled);
        let running = scene.golock().set("REDIS_TIMEOUT", EVER).prelude(&pristine()).spawn();
        until("the confirmation is held back", || scene.proxy.records().first().is_some_and(|record| record.broken));
        running.signal(signal);
        let code = 128 + signal.as_raw();
        running.wait().assert_silent(code);
        scene.assert_not_run();
        let (record, result) = (scene.record().unwrap(), format!(" result={code} "));
        assert!(server.get(&scene.name()).is_none() && record.contains(&result), "{record}");
    });
}

/// Lets the first exchange of a client, of so many commands, reach the server on `port`, whose answer it never gets.
fn swallow(client: &TcpStream, port: u16, commands: usize) {
    use std::io::{Read, Write};
    let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    let (mut client, mut request, mut reply) = (client, vec![0; 1 << 16], Vec::new());
    let length = client.read(&mut request).unwrap();
    server.write_all(&request[..length]).unwrap();
    while count_replies(&reply) < commands {
        let mut chunk = [0; 256];
        let length = server.read(&mut chunk).unwrap();
        assert!(length > 0, "the server hung up");
        reply.extend_from_slice(&chunk[..length]);
    }
}

#[test]
fn a_refusal_does_not_make_golock_forget_that_it_may_have_the_lock() {
    // A replica with other rules, and a proxy whose server is away.
    each(&["NOPERM this user has no permissions to run the 'set' command", "ERR Connection timed out"], |&refusal| {
        let server = Server::start(&[]);
        let port = server.port();
        let line = Scripted::start(move |index, client| match index {
            0 => swallow(client, port, 2),
            1 => drop((read_commands(client, 2), send(client, format!("-{refusal}\r\n").repeat(2)))),
            _ => forward(client, port),
        });
        let job = Job::exits(7);
        let golock = graceless(line.port()).set("KEY", "given").set("RECONNECT_ATTEMPTS", "1").args(job.command());
        golock.run().assert_one_line(201, &["cronlock.given", refusal]);
        assert_eq!((job.runs(), server.get("cronlock.given"), line.connections()), (0, None, 3));
    });
}

/// A proxy has passed the request on, and says that it got no answer.
#[test]
fn what_a_proxy_got_no_answer_to_is_given_back_and_released_in_silence() {
    let said = [
        "ERR Connection timed out",
        "ERR Connection reset by peer",
        "ERR unknown",
        "upstream failure",
        // Of proxies that nobody has met yet.
        "ERR handle response, backend conn reset",
        "IOERR x",
        "ERR",
    ];
    each(&said, |&words| {
        let server = Server::start(&[]);
        let port = server.port();
        let lossy = |lost: usize| {
            Scripted::start(move |index, client| {
                if index == lost {
                    // SET and GET, or EVAL.
                    let commands = 2 - lost;
                    swallow(client, port, commands);
                    send(client, format!("-{words}\r\n").repeat(commands));
                } else {
                    forward(client, port);
                }
            })
        };
        let (line, job) = (lossy(0), Job::exits(7));
        let golock = |line: &Scripted| graceless(line.port()).set("KEY", "given").args(job.command());
        golock(&line).set("RECONNECT_ATTEMPTS", "0").run().assert_one_line(201, &["cronlock.given", words]);
        assert_eq!((job.runs(), server.get("cronlock.given"), line.connections()), (0, None, 2));
        // At the release, which is then repeated, nobody has taken the lock.
        let line = lossy(1);
        golock(&line).run().assert_silent(7);
        assert_eq!((job.runs(), server.get("cronlock.given"), line.connections()), (1, None, 3));
    });
}

#[test]
fn a_second_signal_does_not_break_off_a_give_back() {
    each(&[Signal::TERM, Signal::INT, Signal::HUP], |&signal| {
        let server = Server::start(&[]);
        let (port, gate) = (server.port(), Arc::new(Gate::default()));
        let taken = Withheld::start(port, 0);
        let first = taken.port();
        let line = Scripted::start({
            let gate = Arc::clone(&gate);
            move |index, client| {
                if index == 0 {
                    return forward(client, first);
                }
                gate.wait();
                forward(client, port);
            }
        });
        let job = Job::exits(7);
        let golock = graceless(line.port()).set("KEY", "given").prelude(&pristine()).args(job.command());
        let running = golock.spawn();
        taken.wait_answered();
        running.signal(signal);
        until("golock gives the lock back", || line.connections() > 1);
        for again in [signal, Signal::TERM, Signal::HUP] {
            running.signal(again);
        }
        gate.open();
        running.wait().assert_silent(128 + signal.as_raw());
        taken.release();
        assert_eq!((job.runs(), server.get("cronlock.given")), (0, None));
    });
}

/// A command that the system refuses to start, although it is there and may be executed.
fn broken_command() -> Notes {
    let notes = Notes::new();
    notes.executable("backup.sh", "#!/no/such/interpreter\n");
    notes
}

#[test]
fn a_command_that_cannot_be_started_gives_the_lock_back_or_says_how_long_it_stays() {
    let notes = broken_command();
    // With LEASE it is golock at first what cannot become the command.
    let cases = [("0", true), ("0", false), ("60", true), ("60", false)];
    each(&cases, |&(lease, answers)| {
        let server = Server::start(&[]);
        let port = server.port();
        // The second connection is the one that gives back.
        let line = Scripted::start(move |index, client| {
            if index == 0 || answers {
                forward(client, port);
            }
        });
        let golock = Golock::new(line.port()).set("KEY", "given").set("LEASE", lease).set("RECONNECT_ATTEMPTS", "1");
        let done = golock.set("RECONNECT_BACKOFF", "0").args([notes.path("backup.sh")]).run();
        let said = ["golock: backup.sh did not run: cannot start ", "No such file or directory"];
        let cannot = "; cannot release cronlock.given: redis at 127.0.0.1:";
        if answers {
            done.assert_one_line(127, &said);
            assert!(!done.stderr.contains("stay"), "{done:?}");
            assert_eq!((server.get("cronlock.given"), line.connections()), (None, 2));
        } else {
            let seconds = if lease == "0" { "86400" } else { lease };
            let stays = format!("; it may stay locked for up to {seconds} s");
            done.assert_one_line(127, &[said[0], said[1], cannot, &stays]);
            assert_eq!(line.connections(), 3);
        }
    });
}

/// What golock has given back because it could not start its command has served for nobody: another host, which was started
/// at the same time but reaches Redis later, runs it.
#[test]
fn a_run_that_could_not_begin_has_not_served_for_another_host() {
    each(&["0", "60"], |lease| {
        let server = Server::start(&[]);
        let (notes, line, job) = (broken_command(), Withheld::start(server.port(), 0), Job::exits(7));
        let (port, gate) = (server.port(), Arc::new(Gate::default()));
        let slow = Scripted::start({
            let gate = Arc::clone(&gate);
            move |_, client| {
                gate.wait();
                forward(client, port);
            }
        });
        let golock = |port: u16| Golock::new(port).set("KEY", "given").set("REDIS_TIMEOUT", "1h");
        let other = golock(slow.port()).args(job.command()).spawn();
        until("the other host has been started", || slow.connections() > 0);
        line.release();
        let broken = golock(line.port()).set("LEASE", lease).args([notes.path("backup.sh")]);
        broken.run().assert_one_line(127, &["backup.sh did not run"]);
        gate.open();
        other.wait().assert_silent(7);
        assert_eq!(job.runs(), 1);
    });
}

/// By SIGURG a golock that cannot become the job says so; here none was to.
#[test]
fn a_job_that_sends_golock_a_signal_of_its_own_has_run_all_the_same() {
    let server = Server::start(&[]);
    graceless(server.port()).args(["sh", "-c", "kill -URG $PPID; exit 2"]).run().assert_silent(2);
    assert_eq!(server.locks(), [""; 0]);
}
