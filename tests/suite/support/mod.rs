//! What the tests stand on: servers, proxies, the binary, its jobs, and bounded waiting.

pub(crate) mod board;
pub(crate) mod cases;
pub(crate) mod cluster;
#[cfg(target_os = "linux")]
pub(crate) mod desk;
pub(crate) mod fault;
pub(crate) mod forward;
pub(crate) mod full;
pub(crate) mod gate;
pub(crate) mod golock;
pub(crate) mod job;
pub(crate) mod job_tools;
pub(crate) mod ledger;
pub(crate) mod misconf;
pub(crate) mod outcome;
pub(crate) mod proxy;
pub(crate) mod redis;
pub(crate) mod resp;
pub(crate) mod scene;
pub(crate) mod scripted;
#[cfg(target_os = "linux")]
pub(crate) mod soak;
pub(crate) mod successor;
#[cfg(target_os = "linux")]
pub(crate) mod tenant;
#[cfg(feature = "tls")]
pub(crate) mod tls;
pub(crate) mod wait;
#[cfg(target_os = "linux")]
pub(crate) mod watch;

pub(crate) use self::cases::{abreast, each};
pub(crate) use self::fault::{Action, Direction, Fault};
pub(crate) use self::golock::{Done, Golock, Running};
pub(crate) use self::job::Job;
pub(crate) use self::proxy::{Proxy, Record};
pub(crate) use self::redis::{Data, Server};
pub(crate) use self::scene::{STALE, Scene};
pub(crate) use self::scripted::Scripted;
pub(crate) use self::wait::until;
