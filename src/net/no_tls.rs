//! Stands in for TLS in a golock that was built without it.

use super::connection::AnyStream;
use super::socket::Socket;
use super::{Failure, Outcome, TlsOptions};
use crate::text::{Line, Log};
use std::io;

pub(super) enum Tls {}

impl Tls {
    pub(super) fn new(_: &TlsOptions) -> Result<Self, Line> {
        Err("TLS: this golock was built without it".into())
    }

    pub(super) fn note(&self) -> &'static str {
        match *self {}
    }

    pub(super) fn wrap<'a>(&mut self, _: &str, _: Socket<'a>, _: &dyn Log) -> Outcome<AnyStream<'a>> {
        match *self {}
    }
}

impl From<io::Error> for Box<Failure> {
    fn from(error: io::Error) -> Self {
        Failure::io(&error)
    }
}
