//! Where settings come from: options before the environment before the config file, for every one of them.

use std::path::PathBuf;

use crate::support::job_tools::{Layers, Source, WHILE_NOTED};
use crate::support::proxy::Record;
use crate::support::{Proxy, Scripted, Server, each};

use Source::{Environment, File, Option};

const SOURCES: [Source; 3] = [Option, Environment, File];

/// All pairs of sources, the stronger one first.
const PAIRS: [(Source, Source); 3] = [(Option, Environment), (Option, File), (Environment, File)];

/// Settings whose values can be wrong: the name, a value that is accepted and changes nothing, and a wrong value.
const CHECKED: [(&str, &str, &str); 22] = [
    ("PORT", "1", "65536"),
    ("DB", "0", "-1"),
    ("URL", "redis://host", "http://host"),
    ("REDIS_TIMEOUT", "1", "0"),
    ("RECONNECT_ATTEMPTS", "0", "-1"),
    ("RECONNECT_BACKOFF", "0", "1.5"),
    ("GRACE", "0", "-1"),
    ("RELEASE", "1", "0"),
    ("TIMEOUT", "0", "soon"),
    ("KILL_AFTER", "0", "1w"),
    ("KEY_FORMAT", "golock", "md5"),
    ("RESET", "no", "maybe"),
    ("VERBOSE", "no", "2"),
    ("SHOW_KEY", "no", "y"),
    ("TLS", "no", "tls"),
    ("TLS_SKIP_VERIFY", "no", "never"),
    ("LEASE", "0", "x"),
    ("WAIT", "0", "+1"),
    ("SKIP_EXIT", "0", "256"),
    ("RECORD", "0", "-1"),
    ("MAX_AGE", "0", "26 h"),
    ("LOCAL", "no", "local"),
];

#[test]
fn a_wrong_value_is_named_with_its_place() {
    each(&CHECKED, |&(name, _, wrong)| {
        for source in SOURCES {
            let layers = Layers::new().given(File, "KEY", "first-line").given(source, name, wrong);
            let place = layers.place(source, name, 2);
            // A URL may hold a password.
            let shown = if name == "URL" { "" } else { wrong };
            layers.golock().args(["--print-key", "true"]).run().assert_one_line(201, &[&place, shown]);
        }
    });
}

#[test]
fn the_stronger_source_counts() {
    each(&CHECKED, |&(name, right, wrong)| {
        for (stronger, weaker) in PAIRS {
            let layers = Layers::new().given(weaker, name, wrong).given(stronger, name, right);
            let done = layers.golock().args(["--print-key", "true"]).run();
            assert_eq!((done.code, &*done.stderr), (0, ""), "{stronger:?} before {weaker:?}");
        }
    });
}

#[test]
fn an_empty_value_is_none() {
    each(&CHECKED, |&(name, ..)| {
        for source in SOURCES {
            let layers = Layers::new().given(source, name, "");
            assert_eq!(layers.golock().args(["--print-key", "true"]).run().code, 0, "{source:?}");
        }
    });
}

#[test]
fn an_empty_value_unsets_what_a_weaker_source_says() {
    each(&CHECKED, |&(name, _, wrong)| {
        for (stronger, weaker) in PAIRS {
            let layers = Layers::new().given(weaker, name, wrong).given(stronger, name, "");
            assert_eq!(layers.golock().args(["--print-key", "true"]).run().code, 0, "{stronger:?} over {weaker:?}");
        }
    });
    each(&PAIRS, |&(stronger, weaker)| {
        let unset = |name: &str, value: &str| Layers::new().given(weaker, name, value).given(stronger, name, "");
        let printed = |layers: &Layers| layers.golock().args(["--print-key", "--", "true"]).run().stdout;
        assert_eq!(printed(&unset("KEY", "weaker")), "cronlock.74d9a83219cabaab06a69fd318873f33\n");
        assert_eq!(printed(&unset("PREFIX", "weaker").given(weaker, "KEY", "key")), "cronlock.key\n");
        // Back at the default places, of which the port is nobody's here.
        let layers = unset("HOST", "redis.invalid").given(weaker, "PORT", "1");
        assert!(server_named(&layers).contains("redis at localhost:1:"));
        let layers =
            unset("URL", "redis://redis.invalid").given(weaker, "PORT", "1").given(weaker, "HOST", "127.0.0.2");
        assert!(server_named(&layers).contains("redis at 127.0.0.2:1:"));
        // Without a password there is nothing to log in with, so that a user makes no sense.
        let layers = unset("AUTH_FILE", "/nowhere").given(weaker, "HOST", "127.0.0.1").given(weaker, "PORT", "1");
        assert!(server_named(&layers).contains("redis at 127.0.0.1:1:"));
        let layers = unset("AUTH", "secret").given(weaker, "USER", "user");
        let place = layers.place(weaker, "USER", 2);
        layers.golock().args(["true"]).run().assert_one_line(201, &[&place, "needs CRONLOCK_AUTH"]);
    });
}

#[test]
fn an_empty_value_beside_a_url_is_none() {
    each(&SOURCES, |&source| {
        let layers = Layers::new().given(source, "HOST", "").given(source, "PORT", "").given(source, "AUTH", "");
        let layers = layers.given(source, "URL", "redis://:secret@127.0.0.2:1");
        assert!(server_named(&layers).contains("redis at 127.0.0.2:1:"), "{}", server_named(&layers));
    });
}

#[test]
fn of_the_same_source_the_last_counts() {
    each(&CHECKED, |&(name, right, wrong)| {
        for source in [Option, File] {
            let layers = Layers::new().given(source, name, wrong).given(source, name, right);
            assert_eq!(layers.golock().args(["--print-key", "true"]).run().code, 0, "{source:?}");
        }
    });
}

#[test]
fn the_name_of_the_lock_can_be_set_everywhere() {
    each(&PAIRS, |&(stronger, weaker)| {
        let mut layers = Layers::new();
        for (name, value) in [("KEY", "key "), ("PREFIX", " prefix")] {
            layers = layers.given(weaker, name, "other").given(stronger, name, value);
        }
        let done = layers.golock().args(["--print-key", "true"]).run();
        assert_eq!((done.code, &*done.stdout), (0, " prefixkey \n"), "{done:?}");
    });
}

/// Where golock says it went.
fn server_named(layers: &Layers) -> String {
    let done = layers.golock().args(["--reconnect-attempts", "0", "--status", "true"]).run();
    assert_eq!(done.code, 201, "{done:?}");
    done.stderr
}

#[test]
fn the_server_can_be_set_everywhere() {
    each(&PAIRS, |&(stronger, weaker)| {
        let layers =
            Layers::new().given(weaker, "HOST", "/nowhere/weaker").given(stronger, "HOST", "/nowhere/stronger");
        assert!(server_named(&layers).contains("/nowhere/stronger"));
        let port = |port: u16| port.to_string();
        let (closed, open) = (crate::support::redis::free_port(), Scripted::start(|_, _| ()));
        let layers = Layers::new().given(weaker, "HOST", "127.0.0.1").given(weaker, "PORT", &port(open.port()));
        let named = server_named(&layers.given(stronger, "PORT", &port(closed)));
        assert!(named.contains(&format!("127.0.0.1:{closed}")), "{named}");
        assert_eq!(open.connections(), 0);
    });
}

#[test]
fn a_host_can_have_any_form() {
    let server = Server::start(&[]);
    let socket = server.socket_path();
    let port = server.port().to_string();
    for host in ["localhost", "127.1", "127.0.0.1", "[127.0.0.1]", socket.to_str().unwrap()] {
        let layers = Layers::new().given(Option, "HOST", host).given(Option, "PORT", &port);
        let done = layers.golock().args(["--key", "any", "--status"]).run();
        assert_eq!((done.code, &*done.stdout), (0, "cronlock.any free\n"), "{host}: {done:?}");
    }
    for host in ["::1", "[::1]"] {
        let layers = Layers::new().given(Option, "HOST", host).given(Option, "PORT", &port);
        assert!(server_named(&layers).contains(&format!("[::1]:{port}")));
    }
}

#[test]
fn the_login_can_be_set_everywhere() {
    // This server knows neither password nor user, but the proxy sees what golock tries.
    let server = Server::start(&[]);
    each(&PAIRS, |&(stronger, weaker)| {
        let proxy = Proxy::start(server.port());
        let mut layers =
            Layers::new().given(weaker, "HOST", "127.0.0.1").given(weaker, "PORT", &proxy.port().to_string());
        for name in ["USER", "AUTH"] {
            layers = layers.given(weaker, name, "weaker").given(stronger, name, &format!("my {name}"));
        }
        let layers = layers.given(weaker, "DB", "16").given(stronger, "DB", "3");
        layers.golock().args(["true"]).run().assert_one_line(201, &["WRONGPASS"]);
        assert_eq!(proxy.records()[0].commands(), [vec!["AUTH", "my USER", "my AUTH"], vec!["SELECT", "3"]]);
    });
}

#[test]
fn the_passwords_file_and_the_url_can_be_set_everywhere() {
    let server = Server::start(&[]);
    each(&PAIRS, |&(stronger, weaker)| {
        let proxy = Proxy::start(server.port());
        let layers = Layers::new();
        let password = layers.write("password", "line\nend\r\n\n");
        let layers = layers
            .given(weaker, "HOST", "127.0.0.1")
            .given(weaker, "PORT", &proxy.port().to_string())
            .given(weaker, "AUTH_FILE", "/nowhere")
            .given(stronger, "AUTH_FILE", password.to_str().unwrap());
        layers.golock().args(["true"]).run().assert_one_line(201, &["AUTH"]);
        let url = format!("redis://a%40b:%2f%3a@127.0.0.1:{}/4", proxy.port());
        let layers = Layers::new().given(weaker, "URL", "redis://127.0.0.1:1").given(stronger, "URL", &url);
        layers.golock().args(["true"]).run().assert_one_line(201, &["WRONGPASS"]);
        let seen: Vec<_> = proxy.records().iter().flat_map(Record::commands).collect();
        assert_eq!(seen, [vec!["AUTH", "line\nend\r\n"], vec!["AUTH", "a@b", "/:"], vec!["SELECT", "4"]]);
    });
}

#[test]
#[cfg(feature = "tls")]
fn the_files_of_tls_can_be_set_everywhere() {
    each(&PAIRS, |&(stronger, weaker)| {
        for name in ["TLS_CA", "TLS_CERT"] {
            let layers = Layers::new().given(weaker, "TLS", "no").given(stronger, "TLS", "yes");
            let layers = layers.given(weaker, name, "/nowhere/weaker").given(stronger, name, "/nowhere/stronger");
            let layers = if name == "TLS_CERT" { layers.given(weaker, "TLS_KEY", "/nowhere/key") } else { layers };
            layers.golock().args(["true"]).run().assert_one_line(201, &["/nowhere/stronger"]);
        }
    });
}

#[test]
fn the_config_file_can_be_named_by_option_or_environment_and_names_no_other() {
    let layers = Layers::new();
    let [by_option, by_environment]: [PathBuf; 2] = ["option", "environment"]
        .map(|name| layers.write(name, format!("CRONLOCK_KEY={name}\nCRONLOCK_CONFIG=/nowhere\n")));
    let golock = layers.golock().set("CONFIG", &by_environment);
    assert_eq!(golock.clone().args(["--print-key"]).run().stdout, "cronlock.environment\n");
    let done = golock.args(["--print-key", "--config"]).args([by_option]).run();
    assert_eq!((done.code, &*done.stdout), (0, "cronlock.option\n"), "{done:?}");
}

#[test]
fn what_another_config_file_would_say_is_told_on_request() {
    let layers = Layers::new();
    let file = layers.write("another", "CRONLOCK_CONFIG=/nowhere\n");
    let done = layers.golock().set("CONFIG", &file).set("RECONNECT_ATTEMPTS", "0").args(["-v", "true"]).run();
    let note = format!("{}:1: CRONLOCK_CONFIG: a config file names no other, ignored", file.display());
    assert!(done.stderr.contains(&note), "{done:?}");
}

#[test]
fn what_is_set_anywhere_takes_effect() {
    let server = Server::start(&[]);
    each(&SOURCES, |&source| {
        let (key, port) = (format!("{source:?}"), server.port().to_string());
        let settings = [
            ("HOST", "127.0.0.1"),
            ("PORT", &port),
            ("DB", "3"),
            ("KEY", &key),
            ("PREFIX", "p:"),
            ("GRACE", "20m"),
            ("RELEASE", "1h"),
            ("SKIP_EXIT", "77"),
        ];
        let layers = settings.iter().fold(Layers::new(), |layers, (name, value)| layers.given(source, name, value));
        let left = || {
            let query = format!("redis.call('SELECT', 3) return redis.call('TTL', 'p:{key}')");
            server.query::<i64>(&["EVAL", &query, "0"])
        };
        let notes = layers.notes();
        let golock = layers.golock();
        let running = golock.clone().args(notes.job(&format!(r#": >"$0/up"; {WHILE_NOTED}"#))).spawn();
        notes.wait_for("up", |_| notes.path("up").exists());
        assert!((1200..=3600).contains(&left()), "{} s", left());
        golock.args(["true"]).run().assert_silent(77);
        notes.write("open", "");
        running.wait().assert_silent(0);
        assert!((1..=1200).contains(&left()), "{} s", left());
    });
}

#[test]
fn what_predecessors_know_and_golock_does_not_need_is_ignored_and_told_only_to_who_asks() {
    let server = Server::start(&[]);
    // Of cronlock, and of its forks.
    let names = [("NTPDATE", "yes"), ("SENTINEL_HOST", "h\x1b[2J"), ("SENTINEL_MASTER", "m"), ("USE_SENTINEL", "no")];
    each(&[Environment, File], |&source| {
        let layers = names.iter().fold(Layers::new(), |layers, (name, value)| layers.given(source, name, value));
        let golock = layers.golock().set("HOST", "127.0.0.1").set("PORT", server.port().to_string());
        let golock = golock.set("GRACE", "0").set("KEY", format!("{source:?}")).args(["true"]);
        golock.run().assert_silent(0);
        let done = golock.set("VERBOSE", "yes").run();
        assert_eq!(done.code, 0, "{done:?}");
        for (line, (name, _)) in (1..).zip(names) {
            let note = format!(": {}: not needed, ignored", layers.place(source, name, line));
            assert_eq!(done.stderr.lines().filter(|line| line.ends_with(&note)).count(), 1, "{note}: {done:?}");
        }
        assert!(!done.stderr.contains('\x1b'), "{done:?}");
    });
}
