//! Real proxies in front of Redis, whose server goes away and comes back: twemproxy answers in its place, haproxy hangs up.

use std::env;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpStream};
use std::process::{Child, Command, Stdio};

use crate::support::job_tools::{Notes, graceless};
use crate::support::redis::free_port;
use crate::support::{Data, Golock, Job, Server, each, until};

const NAME: &str = "cronlock.behind";

/// A proxy, how it is called, and its configuration: PORT is its own, SERVER that of Redis.
#[derive(Debug)]
struct Kind {
    program: &'static str,
    options: &'static [&'static str],
    configuration: &'static str,
    /// What golock is told while the server is away.
    says: &'static str,
}

const KINDS: [Kind; 2] = [
    Kind {
        program: "nutcracker",
        options: &["-v", "0", "-s", "STATS", "-c"],
        configuration: "pool:\n  listen: 127.0.0.1:PORT\n  hash: fnv1a_64\n  distribution: ketama\n  redis: true\n  \
                        auto_eject_hosts: false\n  timeout: 5000\n  servers:\n   - 127.0.0.1:SERVER:1\n",
        says: "ERR Connection refused",
    },
    Kind {
        program: "haproxy",
        options: &["-q", "-db", "-f"],
        configuration: "defaults\n  mode tcp\n  retries 0\n  timeout connect 5s\n  timeout client 10m\n  timeout server 10m\n\
                        frontend front\n  bind 127.0.0.1:PORT\n  default_backend back\n\
                        backend back\n  server redis 127.0.0.1:SERVER\n",
        says: "connection closed without an answer",
    },
];

/// A proxy that runs.
struct Proxy {
    child: Child,
    port: u16,
    _notes: Notes,
}

impl Proxy {
    /// In front of the server on this port; nothing, where there is no such program.
    #[allow(clippy::print_stderr, reason = "what was not tested is told")]
    fn start(kind: &Kind, server: u16) -> Option<Self> {
        let (notes, port, stats) = (Notes::new(), free_port(), free_port().to_string());
        let configuration = kind.configuration.replace("PORT", &port.to_string());
        notes.write("configuration", configuration.replace("SERVER", &server.to_string()));
        // Where Debian has them, which is not on every PATH.
        let path = format!("{}:/usr/sbin", env::var("PATH").unwrap());
        let options = kind.options.iter().map(|option| if *option == "STATS" { &stats } else { *option });
        let mut command = Command::new("env");
        command.arg(format!("PATH={path}")).arg(kind.program).args(options).arg(notes.path("configuration"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut ended = None;
        until("the proxy listens", || {
            ended = child.try_wait().unwrap();
            ended.is_some() || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
        });
        match ended.and_then(|status| status.code()) {
            None => Some(Self { child, port, _notes: notes }),
            Some(127) => {
                eprintln!("not tested: {}: {}", kind.program, ErrorKind::NotFound);
                None
            }
            Some(code) => panic!("{} ended with {code}", kind.program),
        }
    }

    /// golock by way of this proxy, which tells its story into a note.
    fn golock(&self, story: &Notes, job: &Job) -> Golock {
        let golock = graceless(self.port).set("KEY", "behind").set("VERBOSE", "yes").set("REDIS_TIMEOUT", "1h");
        let golock = golock.set("RECONNECT_ATTEMPTS", "50").set("RECONNECT_BACKOFF", "1");
        golock.prelude(&story.stderr_into("story")).args(job.command())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until golock has been told twice that there is no server.
fn wait_told(story: &Notes, kind: &Kind) {
    story.wait_for("story", |text| text.lines().filter(|line| line.contains(kind.says)).count() > 1);
}

#[test]
fn a_server_that_is_away_at_the_start_is_waited_for() {
    each(&KINDS, |kind| {
        let server = Server::start(&[]);
        let Some(proxy) = Proxy::start(kind, server.port()) else { return };
        server.kill();
        let (story, job) = (Notes::new(), Job::exits(7));
        let running = proxy.golock(&story, &job).spawn();
        wait_told(&story, kind);
        assert_eq!(job.runs(), 0);
        server.restart(Data::Lost);
        assert_eq!(running.wait().code, 7);
        assert_eq!((job.runs(), server.get(NAME)), (1, None), "{}", story.read("story"));
    });
}

#[test]
fn a_server_that_is_away_when_the_job_ends_is_waited_for() {
    each(&KINDS, |kind| {
        let server = Server::start(&[]);
        let Some(proxy) = Proxy::start(kind, server.port()) else { return };
        let (story, job) = (Notes::new(), Job::gated(7));
        let running = proxy.golock(&story, &job).spawn();
        job.wait_running();
        server.save();
        server.kill();
        job.open_gate();
        wait_told(&story, kind);
        server.restart(Data::Kept);
        assert_eq!(running.wait().code, 7);
        let told = story.read("story");
        assert_eq!((job.runs(), server.get(NAME)), (1, None), "{told}");
        assert!(told.lines().last().unwrap().ends_with("released the lock"), "{told}");
    });
}

#[test]
fn a_lock_behind_a_proxy_is_a_lock() {
    each(&KINDS, |kind| {
        let server = Server::start(&[]);
        let Some(proxy) = Proxy::start(kind, server.port()) else { return };
        let (story, job, other) = (Notes::new(), Job::gated(7), Job::exits(7));
        let running = proxy.golock(&story, &job).spawn();
        job.wait_running();
        graceless(server.port()).set("KEY", "behind").args(other.command()).run().assert_silent(200);
        graceless(proxy.port).set("KEY", "behind").args(other.command()).run().assert_silent(200);
        job.open_gate();
        assert_eq!((running.wait().code, other.runs(), server.get(NAME)), (7, 0, None));
    });
}
