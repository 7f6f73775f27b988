//! A private redis-server per test.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};

use redis::{Connection, FromRedisValue};
use rustix::process::{Pid, Signal, kill_process};
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

use super::wait::{WATCHDOG, until};

/// The tests' own way in, which stays open whatever password or access rules a test sets for golock.
const ADMIN: [&str; 6] = ["--user", "admin", "on", "nopass", "~*", "+@all"];

/// What a restarted server remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Data {
    /// What it held at the restart, or at the last `save` before it was killed.
    Kept,
    /// Nothing.
    Lost,
}

/// A redis-server on a port of its own, with a Unix socket and its files in a temporary folder.
pub(crate) struct Server {
    child: Mutex<Option<Child>>,
    port: u16,
    dir: TempDir,
    args: Vec<String>,
    tls: bool,
    // Connections of the tests themselves, which `connections_received` leaves out.
    own: AtomicU64,
}

impl Server {
    /// Starts a server that saves nothing by itself; `extra_args` follow on its command line.
    #[track_caller]
    pub(crate) fn start(extra_args: &[&str]) -> Self {
        Self::start_on(false, extra_args)
    }

    /// Starts one that speaks only TLS on its port. It is always the system's own redis-server, because the binaries
    /// that `GOLOCK_REDIS_SERVER` names are often built without TLS.
    #[cfg(feature = "tls")]
    #[track_caller]
    pub(crate) fn start_tls(extra_args: &[&str]) -> Self {
        Self::start_on(true, extra_args)
    }

    #[track_caller]
    fn start_on(tls: bool, extra_args: &[&str]) -> Self {
        let mut server = Self {
            child: Mutex::default(),
            port: 0,
            dir: TempDir::new().unwrap(),
            args: extra_args.iter().copied().map(String::from).collect(),
            tls,
            own: AtomicU64::new(0),
        };
        // Between the look for a free port and the server's bind, the port can be taken.
        for _ in 0..20 {
            server.port = free_port();
            if server.launch() {
                return server;
            }
        }
        panic!("redis-server did not start; its log:\n{}", server.log());
    }

    /// Freezes it (SIGSTOP): connections open, but nothing answers.
    pub(crate) fn stop(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it continue.
    pub(crate) fn cont(&self) {
        self.signal(Signal::CONT);
    }

    /// Ends it at once (SIGKILL): connections are refused from now on.
    pub(crate) fn kill(&self) {
        if let Some(mut child) = self.child.lock().unwrap().take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Starts it again on the same port.
    #[track_caller]
    pub(crate) fn restart(&self, data: Data) {
        if self.is_running() && data == Data::Kept {
            self.save();
        }
        self.kill();
        if data == Data::Lost {
            let _ = fs::remove_file(self.dir.path().join("dump.rdb"));
        }
        until("redis-server starts again", || self.launch());
    }

    /// Writes its data to disk.
    pub(crate) fn save(&self) {
        self.query::<()>(&["SAVE"]);
    }

    /// Where it listens on 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Where its files are.
    pub(crate) fn folder(&self) -> &Path {
        self.dir.path()
    }

    /// Its Unix socket.
    pub(crate) fn socket_path(&self) -> PathBuf {
        self.dir.path().join("redis.sock")
    }

    /// A client that is independent of golock and allowed everything. On a frozen server it waits for ever.
    #[track_caller]
    pub(crate) fn connection(&self) -> Connection {
        let url = format!("unix://{}?user=admin&pass=any", self.socket_path().display());
        // No timeouts: with one, the end of any child of this process breaks off a read (EINTR).
        let connection = redis::Client::open(url).unwrap().get_connection().unwrap();
        self.own.fetch_add(1, Ordering::SeqCst);
        connection
    }

    /// Sends one command and returns its reply.
    #[track_caller]
    pub(crate) fn query<T: FromRedisValue>(&self, words: &[&str]) -> T {
        let mut command = redis::Cmd::new();
        for word in words {
            command.arg(word);
        }
        command.query(&mut self.connection()).unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    /// The value of a key in database 0.
    #[track_caller]
    pub(crate) fn get(&self, key: &str) -> Option<String> {
        self.query(&["GET", key])
    }

    /// The milliseconds that a key in database 0 has left: -1 without a TTL, -2 without a key.
    #[track_caller]
    pub(crate) fn pttl(&self, key: &str) -> i64 {
        self.query(&["PTTL", key])
    }

    /// Sets a key in database 0, without a TTL.
    #[track_caller]
    pub(crate) fn set(&self, key: &str, value: &str) {
        self.query::<()>(&["SET", key, value]);
    }

    /// All keys in all databases, each after its database: `0:name`.
    #[track_caller]
    pub(crate) fn keys(&self) -> Vec<String> {
        let mut connection = self.connection();
        let mut all = Vec::new();
        for database in 0..16 {
            redis::cmd("SELECT").arg(database).query::<()>(&mut connection).unwrap();
            let keys: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut connection).unwrap();
            all.extend(keys.iter().map(|key| format!("{database}:{key}")));
        }
        all
    }

    /// The same without the records of runs, which stay beside the locks.
    #[track_caller]
    pub(crate) fn locks(&self) -> Vec<String> {
        let is_record = |key: &String| key.contains("run.{");
        self.keys().into_iter().filter(|key| !is_record(key)).collect()
    }

    /// How often a command (in lower case) was called since the server started.
    #[track_caller]
    pub(crate) fn command_count(&self, command: &str) -> u64 {
        self.info("commandstats", &format!("cmdstat_{command}:calls="))
    }

    /// How many connections it has accepted, apart from the tests' own. Not for use by several threads at once.
    #[track_caller]
    pub(crate) fn connections_received(&self) -> u64 {
        let received = self.info("stats", "total_connections_received:");
        received - self.own.load(Ordering::SeqCst)
    }

    fn info(&self, section: &str, name: &str) -> u64 {
        let info: String = self.query(&["INFO", section]);
        let Some(value) = info.lines().find_map(|line| line.strip_prefix(name)) else { return 0 };
        value.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()
    }

    fn is_running(&self) -> bool {
        self.child.lock().unwrap().is_some()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(self.child.lock().unwrap().as_ref().unwrap()), signal).unwrap();
    }

    /// Starts the process and waits until it answers; false when it ended instead.
    fn launch(&self) -> bool {
        let mut child = self.spawn();
        let mut ended = false;
        until("redis-server answers", || {
            ended = child.try_wait().unwrap().is_some();
            ended || self.answers()
        });
        if !ended {
            *self.child.lock().unwrap() = Some(child);
            // Its count starts anew, and holds the connections that found it starting.
            self.own.store(0, Ordering::SeqCst);
            let before = self.connections_received();
            self.own.fetch_add(before, Ordering::SeqCst);
        }
        !ended
    }

    fn spawn(&self) -> Child {
        let named = env::var_os("GOLOCK_REDIS_SERVER").filter(|_| !self.tls);
        let program = named.unwrap_or_else(|| OsString::from("redis-server"));
        let port = self.port.to_string();
        let listen: &[&str] = if self.tls { &["--port", "0", "--tls-port", &port] } else { &["--port", &port] };
        let spawned = Command::new(&program)
            .args(listen)
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .args(ADMIN)
            .arg("--dir")
            .arg(self.dir.path())
            .arg("--unixsocket")
            .arg(self.socket_path())
            .args(&self.args)
            .stdin(Stdio::null())
            .stdout(fs::File::create(self.log_path()).unwrap())
            .stderr(Stdio::null())
            .spawn();
        match spawned {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                panic!("{} is not installed, and the tests need it", Path::new(&program).display())
            }
            spawned => spawned.unwrap(),
        }
    }

    /// Asked on the Unix socket: on the port, a stranger could answer in its place.
    fn answers(&self) -> bool {
        let Ok(mut stream) = UnixStream::connect(self.socket_path()) else { return false };
        stream.set_read_timeout(Some(WATCHDOG)).unwrap();
        let mut reply = [0; 64];
        let asked = stream.write_all(b"PING\r\n").and_then(|()| stream.read(&mut reply));
        asked.is_ok_and(|count| count > 0) && !reply.starts_with(b"-LOADING")
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port of 127.0.0.1 on which nothing listens. It is below the ports that the system gives to clients and to
/// listeners without a wish, so that it stays free until it is used, and no connection to it meets itself.
pub(crate) fn free_port() -> u16 {
    const FIRST: u16 = 10_000;
    const COUNT: u32 = 20_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        // Test processes that run at the same time start at different places.
        let place = process::id().wrapping_mul(97).wrapping_add(NEXT.fetch_add(1, Ordering::SeqCst).into()) % COUNT;
        let port = FIRST + u16::try_from(place).unwrap();
        // Not a listener: a process that another test starts has a copy of it until it runs its program.
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        if socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into()).is_ok() {
            return port;
        }
    }
}
