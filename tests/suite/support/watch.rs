//! Other processes, as `/proc` shows them.

use std::fs;
use std::time::Duration;

use rustix::process::{Pid, RawPid};

use super::job_tools::{field, sleeps, status};
use super::wait::holds_within;

/// Whether a process is there; a zombie does nothing any more.
pub(crate) fn is_alive(pid: Pid) -> bool {
    let status = status(pid);
    !status.is_empty() && !field(&status, "State").starts_with(['Z', 'X'])
}

/// Whether a process sleeps, and not just for a moment.
pub(crate) fn is_asleep(pid: Pid) -> bool {
    let before = wake_ups(pid);
    sleeps(&status(pid)) && !holds_within(Duration::from_millis(50), || wake_ups(pid) != before)
}

/// How often a process has been given a processor.
pub(crate) fn wake_ups(pid: Pid) -> [String; 2] {
    let status = status(pid);
    ["voluntary_ctxt_switches", "nonvoluntary_ctxt_switches"].map(|name| field(&status, name).to_owned())
}

/// What the descriptors of a process stand for; one may be closed meanwhile.
pub(crate) fn descriptors(pid: Pid) -> Vec<String> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let targets = entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    targets.map(|target| target.display().to_string()).collect()
}

/// The children of a process, zombies included.
pub(crate) fn children(parent: Pid) -> Vec<Pid> {
    processes("status", |status| !status.is_empty() && field(status, "PPid") == parent.to_string())
}

/// The process that has started this one, or now stands in its place; nothing, if this one is gone.
pub(crate) fn parent(pid: Pid) -> Option<Pid> {
    let status = status(pid);
    Pid::from_raw(status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()?)
}

/// All that a process has started, and what that has started.
pub(crate) fn below(ancestor: Pid) -> Vec<Pid> {
    children(ancestor).into_iter().flat_map(|child| [vec![child], below(child)].concat()).collect()
}

/// What `/proc/PID/stat` says of a process, whose name, in brackets, may hold anything.
pub(crate) fn stat(pid: Pid) -> String {
    fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default()
}

/// The words with which a process was started.
pub(crate) fn command_line(pid: Pid) -> String {
    fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default().replace('\0', " ")
}

/// The processes that have `word` in their command line.
pub(crate) fn mentioning(word: &str) -> Vec<Pid> {
    processes("cmdline", |line| line.contains(word))
}

/// The processes that have `word` in their environment; they pass it on to those that they start.
pub(crate) fn inheriting(word: &str) -> Vec<Pid> {
    processes("environ", |variables| variables.contains(word))
}

/// When a process was born, in the kernel's own measure. A zombie still counts as a process.
pub(crate) fn birth(pid: Pid) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in brackets, may hold anything; the time is the twentieth word after it (proc(5)).
    stat.rsplit_once(") ")?.1.split(' ').nth(19).map(String::from)
}

/// All processes whose `/proc/PID/NAME` is as `wanted`.
fn processes(name: &str, wanted: impl Fn(&str) -> bool) -> Vec<Pid> {
    let entries = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let pids = entries.filter_map(|name| Pid::from_raw(name.parse::<RawPid>().ok()?));
    let text = |pid: &Pid| fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
    pids.filter(|pid| wanted(&String::from_utf8_lossy(&text(pid)))).collect()
}

/// Seconds since this host was started, suspended or not, by the clock that jobs can read as well.
pub(crate) fn uptime() -> f64 {
    fs::read_to_string("/proc/uptime").unwrap().split(' ').next().unwrap().parse().unwrap()
}
