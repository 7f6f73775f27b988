//! Users and passwords: they open what they should, in whichever way they are given, and few rights are enough.

use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::support::{Golock, Job, STALE, Scene, Server, each};

/// All that golock needs of a user.
const RIGHTS: &[&str] =
    &["resetkeys", "~cronlock.*", "-@all", "+select", "+set", "+get", "+del", "+eval", "+ttl", "+pttl", "+pexpire"];

/// What it needs at the least: without EVAL.
const FEWER_RIGHTS: &[&str] = &["resetkeys", "~cronlock.*", "-@all", "+select", "+set", "+get", "+del"];

const PASSWORDS: &[&[u8]] = &[
    b"secret",
    b"with space and 'quotes\"",
    b"p@ss:w/rd?#[%41]",
    "p\u{e4}ssw\u{f6}rt \u{1f511}".as_bytes(),
    b"\x01\x02\xff\xfe\x80 not UTF-8",
    b"ends with a return\r",
];

fn add_user(server: &Server, user: &str, password: &[u8], rights: &[&str]) {
    let password = [b">", password].concat();
    let mut command = redis::cmd("ACL");
    command.arg("SETUSER").arg(user).arg("on").arg(password).arg(rights);
    command.query::<()>(&mut server.connection()).unwrap();
}

/// A folder for password files.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        path
    }
}

/// Lets everybody into the folder of `file`, or nobody; whether everybody gets there, which a private TMPDIR forbids.
pub(crate) fn lets_in(file: &Path, everybody: bool) -> bool {
    let mode = if everybody { 0o755 } else { 0o700 };
    fs::set_permissions(file.parent().unwrap(), Permissions::from_mode(mode)).unwrap();
    file.ancestors().skip(1).all(|folder| folder.metadata().unwrap().permissions().mode() & 0o001 != 0)
}

/// Percent-encoding, of everything.
fn encoded(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| format!("{text}%{byte:02x}"))
}

/// golock with a URL that says all about the server of the scene.
fn by_url(scene: &Scene<'_>, userinfo: &str, tail: &str) -> Golock {
    let url = format!("redis://{userinfo}@127.0.0.1:{}{tail}", scene.proxy.port());
    scene.golock().set("HOST", "").set("PORT", "").set("URL", url)
}

#[test]
fn any_password_opens_in_every_way() {
    let (server, files) = (Server::start(&[]), Files::new());
    let numbered: Vec<(usize, &[u8])> = PASSWORDS.iter().copied().enumerate().collect();
    each(&numbered, |&(number, password)| {
        let user = format!("user{number}");
        add_user(&server, &user, password, RIGHTS);
        let bare = files.write(&format!("{user}.bare"), password);
        let line = files.write(&format!("{user}.line"), &[password, b"\n"].concat());
        let (word, userinfo) = (OsString::from_vec(password.to_vec()), format!("{user}:{}", encoded(password)));
        let opens = |change: &dyn Fn(&Scene<'_>) -> Golock| {
            let scene = Scene::new(&server, Job::exits(7));
            change(&scene).run().assert_silent(7);
            scene.assert_released();
        };
        opens(&|scene| scene.golock().set("USER", &user).set("AUTH", &word));
        opens(&|scene| scene.golock().set("USER", &user).set("AUTH_FILE", &bare));
        opens(&|scene| scene.golock().set("USER", &user).set("AUTH_FILE", &line));
        opens(&|scene| by_url(scene, &userinfo, ""));
        opens(&|scene| by_url(scene, &userinfo, "/5"));
    });
}

#[test]
fn only_one_line_end_is_not_part_of_a_password_file() {
    let (server, files) = (Server::start(&[]), Files::new());
    add_user(&server, "app", b"two\n", RIGHTS);
    let scene = Scene::new(&server, Job::exits(7));
    let golock = scene.golock().set("USER", "app");
    golock.clone().set("AUTH_FILE", files.write("two", b"two\n\n")).run().assert_silent(7);
    golock.set("AUTH_FILE", files.write("one", b"two\n")).run().assert_one_line(201, &["WRONGPASS"]);
    scene.assert_released();
}

#[test]
fn a_password_file_that_cannot_be_read_is_named() {
    let (server, files) = (Server::start(&[]), Files::new());
    let missing = files.0.path().join("missing");
    each(&[missing, files.0.path().to_owned(), "/dev/zero".into()], |path| {
        let scene = Scene::new(&server, Job::exits(7));
        scene.golock().set("AUTH_FILE", path).run().assert_one_line(201, &[path.to_str().unwrap()]);
        scene.assert_not_run();
        assert_eq!(scene.proxy.connections(), 0);
    });
}

#[test]
fn few_rights_are_enough() {
    let server = Server::start(&[]);
    add_user(&server, "app", b"secret", RIGHTS);
    // In grace, and taken over from a predecessor.
    let scene = Scene::new(&server, Job::exits(7));
    server.set(&scene.name(), STALE);
    scene.golock().set("USER", "app").set("AUTH", "secret").set("GRACE", "40").run().assert_silent(7);
    scene.assert_released_within(40);
}

#[test]
fn without_eval_even_fewer_rights_are_enough() {
    let server = Server::start(&[]);
    add_user(&server, "app", b"secret", FEWER_RIGHTS);
    each(&["0", "40"], |grace| {
        let scene = Scene::new(&server, Job::exits(7));
        let golock = scene.golock().set("USER", "app").set("AUTH", "secret").set("GRACE", grace);
        golock.run().assert_silent(7);
        match *grace {
            "0" => scene.assert_released(),
            // Shortening it to the rest of the grace is allowed, not required.
            _ => scene.assert_released_within(86_400),
        }
    });
}

/// Whether a script comes to a command that this user may not call depends on a millisecond.
#[test]
fn a_right_that_is_missing_in_a_script_leaves_no_lock() {
    let server = Server::start(&[]);
    add_user(&server, "app", b"secret", &[RIGHTS, &["-pexpire"]].concat());
    for key in 0..8 {
        let golock = Golock::new(server.port()).set("USER", "app").set("AUTH", "secret").set("RECORD", "0");
        golock.set("KEY", key.to_string()).set("GRACE", "40").args(["sh", "-c", "exit 7"]).run().assert_silent(7);
        let left = server.pttl(&format!("cronlock.{key}"));
        assert!((1..=40_000).contains(&left), "{left}");
    }
}

#[test]
fn status_and_reset_need_no_eval() {
    let server = Server::start(&[]);
    add_user(&server, "full", b"secret", RIGHTS);
    add_user(&server, "bare", b"secret", FEWER_RIGHTS);
    for (user, ttl) in [("full", " ttl=none"), ("bare", "")] {
        let ask = |option: &str| {
            let golock = Golock::new(server.port()).set("USER", user).set("AUTH", "secret").set("KEY", "asked");
            golock.args([option]).run()
        };
        server.set("cronlock.asked", STALE);
        let held = ask("--status");
        let line = format!("cronlock.asked held{ttl} by=predecessor\n");
        assert_eq!((held.code, held.stdout, held.stderr), (200, line, String::new()));
        ask("--reset").assert_silent(200);
        assert_eq!(server.get("cronlock.asked"), None);
        assert_eq!(ask("--status").code, 0);
    }
}

#[test]
fn a_password_file_that_everybody_can_read_draws_one_warning() {
    let (server, files) = (Server::start(&[]), Files::new());
    add_user(&server, "app", b"secret", RIGHTS);
    let file = files.write("password", b"secret\n");
    for (mode, everybody) in [(0o600, true), (0o640, true), (0o604, true), (0o644, true), (0o644, false)] {
        fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
        let is_reached = lets_in(&file, everybody);
        let scene = Scene::new(&server, Job::exits(7));
        let done = scene.golock().set("USER", "app").set("AUTH_FILE", &file).run();
        if mode & 0o004 == 0 || !is_reached {
            done.assert_silent(7);
        } else {
            done.assert_one_line(7, &["warning", file.to_str().unwrap()]);
        }
    }
}

#[test]
fn so_does_a_config_file_that_holds_a_password() {
    let (server, files) = (Server::start(&[]), Files::new());
    add_user(&server, "app", b"secret", RIGHTS);
    let url = format!("CRONLOCK_URL=redis://app:secret@127.0.0.1:{}\n", server.port());
    for (text, warns) in [("CRONLOCK_AUTH=secret\n", true), (&url, true), ("CRONLOCK_GRACE=0\n", false)] {
        let file = files.write("conf", text.as_bytes());
        fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
        let is_reached = lets_in(&file, true);
        let scene = Scene::new(&server, Job::exits(7));
        let golock = scene.golock().set("CONFIG", &file);
        let golock = if text == url { golock.unset("HOST").unset("PORT") } else { golock };
        let golock = if text.contains("AUTH") { golock.set("USER", "app") } else { golock };
        if warns && is_reached {
            golock.run().assert_one_line(7, &["warning", "everybody can read", file.to_str().unwrap()]);
        } else {
            golock.run().assert_silent(7);
        }
    }
}
