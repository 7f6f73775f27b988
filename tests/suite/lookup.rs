//! A name server that never answers: looking up a name has an end all the same.

use rustix::process::{Signal, geteuid};

use crate::support::job_tools::{Notes, quoted};
use crate::support::watch::mentioning;
use crate::support::{Golock, until};

/// A prelude that gives golock a network of its own, with a name server that is deaf: a socket that golock inherits and
/// does not read. No other process of this network could be in its way, or be left behind.
pub(crate) fn deaf_name_server(notes: &Notes) -> String {
    notes.write("resolv.conf", "nameserver 127.0.0.1\n");
    let user = if geteuid().is_root() { "" } else { "--map-root-user" };
    let listen = r#"$^F = 99; $up = pack("a16s", "lo", 0x41); socket(S, 2, 2, 0); ioctl(S, 0x8914, $up) or die "lo: $!";
        bind(S, pack("Sna4x8", 2, 53, pack("C4", 127, 0, 0, 1))) or die "bind: $!"; exec @ARGV"#;
    format!(
        r#"exec unshare --mount --net {user} sh -c 'mount --bind "$1" /etc/resolv.conf && shift && exec "$@"' sh {} \
        perl -e '{listen}' "$0" "$@""#,
        quoted(&notes.path("resolv.conf")),
    )
}

/// golock, whose Redis has this name; each test has one of its own, by which its processes are known.
fn golock(notes: &Notes, name: &str) -> Golock {
    Golock::new(1).set("HOST", name).set("RECONNECT_ATTEMPTS", "0").prelude(&deaf_name_server(notes)).args(["true"])
}

#[test]
fn a_look_up_ends_with_the_time_of_its_exchange() {
    const NAME: &str = "never-answered.example";
    let done = golock(&Notes::new(), NAME).set("REDIS_TIMEOUT", "1").run();
    done.assert_one_line(201, &[NAME, "name lookup timed out"]);
}

#[test]
fn a_signal_ends_a_look_up_and_leaves_nothing_behind() {
    const NAME: &str = "not-waited-for.example";
    let notes = Notes::new();
    let running = golock(&notes, NAME).set("REDIS_TIMEOUT", "1h").spawn();
    until("the name is being looked up", || !mentioning(NAME).is_empty());
    running.signal(Signal::TERM);
    running.wait().assert_silent(128 + 15);
    until("nobody looks it up any more", || mentioning(NAME).is_empty());
}
