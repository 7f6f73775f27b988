//! A command that cannot be run: known before the lock is asked for, so that a host that lacks it never takes the run
//! from one that has it; and where only the attempt tells, the lock is free again at once.

use std::env;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use rustix::process::geteuid;

use crate::quiet::may_trace;
use crate::support::job_tools::{Notes, graceless, quoted};
use crate::support::{Golock, Scripted, Server, each};

/// A command that is not fit to run, and golock's code for it.
#[derive(Debug)]
struct Unfit {
    command: &'static str,
    code: i32,
}

const UNFIT: &[Unfit] = &[
    Unfit { command: "", code: 127 },
    Unfit { command: "golock-test-no-such-command", code: 127 },
    Unfit { command: "./missing", code: 127 },
    Unfit { command: "missing/missing", code: 127 },
    Unfit { command: "dangling", code: 127 },
    Unfit { command: "./dangling", code: 127 },
    Unfit { command: "text", code: 126 },
    Unfit { command: "./text", code: 126 },
    Unfit { command: "folder", code: 126 },
    Unfit { command: "./folder", code: 126 },
    Unfit { command: "/", code: 126 },
    Unfit { command: "/dev/null", code: 126 },
];

/// A folder with all kinds of files that are no commands, and one that is.
fn folder() -> Notes {
    let notes = Notes::new();
    notes.write("text", "#!/bin/sh\n");
    fs::create_dir(notes.path("folder")).unwrap();
    symlink("missing", notes.path("dangling")).unwrap();
    notes.executable("tool", "#!/bin/sh\nexit 7\n");
    notes
}

/// golock in that folder, with this folder before or behind the usual ones on the PATH.
fn there(golock: Golock, notes: &Notes, path: &str) -> Golock {
    let path = path.replace("USUAL", &env::var("PATH").unwrap());
    golock.env("PATH", path).prelude(&format!("cd {}", quoted(&notes.folder())))
}

#[test]
fn a_command_that_is_not_fit_to_run_never_asks_for_the_lock() {
    let server = Scripted::start(|_, _| ());
    let notes = folder();
    each(UNFIT, |unfit| {
        let golock = there(graceless(server.port()), &notes, &format!("USUAL:{}", notes.folder().display()));
        golock.args([unfit.command, "argument"]).run().assert_one_line(unfit.code, &["run", unfit.command]);
    });
    assert_eq!(server.connections(), 0);
}

#[test]
fn a_command_is_found_as_the_shell_finds_it() {
    let server = Server::start(&[]);
    let notes = folder();
    let (first, second) = (Notes::new(), Notes::new());
    // Of the first folder the file that cannot be executed is passed over, of the two others the earlier counts.
    first.write("tool", "#!/bin/sh\nexit 1\n");
    second.executable("tool", "#!/bin/sh\nexit 8\n");
    let [first, second] = [first.folder(), second.folder()].map(|folder| folder.display().to_string());
    let cases = [
        ("tool", ":USUAL".to_owned(), 7),
        ("tool", "USUAL:".to_owned(), 7),
        ("tool", "USUAL::/nowhere".to_owned(), 7),
        ("tool", "USUAL:.".to_owned(), 7),
        ("./tool", "USUAL".to_owned(), 7),
        ("folder/../tool", "USUAL".to_owned(), 7),
        ("tool", format!("USUAL:/nowhere:/dev/null:{first}:{second}:"), 8),
        ("tool", format!("USUAL::{second}"), 7),
    ];
    each(&cases, |(command, path, code)| {
        let golock = there(graceless(server.port()), &notes, path).set("KEY", format!("{command} {path}"));
        golock.args([command]).run().assert_silent(*code);
    });
}

#[test]
fn without_a_path_the_usual_folders_are_searched() {
    let server = Server::start(&[]);
    graceless(server.port()).prelude("unset PATH").args(["sh", "-c", "exit 7"]).run().assert_silent(7);
}

#[test]
fn a_command_that_cannot_be_started_frees_the_lock() {
    let server = Server::start(&[]);
    let notes = Notes::new();
    let plain = notes.path("plain");
    notes.write("plain", "");
    let cases = [("#!/nonexistent/interpreter\n".to_owned(), 127), (format!("#!{}\n", plain.display()), 126)];
    each(&cases, |(text, code)| {
        let script = notes.executable(&format!("script{code}"), text);
        let golock = Golock::new(server.port()).args([&script]);
        golock.run().assert_one_line(*code, &[script.to_str().unwrap()]);
    });
    assert_eq!(server.locks(), [""; 0]);
    // Each had the lock: one connection to take it, and one to give it back.
    assert_eq!(server.connections_received(), 4);
}

#[test]
#[cfg(target_os = "linux")]
fn a_command_that_the_kernel_refuses_frees_the_lock() {
    // Each may be as long as one variable can be, but not both together, as the job would get them.
    let long = "x".repeat(100_000);
    let server = Server::start(&[]);
    let golock = Golock::new(server.port()).set("PREFIX", &long).set("KEY", &long);
    golock.args(["true"]).run().assert_one_line(126, &["true"]);
    assert_eq!((server.locks(), server.connections_received()), (vec![], 2));
}

#[test]
#[cfg(target_os = "linux")]
fn a_system_without_room_for_a_process_is_not_the_commands_fault() {
    if !may_trace() {
        return println!("skipped: no process may trace another here");
    }
    each(&["EAGAIN", "ENOMEM"], |error| {
        let server = Server::start(&[]);
        // By whatever call the C library starts a process.
        let calls = "?clone,?clone3,?vfork,?fork";
        let inject = format!("-e trace={calls} -e inject={calls}:error={error}");
        let golock = Golock::new(server.port()).prelude(&format!(r#"exec strace -qq -o /dev/null {inject} "$0" "$@""#));
        golock.args(["true"]).run().assert_one_line(201, &["true did not run: cannot start "]);
        assert_eq!(server.locks(), [""; 0]);
    });
}

#[test]
fn a_command_in_a_folder_that_may_not_be_searched_may_be_there() {
    let (server, notes) = (Scripted::start(|_, _| ()), Notes::new());
    let closed = notes.path("closed");
    fs::create_dir(&closed).unwrap();
    let tool = notes.executable("closed/tool", "#!/bin/sh\n");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
    // Root may search all folders, unless it has given that up.
    let less = r#"exec setpriv --bounding-set=-dac_override,-dac_read_search "$0" "$@""#;
    let golock = graceless(server.port()).prelude(if geteuid().is_root() { less } else { ":" });
    golock.args([&tool]).run().assert_one_line(126, &[tool.to_str().unwrap(), "not executable"]);
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(server.connections(), 0);
}
