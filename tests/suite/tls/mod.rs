//! TLS, to real servers and to such as no Redis would be.

mod cuts;
mod faults;
mod files;
mod forms;
mod names;
mod oddities;
mod ports;
mod reasons;
mod renewal;
mod sessions;
mod trust;
