use super::connection::{AnyStream, Connection, UNASKED};
use super::credentials::Credentials;
use super::refusal::{classify, may_be_done};
use super::route::Route;
use super::{Endpoint, Failure, Kind, Outcome, Server};
use crate::clock::{self, Instant};
use crate::exchange::{Answer, Build, Exchange, Repeat, Unanswered};
use crate::interrupt::{Deadline, Interrupts, WaitError, WakeOn};
use crate::process::Variables;
use crate::resp::{Reply, Request};
use crate::text::{Escaped, Line, Log, Span};
use crate::words;
use std::time::Duration;

/// How many redirections of a cluster one exchange follows. One leads to the right node; more happen while slots move.
const REDIRECTS: u32 = 5;

/// What an exchange may cost, and what ends it.
#[derive(Clone, Copy)]
pub struct Budget {
    /// The signals that end it. With `WakeOn::Nothing`, a signal cuts the rest to five seconds.
    pub wake: WakeOn,
    /// Further connections after the first try.
    pub attempts: u32,
    /// When it ends.
    pub until: Instant,
    /// When the last attempt may begin.
    pub begin_by: Instant,
}

impl Budget {
    /// Whether only a few refusals count as answers: whoever ignores the signals that end golock has a lock to lose.
    fn insists(&self) -> bool {
        self.wake != WakeOn::Termination
    }
}

/// A client of one Redis: connects when there is something to say, and again when that was lost.
#[allow(missing_docs)]
pub struct Client<'a> {
    pub server: &'a Server,
    credentials: Credentials,
    route: Route<'a>,
    pub interrupts: &'a Interrupts,
    pub log: &'a dyn Log,
    /// The budget of whoever asks for a lock: all refusals that last are final, and a signal ends it.
    pub patience: Budget,
    connection: Option<Connection<'a>>,
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
        let (attempts, until, begin_by) = (server.attempts, Instant::NEVER, Instant::NEVER);
        let patience = Budget { wake: WakeOn::Termination, attempts, until, begin_by };
        Self { server, credentials, route, interrupts, log, connection: None, patience, budget: patience }
    }

    /// For an exchange, or a few that belong together, which may cost `budget`.
    pub fn with(&mut self, budget: Budget) -> &mut dyn Exchange {
        self.budget = budget;
        self
    }

    /// Closes the connection; the next exchange opens a new one.
    pub fn close(&mut self) {
        if let Some(mut connection) = self.connection.take() {
            connection.stream.close();
        }
    }

    /// `text` without the password.
    pub fn redacted(&self, text: &[u8]) -> Vec<u8> {
        self.credentials.redacted(text)
    }

    /// The budget of whoever gives a lock up, which ends at `until`.
    pub fn insistence(&self, until: Instant) -> Budget {
        Budget { wake: WakeOn::Nothing, until, ..self.patience }
    }

    fn deadline(&self) -> Deadline<'a> {
        let at = Instant::after(self.server.timeout).min(self.budget.until);
        Deadline { interrupts: self.interrupts, wake: self.budget.wake, at }
    }

    /// Name lookup, connect, TLS, AUTH and SELECT: under one deadline.
    fn connect(&mut self) -> Outcome<Connection<'a>> {
        let deadline = self.deadline();
        let socket = self.route.connect(deadline)?;
        self.route.connected(socket.peer);
        let peer = socket.peer.map_or(Line::default(), |peer| words!(" ({})", peer));
        let server = self.route.server();
        let (stream, may_be_tls, note): (AnyStream<'a>, _, _) = match (&mut self.credentials.tls, server) {
            (Some(tls), Endpoint::Tcp(host, _)) => (tls.wrap(host, socket, self.log)?, false, tls.note()),
            _ => (Box::new(socket), matches!(server, Endpoint::Tcp(..)), ""),
        };
        self.log.debug(words!("connected to {}{}{}", self.named(self.route.server()), peer, note));
        self.log_in(Connection { stream, may_be_tls }, deadline)
    }

    /// AUTH and SELECT go out together, and both must be granted before anything else is sent: after a refused SELECT
    /// the lock would be left in database 0.
    fn log_in(&mut self, connection: Connection<'a>, deadline: Deadline<'a>) -> Outcome<Connection<'a>> {
        let mut request = Request::default();
        match (self.credentials.password(), &self.server.user) {
            (Some(password), Some(user)) => request.push(&[b"AUTH", user, &password]),
            (Some(password), None) => request.push(&[b"AUTH", &password]),
            (None, _) => {}
        }
        let commands = if request.commands == 0 { &["SELECT"][..] } else { &["AUTH", "SELECT"] };
        if self.server.database != 0 {
            request.push(&[b"SELECT", self.server.database.to_string().as_bytes()]);
        }
        if request.commands == 0 {
            return Ok(connection);
        }
        // That a login is refused for good is an answer, whoever asks.
        let done = self.converse(connection, &request, deadline, false);
        if done.as_ref().is_err_and(|failure| failure.kind != Kind::Lost) {
            // It has hung up, or says it in words of its own.
            self.credentials.turned_away();
        }
        let (connection, replies) = done?;
        for (command, reply) in commands.iter().zip(replies) {
            match reply {
                Reply::Status(words) if words == b"OK" => {}
                Reply::Error(words) => return Err(self.credentials.refused(command, &words)),
                _ => return Err(Failure::lost(UNASKED)),
            }
        }
        self.credentials.worked();
        Ok(connection)
    }

    /// One exchange on `connection`, with the server's errors judged as they came, and freed of the password before anyone
    /// reads them.
    fn converse(
        &self,
        connection: Connection<'a>,
        request: &Request,
        deadline: Deadline<'a>,
        insists: bool,
    ) -> Outcome<(Connection<'a>, Vec<Reply>)> {
        let (connection, mut replies) = connection.exchange(request, deadline)?;
        let informs = if connection.is_some() { request.informs } else { 0 };
        let judged = &replies[..replies.len() - informs];
        let kind = |words: &[u8]| classify(words, insists, self.route.server());
        let obstacle = judged.iter().filter_map(Reply::error).find_map(|words| Some((kind(words)?, words)));
        // Only the first command of a request changes something.
        let may_be_done = judged.first().is_some_and(|reply| reply.error().is_none_or(may_be_done));
        let (kind, words) = match (obstacle, connection) {
            (Some(obstacle), _) => obstacle,
            (None, Some(connection)) => {
                for reply in &mut replies {
                    if let Reply::Error(words) = reply {
                        *words = self.redacted(words);
                    }
                }
                return Ok((connection, replies));
            }
            (None, None) => (Kind::Final, replies.last().and_then(Reply::error).unwrap_or_default()),
        };
        Err(Box::new(Failure { kind, may_be_done, why: words!("{}", Escaped(&self.redacted(words))) }))
    }

    /// A server for people; without the password, if another has named it.
    fn named(&self, server: &Endpoint) -> Line {
        if *server == self.server.endpoint {
            return words!("{}", *server);
        }
        words!("{}", Escaped(&self.redacted(server.to_string().as_bytes())))
    }

    /// One attempt: on the open connection or on a new one, which is kept only if nothing failed.
    fn attempt(&mut self, build: Build<'_>) -> Outcome<(Vec<Reply>, Instant)> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect().map_err(|mut failure| {
                // What was sent was at most a login, not the request.
                failure.may_be_done = false;
                if failure.kind == Kind::Final && self.route.lets_in() {
                    // It has let us in before: perhaps a password or a certificate is being replaced.
                    failure.kind = Kind::Busy;
                }
                failure
            })?,
        };
        self.route.let_in();
        let (at, mut request, mut replies) = (Instant::now(), Request::default(), Vec::new());
        build(at, &mut request);
        if request.commands > 0 {
            (connection, replies) = self.converse(connection, &request, self.deadline(), self.budget.insists())?;
            self.route.answered(connection.stream.socket().peer);
        }
        self.connection = Some(connection);
        Ok((replies, at))
    }

    /// The wait before reconnect number `retry`, of which up to a fifth is random. False if there is to be none: a signal
    /// ended it, or the budget is spent. Whoever ignores signals does not wait when one has arrived, and has five more
    /// seconds then.
    fn pause(&mut self, retry: u32, server: &Endpoint, why: &Line) -> bool {
        let (interrupts, budget, hears_nothing) = (self.interrupts, &self.budget, self.budget.wake == WakeOn::Nothing);
        let heedless = (WakeOn::Termination, interrupts.hurries_until());
        let (wake, hurry) = if hears_nothing { heedless } else { (budget.wake, Instant::NEVER) };
        let mut pause = clock::jittered(self.server.backoff.saturating_mul(retry));
        if hears_nothing && interrupts.is_pending(wake) {
            pause = Duration::ZERO;
        }
        let end = Instant::after(pause);
        if retry >= budget.attempts || end > budget.until.min(budget.begin_by).min(hurry) {
            return false;
        }
        self.log.debug(words!("{}: {}; trying again in {}", self.named(server), *why, Span(pause)));
        let is_over = pause.is_zero() || interrupts.wait(None, end, wake) != Err(WaitError::Interrupted);
        if hears_nothing {
            while interrupts.termination().is_some() {}
        }
        is_over || hears_nothing
    }
}

impl Exchange for Client<'_> {
    /// Sends what `build` makes until it is answered, each time on a new connection.
    fn exchange(&mut self, repeat: Repeat, build: Build<'_>) -> Result<Answer, Unanswered> {
        let (began, mut redirects, mut tries, mut may_be_done) = (Instant::now(), 0, 0, false);
        loop {
            let server = self.route.server().clone();
            let mut failure = match self.attempt(build) {
                Ok((replies, asked)) => return Ok(Answer { replies, asked, repeated: may_be_done }),
                Err(failure) => failure,
            };
            may_be_done |= failure.may_be_done;
            self.route.failed(&failure.kind);
            let interrupted = self.interrupts.is_pending(self.budget.wake);
            // Whoever has a lock to lose tries again also what is known to last: it may be mended in time.
            let is_final = failure.kind == Kind::Final && !self.budget.insists();
            let is_over = interrupted || repeat == Repeat::Never || is_final;
            if let (Kind::Moved(node), false) = (&failure.kind, is_over) {
                if redirects < REDIRECTS {
                    // A redirection is not a failure.
                    self.log.debug(words!("the lock lives on another node: {}", self.named(node)));
                    redirects += 1;
                    continue;
                }
                failure.why = words!("redirected again and again, at last to {}", self.named(node));
            }
            let again = !is_over && self.pause(tries, &server, &failure.why);
            (tries, redirects) = (tries + 1, 0);
            if !again {
                let spent = Span(Instant::now().since(began).unwrap_or_default());
                let why = match tries {
                    _ if self.interrupts.is_pending(self.budget.wake) => None,
                    1 => Some(words!("{}: {}", self.named(&server), failure.why)),
                    _ => Some(words!("{}: {} ({} tries in {})", self.named(&server), failure.why, tries, spent)),
                };
                return Err(Unanswered { why, may_be_done });
            }
        }
    }
}
