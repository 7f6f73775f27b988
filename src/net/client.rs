use super::connection::Connection;
use super::dial::{Endpoint, Socket};
use super::reply::{obstacle, redact};
use super::tls::Tls;
use super::{Error, Failure, SetupError, TlsMode, Trust};
use crate::clock::{self, Moment};
use crate::lock::{Answer, Command, Exchange, Repeat};
use crate::report::{Event, Story};
use crate::resp::{Reply, encode};
use crate::signals::{Cut, Heed, Patience, Signals};
use std::time::Duration;

/// How many redirections of a cluster one exchange follows. One leads to the right node; more happen while slots move.
const MOVES: u32 = 5;

/// What is sent first on every connection, where it is configured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Login {
    /// The ACL user; without it AUTH sends the password alone.
    pub user: Option<Vec<u8>>,
    /// The password, any bytes.
    pub password: Option<Vec<u8>>,
    /// The database; SELECT is sent only when it is not 0.
    pub database: u32,
}

/// The server, and how it is spoken to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Where it is.
    pub endpoint: Endpoint,
    /// Who we are there.
    pub login: Login,
    /// Whether the connection is encrypted.
    pub tls: TlsMode,
}

/// How long and how often to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// The time that one exchange may take: from name lookup to SELECT, or a request with its replies.
    pub timeout: Duration,
    /// Further connections after the first try.
    pub attempts: u32,
    /// What the wait before each further connection grows by.
    pub backoff: Duration,
}

/// A client of one Redis: connects when there is something to say, and again when that was lost.
pub struct Client<'a> {
    endpoint: Endpoint,
    login: Login,
    tls: Option<Tls>,
    /// What is told of the encryption.
    tls_note: &'static str,
    retry: Retry,
    signals: &'a Signals,
    story: Story,
    heed: Heed,
    until: Option<Moment>,
    /// The node of a cluster that the last redirection named.
    redirect: Option<Endpoint>,
    connection: Option<Connection<'a>>,
    /// Whether the last exchange may have been carried out without our having heard of it.
    unheard: bool,
}

impl<'a> Client<'a> {
    /// A client that has not connected yet, and breaks off for the signals that would end golock.
    ///
    /// # Errors
    /// When TLS is wanted and cannot be set up.
    pub fn new(server: Server, retry: Retry, signals: &'a Signals, story: Story) -> Result<Self, SetupError> {
        let Server { endpoint, login, tls } = server;
        let (tls, tls_note) = match &tls {
            TlsMode::Off => (None, ""),
            TlsMode::On(trust, identity) => {
                let note = if *trust == Trust::Anyone { " by TLS, whatever its certificate" } else { " by TLS" };
                (Some(Tls::new(trust, identity.as_ref())?), note)
            }
        };
        let (heed, until, redirect, connection, unheard) = (Heed::Stops, None, None, None, false);
        Ok(Self { endpoint, login, tls, tls_note, retry, signals, story, heed, until, redirect, connection, unheard })
    }

    /// From here on only `heed` breaks off an exchange, or `until` if that comes first, and it is tried again `attempts`
    /// times.
    pub fn pursue(&mut self, heed: Heed, attempts: u32, until: Option<Moment>) {
        self.heed = heed;
        self.retry.attempts = attempts;
        self.until = until;
    }

    /// Whether the exchange that failed may have been carried out all the same.
    pub fn is_unheard(&self) -> bool {
        self.unheard
    }

    /// Closes the connection; the next exchange opens a new one.
    pub fn close(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.close();
        }
    }

    fn server(&self) -> &Endpoint {
        self.redirect.as_ref().unwrap_or(&self.endpoint)
    }

    fn patience(&self) -> Patience<'a> {
        let timeout = Moment::after(self.retry.timeout);
        let deadline = self.until.map_or(timeout, |until| until.min(timeout));
        Patience { signals: self.signals, heed: self.heed, deadline }
    }

    /// Name lookup, connect, TLS, AUTH and SELECT: one exchange under one deadline.
    fn open(&self) -> Result<Connection<'a>, Failure> {
        let patience = self.patience();
        let socket = Socket::dial(self.server(), patience)?;
        let peer = socket.peer;
        let wire = match (&self.tls, self.server()) {
            (Some(tls), Endpoint::Tcp(host, _)) => tls.wrap(host, socket)?,
            _ => Box::new(socket),
        };
        self.story.tell(&Event::Connected(self.server(), peer, self.tls_note));
        self.log_in(Connection::new(wire), patience)
    }

    /// AUTH and SELECT go out together, and both must be granted before anything else is sent: after a refused SELECT
    /// the lock would be left in database 0.
    fn log_in(&self, connection: Connection<'a>, patience: Patience<'a>) -> Result<Connection<'a>, Failure> {
        let (mut request, mut asked) = (Vec::new(), Vec::new());
        match (&self.login.user, &self.login.password) {
            (Some(user), Some(password)) => encode(&mut request, &[b"AUTH", user, password]),
            (None, Some(password)) => encode(&mut request, &[b"AUTH", password]),
            (_, None) => {}
        }
        if self.login.password.is_some() {
            asked.push("AUTH");
        }
        if self.login.database != 0 {
            encode(&mut request, &[b"SELECT", self.login.database.to_string().as_bytes()]);
            asked.push("SELECT");
        }
        if asked.is_empty() {
            return Ok(connection);
        }
        let (connection, replies) = self.converse(connection, &request, asked.len(), patience)?;
        for (command, reply) in asked.into_iter().zip(replies) {
            match reply {
                Reply::Status(words) if words == b"OK" => {}
                Reply::Error(words) => return Err(Failure::Refused(command, words)),
                _ => return Err(Failure::Surplus),
            }
        }
        Ok(connection)
    }

    /// One exchange on `connection`, with the server's errors judged, and freed of the password before anyone sees them.
    fn converse(
        &self,
        connection: Connection<'a>,
        request: &[u8],
        count: usize,
        patience: Patience<'a>,
    ) -> Result<(Connection<'a>, Vec<Reply>), Failure> {
        let password = self.login.password.as_deref().unwrap_or_default();
        match connection.exchange(request, count, patience) {
            Ok((connection, mut replies)) => {
                for words in replies.iter_mut().filter_map(Reply::error) {
                    *words = redact(words, password);
                }
                let obstacle = replies.iter_mut().filter_map(Reply::error).find_map(|e| obstacle(e, self.server()));
                obstacle.map_or(Ok((connection, replies)), Err)
            }
            Err(Failure::Refused(what, words)) => {
                let words = redact(&words, password);
                Err(obstacle(&words, self.server()).unwrap_or(Failure::Refused(what, words)))
            }
            // TLS has shown itself, and on a Unix socket there is none.
            Err(Failure::Silent(failure)) if self.tls.is_some() || matches!(self.server(), Endpoint::Unix(_)) => {
                Err(*failure)
            }
            Err(failure) => Err(failure),
        }
    }

    /// One attempt: on the open connection or on a new one, which is kept only if nothing failed.
    fn attempt(&mut self, request: &[u8], count: usize) -> Result<Vec<Reply>, Failure> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.open()?,
        };
        let outcome = self.converse(connection, request, count, self.patience());
        self.unheard |= outcome.as_ref().is_err_and(|failure| !failure.is_refusal());
        let (connection, replies) = outcome?;
        self.connection = Some(connection);
        Ok(replies)
    }

    /// The wait before reconnect number `retry`, of which up to a fifth is random. False if a signal ended it.
    fn pause(&self, retry: u32, server: &Endpoint, failure: &Failure) -> bool {
        let pause = clock::jittered(self.retry.backoff.saturating_mul(retry));
        self.story.tell(&Event::Retrying(server, failure, pause));
        let heed = if self.heed == Heed::Nothing { Heed::Stops } else { self.heed };
        pause.is_zero() || self.signals.wait(None, Some(Moment::after(pause)), heed) != Err(Cut::Signal)
    }
}

impl Exchange for Client<'_> {
    type Error = Error;

    /// Sends `commands` in one write until all of them are answered, each time on a new connection.
    fn exchange(&mut self, commands: &[Command<'_>], repeat: Repeat) -> Result<Answer, Error> {
        let mut request = Vec::new();
        for command in commands {
            encode(&mut request, command);
        }
        let (mut moves, mut tries) = (0, 0);
        self.unheard = false;
        loop {
            let failure = match self.attempt(&request, commands.len()) {
                Ok(replies) => return Ok(Answer { replies, repeated: std::mem::take(&mut self.unheard) }),
                Err(failure) => failure,
            };
            let server = self.server().clone();
            self.redirect = None;
            tries += 1;
            match failure {
                _ if self.signals.heeded(self.heed) => return Err(Error::Signal),
                Failure::Moved(node) if moves < MOVES => {
                    // A redirection is no failure.
                    self.story.tell(&Event::Redirected(&node));
                    self.redirect = Some(node);
                    (moves, tries) = (moves + 1, tries - 1);
                }
                failure if failure.is_final() || repeat == Repeat::Never || tries > self.retry.attempts => {
                    return Err(Error::GaveUp(server, tries, failure));
                }
                failure => {
                    if !self.pause(tries - 1, &server, &failure) {
                        let heeded = self.signals.heeded(self.heed);
                        return Err(if heeded { Error::Signal } else { Error::GaveUp(server, tries, failure) });
                    }
                }
            }
        }
    }
}
