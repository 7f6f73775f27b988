//! Everything but the lock is the job's as it was golock's: arguments, files, folder, environment, process group.

use std::collections::BTreeSet;
use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use rustix::process::getpgid;

use crate::support::job_tools::{Notes, WHILE_NOTED, graceless, quoted};
use crate::support::{Server, each};

#[test]
fn arguments_come_through_byte_for_byte() {
    let all_bytes = OsString::from_vec((1..=255).collect());
    let arguments: [&OsStr; 12] = [
        "".as_ref(),
        " ".as_ref(),
        "two words".as_ref(),
        "line\nline\n".as_ref(),
        "\"'`$HOME*?\\".as_ref(),
        OsStr::from_bytes(b"\xff\xfe"),
        &all_bytes,
        "--".as_ref(),
        "--help".as_ref(),
        "-v".as_ref(),
        "--key=other".as_ref(),
        "".as_ref(),
    ];
    let server = Server::start(&[]);
    each(&[&[][..], &["--"], &["--grace=0", "--"]], |options: &&[&str]| {
        let notes = Notes::new();
        let job = notes.job(r#"printf '%s\0' "$@" >"$0/arguments""#);
        graceless(server.port()).args(*options).args(job).args(arguments).run().assert_silent(0);
        let expected: Vec<u8> = arguments.iter().flat_map(|word| [word.as_bytes(), b"\0"].concat()).collect();
        assert_eq!(notes.bytes("arguments"), expected);
    });
}

#[test]
fn the_job_is_called_as_the_user_typed_it() {
    let server = Server::start(&[]);
    each(&["sh", "/bin/sh", "/bin/../bin/sh"], |&typed| {
        let done = graceless(server.port()).args([typed, "-c", r#"echo "$0""#]).run();
        assert_eq!((done.code, done.stdout), (0, format!("{typed}\n")));
    });
}

#[test]
fn a_script_without_an_interpreter_is_run_by_the_shell() {
    let server = Server::start(&[]);
    let notes = Notes::new();
    let script = notes.executable("script", "echo \"$0\" \"$#\" \"$1\"\nexit 7\n");
    let path = format!("{}:{}", notes.folder().display(), env::var("PATH").unwrap());
    each(&[OsStr::new("script"), script.as_os_str()], |typed| {
        let done = graceless(server.port()).env("PATH", &path).args([typed, OsStr::new("-c  x"), OsStr::new("")]).run();
        assert_eq!((done.code, done.stdout), (7, format!("{} 2 -c  x\n", script.display())), "{}", done.stderr);
    });
}

#[test]
fn the_standard_files_are_golocks_own() {
    let server = Server::start(&[]);
    let notes = Notes::new();
    let input: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
    notes.write("input", &input);
    let job = notes.job(r#"cat >"$0/output"; echo out; echo error >&2"#);
    let golock = graceless(server.port()).prelude(&format!("exec <{}", quoted(&notes.path("input"))));
    let done = golock.args(job).run();
    assert_eq!((done.code, &*done.stdout, &*done.stderr), (0, "out\n", "error\n"));
    assert!(notes.bytes("output") == input);
}

#[test]
fn the_job_starts_where_golock_was_started() {
    let server = Server::start(&[]);
    let notes = Notes::new();
    let golock = graceless(server.port()).prelude(&format!("cd {}; umask 027; ulimit -n 99", quoted(&notes.folder())));
    let done = golock.args(["sh", "-c", "pwd -P; umask; ulimit -n"]).run();
    assert_eq!((done.code, done.stdout), (0, format!("{}\n0027\n99\n", notes.folder().display())));
}

#[test]
fn the_environment_is_golocks_own_and_three_variables() {
    let server = Server::start(&[]);
    let settings = [("CRONLOCK_GRACE", "0"), ("CRONLOCK_KEY", "key"), ("CRONLOCK_PREFIX", "")];
    let others = [("GOLOCK_TEST", "a\n b=\u{e9}"), ("LC_ALL", "C")];
    let mut golock = graceless(server.port()).args(["env", "-0"]);
    for (name, value) in settings.into_iter().chain(others) {
        golock = golock.env(name, value);
    }
    let done = golock.run();
    let seen: BTreeSet<&str> = done.stdout.split_terminator('\0').collect();
    for (name, value) in settings.into_iter().chain(others) {
        assert!(seen.contains(&*format!("{name}={value}")), "{name} is not in {seen:?}");
    }
    let ours = |name: &str| ["GOLOCK_", "CRONLOCK_", "LC_ALL"].iter().any(|prefix| name.starts_with(prefix));
    let inherited: BTreeSet<String> = env::vars_os()
        .map(|(name, value)| format!("{}={}", name.to_string_lossy(), value.to_string_lossy()))
        .filter(|variable| !ours(variable))
        .collect();
    assert_eq!(seen.iter().copied().filter(|name| !ours(name)).map(String::from).collect::<BTreeSet<_>>(), inherited);
    let added: Vec<_> = seen.iter().filter(|name| name.starts_with("GOLOCK_") && !name.contains("TEST")).collect();
    let digits = |text: &str, name: &str| text.strip_prefix(name).map(|digits| digits.parse::<u64>().is_ok());
    assert!(
        matches!(added[..], [fence, key, token] if *key == "GOLOCK_KEY=cronlock.key"
        && digits(fence, "GOLOCK_FENCE=") == Some(true)
        && token.len() == "GOLOCK_TOKEN=".len() + 19 && digits(token, "GOLOCK_TOKEN=") == Some(true)),
        "{added:?}"
    );
}

#[test]
fn without_a_record_there_is_no_fence_in_the_environment() {
    let server = Server::start(&["--user", "plain", "on", ">secret", "~*", "+@all", "-eval"]);
    let login = [("USER", "plain"), ("AUTH", "secret")];
    each(&[&[("RECORD", "0")][..], &login], |settings| {
        // A golock around it has a fence of its own, which is none of this job's.
        let golock = graceless(server.port()).set("KEY", settings[0].0).env("GOLOCK_FENCE", "1").args(["env"]);
        let done = settings.iter().fold(golock, |golock, (name, value)| golock.set(name, value)).run();
        assert_eq!(done.code, 0, "{done:?}");
        assert!(!done.stdout.contains("GOLOCK_FENCE"), "{done:?}");
    });
}

#[test]
fn a_job_without_a_terminal_leads_its_own_group() {
    let server = Server::start(&[]);
    let notes = Notes::new();
    let running = graceless(server.port()).args(notes.job(&format!(r#"echo $$ >"$0/pid"; {WHILE_NOTED}"#))).spawn();
    let job = notes.pid("pid");
    assert_eq!(getpgid(Some(job)).unwrap(), job);
    assert_ne!(getpgid(Some(running.pid())).unwrap(), job);
    notes.write("open", "");
    running.wait().assert_silent(0);
}
