"""For the benchmarks in Python: a redis-server of their own that can be asked what it has seen, and golocks to meet it."""

import contextlib
import fcntl
import os
import platform
import random
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

PATIENCE = 120  # seconds after which a condition will not come to hold any more
PASSWORD = "0123456789abcdef"
DATABASE = "3"
LOCK_COMMANDS = {"auth", "select", "set", "get", "del", "eval", "scan"}


def in_own_network():
    """Runs the script again in a network of its own, so that the kernel's limits can be set and its counters are ours.
    The host is called web12 there."""
    if os.environ.get("BENCH_NETWORK") != "own":
        unshare = ["unshare", "-nu"] if os.geteuid() == 0 else ["unshare", "-rnu"]
        if subprocess.run([*unshare, "true"], stderr=subprocess.DEVNULL, check=False).returncode != 0:
            sys.exit(f"{sys.argv[0]}: {' '.join(unshare)} is refused here")
        os.execvpe("unshare", [*unshare, sys.executable, *sys.argv], {**os.environ, "BENCH_NETWORK": "own"})
    siocsifflags, up, running, name = 0x8914, 0x1, 0x40, b"lo"
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, siocsifflags, struct.pack("16sh14x", name, up | running))
    socket.sethostname("web12")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def kernel_limit(name, value=None):
    """The limit net.NAME of this network; set first, if there is a value."""
    path = f"/proc/sys/net/{name.replace('.', '/')}"
    if value is not None:
        with open(path, "w", encoding="ascii") as file:
            file.write(str(value))
    with open(path, encoding="ascii") as file:
        return int(file.read())


def dropped():
    """How often a connection was turned away so far because the server's backlog was full."""
    with open("/proc/self/net/netstat", encoding="ascii") as file:
        names, values = (line.split() for line in file if line.startswith("TcpExt:"))
    return int(dict(zip(names, values))["ListenOverflows"])


def on_the_wire():
    """How many bytes, with all headers, have crossed the loopback device so far."""
    with open("/proc/self/net/dev", encoding="ascii") as file:
        return next(int(line.split(":")[1].split()[0]) for line in file if line.strip().startswith("lo:"))


def until(what, condition, pause=0.02):
    """Waits until the condition holds; returns what it gave."""
    end = time.monotonic() + PATIENCE
    while not (held := condition()):
        if time.monotonic() > end:
            sys.exit(f"{sys.argv[0]}: waited in vain until {what}")
        time.sleep(pause)
    return held


def best(rounds, measure):
    """The round that cost the least: noise only ever adds."""
    return min((measure() for _ in range(rounds)), key=lambda figures: figures["cpu"])


def openssl(folder, *words):
    subprocess.run(["openssl", *words], cwd=folder, check=True, stdin=subprocess.DEVNULL, capture_output=True)


def make_certificates(folder):
    """A private CA, and a certificate of it for 127.0.0.1."""
    key = ["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out"]
    openssl(folder, *key, "ca.key")
    openssl(folder, *key, "server.key")
    openssl(folder, "req", "-x509", "-key", "ca.key", "-subj", "/CN=CA of a benchmark", "-days", "2", "-out", "ca.pem")
    openssl(folder, "req", "-new", "-key", "server.key", "-subj", "/CN=server", "-out", "server.csr")
    with open(f"{folder}/names", "w", encoding="ascii") as file:
        file.write("subjectAltName=IP:127.0.0.1")
    sign = ["x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"]
    openssl(folder, *sign, "-days", "2", "-extfile", "names", "-out", "server.pem")


def golock_binary():
    """The one that GOLOCK_BIN names, else the static one, else the one that cargo builds."""
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    static = f"{root}/target/dist/{platform.machine()}-unknown-linux-musl/golock"
    path = os.environ.get("GOLOCK_BIN") or (static if os.path.exists(static) else "")
    if not path:
        subprocess.run(["cargo", "build", "--quiet", "--release"], cwd=root, check=True)
        path = f"{os.environ.get('CARGO_TARGET_DIR', f'{root}/target')}/release/golock"
    return os.path.abspath(path)


def encoded(*words):
    """A command as Redis reads it."""
    every = [word.encode() for word in words]
    return b"*%d\r\n" % len(every) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in every)


class Recorder:
    """A proxy that keeps what golock sends."""

    def __init__(self, port):
        self.server, self.requests = ("127.0.0.1", port), []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            golock, _ = self.listener.accept()
            with golock, socket.create_connection(self.server) as redis:
                while request := golock.recv(65536):
                    self.requests.append(request)
                    redis.sendall(request)
                    golock.sendall(redis.recv(65536))


def said_by(golock, server, **settings):
    """What golock sends in one run, and the token and the fence in it."""
    recorder = Recorder(server.port)
    # With WAIT, golock does not say how long ago it started. Repeated later, that would be wrong, and Redis might
    # answer that another run has served.
    env = {**server.settings(GRACE=0, WAIT=1, **settings), "CRONLOCK_PORT": str(recorder.port)}
    job = subprocess.run([golock, "/usr/bin/env"], env=env, check=True, capture_output=True, text=True).stdout
    given = dict(line.split("=", 1) for line in job.splitlines())
    said = dict(zip(("LOOK", "CONFIRM", "RELEASE"), recorder.requests, strict=True))
    return {**said, **{name: given.get(f"GOLOCK_{name}", "").encode() for name in ("TOKEN", "FENCE")}}


class Server:
    """A redis-server, asked through a Unix socket, so that only golocks are on its network."""

    def __init__(self, *options, tls=False, login=False):
        self.folder = tempfile.mkdtemp()
        self.tls, self.login = tls, login
        self.sent = self.received = self.polls = 0
        if tls:
            make_certificates(self.folder)
        until("redis-server has a port", lambda: self.start(options))
        self.version = self.info("server")["redis_version"]
        self.calibrate()

    def start(self, options):
        self.port = random.randrange(10000, 30000)
        ports = ["--port", "0", "--tls-port", str(self.port)] if self.tls else ["--port", str(self.port)]
        files = ["--tls-cert-file", "server.pem", "--tls-key-file", "server.key", "--tls-ca-cert-file", "ca.pem"]
        if self.tls:
            ports += [*files, "--tls-auth-clients", "no"]
        if self.login:
            ports += ["--requirepass", PASSWORD]
        place = ["--bind", "127.0.0.1", "--unixsocket", f"{self.folder}/socket", "--dir", self.folder, "--save", ""]
        with open(f"{self.folder}/log", "w", encoding="utf-8") as log:
            command = ["redis-server", *ports, *place, *options]
            self.process = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log)
        until("redis-server listens or ends", lambda: self.connect() or self.process.poll() is not None)
        return self.process.poll() is None

    def connect(self):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(PATIENCE)
        with contextlib.suppress(OSError):
            self.socket.connect(f"{self.folder}/socket")
            if self.login:
                self.ask("AUTH", PASSWORD)
                self.ask("SELECT", DATABASE)
            return self.ask("PING") == "PONG"
        self.socket.close()
        return False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        self.process.wait()
        self.socket.close()
        shutil.rmtree(self.folder)

    def ask(self, *words):
        """Sends one command; returns its reply, which is not an array."""
        request = encoded(*words)
        self.socket.sendall(request)
        reply = b""
        while not reply.endswith(b"\r\n") or (reply[:1] == b"$" and len(reply) < self.length(reply)):
            reply += self.socket.recv(65536)
        self.sent += len(request)
        self.received += len(reply)
        head, _, body = reply.decode().partition("\r\n")
        return body.removesuffix("\r\n") if head[0] == "$" and head != "$-1" else head[1:]

    @staticmethod
    def length(reply):
        head, _, _ = reply.partition(b"\r\n")
        size = int(head[1:])
        return len(head) + 2 if size < 0 else len(head) + size + 4

    def info(self, section):
        lines = self.ask("INFO", section).splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def clients(self):
        """How many there are, apart from ourselves."""
        self.polls += 1
        return int(self.info("clients")["connected_clients"]) - 1

    def waiting(self):
        """How many clients wait for an answer that is held back."""
        self.polls += 1
        return int(self.info("clients")["blocked_clients"])

    def rejected(self):
        """How many connections it has turned away because it had too many."""
        return int(self.info("stats")["rejected_connections"])

    def calibrate(self):
        """Finds out what it costs that the server is there, and that we ask."""
        self.idle = self.poll_cost = self.reading_cost = 0.0
        self.reading_cost = min(self.since(self.reading())["cpu"] for _ in range(50))
        before = self.reading()
        for _ in range(200):
            self.clients()
        self.poll_cost = self.since(before)["cpu"] / 200
        before = self.reading()
        time.sleep(1)
        self.idle = self.since(before)["cpu"]

    def reading(self):
        """What the server has seen of others so far."""
        received = self.received  # this reply is not yet in what the server has sent
        everything = self.info("everything")
        rows = {name.removeprefix("cmdstat_"): row for name, row in everything.items() if name.startswith("cmdstat_")}
        return {
            "cpu": 1e6 * (float(everything["used_cpu_sys"]) + float(everything["used_cpu_user"])),
            "connections": int(everything["total_connections_received"]),
            "in": int(everything["total_net_input_bytes"]) - self.sent,
            "out": int(everything["total_net_output_bytes"]) - received,
            "wire": on_the_wire(),
            "time": time.monotonic(),
            "polls": self.polls,
            "commands": {name: int(row.split(",")[0].removeprefix("calls=")) for name, row in rows.items()},
        }

    def since(self, before):
        """What the server has seen since the reading `before`, and its time (us) without what we cost it."""
        now = self.reading()
        spent = {name: now[name] - before[name] for name in now if name != "commands"}
        spent["cpu"] -= self.reading_cost + self.poll_cost * spent["polls"] + self.idle * spent["time"]
        calls = {name: count - before["commands"].get(name, 0) for name, count in now["commands"].items()}
        spent["commands"] = {name: count for name, count in calls.items() if count and name in LOCK_COMMANDS}
        return spent

    def settings(self, **more):
        """The environment of a golock that comes to this server."""
        env = {"PATH": "/usr/bin:/bin", "CRONLOCK_CONFIG": "/dev/null", "CRONLOCK_HOST": "127.0.0.1"}
        env["CRONLOCK_PORT"] = str(self.port)
        if self.tls:
            env |= {"CRONLOCK_TLS": "yes", "CRONLOCK_TLS_CA": f"{self.folder}/ca.pem"}
        if self.login:
            env |= {"CRONLOCK_AUTH": PASSWORD, "CRONLOCK_DB": DATABASE}
        return env | {f"CRONLOCK_{name}": str(value) for name, value in more.items()}


class Herd:
    """Golocks that were started at once."""

    def __init__(self, golock, command, settings, folder):
        self.golock, self.command, self.settings = golock, command, settings
        self.errors = f"{folder}/errors"
        self.running, self.codes, self.cpu = set(), {}, {}

    def start(self, count):
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        places = enumerate((os.devnull, self.errors), start=1)
        files = [(os.POSIX_SPAWN_OPEN, number, path, flags, 0o600) for number, path in places]
        for _ in range(count):
            words = [self.golock, *self.command]
            self.running.add(os.posix_spawn(self.golock, words, self.settings, file_actions=files))

    def collect(self, left=0):
        """Waits until only so many run; a run's time is its own and its job's, as wait4(2) tells."""
        end = time.monotonic() + PATIENCE
        while len(self.running) > left:
            pid, status, usage = os.wait4(-1, os.WNOHANG)
            if pid in self.running:
                self.running.remove(pid)
                self.codes[pid] = os.waitstatus_to_exitcode(status)
                self.cpu[pid] = 1e6 * (usage.ru_utime + usage.ru_stime)
            elif time.monotonic() > end:
                sys.exit(f"{sys.argv[0]}: {len(self.running)} golocks do not end")
            else:
                time.sleep(0.001)

    def end(self):
        """Tells all to stop, and waits for them; none must have ended before."""
        for pid in self.running:
            os.kill(pid, signal.SIGTERM)
        self.collect()
        if set(self.codes.values()) != {128 + signal.SIGTERM}:
            sys.exit(f"{sys.argv[0]}: exit codes {self.counted()}, {self.complaints()[:3]}")

    def counted(self):
        """How many ended with which code."""
        codes = list(self.codes.values())
        return {code: codes.count(code) for code in sorted(set(codes))}

    def complaints(self):
        with open(self.errors, encoding="utf-8") as file:
            return file.read().splitlines()
