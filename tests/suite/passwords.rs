//! However the password is given, it is not told: by a run that goes well, by one that fails, or by a mistake around it.

use crate::support::job_tools::{Layers, Notes, Source};
use crate::support::scripted::{read_commands, send};
use crate::support::{Done, Golock, Scripted, Server, each};

const PASSWORD: &str = "Tr0ub4dor&3'x";

/// A part of this length gives a password away.
const TELLING: usize = 6;

#[track_caller]
fn assert_untold(done: &Done, password: &str) {
    let told = done.stdout.clone() + &done.stderr;
    for part in password.as_bytes().windows(TELLING) {
        let part = String::from_utf8_lossy(part);
        assert!(!told.contains(&*part), "{part:?} is in {done:?}");
    }
}

/// golock with everything that it has to tell, given this password in every way.
fn ways(port: u16, password: &str) -> [Layers; 6] {
    let encoded: Vec<String> = password.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let url = format!("redis://user:{}@127.0.0.1:{port}", encoded.concat());
    let port = port.to_string();
    let anywhere = || {
        let layers = Layers::new().given(Source::Option, "VERBOSE", "yes").given(Source::Option, "GRACE", "0");
        layers.given(Source::Environment, "RECONNECT_ATTEMPTS", "0")
    };
    let here = || anywhere().given(Source::Environment, "HOST", "127.0.0.1").given(Source::File, "PORT", &port);
    let filed = here();
    let file = filed.write("password", password);
    [
        here().given(Source::Option, "AUTH", password),
        here().given(Source::Environment, "AUTH", password),
        filed.given(Source::Option, "AUTH_FILE", file.to_str().unwrap()),
        anywhere().given(Source::Option, "URL", &url),
        anywhere().given(Source::Environment, "URL", &url),
        anywhere().given(Source::File, "URL", &url),
    ]
}

/// Runs golock in every way, none of which tells the password, and returns the exit codes.
#[track_caller]
fn codes(port: u16, password: &str) -> [i32; 6] {
    ways(port, password).map(|layers| {
        let done = layers.golock().args(["true"]).run();
        assert!(done.stderr.lines().count() > 1, "{done:?}");
        assert_untold(&done, password);
        done.code
    })
}

#[test]
fn a_password_that_opens_is_not_told() {
    let user = ["--user", "user", "on", &format!(">{PASSWORD}"), "~*", "+@all"];
    let server = Server::start(&[&["--requirepass", PASSWORD], &user[..]].concat());
    assert_eq!(codes(server.port(), PASSWORD), [0; 6]);
}

#[test]
fn a_password_that_does_not_open_is_not_told() {
    for requirements in [&["--requirepass", "another"][..], &[]] {
        let server = Server::start(requirements);
        assert_eq!(codes(server.port(), PASSWORD), [201; 6]);
    }
}

#[test]
fn a_server_that_repeats_the_password_later_is_not_quoted() {
    let server = Scripted::start(|_, stream| {
        read_commands(stream, 1);
        send(stream, "+OK\r\n");
        read_commands(stream, 2);
        send(stream, format!("-ERR {PASSWORD}\r\n-ERR {PASSWORD}\r\n"));
    });
    assert_eq!(codes(server.port(), PASSWORD), [201; 6]);
}

/// What Redis says to a command that it does not have: the first 128 bytes of the arguments, with spaces for line ends.
fn unknown(command: &[String]) -> String {
    const REPEATED: usize = 128;
    let mut repeated = String::new();
    for word in &command[1..] {
        let room = REPEATED.saturating_sub(repeated.len());
        repeated.extend(["'", &word[..word.len().min(room)], "' "]);
    }
    let words = format!("unknown command '{}', with args beginning with: {repeated}", command[0]);
    format!("-ERR {}\r\n", words.replace(['\r', '\n'], " "))
}

#[test]
fn a_password_that_is_repeated_in_part_or_altered_is_not_quoted() {
    let long: Vec<String> = (0..40).map(|number| format!("pw{number:03}")).collect();
    each(&[PASSWORD, "line one\r\nline two", &long.concat()], |password| {
        let server = Scripted::start(|_, stream| {
            let commands = read_commands(stream, 1);
            send(stream, unknown(&commands[0]));
        });
        assert_eq!(codes(server.port(), password), [201; 6]);
    });
}

/// The record of a run, with this in the place of its host and its program.
fn record(word: &str) -> String {
    format!("fence=7 host={word} pid=1 program={word} start=1000 end= result= ok= failed=0 first=1000 last=1@{word}")
}

#[test]
fn a_value_that_holds_the_password_is_not_shown() {
    // As the value of the lock, in the record that is read with it, and in the answer to EVAL.
    let told = |password: &str, spelt: &str| {
        let (value, line) = (format!("my {password} pw"), record(spelt));
        let bulk = |text: &str| format!("${}\r\n{text}\r\n", text.len());
        let status = bulk(&format!("-1 5000 {} {value}{line}", value.len()));
        (format!("$-1\r\n{}", bulk(&value)), bulk(&line), status)
    };
    let encoded = format!("%{:02x}{}", PASSWORD.as_bytes()[0], &PASSWORD[1..]);
    each(&[(PASSWORD, PASSWORD), ("sesame", "sesame"), (PASSWORD, &encoded)], |&(password, spelt)| {
        let (held, line, status) = told(password, spelt);
        let server = Scripted::start(move |_, stream| {
            read_commands(stream, 1);
            send(stream, "+OK\r\n");
            while let Some(first) = read_commands(stream, 1).first() {
                let reply = match &*first[0] {
                    "SET" if first.contains(&"NX".to_owned()) => [&*held, &*line].concat(),
                    _ => status.clone(),
                };
                send(stream, reply);
            }
        });
        for layers in ways(server.port(), password) {
            for (words, code) in [(&["--max-age=1", "true"][..], 203), (&["--key=k", "--status"], 200)] {
                let done = layers.golock().args(words).run();
                assert_eq!(done.code, code, "{done:?}");
                assert_untold(&done, password);
            }
        }
    });
}

#[test]
fn mistakes_around_the_password_do_not_tell_it() {
    let mistakes: [&[(&str, &str)]; 4] = [
        &[("AUTH", "PASSWORD"), ("AUTH_FILE", "/nowhere")],
        &[("AUTH", "PASSWORD"), ("URL", "redis://host")],
        &[("AUTH", "PASSWORD"), ("GRACE", "x")],
        &[("URL", "redis://user:PASSWORD@host"), ("DB", "0")],
    ];
    // In the config file it stands between single quotes.
    let password = PASSWORD.replace('\'', "");
    each(&mistakes, |&settings| {
        for source in [Source::Option, Source::Environment, Source::File] {
            let mut layers = Layers::new().given(Source::Option, "VERBOSE", "yes");
            for (name, value) in settings {
                layers = layers.given(source, name, &value.replace("PASSWORD", &password));
            }
            let done = layers.golock().args(["true"]).run();
            done.assert_one_line(201, &[]);
            assert_untold(&done, &password);
        }
    });
}

#[test]
fn a_line_that_is_not_understood_is_not_quoted() {
    let notes = Notes::new();
    for line in ["CRONLOCK_AUTH=PASSWORD", "CRONLOCK_AUTH = PASSWORD", "CRONLOCK_AUTH \"PASSWORD\"", "PASSWORD"] {
        notes.write("conf", line.replace("PASSWORD", PASSWORD));
        let done = Golock::new(1).set("CONFIG", notes.path("conf")).args(["true"]).run();
        done.assert_one_line(201, &["conf:1:"]);
        assert_untold(&done, PASSWORD);
    }
}

#[test]
fn a_misspelt_option_does_not_tell_its_value() {
    for word in ["--atuh=PASSWORD", "--auth-files=PASSWORD", "-pPASSWORD", "-a=PASSWORD"] {
        let done = Golock::new(1).args([&word.replace("PASSWORD", PASSWORD), "true"]).run();
        done.assert_one_line(201, &[]);
        assert_untold(&done, PASSWORD);
    }
}
