use super::connection::{Broken, Connection, Stream};
use super::credentials::Credentials;
use super::refusal::{Lasting, classify};
use super::route::Route;
use super::tls::Tls;
use super::{Endpoint, Failure, Kind, Server};
use crate::clock::{self, Instant};
use crate::exchange::{Answer, Build, Exchange, Repeat, Unanswered};
use crate::interrupt::{Deadline, Interrupts, WaitError, WakeOn};
use crate::process::Variables;
use crate::resp::{Reply, Request};
use crate::text::{Escaped, Line, Log, Span};
use crate::{text, words};
use std::time::Duration;

/// How many redirections of a cluster one exchange follows. One leads to the right node; more happen while slots move.
const REDIRECTS: u32 = 5;

/// The time that is left to whoever insists, once a signal says that somebody waits for golock to end.
const HURRY: Duration = Duration::from_secs(5);

/// What an exchange may cost, and what ends it.
#[derive(Clone, Copy)]
pub struct Budget {
    /// The signals that end it. Where none does, a signal leaves it five seconds.
    pub wake: WakeOn,
    /// Further connections after the first try.
    pub attempts: u32,
    /// When it ends.
    pub until: Instant,
    /// When the last attempt may begin.
    pub begin_by: Instant,
    /// Which refusals end it.
    pub lasting: Lasting,
}

/// A client of one Redis: connects when there is something to say, and again when that was lost.
pub struct Client<'a> {
    server: &'a Server,
    credentials: Credentials,
    route: Route<'a>,
    interrupts: &'a Interrupts,
    log: &'a dyn Log,
    connection: Option<Connection<'a>>,
}

/// A client with a budget, for one exchange or a few that belong together.
pub struct Session<'c, 'a> {
    client: &'c mut Client<'a>,
    budget: Budget,
}

impl<'a> Client<'a> {
    /// A client that has not connected yet.
    pub fn new(
        server: &'a Server,
        credentials: Credentials,
        interrupts: &'a Interrupts,
        variables: &'a Variables,
        log: &'a dyn Log,
    ) -> Self {
        let route = Route::new(server.endpoint.clone(), variables);
        Self { server, credentials, route, interrupts, log, connection: None }
    }

    /// What may be spent from here on.
    pub fn with(&mut self, budget: Budget) -> Session<'_, 'a> {
        Session { client: self, budget }
    }

    /// Closes the connection; the next exchange opens a new one.
    pub fn close(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.close();
        }
    }

    /// `text` without the password.
    pub fn redacted(&self, text: &[u8]) -> Vec<u8> {
        self.credentials.redacted(text)
    }

    /// The budget of whoever asks for a lock: all refusals that last are final, and a signal ends it.
    pub fn patience(&self) -> Budget {
        let (attempts, until, begin_by) = (self.server.attempts, Instant::NEVER, Instant::NEVER);
        Budget { wake: WakeOn::Termination, attempts, until, begin_by, lasting: Lasting::Known }
    }

    /// The budget of whoever gives one up, until `until` at the latest.
    pub fn insistence(&self, until: Instant) -> Budget {
        Budget { wake: WakeOn::Nothing, until, lasting: Lasting::Forbidden, ..self.patience() }
    }

    /// How long a command may be under way.
    pub fn timeout(&self) -> Duration {
        self.server.timeout
    }
}

impl<'a> Session<'_, 'a> {
    fn deadline(&self) -> Deadline<'a> {
        let at = Instant::after(self.client.server.timeout).min(self.budget.until);
        Deadline { interrupts: self.client.interrupts, wake: self.budget.wake, at }
    }

    /// Name lookup, connect, TLS, AUTH and SELECT: under one deadline.
    fn connect(&mut self) -> Result<Connection<'a>, Failure> {
        let (deadline, client) = (self.deadline(), &mut *self.client);
        let socket = client.route.connect(deadline)?;
        let (peer, server) = (socket.peer, client.route.server());
        let stream: Box<dyn Stream<'a> + 'a> = match (&mut client.credentials.tls, server) {
            (Some(tls), Endpoint::Tcp(host, _)) => tls.wrap(host, socket, client.log)?,
            _ => Box::new(socket),
        };
        let note = client.credentials.tls.as_ref().map_or("", Tls::note);
        let peer = peer.map_or(Line::default(), |peer| words!(" ({})", peer));
        client.log.debug(text!("connected to {}{}{}", *server, peer, note));
        self.log_in(Connection::new(stream), deadline)
    }

    /// AUTH and SELECT go out together, and both must be granted before anything else is sent: after a refused SELECT
    /// the lock would be left in database 0.
    fn log_in(&mut self, connection: Connection<'a>, deadline: Deadline<'a>) -> Result<Connection<'a>, Failure> {
        let (user, database) = (&self.client.server.user, self.client.server.database);
        let (mut request, mut asked) = (Request::default(), Vec::new());
        if let Some(password) = self.client.credentials.password() {
            asked.push("AUTH");
            match user {
                Some(user) => request.push(&[b"AUTH", user, &password]),
                None => request.push(&[b"AUTH", &password]),
            }
        }
        if database != 0 {
            asked.push("SELECT");
            request.push(&[b"SELECT", database.to_string().as_bytes()]);
        }
        if asked.is_empty() {
            return Ok(connection);
        }
        // That a login is refused for good is an answer, whoever asks.
        let (connection, replies) = self.converse(connection, &request, deadline, Lasting::Known)?;
        for (command, reply) in asked.into_iter().zip(replies) {
            match reply {
                Reply::Status(words) if words == b"OK" => {}
                // Whoever insists tries again: perhaps with the password that has worked before.
                Reply::Error(words) => {
                    let kind = if self.budget.lasting == Lasting::Known { Kind::Final } else { Kind::Busy };
                    return Err(self.client.credentials.refused(kind, command, &words));
                }
                _ => return Err(Failure::lost("not the reply that was asked for")),
            }
        }
        self.client.credentials.worked();
        Ok(connection)
    }

    /// One exchange on `connection`, with the server's errors judged, and freed of the password before anyone sees them.
    fn converse(
        &self,
        connection: Connection<'a>,
        request: &Request,
        deadline: Deadline<'a>,
        lasting: Lasting,
    ) -> Result<(Connection<'a>, Vec<Reply>), Failure> {
        let (client, server) = (&self.client, self.client.route.server());
        let kind = |words: &[u8]| classify(words, lasting, server);
        match connection.exchange(request, deadline) {
            Ok((connection, mut replies)) => {
                for reply in &mut replies {
                    if let Reply::Error(words) = reply {
                        *words = client.redacted(words);
                    }
                }
                let judged = &replies[..request.commands - request.informs];
                let obstacle = judged.iter().filter_map(Reply::error).find_map(|words| Some((kind(words)?, words)));
                let Some((kind, words)) = obstacle else { return Ok((connection, replies)) };
                // Only the first command of a request changes something.
                let may_be_done = judged.first().is_some_and(|reply| reply.error().is_none());
                Err(Failure { may_be_done, ..Failure::new(kind, words!("{}", Escaped(words))) })
            }
            Err(Broken::Refused(words)) => {
                let words = client.redacted(&words);
                Err(Failure::new(kind(&words).unwrap_or(Kind::Final), words!("{}", Escaped(&words))))
            }
            // TLS has shown itself, and on a Unix socket there is none.
            Err(Broken::Silent(Failure { kind, why, .. }))
                if client.credentials.tls.is_none() && matches!(server, Endpoint::Tcp(..)) =>
            {
                Err(Failure::new(kind, words!("{}; is it a port with TLS?", why)))
            }
            Err(Broken::Silent(failure) | Broken::Lost(failure)) => Err(failure),
        }
    }

    /// One attempt: on the open connection or on a new one, which is kept only if nothing failed.
    fn attempt(&mut self, build: Build<'_>) -> Result<(Vec<Reply>, Instant), Failure> {
        let mut connection = match self.client.connection.take() {
            Some(connection) => connection,
            // Whatever was sent to log in, it was not what is asked.
            None => self.connect().map_err(|failure| Failure { may_be_done: false, ..failure })?,
        };
        let (at, mut request, mut replies) = (Instant::now(), Request::default(), Vec::new());
        build(at, &mut request);
        if request.commands > 0 {
            (connection, replies) = self.converse(connection, &request, self.deadline(), self.budget.lasting)?;
            self.client.route.answered(connection.peer());
        }
        self.client.connection = Some(connection);
        Ok((replies, at))
    }

    /// The wait before reconnect number `retry`, of which up to a fifth is random. False if there is to be none: a signal
    /// ended it, or the budget is spent. Whoever minds no signal has five more seconds then.
    fn pause(&mut self, retry: u32, server: &Endpoint, why: &Line) -> bool {
        let (client, budget) = (&self.client, &mut self.budget);
        let pause = clock::jittered(client.server.backoff.saturating_mul(retry));
        let end = Instant::after(pause);
        if retry >= budget.attempts || end > budget.until.min(budget.begin_by) {
            return false;
        }
        client.log.debug(text!("{}: {}; trying again in {}", *server, *why, Span(pause)));
        let insists = budget.wake == WakeOn::Nothing;
        let wake = if insists { WakeOn::Termination } else { budget.wake };
        if pause.is_zero() || client.interrupts.wait(None, end, wake) != Err(WaitError::Interrupted) {
            return true;
        }
        if insists {
            client.interrupts.forget_all();
            budget.until = budget.until.min(Instant::after(HURRY));
        }
        insists
    }
}

impl Exchange for Session<'_, '_> {
    /// Sends what `build` makes until it is answered, each time on a new connection.
    fn exchange(&mut self, repeat: Repeat, build: Build<'_>) -> Result<Answer, Unanswered> {
        let (began, mut redirects, mut tries, mut may_be_done) = (Instant::now(), 0, 0, false);
        loop {
            let server = self.client.route.server().clone();
            let Failure { kind, may_be_done: done, mut why } = match self.attempt(build) {
                Ok((replies, asked)) => return Ok(Answer { replies, asked, repeated: may_be_done }),
                Err(failure) => failure,
            };
            may_be_done |= done;
            self.client.route.failed(&kind);
            let again = match &kind {
                _ if repeat == Repeat::Never || self.client.interrupts.is_pending(self.budget.wake) => false,
                Kind::Final => false,
                Kind::Moved(node) if redirects < REDIRECTS => {
                    // A redirection is not a failure.
                    self.client.log.debug(text!("the lock lives on another node: {}", *node));
                    redirects += 1;
                    continue;
                }
                Kind::Moved(node) => {
                    why = words!("redirected again and again, at last to {}", *node);
                    self.pause(tries, &server, &why)
                }
                _ => self.pause(tries, &server, &why),
            };
            tries += 1;
            if !again {
                let interrupted = self.client.interrupts.is_pending(self.budget.wake);
                let why = (!interrupted).then(|| gave_up(&server, &why, tries, began));
                return Err(Unanswered { why, may_be_done });
            }
        }
    }
}

/// That `server` was tried so often since `began`, and how it failed at last.
fn gave_up(server: &Endpoint, why: &Line, tries: u32, began: Instant) -> Line {
    if tries == 1 {
        return words!("{}: {}", *server, *why);
    }
    let time = Span(Instant::now().since(began).unwrap_or_default());
    words!("{}: {} ({} tries in {})", *server, *why, tries, time)
}
