//! Completions for bash, zsh and fish. After the options they leave the word to the completion of the command.

use golock::config::{Id, Kind, Setting, TABLE};

/// The options that are not settings, with their help.
const OTHERS: &[(&str, &str)] = &[
    ("status", "print what is known of the lock, run nothing"),
    ("list", "list all jobs, run nothing"),
    ("metrics", "list all jobs for Prometheus, run nothing"),
    ("print-key", "print the full name of the lock, run nothing"),
    ("help", "print the common settings, or all"),
    ("version", "print the version"),
];

/// What can be offered for the value of an option.
enum Values {
    Files,
    Folders,
    Hosts,
    Words(&'static str),
    Nothing,
}

impl Values {
    fn of(setting: &Setting) -> Self {
        let is = |id: Id| id.row().name == setting.name;
        match setting.kind {
            _ if is(Id::Host) || is(Id::TlsName) => Self::Hosts,
            _ if is(Id::KeyFormat) => Self::Words("cronlock golock"),
            Kind::Path if is(Id::LocalDir) => Self::Folders,
            Kind::Path => Self::Files,
            _ => Self::Nothing,
        }
    }
}

/// All long options, with their dashes, of the settings that `wanted` takes.
fn options(wanted: impl Fn(&Setting) -> bool) -> Vec<String> {
    TABLE.iter().filter(|&setting| wanted(setting)).map(|setting| format!("--{}", setting.option())).collect()
}

fn takes_value(setting: &Setting) -> bool {
    setting.kind.operand().is_some()
}

/// For bash.
pub(crate) fn bash() -> String {
    let others = OTHERS.iter().map(|(name, _)| format!("--{name}"));
    let all: Vec<_> = options(|_| true).into_iter().chain(others).collect();
    let action = |setting: &Setting| {
        let offer = match Values::of(setting) {
            Values::Files => "-f",
            Values::Folders => "-d",
            Values::Hosts => "-A hostname",
            Values::Words(words) => &format!("-W '{words}'"),
            Values::Nothing => return None,
        };
        Some(format!("            --{}) _golock_offer {offer} ;;\n", setting.option()))
    };
    include_str!("completions/bash.in")
        .replace("@VALUED@", &options(takes_value).join(" | "))
        .replace("@VALUES@\n", &TABLE.iter().filter_map(action).collect::<String>())
        .replace("@OPTIONS@", &all.join(" "))
}

/// For zsh.
pub(crate) fn zsh() -> String {
    let plain = |text: &str| text.replace('\'', "'\\''").replace('[', "\\[").replace(']', "\\]");
    let spec = |setting: &Setting| {
        let value = match Values::of(setting) {
            Values::Files => ":file:_files".to_owned(),
            Values::Folders => ":folder:_files -/".to_owned(),
            Values::Hosts => ":host:_hosts".to_owned(),
            Values::Words(words) => format!(":format:({words})"),
            Values::Nothing => format!(":{}: ", setting.kind.operand().unwrap_or_default()),
        };
        let (equals, value) = if takes_value(setting) { ("=", &*value) } else { ("", "") };
        format!("    '--{}{equals}[{}]{value}' \\\n", setting.option(), plain(setting.help))
    };
    let others = OTHERS.iter().map(|(name, help)| format!("    '--{name}[{}]' \\\n", plain(help)));
    let specs: String = TABLE.iter().map(spec).chain(others).collect();
    include_str!("completions/zsh.in").replace("@OPTIONS@\n", &specs)
}

/// For fish.
pub(crate) fn fish() -> String {
    let plain = |text: &str| text.replace('\\', "\\\\").replace('\'', "\\'");
    let row = |setting: &Setting| {
        let value = match Values::of(setting) {
            Values::Files => " -r -F",
            Values::Folders => " -x -a '(__fish_complete_directories)'",
            Values::Hosts => " -x -a '(__fish_print_hostnames)'",
            Values::Words(words) => &format!(" -x -a '{words}'"),
            Values::Nothing if takes_value(setting) => " -x",
            Values::Nothing => "",
        };
        line(&setting.option(), value, &plain(setting.help))
    };
    let others = OTHERS.iter().map(|(name, help)| line(name, "", &plain(help)));
    include_str!("completions/fish.in")
        .replace("@VALUED@", &options(takes_value).join(" "))
        .replace("@OPTIONS@\n", &TABLE.iter().map(row).chain(others).collect::<String>())
}

fn line(option: &str, value: &str, help: &str) -> String {
    format!("complete -c golock -n __golock_before_command -l {option}{value} -d '{help}'\n")
}
