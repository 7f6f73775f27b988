//! TLS, to real servers and to such as no Redis would be.

mod cuts;
mod faults;
mod files;
mod ports;
mod sessions;
mod trust;
