//! The way that worked is the way back: a name is looked up again only when its address has failed, or refuses; of several addresses, one that swallows packets costs little.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use rustix::process::geteuid;
use socket2::{Domain, Socket, Type};

use crate::support::forward::forward;
use crate::support::job_tools::{Notes, graceless, quoted};
use crate::support::redis::free_port;
use crate::support::scripted::{read_commands, send};
use crate::support::{Golock, Job, Scripted, Server, each, until};

/// The name of Redis in these tests.
const HOST: &str = "redis.test";

const NAME: &str = "cronlock.route";

const FIRST: Ipv4Addr = Ipv4Addr::LOCALHOST;
const SECOND: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// A file in the place of /etc/hosts, as the golocks of a test see it.
struct Hosts(Notes);

impl Hosts {
    fn new(addresses: &[Ipv4Addr]) -> Self {
        let hosts = Self(Notes::new());
        hosts.change(addresses);
        hosts
    }

    /// From now on the name has these addresses.
    fn change(&self, addresses: &[Ipv4Addr]) {
        let lines = addresses.iter().map(|address| format!("{address} {HOST}\n"));
        self.0.write("hosts", lines.collect::<String>());
    }

    /// The words of shell that run a command which sees this file; `tool` stands before the command.
    fn prelude(&self, tool: &str) -> String {
        let user = if geteuid().is_root() { "" } else { "--map-root-user" };
        let mount = r#"mount --bind "$1" /etc/hosts && shift && exec "$@""#;
        let file = quoted(&self.0.path("hosts"));
        format!(r#"exec unshare --mount {user} sh -c '{mount}' sh {file} {tool} "$0" "$@""#)
    }

    /// golock for the Redis that has this name, on this port, which comes back after a second if it must.
    fn golock(&self, port: u16) -> Golock {
        let golock = graceless(port).set("HOST", HOST).set("KEY", "route").set("RECONNECT_BACKOFF", "1");
        golock.prelude(&self.prelude(""))
    }
}

/// A way to the server on `port`, at this address and the port `at`.
fn way(address: Ipv4Addr, at: u16, port: u16) -> Scripted {
    Scripted::start_at((address, at).into(), move |_, client| forward(client, port))
}

#[test]
fn the_address_that_answered_is_the_way_back_whatever_its_name_means_by_then() {
    let server = Server::start(&[]);
    let (hosts, job) = (Hosts::new(&[FIRST]), Job::gated(7));
    let first = way(FIRST, free_port(), server.port());
    let second = way(SECOND, first.port(), server.port());
    let running = hosts.golock(first.port()).args(job.command()).spawn();
    job.wait_running();
    hosts.change(&[SECOND]);
    job.open_gate();
    running.wait().assert_silent(7);
    assert_eq!((first.connections(), second.connections(), server.get(NAME)), (2, 0, None));
}

#[test]
fn a_name_is_looked_up_again_when_its_address_has_failed() {
    let server = Server::start(&[]);
    let (hosts, job) = (Hosts::new(&[FIRST]), Job::gated(7));
    let first = way(FIRST, free_port(), server.port());
    let second = way(SECOND, first.port(), server.port());
    let running = hosts.golock(first.port()).args(job.command()).spawn();
    job.wait_running();
    hosts.change(&[SECOND]);
    drop(first);
    job.open_gate();
    running.wait().assert_silent(7);
    assert_eq!((second.connections(), server.get(NAME)), (1, None));
}

#[test]
fn a_name_is_looked_up_again_when_its_address_may_not_write_any_more() {
    let (primary, successor) = (Server::start(&[]), Server::start(&[]));
    let (hosts, job) = (Hosts::new(&[FIRST]), Job::gated(7));
    let first = way(FIRST, free_port(), primary.port());
    let second = way(SECOND, first.port(), successor.port());
    let running = hosts.golock(first.port()).args(job.command()).spawn();
    job.wait_running();
    successor.set(NAME, &primary.get(NAME).unwrap());
    primary.query::<()>(&["REPLICAOF", "127.0.0.1", "1"]);
    hosts.change(&[SECOND]);
    job.open_gate();
    running.wait().assert_silent(7);
    assert_eq!((second.connections(), successor.get(NAME)), (1, None));
}

/// A server that nobody should ask any more still answers: it has another password, as after a move.
#[test]
fn a_name_is_looked_up_again_when_its_address_refuses() {
    each(&["0", "6"], |lease| {
        let (before, after) = (Server::start(&[]), Server::start(&[]));
        let (hosts, job) = (Hosts::new(&[FIRST]), Job::gated(7));
        let first = way(FIRST, free_port(), before.port());
        let second = way(SECOND, first.port(), after.port());
        let running = hosts.golock(first.port()).set("LEASE", lease).args(job.command()).spawn();
        job.wait_running();
        let ttl = if *lease == "0" { "60" } else { "3" };
        after.query::<()>(&["SET", NAME, &before.get(NAME).unwrap(), "EX", ttl]);
        before.query::<()>(&["CONFIG", "SET", "requirepass", "another"]);
        hosts.change(&[SECOND]);
        if *lease != "0" {
            until("the lease is renewed there", || after.pttl(NAME) > 3000);
        }
        job.open_gate();
        running.wait().assert_silent(7);
        assert_eq!((second.connections() > 0, after.get(NAME)), (true, None));
    });
}

/// The first one is loading, for longer than golock tries.
#[test]
fn of_several_addresses_one_that_refuses_is_not_the_only_one() {
    let (server, job) = (Server::start(&[]), Job::exits(7));
    let hosts = Hosts::new(&[FIRST, SECOND]);
    let port = free_port();
    let loads = |client: &TcpStream| {
        while !read_commands(client, 2).is_empty() && send(client, "-LOADING x\r\n-LOADING x\r\n") {}
    };
    let loading = [FIRST, SECOND].map(|address| {
        let ready = server.port();
        Scripted::start_at((address, port).into(), move |_, client| {
            if address == FIRST { loads(client) } else { forward(client, ready) }
        })
    });
    hosts.golock(port).args(job.command()).run().assert_silent(7);
    assert_eq!((job.runs(), server.get(NAME)), (1, None));
    assert!(loading[1].connections() > 1);
}

/// How often golock starts itself to look a name up, in a run that takes its lock, renews it, and releases it, of which none
/// fails. What has failed is looked up again; on a busy machine that can be a connection that only came too late.
fn look_ups(host: &str, command: impl Fn(&Notes) -> Vec<std::ffi::OsString>, code: i32) -> usize {
    let (server, notes, hosts) = (Server::start(&[]), Notes::new(), Hosts::new(&[FIRST]));
    let trace = format!("strace -f -qq -s 999 -e trace=execve,connect,writev -o {}", quoted(&notes.path("trace")));
    let golock = hosts.golock(server.port()).set("HOST", host).set("LEASE", "9").set("VERBOSE", "yes");
    let running = golock.prelude(&hosts.prelude(&trace)).args(command(&notes)).spawn();
    until("the lease is renewed, or golock has given it back", || server.connections_received() > 1);
    notes.write("open", "");
    let done = running.wait();
    assert_eq!((done.code, server.get(NAME)), (code, None), "{done:?}");
    if ["trying again", "was not renewed"].iter().any(|trouble| done.stderr.contains(trouble)) {
        // The machine is busy.
        return look_ups(host, command, code);
    }
    let (mut count, mut connects) = (0, false);
    for line in notes.read("trace").lines() {
        match line {
            _ if line.contains("writev(") => connects = false,
            _ if line.contains("connect(") => connects |= line.contains(&format!("htons({})", server.port())),
            _ if line.contains("execve(") && line.contains("\"--look-up\"") && !connects => count += 1,
            _ => {}
        }
    }
    count
}

#[test]
fn no_renewal_and_no_release_starts_a_process() {
    let job = |notes: &Notes| notes.job(r#"while [ ! -e "$0/open" ]; do sleep 0.02; done; exit 7"#);
    assert_eq!(look_ups(HOST, job, 7), 1);
    assert_eq!(look_ups("localhost", job, 7), 0);
    assert_eq!(look_ups("127.0.0.1", job, 7), 0);
    // Nor does giving the lock back for a command that cannot be started.
    let broken = |notes: &Notes| vec![notes.executable("broken", "#!/no/such/interpreter\n").into()];
    assert_eq!(look_ups(HOST, broken, 127), 1);
}

/// An address on which nobody ever accepts: what waits there keeps the kernel from answering anybody else.
pub(crate) struct Deaf {
    _listener: Socket,
    _waiting: Vec<TcpStream>,
}

impl Deaf {
    pub(crate) fn at(address: SocketAddr) -> Self {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener.set_reuse_address(true).unwrap();
        // A process that another test starts has a copy of the listener before it, until it runs its program.
        until("nobody else listens there", || listener.bind(&address.into()).is_ok());
        listener.listen(0).unwrap();
        let mut waiting = Vec::new();
        // The kernel takes one more than it was told to keep, and drops what comes then.
        while let Ok(stream) = TcpStream::connect_timeout(&address, std::time::Duration::from_millis(300)) {
            waiting.push(stream);
        }
        Self { _listener: listener, _waiting: waiting }
    }
}

#[test]
fn of_several_addresses_one_that_swallows_packets_costs_little() {
    // With an equal share of the time it would cost half an hour.
    let server = Server::start(&[]);
    let hosts = Hosts::new(&[FIRST, SECOND]);
    let second = way(SECOND, free_port(), server.port());
    let _deaf = Deaf::at((FIRST, second.port()).into());
    let golock = hosts.golock(second.port()).set("REDIS_TIMEOUT", "1h");
    golock.args(["sh", "-c", "exit 7"]).run().assert_silent(7);
    assert_eq!((second.connections(), server.get(NAME)), (2, None));
}

#[test]
fn an_address_that_answers_nothing_of_use_comes_after_the_others() {
    // It hangs up, or may not write; one further try is to go elsewhere.
    each(&[false, true], |&may_not_write| {
        let (server, replica) = (Server::start(&[]), Server::start(&["--replicaof", "127.0.0.1", "1"]));
        let (hosts, port) = (Hosts::new(&[FIRST, SECOND]), replica.port());
        let second = way(SECOND, free_port(), server.port());
        let first = Scripted::start_at((FIRST, second.port()).into(), move |_, client| {
            if may_not_write {
                forward(client, port);
            }
        });
        let golock = hosts.golock(second.port()).set("RECONNECT_ATTEMPTS", "1");
        golock.args(["sh", "-c", "exit 7"]).run().assert_silent(7);
        assert_eq!((first.connections(), second.connections(), server.get(NAME)), (1, 2, None));
    });
}

#[test]
fn an_address_that_swallows_packets_by_now_leaves_time_for_another() {
    let server = Server::start(&[]);
    let (hosts, job) = (Hosts::new(&[FIRST]), Job::gated(7));
    let first = way(FIRST, free_port(), server.port());
    let port = first.port();
    let second = way(SECOND, port, server.port());
    let golock = hosts.golock(port).set("REDIS_TIMEOUT", "6").set("RECONNECT_ATTEMPTS", "0");
    let running = golock.args(job.command()).spawn();
    job.wait_running();
    drop(first);
    let _deaf = Deaf::at((FIRST, port).into());
    hosts.change(&[SECOND]);
    job.open_gate();
    running.wait().assert_silent(7);
    assert_eq!((second.connections(), server.get(NAME)), (1, None));
}
