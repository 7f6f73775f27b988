//! Folders and files of local locks that somebody has tampered with, or that the system denies: one line and 201, and
//! nothing of others is touched.

use std::env;
use std::fs::{self, DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use rustix::process::geteuid;

use crate::local::Host;
use crate::support::job_tools::copy_executable;
use crate::support::{Job, each, until};

/// nobody, of whom only root can make something the owner.
const NOBODY: u32 = 65_534;

/// Milliseconds since 1970 in the year 2100, which is not to be.
const FAR: u64 = 4_102_444_800_000;

fn make(path: &Path, mode: u32) {
    DirBuilder::new().mode(0o700).create(path).unwrap();
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// The lock is refused with one line that names the reason, whatever is asked of it.
#[track_caller]
fn assert_refused(host: &Host, folder: &Path, reason: &str) {
    let job = Job::exits(7);
    let golock = host.golock().set("LOCAL_DIR", folder);
    golock.clone().args(job.command()).run().assert_one_line(201, &[reason]);
    golock.clone().args(["--status"]).run().assert_one_line(201, &[reason]);
    golock.args(["--reset"]).run().assert_one_line(201, &[reason]);
    assert_eq!(job.runs(), 0);
}

#[test]
fn a_folder_that_is_a_symbolic_link_is_refused() {
    let host = Host::new();
    make(&host.path("elsewhere"), 0o700);
    symlink(host.path("elsewhere"), host.locks()).unwrap();
    for spelling in ["", "/", "/.", "//"] {
        let folder = format!("{}{spelling}", host.locks().display());
        assert_refused(&host, Path::new(&folder), "symbolic link");
    }
    assert_eq!(fs::read_dir(host.path("elsewhere")).unwrap().count(), 0);
}

#[test]
fn a_folder_that_is_a_dangling_link_or_no_folder_is_refused() {
    let host = Host::new();
    symlink(host.path("nowhere"), host.path("dangling")).unwrap();
    fs::write(host.path("file"), "").unwrap();
    symlink(host.path("loop"), host.path("loop")).unwrap();
    for folder in ["dangling", "file", "loop", "file/below"] {
        assert_refused(&host, &host.path(folder), folder);
    }
    host.golock()
        .set("LOCAL_DIR", host.path("file"))
        .args(["--list"])
        .run()
        .assert_one_line(201, &["cannot list", "file"]);
    assert!(!host.path("nowhere").exists());
}

#[test]
fn a_folder_that_others_can_write_to_is_refused() {
    let host = Host::new();
    for mode in [0o777, 0o1777, 0o722, 0o770, 0o720] {
        let folder = host.path(&format!("{mode:o}"));
        make(&folder, mode);
        assert_refused(&host, &folder, "writable by others");
    }
    for mode in [0o700, 0o755, 0o2700] {
        let folder = host.path(&format!("{mode:o}"));
        make(&folder, mode);
        host.golock().set("LOCAL_DIR", folder).args(["true"]).run().assert_silent(0);
    }
}

#[test]
fn a_parent_that_everybody_can_write_to_is_refused_without_a_sticky_bit() {
    let host = Host::new();
    for (mode, safe) in [(0o777, false), (0o702, false), (0o1777, true), (0o755, true)] {
        let parent = host.path(&format!("{mode:o}"));
        make(&parent, mode);
        make(&parent.join("locks"), 0o700);
        if safe {
            host.golock().set("LOCAL_DIR", parent.join("locks")).args(["true"]).run().assert_silent(0);
        } else {
            assert_refused(&host, &parent.join("locks"), "writable by everybody");
        }
    }
}

#[test]
fn a_link_on_the_way_is_judged_by_where_it_leads() {
    let host = Host::new();
    for (name, mode) in [("open", 0o777), ("safe", 0o755)] {
        let real = host.path(name).join("real");
        make(&host.path(name), mode);
        make(&real, 0o700);
        symlink(real, host.path(&format!("to-{name}"))).unwrap();
    }
    assert_refused(&host, &host.path("to-open/locks"), "writable by everybody");
    assert!(!host.path("open/real/locks").exists());
    host.golock().set("LOCAL_DIR", host.path("to-safe/locks")).args(["true"]).run().assert_silent(0);
    assert!(host.path("safe/real/locks").exists());
}

#[test]
fn a_folder_below_one_that_everybody_can_write_to_is_not_made() {
    let host = Host::new();
    make(&host.path("open"), 0o777);
    assert_refused(&host, &host.path("open/deep/locks"), "writable by everybody");
    assert!(!host.path("open/deep").exists());
}

/// What belongs to another can only be had as root.
#[test]
fn what_belongs_to_another_is_refused() {
    if !geteuid().is_root() {
        // What is root's is another's to everybody else.
        return assert_refused(&Host::new(), Path::new("/usr"), "another user's");
    }
    let host = Host::new();
    make(&host.path("theirs"), 0o700);
    make(&host.path("theirs/ours"), 0o700);
    symlink(host.path(""), host.path("link")).unwrap();
    make(&host.path("real"), 0o700);
    chown(host.path("theirs"), Some(NOBODY), Some(NOBODY)).unwrap();
    assert_refused(&host, &host.path("theirs"), "another user's");
    // Its owner could put another in its place.
    assert_refused(&host, &host.path("theirs/ours"), "another user's");
    rustix::fs::chownat(
        rustix::fs::CWD,
        host.path("link"),
        Some(rustix::fs::Uid::from_raw(NOBODY)),
        None,
        rustix::fs::AtFlags::SYMLINK_NOFOLLOW,
    )
    .unwrap();
    assert_refused(&host, &host.path("link/real"), "another user's");
    assert_eq!(fs::read_dir(host.path("real")).unwrap().count(), 0);
}

#[test]
fn a_file_that_is_a_symbolic_link_is_not_followed() {
    let host = Host::new();
    make(&host.locks(), 0o700);
    fs::write(host.path("precious"), "as it was").unwrap();
    symlink(host.path("precious"), host.file()).unwrap();
    let job = Job::exits(7);
    host.run(&job).assert_one_line(201, &["cronlock.job"]);
    host.golock().args(["--status"]).run().assert_one_line(201, &["cronlock.job"]);
    fs::remove_file(host.file()).unwrap();
    symlink(host.path("nowhere"), host.file()).unwrap();
    host.run(&job).assert_one_line(201, &["cronlock.job"]);
    // A reset deletes the link, not what it leads to.
    host.golock().args(["--reset"]).run().assert_silent(200);
    assert_eq!(fs::read_to_string(host.path("precious")).unwrap(), "as it was");
    assert!(!host.path("nowhere").exists());
    assert_eq!((host.files().len(), job.runs()), (0, 0));
}

#[test]
fn a_file_that_is_none_is_refused() {
    for kind in ["mkdir", "mkfifo"] {
        let (host, job) = (Host::new(), Job::exits(7));
        make(&host.locks(), 0o700);
        assert!(Command::new(kind).arg(host.file()).status().unwrap().success());
        host.run(&job).assert_one_line(201, &["cronlock.job"]);
        host.golock().args(["--status"]).run().assert_one_line(201, &["cronlock.job"]);
        assert_eq!((job.runs(), host.files().len()), (0, 1), "{kind}");
        // A reset deletes whatever is no folder.
        let reset = host.golock().args(["--reset"]).run();
        if kind == "mkdir" {
            reset.assert_one_line(201, &["cannot delete", "cronlock.job", "irectory"]);
        } else {
            reset.assert_silent(200);
        }
        assert_eq!(host.files().len(), usize::from(kind == "mkdir"), "{kind}");
    }
}

#[test]
fn a_file_of_another_kind_of_content_is_not_overwritten() {
    let long = "4102444800000 9".repeat(1000);
    each(&["some notes\n", "key=value", "\u{1}", "1 x", &long], |content| {
        let (host, job) = (Host::new(), Job::exits(7));
        make(&host.locks(), 0o700);
        fs::write(host.file(), content).unwrap();
        host.run(&job).assert_one_line(201, &["cronlock.job", "is not a lock"]);
        assert_eq!((fs::read_to_string(host.file()).unwrap(), job.runs()), ((*content).to_owned(), 0));
        host.golock().args(["--reset"]).run().assert_silent(200);
        host.run(&job).assert_silent(7);
    });
}

/// `LOCAL_DIR` may be `/run`, where others keep what looks like a lock that is over.
#[test]
fn what_golock_has_not_written_is_not_swept() {
    let host = Host::new();
    make(&host.locks(), 0o700);
    let others =
        [("sshd.pid", "812\n"), ("sales", "2024 12\n100\n"), ("crond.reboot", ""), (".keep", ""), ("zeros", "\0\0")];
    for (name, content) in others {
        fs::write(host.locks().join(name), content).unwrap();
    }
    let own = host.locks().join("cronlock.over");
    fs::write(&own, "1 0 1234567890123456789 1\n\n").unwrap();
    assert_eq!(host.golock().args(["--list"]).run().code, 0);
    for (name, content) in others {
        assert_eq!(fs::read_to_string(host.locks().join(name)).unwrap(), content, "{name}");
    }
    assert!(!own.exists());
}

/// A crash or a full disk can leave any part of what golock writes, and a file system nothing but zeros of it.
#[test]
fn what_is_left_of_a_lock_is_free() {
    let nines = "9".repeat(40);
    let contents = ["", "\n", "1", "4102444800000", "4102444800000 ", " ", "\0\0\0\0", "1 1\n", &nines];
    each(&contents, |content| {
        let (host, job) = (Host::new(), Job::exits(7));
        make(&host.locks(), 0o700);
        fs::write(host.file(), content).unwrap();
        assert_eq!(host.status().0, 0);
        host.run(&job).assert_silent(7);
        assert_eq!(job.runs(), 1);
    });
}

/// The end of the grace lies further ahead than the grace is long: the clock was set back.
#[test]
fn a_clock_that_was_set_back_keeps_nobody_out() {
    let (host, job) = (Host::new(), Job::exits(7));
    make(&host.locks(), 0o700);
    fs::write(host.file(), format!("{FAR} 40000\n")).unwrap();
    assert_eq!(host.status().0, 0);
    host.run(&job).assert_silent(7);
    // A grace that is really so long counts.
    fs::write(host.file(), format!("{FAR} {FAR}\n")).unwrap();
    assert_eq!(host.status().0, 200);
    host.run(&job).assert_silent(200);
}

#[test]
fn a_folder_that_is_read_only_is_refused() {
    // Nothing is read-only to root, but for what the kernel itself keeps: no folder can be made there.
    let folder = Path::new("/proc/golock");
    let (host, job) = (Host::new(), Job::exits(7));
    host.golock().set("LOCAL_DIR", folder).args(job.command()).run().assert_one_line(201, &["/proc/golock"]);
    assert_eq!(job.runs(), 0);
    if geteuid().is_root() {
        return;
    }
    make(&host.locks(), 0o500);
    host.run(&job).assert_one_line(201, &["cronlock.job", "ermission denied"]);
    fs::set_permissions(host.locks(), Permissions::from_mode(0o700)).unwrap();
    fs::write(host.file(), "").unwrap();
    fs::set_permissions(host.file(), Permissions::from_mode(0o400)).unwrap();
    host.run(&job).assert_one_line(201, &["cronlock.job", "ermission denied"]);
    assert_eq!(job.runs(), 0);
}

/// No byte can be written to any file. What golock says goes through a pipe.
#[test]
fn a_full_disk_is_told() {
    let (host, job) = (Host::new(), Job::exits(7));
    let full = "mkfifo \"$CRONLOCK_LOCAL_DIR.said\"; cat \"$CRONLOCK_LOCAL_DIR.said\" >&2 & \
                exec 2>\"$CRONLOCK_LOCAL_DIR.said\"; ulimit -f 0";
    let golock = host.golock().set("GRACE", "40").args(job.command());
    let (done, reader) = (golock.clone().prelude(full).spawn(), host.path("locks.said"));
    let done = done.wait();
    assert_eq!((done.code, job.runs()), (201, 0), "{done:?}");
    assert!(reader.exists());
    // The lock was given back.
    assert_eq!(host.status().0, 0);
    golock.run().assert_silent(7);
}

/// A disk that is really full; a name space of its own is needed to make one.
#[test]
fn a_disk_without_space_is_told() {
    let mount = "mount -t tmpfs -o size=4k,mode=700 none \"$CRONLOCK_LOCAL_DIR\" && \
                 head -c 4096 /dev/zero >\"$CRONLOCK_LOCAL_DIR/fill\"";
    let possible = Command::new("unshare").args(["-m", "mount", "-t", "tmpfs", "none", "/mnt"]).output();
    if !possible.is_ok_and(|done| done.status.success()) {
        return eprintln!("not tested: there is no right to mount");
    }
    let (host, job) = (Host::new(), Job::exits(7));
    make(&host.locks(), 0o700);
    let prelude = format!("exec unshare -m sh -c '{mount} && exec \"$0\" \"$@\"' \"$0\" \"$@\"");
    let golock = host.golock().args(job.command()).prelude(&prelude);
    golock.clone().set("GRACE", "40").run().assert_one_line(201, &["cronlock.job", "No space left"]);
    assert_eq!(job.runs(), 0);
    // Where nothing has to be remembered, the kernel's lock is enough.
    golock.clone().set("GRACE", "0").run().assert_silent(7);
    golock.set("GRACE", "0").set("RECORD", "0").run().assert_silent(7);
    assert_eq!(job.runs(), 2);
}

/// Root's own folder, in a `/run` of its own.
#[test]
fn root_has_its_locks_in_run() {
    let possible = Command::new("unshare").args(["-m", "mount", "-t", "tmpfs", "none", "/run"]).output();
    if !possible.is_ok_and(|done| done.status.success()) {
        return eprintln!("not tested: there is no right to mount");
    }
    let mount = "mount -t tmpfs -o mode=755 none /run";
    let prelude = format!("exec unshare -m sh -c '{mount} && exec \"$0\" \"$@\"' \"$0\" \"$@\"");
    let golock = Host::new().golock().set("LOCAL_DIR", "").prelude(&prelude);
    let done = golock.args(["stat", "-c", "%a %n", "/run/golock", "/run/golock/cronlock.job"]).run();
    assert_eq!((done.code, &*done.stdout), (0, "700 /run/golock\n600 /run/golock/cronlock.job\n"), "{done:?}");
}

/// golock as a user who is not root, from cron and in a session.
#[test]
fn users_have_their_locks_in_their_own_folders() {
    let host = Host::new();
    let binary = env::var_os("GOLOCK_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_golock").into());
    let copy = host.path("golock");
    copy_executable(binary, &copy);
    fs::set_permissions(host.path(""), Permissions::from_mode(0o755)).unwrap();
    let run = |variables: &[(&str, &Path)]| {
        let mut command = Command::new(&copy);
        command.args(["--local", "--key=job", "true"]).env_clear().env("CRONLOCK_CONFIG", "/dev/null");
        command.envs(variables.iter().copied());
        if geteuid().is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        let done = command.output().unwrap();
        (done.status.code(), String::from_utf8(done.stderr).unwrap())
    };
    let home = host.path("home");
    make(&home, 0o700);
    if geteuid().is_root() {
        chown(&home, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    assert_eq!(run(&[("HOME", &home)]), (Some(0), String::new()));
    assert!(home.join(".local/state/golock/cronlock.job").exists());
    // A session has a folder of its own, and cron has not: they must see each other's locks.
    assert_eq!(run(&[("HOME", &home), ("XDG_RUNTIME_DIR", &home)]).0, Some(200));
    let (code, said) = run(&[]);
    assert!(code == Some(201) && said.contains("--local needs --local-dir"), "{said}");
    // Root could put another in its place; but who has made it, has made it for himself.
    let (code, said) = run(&[("CRONLOCK_LOCAL_DIR", Path::new("/usr"))]);
    assert!(code == Some(201) && said.contains("/usr is another user's"), "{said}");
    until("nothing of it runs", || fs::remove_file(&copy).is_ok());
}
