use super::table::{Kind, PREFIX, Setting, TABLE};

const HEAD: &str = "\
Usage: golock [OPTION]... COMMAND [ARG]...

Run COMMAND under a lock in Redis, so that a job scheduled on many hosts runs on
one of them and never overlaps itself. Exit with COMMAND's code; 200 without
running it if the lock is held by another.

Each setting is an option, or a variable of the environment or of the config
file: --redis-timeout 5 is ";

const SETTINGS: &str = "_TIMEOUT=5. Times are in seconds, or have a
unit: 90, 5m, 2h, 1d.

Settings, with their defaults:
";

const TAIL: &str = "
Other options:
  -v                     as --verbose
      --status           print whether the lock is free or held, run nothing
      --print-key        print the lock's full name, run nothing
  -h, --help             print this
  -V, --version          print the version

Exit codes:
  the command's own; 128+N if it died of signal N; 126, 127 if it cannot be run
  200  the lock is held by another, or --reset done
  201  golock failed; the command did not run, or one line on stderr says more
  202  the command was killed at --timeout
";

/// The text of `--help`, made from the table of settings.
pub fn help() -> String {
    let rows: String = TABLE.iter().map(row).collect();
    [HEAD, PREFIX, "REDIS", SETTINGS, &rows, TAIL].concat()
}

fn row(setting: &Setting) -> String {
    let option = format!("--{}{}", setting.option(), operand(setting.kind));
    let default = if setting.default.is_empty() { String::new() } else { format!(" [{}]", setting.default) };
    format!("  {option:<27} {}{default}\n", setting.help)
}

fn operand(kind: Kind) -> &'static str {
    match kind {
        Kind::Bytes | Kind::Secret => " TEXT",
        Kind::Path => " PATH",
        Kind::Number => " N",
        Kind::Time => " TIME",
        Kind::Switch => "",
    }
}

/// The text of `--version`.
pub fn version() -> String {
    let tls = if cfg!(feature = "tls") { "with" } else { "without" };
    format!("golock {} ({tls} TLS)\n", env!("CARGO_PKG_VERSION"))
}
