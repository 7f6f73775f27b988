//! TLS where there is none, none where there is TLS, and what else can stand behind a port: golock gives up within its
//! budget, and says what it looks like.

use crate::support::scripted::{drain, read_commands, send};
use crate::support::tls::Secured;
use crate::support::{Golock, Job, Scene, Scripted, Server, each, until};

/// A budget of two tries.
fn twice(golock: Golock) -> Golock {
    golock.set("RECONNECT_ATTEMPTS", "1").set("RECONNECT_BACKOFF", "0")
}

fn tls(golock: Golock) -> Golock {
    golock.set("HOST", "localhost").set("TLS", "yes")
}

fn plain(port: u16, job: &Job) -> Golock {
    twice(Golock::new(port)).set("KEY", "ports").args(job.command())
}

#[test]
fn tls_to_a_plain_redis_says_so() {
    let server = Server::start(&[]);
    let scene = Scene::new(&server, Job::exits(7));
    // It waits for the end of what it takes for a line. Whatever else is here answers, and may take its time.
    let done = tls(twice(scene.golock())).set("REDIS_TIMEOUT", "1").run();
    done.assert_one_line(201, &[&scene.name(), &scene.proxy.port().to_string(), "port without TLS"]);
    assert_eq!(scene.proxy.connections(), 2);
    scene.assert_not_run();
}

#[test]
fn tls_to_what_answers_in_plain_text_says_so() {
    let answers = [
        // Redis, when a line end happens to be among the random bytes of the greeting.
        "-ERR unknown command\r\n",
        "-ERR Protocol error: unbalanced quotes in request\r\n",
        // Redis without a place for us, and one that only its own host may talk to.
        "-ERR max number of clients reached\r\n",
        "-DENIED Redis is running in protected mode\r\n",
        "HTTP/1.1 400 Bad Request\r\n\r\n",
        "SSH-2.0-OpenSSH_9.2\r\n",
        "",
    ];
    each(&answers, |&answer| {
        let server = Scripted::start(move |_, stream| {
            send(stream, answer);
        });
        let job = Job::exits(7);
        tls(plain(server.port(), &job)).run().assert_one_line(201, &["cronlock.ports", "port without TLS"]);
        assert_eq!(job.runs(), 0);
        assert!(server.connections() <= 2);
    });
}

#[test]
fn no_tls_to_a_redis_with_tls_says_so() {
    // Straight, the connection is reset; through the proxy, it ends in order.
    let secured = Secured::start(&["--requirepass", "secret"]);
    let scene = Scene::new(&secured.server, Job::exits(7));
    each(&with_login([secured.server.port(), scene.proxy.port()]), |&(port, password)| {
        let golock = twice(scene.golock()).set("PORT", port.to_string()).set("AUTH", password);
        golock.run().assert_one_line(201, &[&scene.name(), &port.to_string(), "TLS"]);
    });
    scene.assert_not_run();
}

fn with_login(ports: [u16; 2]) -> Vec<(u16, &'static str)> {
    ports.iter().flat_map(|port| ["", "secret"].map(|password| (*port, password))).collect()
}

#[test]
fn no_tls_to_what_answers_with_an_alert_says_so() {
    let server = Scripted::start(|_, stream| {
        read_commands(stream, 1);
        // A fatal alert: unexpected message.
        send(stream, [0x15, 3, 3, 0, 2, 2, 10]);
    });
    let job = Job::exits(7);
    plain(server.port(), &job).run().assert_one_line(201, &["cronlock.ports", "TLS"]);
    assert_eq!(job.runs(), 0);
}

#[test]
fn a_server_that_speaks_only_older_versions_says_so() {
    let server = Scripted::start(|_, stream| {
        // A fatal alert: protocol version.
        send(stream, [0x15, 3, 1, 0, 2, 2, 70]);
        drain(stream);
    });
    let job = Job::exits(7);
    tls(plain(server.port(), &job))
        .run()
        .assert_one_line(201, &["cronlock.ports", "the server speaks neither TLS 1.2 nor TLS 1.3"]);
    assert_eq!((job.runs(), server.connections()), (0, 1));
}

#[test]
fn a_redis_with_tls_that_is_full_is_tried_again() {
    // It hangs up without a word, because the words would have to be encrypted first.
    let secured = Secured::start(&[]);
    let scene = Scene::new(&secured.server, Job::exits(7));
    let places = secured.server.fill();
    let running = secured.golock(&scene).set("RECONNECT_ATTEMPTS", "50").set("RECONNECT_BACKOFF", "1").spawn();
    until("golock is turned away", || scene.proxy.connections() > 2);
    places.free();
    running.wait().assert_silent(7);
    scene.assert_released();
}

#[test]
fn a_unix_socket_does_not_speak_tls() {
    let server = Server::start(&[]);
    let scene = Scene::new(&server, Job::exits(7));
    scene.golock().set("HOST", server.socket_path()).set("TLS", "yes").run().assert_one_line(201, &["TLS", "socket"]);
    scene.assert_not_run();
}
