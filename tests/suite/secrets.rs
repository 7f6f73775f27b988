//! The password appears in no message, whatever fails and however much is told.

use crate::support::scripted::{drain, read_commands, send};
use crate::support::{Done, Golock, Job, Scene, Scripted, Server, each};

const SECRET: &str = "Xyzzy-7301";

#[track_caller]
fn assert_kept(done: &Done) {
    assert!(!done.stderr.contains(SECRET) && !done.stdout.contains(SECRET), "{done:?}");
}

#[test]
fn a_verbose_run_keeps_it() {
    let server = Server::start(&["--requirepass", SECRET]);
    let url = |port| format!("redis://:{SECRET}@127.0.0.1:{port}/1");
    each(&["AUTH", "URL"], |setting| {
        let scene = Scene::new(&server, Job::exits(7));
        let golock = scene.golock().set("VERBOSE", "yes");
        let done = match *setting {
            "URL" => golock.set("HOST", "").set("PORT", "").set("URL", url(scene.proxy.port())).run(),
            _ => golock.set(setting, SECRET).run(),
        };
        assert_eq!(done.code, 7, "{done:?}");
        assert!(done.stderr.contains(&scene.name()), "{done:?}");
        assert_kept(&done);
        scene.assert_released();
    });
}

#[test]
fn a_server_that_repeats_it_is_not_quoted() {
    let replies = [
        format!("-ERR unknown command `AUTH`, with args beginning with: `{SECRET}`, \r\n"),
        format!("-ERR unknown command 'AUTH', with args beginning with: 'user' '{SECRET}' \r\n"),
        format!("-WRONGPASS {SECRET}\r\n"),
        format!("+{SECRET}\r\n"),
        format!("{SECRET}\r\n"),
    ];
    each(&replies, |reply| {
        for verbose in ["no", "yes"] {
            assert_kept(&log_in(SECRET, reply, verbose));
        }
    });
}

#[test]
fn a_server_that_repeats_the_start_of_it_is_not_quoted() {
    // Redis repeats at most 128 bytes of the arguments that it refuses; access tokens are longer.
    let token = SECRET.repeat(20);
    let reply = format!("-ERR unknown command 'AUTH', with args beginning with: '{}'\r\n", &token[..125]);
    assert_kept(&log_in(&token, &reply, "no"));
}

#[test]
fn a_server_that_repeats_it_on_one_line_is_not_quoted() {
    // Redis puts spaces in the place of line ends.
    let reply = format!("-ERR unknown command 'AUTH', with args beginning with: 'a  {SECRET}' \r\n");
    assert_kept(&log_in(&format!("a\r\n{SECRET}"), &reply, "no"));
}

/// golock at a server that gives this reply to AUTH.
fn log_in(password: &str, reply: &str, verbose: &str) -> Done {
    let reply = reply.to_owned();
    let server = Scripted::start(move |_, stream| {
        read_commands(stream, 1);
        send(stream, &reply);
        drain(stream);
    });
    let job = Job::exits(7);
    let golock = Golock::new(server.port()).set("AUTH", password).set("VERBOSE", verbose).args(job.command());
    let done = golock.set("REDIS_TIMEOUT", "1").set("RECONNECT_ATTEMPTS", "0").run();
    assert_eq!((done.code, job.runs()), (201, 0), "{done:?}");
    done
}

#[test]
fn a_setting_that_does_not_parse_is_shown_without_it() {
    let urls = [
        format!("redis://:{SECRET}@127.0.0.1:99999"),
        format!("redis://:{SECRET}@127.0.0.1:port/0"),
        format!("redis://user:{SECRET}@"),
        format!("redis://user:{SECRET}@127.0.0.1/0/1"),
        format!("http://:{SECRET}@127.0.0.1"),
        format!("redis:/:{SECRET}@127.0.0.1"),
        format!("redis://:{SECRET}%zz@127.0.0.1"),
        format!("redis://:{SECRET}@[::1"),
        format!(":{SECRET}@127.0.0.1"),
    ];
    each(&urls, |url| {
        let job = Job::exits(7);
        let golock = Golock::new(1).set("HOST", "").set("PORT", "").args(["--redis-timeout=1"]);
        let done = golock.set("RECONNECT_ATTEMPTS", "0").set("URL", url).args(job.command()).run();
        done.assert_one_line(201, &["CRONLOCK_URL"]);
        assert_eq!(job.runs(), 0);
        assert_kept(&done);
    });
}

#[test]
fn a_password_given_twice_is_not_shown() {
    let job = Job::exits(7);
    let golock = Golock::new(1).set("AUTH", SECRET).set("URL", format!("redis://:{SECRET}@127.0.0.1"));
    let done = golock.args(job.command()).run();
    assert_eq!((done.code, job.runs()), (201, 0), "{done:?}");
    assert_kept(&done);
}

/// A URL in front of a command, as redis-cli would take it.
#[test]
fn the_password_of_a_url_that_is_no_command_is_not_shown() {
    let done = Golock::new(1).set("VERBOSE", "yes").args(["rediss://:hunter2@host", "backup.sh"]).run();
    assert!(done.code == 127 && done.stderr.contains("rediss://: not found"), "{done:?}");
    assert!(!done.stderr.contains("hunter2"), "{done:?}");
}

/// A variable in front of a command, as a shell would take it.
#[test]
fn the_value_of_a_variable_that_is_no_command_is_not_shown() {
    let server = Server::start(&[]);
    let words = [vec!["CRONLOCK_AUTH=hunter2", "true"], vec!["PASSWORD=hunter2 backup.sh"], vec!["A=x/hunter2"]];
    each(&words, |words| {
        let done = Golock::new(server.port()).set("VERBOSE", "yes").args(words).run();
        let name = words[0].split('=').next().unwrap();
        assert_eq!(done.code, 127);
        assert!(done.stderr.contains(&format!("{name}=: not found")) && !done.stderr.contains("hunter2"), "{done:?}");
    });
}

#[test]
fn the_beginning_of_a_password_is_hidden_too() {
    each(&[SECRET, &SECRET[..8], &SECRET[..6]], |part| {
        let done = log_in(SECRET, &format!("-ERR no {part} here\r\n"), "no");
        assert!(done.code == 201 && done.stderr.contains("ERR no *** here"), "{done:?}");
    });
}

/// They are understood as they came, and shown without it.
#[test]
fn words_that_begin_like_the_password_mean_what_they_say() {
    let server = Server::start(&[]);
    let golock = |port: u16, password: &str| Golock::new(port).set("AUTH", password).set("KEY", "k").set("GRACE", "0");
    golock(server.port(), "password-1").args(["true"]).run().assert_one_line(201, &["AUTH was refused"]);
    assert_eq!(server.connections_received(), 1);
    let node = Server::start(&["--requirepass", "localhost-1"]);
    let moved = format!("-MOVED 1 localhost:{}\r\n", node.port());
    let line = Scripted::start(move |_, client| {
        read_commands(client, 1);
        send(client, "+OK\r\n");
        for _ in read_commands(client, 1) {
            send(client, &moved);
        }
    });
    let done = golock(line.port(), "localhost-1").set("VERBOSE", "yes").args(["true"]).run();
    assert!(done.code == 0 && done.stderr.contains("another node: redis at ***"), "{done:?}");
}
