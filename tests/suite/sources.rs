//! The stronger source wins, whole: also between settings that exclude each other, and for what a URL stands for.

use crate::support::job_tools::{Layers, Notes, Source};
use crate::support::proxy::Record;
use crate::support::{Proxy, Server, each, until};

use Source::{Environment, File, Option};

/// All pairs of sources, the stronger one first.
const PAIRS: [(Source, Source); 3] = [(Option, Environment), (Option, File), (Environment, File)];

/// Where golock says it went, after one try.
fn went(layers: &Layers) -> String {
    let done = layers.golock().args(["--reconnect-attempts", "0", "--status", "true"]).run();
    assert_eq!(done.code, 201, "{done:?}");
    done.stderr
}

/// What golock says when it logs in to the server behind this proxy, which refuses it.
fn login(proxy: &Proxy, layers: &Layers) -> Vec<String> {
    let done = layers.golock().args(["--reconnect-attempts", "0", "--status", "true"]).run();
    assert_eq!(done.code, 201, "{done:?}");
    until("the connection has ended", || proxy.open() == 0);
    proxy.records().iter().flat_map(Record::commands).map(|words| words.join(" ")).collect()
}

#[test]
fn a_url_stands_for_all_that_it_can_say() {
    let server = Server::start(&[]);
    each(&PAIRS, |&(stronger, weaker)| {
        let proxy = Proxy::start(server.port());
        let mut layers = Layers::new();
        for (name, value) in [("HOST", "127.0.0.2"), ("PORT", "1"), ("USER", "weaker"), ("DB", "7"), ("TLS", "yes")] {
            layers = layers.given(weaker, name, value);
        }
        let layers = layers.given(weaker, "AUTH_FILE", "/nowhere");
        let url = format!("redis://:word@127.0.0.1:{}", proxy.port());
        // Neither its user nor its database, although the URL names none.
        assert_eq!(login(&proxy, &layers.given(stronger, "URL", &url)), ["AUTH word"]);
    });
}

#[test]
fn a_stronger_host_is_another_server() {
    each(&PAIRS, |&(stronger, weaker)| {
        let layers = Layers::new().given(weaker, "URL", "redis://:word@127.0.0.3:2/5");
        // Nothing of the URL counts for it, not even the port.
        let said = went(&layers.given(stronger, "HOST", "redis.invalid"));
        assert!(said.contains("redis at redis.invalid:6379: "), "{said}");
    });
}

#[test]
fn an_empty_host_unsets_no_url() {
    each(&PAIRS, |&(stronger, weaker)| {
        let layers = Layers::new().given(weaker, "URL", "redis://:word@127.0.0.3:2/5");
        let said = went(&layers.given(stronger, "HOST", ""));
        assert!(said.contains("redis at 127.0.0.3:2: "), "{said}");
    });
}

#[test]
fn any_other_stronger_setting_has_the_place_of_its_part_of_the_url() {
    let server = Server::start(&[]);
    each(&PAIRS, |&(stronger, weaker)| {
        let (proxy, other) = (Proxy::start(server.port()), Proxy::start(server.port()));
        let url = |proxy: &Proxy| format!("redis://app:word@127.0.0.1:{}/5", proxy.port());
        let with =
            |name: &str, value: &str| Layers::new().given(weaker, "URL", &url(&proxy)).given(stronger, name, value);
        assert_eq!(login(&proxy, &with("AUTH", "mine"))[..], ["AUTH app mine", "SELECT 5"]);
        assert_eq!(login(&proxy, &with("USER", "me"))[2..], ["AUTH me word", "SELECT 5"]);
        assert_eq!(login(&proxy, &with("DB", "6"))[4..], ["AUTH app word", "SELECT 6"]);
        assert_eq!(login(&other, &with("PORT", &other.port().to_string())), ["AUTH app word", "SELECT 5"]);
        assert_eq!(proxy.connections(), 3);
    });
}

#[test]
fn of_two_ways_to_give_the_password_the_stronger_counts() {
    let server = Server::start(&[]);
    each(&PAIRS, |&(stronger, weaker)| {
        let (by_word, by_file) = (Proxy::start(server.port()), Proxy::start(server.port()));
        let at = |proxy: &Proxy| {
            let layers = Layers::new().given(weaker, "HOST", "127.0.0.1");
            layers.given(weaker, "PORT", &proxy.port().to_string())
        };
        let layers = at(&by_word).given(weaker, "AUTH_FILE", "/nowhere").given(stronger, "AUTH", "word");
        assert_eq!(login(&by_word, &layers), ["AUTH word"]);
        let layers = at(&by_file).given(weaker, "AUTH", "word");
        let file = layers.write("password", "filed\n");
        let layers = layers.given(stronger, "AUTH_FILE", file.to_str().unwrap());
        assert_eq!(login(&by_file, &layers), ["AUTH filed"]);
    });
}

#[test]
fn a_local_lock_and_a_lease_exclude_each_other_and_the_stronger_counts() {
    let server = Server::start(&[]);
    each(&PAIRS, |&(stronger, weaker)| {
        let notes = Notes::new();
        let folder = notes.path("locks").display().to_string();
        let layers = || {
            let layers = Layers::new().given(File, "HOST", "127.0.0.1").given(File, "GRACE", "0");
            layers.given(File, "PORT", &server.port().to_string()).given(Environment, "LOCAL_DIR", &folder)
        };
        let key = format!("{stronger:?}{weaker:?}");
        // The place of Redis in the file is that of the other jobs.
        let local = layers().given(weaker, "LEASE", "60").given(stronger, "LOCAL", "yes");
        local.golock().set("KEY", &key).args(["sh", "-c", "exit 7"]).run().assert_silent(7);
        assert!(notes.path("locks").exists());
        assert!(!server.keys().iter().any(|name| name.contains(&key)));
        let leased = layers().given(weaker, "LOCAL", "yes").given(stronger, "LEASE", "3600");
        leased.golock().set("KEY", &key).args(["sh", "-c", "exit 7"]).run().assert_silent(7);
        assert!(server.keys().iter().any(|name| name.contains(&key)));
    });
}

#[test]
fn a_stronger_place_of_redis_takes_a_local_lock_there() {
    let server = Server::start(&[]);
    each(&PAIRS, |&(stronger, weaker)| {
        let url = format!("redis://127.0.0.1:{}", server.port());
        let layers = Layers::new().given(weaker, "LOCAL", "yes").given(stronger, "URL", &url);
        let key = format!("{stronger:?}{weaker:?}");
        layers.golock().set("KEY", &key).set("GRACE", "0").args(["sh", "-c", "exit 7"]).run().assert_silent(7);
        assert!(server.keys().iter().any(|name| name.contains(&key)));
    });
}

#[test]
fn a_grace_that_a_weaker_source_says_ends_with_the_release() {
    let server = Server::start(&[]);
    each(&PAIRS, |&(stronger, weaker)| {
        let layers = Layers::new().given(File, "HOST", "127.0.0.1").given(File, "PORT", &server.port().to_string());
        let key = format!("{stronger:?}{weaker:?}");
        let layers = layers.given(weaker, "GRACE", "2000").given(stronger, "RELEASE", "1000");
        layers.golock().set("KEY", &key).args(["sh", "-c", "exit 7"]).run().assert_silent(7);
        let left = server.pttl(&format!("cronlock.{key}"));
        assert!((1..=1_000_000).contains(&left), "{left} ms");
        let layers = Layers::new().given(weaker, "RELEASE", "1000").given(stronger, "GRACE", "2000");
        let said = format!("{}: it is longer than RELEASE, which is 1000 s", layers.place(stronger, "GRACE", 2));
        layers.golock().args(["true"]).run().assert_one_line(201, &[&said]);
    });
}

#[test]
fn kill_after_in_the_file_is_for_those_jobs_that_have_a_timeout() {
    let server = Server::start(&[]);
    let layers = Layers::new().given(File, "HOST", "127.0.0.1").given(File, "PORT", &server.port().to_string());
    let layers = layers.given(File, "KILL_AFTER", "5");
    layers.golock().args(["sh", "-c", "exit 7"]).run().assert_silent(7);
}
