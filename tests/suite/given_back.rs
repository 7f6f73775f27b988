//! A lock that was taken and is given back before the job starts, to a Redis that does not answer any more: golock still
//! says no more than one line, and nothing where it is to be silent.

use crate::support::scripted::{read_commands, send};
use crate::support::{Action, Direction, Fault, Golock, Job, Scene, Scripted, Server, each};

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
