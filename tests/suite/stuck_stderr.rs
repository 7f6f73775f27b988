//! First the lock, then the words: a reader of stderr that does not read keeps golock neither from releasing nor from
//! ending.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use rustix::fs::OFlags;
use rustix::process::Signal;

use crate::support::job_tools::{Notes, graceless, quoted};
use crate::support::redis::free_port;
use crate::support::{Golock, Job, Server, each};

const NAME: &str = "cronlock.stuck";

/// A pipe that is full, and that nobody reads.
struct Stuck {
    notes: Notes,
    _end: File,
}

impl Stuck {
    fn new() -> Self {
        let notes = Notes::new();
        let path = notes.path("pipe");
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap();
        let mut end = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path).unwrap();
        // To the last byte, because less than a page of a line would still fit in.
        for size in [4096, 1] {
            while let Ok(length) = end.write(&vec![b'x'; size]) {
                assert!(length > 0);
            }
        }
        assert_eq!(end.write(b"x").map_err(|error| error.kind()), Err(ErrorKind::WouldBlock));
        Self { notes, _end: end }
    }

    /// golock for this server, whose stderr is the pipe.
    fn golock(&self, port: u16) -> Golock {
        let prelude = format!("exec 2>{}", quoted(&self.notes.path("pipe")));
        graceless(port).set("KEY", "stuck").prelude(&prelude)
    }
}

#[test]
fn a_command_that_is_killed_leaves_no_lock() {
    each(&["no", "yes"], |verbose| {
        let (server, stuck) = (Server::start(&[]), Stuck::new());
        let golock = stuck.golock(server.port()).set("VERBOSE", verbose).set("TIMEOUT", "1");
        assert_eq!(golock.args(["sleep", "1000000"]).run().code, 202);
        assert_eq!(server.get(NAME), None);
    });
}

#[test]
fn a_run_that_has_much_to_tell_leaves_no_lock() {
    let (server, stuck, notes) = (Server::start(&["--requirepass", "secret"]), Stuck::new(), Notes::new());
    notes.write("password", "secret\n");
    // Everybody can read it, which is told.
    std::fs::set_permissions(notes.path("password"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let golock = stuck.golock(server.port()).set("VERBOSE", "yes").set("SHOW_KEY", "yes");
    let golock = golock.set("AUTH_FILE", notes.path("password")).set("NTPDATE", "yes");
    assert_eq!(golock.args(["sh", "-c", "exit 7"]).run().code, 7);
    assert_eq!(server.get(NAME), None);
}

#[test]
fn whoever_fails_ends_all_the_same() {
    let (server, stuck) = (Server::start(&[]), Stuck::new());
    let notes = Notes::new();
    let broken = notes.executable("broken", "#!/no/such/interpreter\n");
    assert_eq!(stuck.golock(server.port()).args([broken]).run().code, 127);
    assert_eq!(stuck.golock(server.port()).args(["--no-such-option"]).run().code, 201);
    assert_eq!(stuck.golock(server.port()).args(["/nowhere"]).run().code, 127);
    let nobody = stuck.golock(free_port()).set("RECONNECT_ATTEMPTS", "0").set("VERBOSE", "yes");
    assert_eq!(nobody.args(["true"]).run().code, 201);
    assert_eq!(server.get(NAME), None);
}

#[test]
fn a_lock_that_is_lost_is_left_alone_and_its_job_ended() {
    let (server, stuck, job) = (Server::start(&[]), Stuck::new(), Job::gated(7));
    let golock = stuck.golock(server.port()).set("LEASE", "3").set("VERBOSE", "yes");
    let running = golock.args(job.command()).spawn();
    job.wait_running();
    server.set(NAME, "1999999999123456789");
    assert_eq!(running.wait().code, 201);
    assert_eq!(server.get(NAME).as_deref(), Some("1999999999123456789"));
}

#[test]
fn a_signal_reaches_the_job_and_golock_ends() {
    let (server, stuck, job) = (Server::start(&[]), Stuck::new(), Job::gated(7));
    let running = stuck.golock(server.port()).set("VERBOSE", "yes").args(job.command()).spawn();
    job.wait_running();
    running.signal(Signal::TERM);
    assert_eq!(running.wait().code, 143);
    assert_eq!(server.get(NAME), None);
}

#[test]
fn the_lock_is_free_before_anything_is_told() {
    let (server, notes) = (Server::start(&[]), Notes::new());
    let pipe = notes.path("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    // Open for both, so that opening it waits for nobody, and reading it does not end.
    let end = OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
    let golock = graceless(server.port()).set("KEY", "stuck").set("TIMEOUT", "1");
    let running = golock.prelude(&format!("exec 2>{}", quoted(&pipe))).args(["sleep", "1000000"]).spawn();
    let mut line = String::new();
    BufReader::new(end).read_line(&mut line).unwrap();
    assert_eq!((&*line, server.get(NAME)), ("golock: killed sleep after 1 s\n", None));
    assert_eq!(running.wait().code, 202);
}
