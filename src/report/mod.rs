//! All text that golock writes about itself. Nothing here can fail: under cron, stderr may be closed.

mod errors;

use crate::Error;
use crate::clock::Moment;
use crate::config::Config;
use crate::job::Ended;
use crate::lock::{self, Holder, Lock, Released, Status, Ttl};
use crate::net::{self, Endpoint, Failure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal};
use std::ffi::OsStr;
use std::fmt::{self, Display, Formatter, Write as _};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

/// How much is shown of a text that came over the network.
const SHOWN: usize = 300;

/// Says on stderr why golock failed. That the lock is held, or that somebody stopped golock, is no failure.
pub fn fail(error: &Error) {
    if !matches!(error, Error::Held(_) | Error::Stopped(_)) {
        line(&error.to_string());
    }
}

/// One write, so that the lines of many hosts or jobs that share a log stay whole.
fn line(text: &str) {
    let _ = io::stderr().write_all(format!("golock: {text}\n").as_bytes());
}

/// The line of `--status`.
pub fn status(name: &[u8], status: &Status) -> String {
    let name = Shown(name);
    let Status::Held(ttl, holder) = status else { return format!("{name} free\n") };
    let by = match holder {
        Holder::Golock => "golock",
        Holder::Predecessor => "predecessor",
        Holder::Unknown => "unknown",
    };
    match ttl {
        Ttl::Seconds(seconds) => format!("{name} held ttl={seconds} by={by}\n"),
        Ttl::None => format!("{name} held ttl=none by={by}\n"),
        Ttl::Unknown => format!("{name} held ttl=unknown by={by}\n"),
    }
}

/// How a lease was lost.
#[derive(Debug)]
pub enum Loss {
    /// Another holds the lock.
    Taken,
    /// RELEASE is over.
    Over,
    /// It was not renewed in time; the error of the last try, if there was one.
    Expired(Option<lock::Error<net::Error>>),
}

/// Whether stderr takes a line without making us wait: a reader that is stuck must not keep us from the job.
fn is_ready() -> bool {
    let stderr = io::stderr();
    let mut fds = [PollFd::new(&stderr, PollFlags::OUT)];
    poll(&mut fds, Some(&Timespec::default())).is_ok_and(|count| count > 0)
}

/// What happens during a run.
#[derive(Debug)]
#[allow(missing_docs)]
pub enum Event<'a> {
    Public(&'a Path),
    Connected(&'a Endpoint, Option<SocketAddr>, &'a str),
    Retrying(&'a Endpoint, &'a Failure, Duration),
    Redirected(&'a Endpoint),
    Acquired(Duration),
    Held(&'a [u8]),
    Started(&'a Path, Pid),
    Forwarding(Signal),
    Ended(&'a OsStr, Ended, Option<Duration>),
    Released(&'a [u8], Released),
    NotReleased(&'a Lock, &'a lock::Error<net::Error>),
    NotGivenBack(&'a Lock, &'a lock::Error<net::Error>),
    NotRenewed(&'a lock::Error<net::Error>),
    LeaseLost(&'a Lock, &'a Loss),
}

impl Event<'_> {
    /// Whether people must know without having asked.
    fn is_trouble(&self) -> bool {
        matches!(
            self,
            Self::Public(_)
                | Self::Ended(_, Ended::TimedOut, _)
                | Self::LeaseLost(..)
                | Self::Released(_, Released::Lost)
                | Self::NotReleased(..)
        )
    }
}

/// Tells of a run on stderr: troubles always, everything else with VERBOSE and the time since the start.
#[derive(Clone, Copy)]
pub struct Story {
    start: Option<Moment>,
}

impl Story {
    /// The beginning, with what the settings have to say.
    pub fn begin(config: &Config) -> Self {
        let story = Self { start: config.verbose.then(Moment::now) };
        if config.verbose || config.show_key {
            line(&format!("Acquiring lock on {} key", Shown(&config.name)));
        }
        for name in config.unknown.iter().filter(|_| config.verbose) {
            line(&format!("{}: no such setting, ignored", Shown(name)));
        }
        story
    }

    /// Tells of `event` if it is wanted.
    pub fn tell(self, event: &Event<'_>) {
        match self.start.map(Moment::elapsed) {
            Some(time) if event.is_trouble() || is_ready() => {
                line(&format!("{}.{:03}s {event}", time.as_secs(), time.subsec_millis()));
            }
            None if event.is_trouble() => line(&event.to_string()),
            _ => {}
        }
    }
}

/// Bytes made fit for one line of a terminal or a mail.
struct Shown<'a>(&'a [u8]);

impl<'a> Shown<'a> {
    fn path(path: &'a Path) -> Self {
        Self(path.as_os_str().as_bytes())
    }
}

impl Display for Shown<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            f.write_str("\"\"")?;
        }
        for &byte in self.0.iter().take(SHOWN) {
            match byte {
                b' '..=b'~' => f.write_char(char::from(byte))?,
                _ => write!(f, "{}", byte.escape_ascii())?,
            }
        }
        if self.0.len() > SHOWN { f.write_str("...") } else { Ok(()) }
    }
}

impl Display for Event<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Public(path) => write!(f, "warning: everybody can read {}", Shown::path(path)),
            Self::Connected(server, Some(peer), tls) => write!(f, "connected to {server} ({peer}){tls}"),
            Self::Connected(server, None, _) => write!(f, "connected to {server}"),
            Self::Retrying(server, failure, pause) => {
                write!(f, "{server}: {failure}; trying again in {}.{:03}s", pause.as_secs(), pause.subsec_millis())
            }
            Self::Redirected(server) => write!(f, "the lock lives on another node: {server}"),
            Self::Acquired(ttl) => write!(f, "got the lock, for {} s at most", ttl.as_secs()),
            Self::Held(value) => match Holder::of(value) {
                Holder::Golock | Holder::Predecessor => write!(f, "the lock is held by another"),
                Holder::Unknown => {
                    write!(f, "the key is no lock, its value is \"{}\"; golock --reset deletes it", Shown(value))
                }
            },
            Self::Started(program, pid) => {
                write!(f, "started {} as process {pid}", Shown::path(program))
            }
            Self::Forwarding(signal) => write!(f, "forwarding signal {}", signal.as_raw()),
            Self::Ended(program, ended, timeout) => {
                let program = Shown(program.as_bytes());
                match ended {
                    Ended::Code(code) => write!(f, "{program} ended with code {code}"),
                    Ended::Signal(signal) => write!(f, "{program} died of signal {signal}"),
                    Ended::TimedOut => write!(f, "killed {program} after {} s", timeout.unwrap_or_default().as_secs()),
                    Ended::LeaseLost => write!(f, "stopped {program}"),
                }
            }
            Self::Released(name, released) => match released {
                Released::Free => write!(f, "released the lock"),
                Released::InGrace(left) => write!(f, "released the lock, with {} s of grace left", left.as_secs()),
                Released::Lost => write!(f, "{}: the lock was lost before the command ended", Shown(name)),
                Released::Left => write!(f, "left the lock to expire: it cannot be released safely without EVAL"),
            },
            Self::NotRenewed(error) => write!(f, "the lease was not renewed: {error}"),
            Self::LeaseLost(lock, loss) => {
                write!(f, "the lease of {} was lost, the command was stopped: ", Shown(&lock.name))?;
                match loss {
                    Loss::Taken => f.write_str("another holds the lock"),
                    Loss::Over => f.write_str("RELEASE is over"),
                    Loss::Expired(Some(error)) => error.fmt(f),
                    Loss::Expired(None) => f.write_str("golock stood still for too long"),
                }
            }
            Self::NotReleased(lock, error) | Self::NotGivenBack(lock, error) => {
                write!(f, "cannot release {}, which may stay for {} s: {error}", Shown(&lock.name), lock.ttl.as_secs())
            }
        }
    }
}
