use super::table::{PREFIX, Rank, Setting, TABLE};

const HEAD: &str = "\
Usage: golock [OPTION]... COMMAND [ARG]...

Run COMMAND under a lock in Redis, so that a job scheduled on many hosts runs on
one of them and never overlaps itself. Exit with COMMAND's code, or with 200
without running it if the lock is held by another.

Each setting is an option, or a variable of the environment or of the config
file: --tls-ca X is ";

const SETTINGS: &str = "TLS_CA=X. TIME is in seconds, or as 5m, 1h30m, 2d.

";

const TAIL: &str = "
  -v                         as --verbose
      --status               print what is known of the lock, run nothing
      --list                 list all jobs under --prefix, run nothing
      --metrics              the same for Prometheus
      --print-key            print the lock's full name, run nothing
  -h, --help [all]           print this, or all settings
  -V, --version              print the version

Exit codes: COMMAND's own; 128+N for signal N; 126, 127 if it cannot be run; 200
if the lock is held by another; 201 if golock failed; 202 if COMMAND was killed
at --timeout; 203 if the lock is held and nothing has succeeded for --max-age.
";

/// The text of `--help`, made from the table of settings: of the common ones or of `all`.
pub fn help(all: bool) -> String {
    let rows: String = TABLE.iter().filter(|setting| all || setting.rank == Rank::Common).map(row).collect();
    [HEAD, PREFIX, SETTINGS, &rows, TAIL].concat()
}

fn row(setting: &Setting) -> String {
    let option = ["--", &setting.option(), " ", setting.kind.operand().unwrap_or_default()].concat();
    let default = if setting.default.is_empty() { String::new() } else { format!(" [{}]", setting.default) };
    format!("      {option:<26} {}{default}\n", setting.help)
}

/// The text of `--version`.
pub fn version() -> String {
    let tls = if cfg!(feature = "tls") { "TLS" } else { "no TLS" };
    let commit = if env!("GOLOCK_COMMIT").is_empty() { "no commit" } else { env!("GOLOCK_COMMIT") };
    format!("golock {} ({commit}, {}, {tls})\n", env!("CARGO_PKG_VERSION"), env!("GOLOCK_TARGET"))
}
