//! In the place of TLS in a golock that was built without it.

use super::connection::Wire;
use super::dial::Socket;
use super::{Failure, Identity, Trust};
use std::io;

/// TLS never fails here.
#[derive(Debug)]
pub enum Error {}

/// Why TLS cannot be set up.
#[derive(Debug)]
pub enum SetupError {
    /// It was left out.
    NotBuilt,
}

pub(super) enum Tls {}

impl Tls {
    pub(super) fn new(_: &Trust, _: Option<&Identity>) -> Result<Self, SetupError> {
        Err(SetupError::NotBuilt)
    }

    pub(super) fn wrap<'a>(&self, _: &str, _: Socket<'a>) -> Result<Box<dyn Wire<'a> + 'a>, Failure> {
        match *self {}
    }
}

pub(super) fn failure(error: io::Error) -> Failure {
    if error.kind() == io::ErrorKind::UnexpectedEof { Failure::Closed } else { Failure::Io(error) }
}

pub(super) fn is_final(error: &Error) -> bool {
    match *error {}
}
