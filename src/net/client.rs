use super::connection::{Broken, Connection, Stream};
use super::refusal::{Lasting, classify, redact};
use super::route::Route;
use super::tls::Tls;
use super::{Endpoint, Failure, Kind, Password, Server, TlsMode};
use crate::clock::{self, Instant};
use crate::exchange::{Answer, Build, Exchange, Repeat, Sending, Unanswered};
use crate::files::Fresh;
use crate::interrupt::{Deadline, Interrupts, WaitError, WakeOn};
use crate::process::Variables;
use crate::resp::{Reply, Request};
use crate::text;
use crate::text::{Cause, Escaped, Line, Log, Span};
use crate::words;
use std::path::Path;
use std::time::Duration;

/// How many redirections of a cluster one exchange follows. One leads to the right node; more happen while slots move.
const REDIRECTS: u32 = 5;

/// The most that is read of a password's file: enough for any, and little even of `/dev/zero`.
const PASSWORD_LIMIT: u64 = 64 * 1024;

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

/// What is read from files before signals are caught: some of them may be pipes, which make us wait.
pub struct Credentials {
    password: Password,
    file: Option<Fresh>,
    /// What the file holds now, if that has not worked yet.
    unproven: Option<Vec<u8>>,
    /// The password that the server has refused last.
    refused: Option<Vec<u8>>,
    tls: Option<Tls>,
}

impl Credentials {
    /// Reads what `server` needs.
    pub fn read(server: &Server) -> Result<Self, Line> {
        let file = match &server.password {
            Password::File(path) => {
                Some(Fresh::read(path.clone(), PASSWORD_LIMIT).map_err(|error| unreadable(path, &error))?)
            }
            _ => None,
        };
        let tls = match &server.tls {
            TlsMode::Off => None,
            TlsMode::On(options) => Some(Tls::new(options)?),
        };
        Ok(Self { password: server.password.clone(), file, unproven: None, refused: None, tls })
    }

    /// The password that was read last and has worked, if one has.
    fn proven(&self) -> Option<&[u8]> {
        match (&self.password, &self.file) {
            (Password::Given(secret), _) => Some(&secret.0),
            (_, Some(file)) => Some(line(file.content())),
            _ => None,
        }
    }

    /// The password for a new connection: what its file holds now, unless the server has just refused that, and the one
    /// that has worked may still do.
    fn password(&mut self) -> Option<Vec<u8>> {
        let changed = self.file.as_ref().and_then(Fresh::changed);
        self.unproven = changed.filter(|content| self.refused.as_deref() != Some(line(content)));
        self.unproven.as_deref().map(line).or(self.proven()).map(<[u8]>::to_vec)
    }

    /// It has worked.
    fn worked(&mut self) {
        if let (Some(content), Some(file)) = (self.unproven.take(), &mut self.file) {
            file.keep(content);
        }
    }

    /// `text` without the passwords.
    fn redacted(&self, text: &[u8]) -> Vec<u8> {
        let unproven = self.unproven.as_deref().map(line).unwrap_or_default();
        redact(&redact(text, unproven), self.proven().unwrap_or_default())
    }
}

/// The password in the content of a file: without one newline at its end.
fn line(content: &[u8]) -> &[u8] {
    content.strip_suffix(b"\n").unwrap_or(content)
}

/// Why the file at `path` is of no use.
pub(super) fn unreadable(path: &Path, error: &std::io::Error) -> Line {
    words!("{}: {}", Escaped::path(path), Cause(error))
}

/// A client of one Redis: connects when there is something to say, and again when that was lost.
pub struct Client<'a> {
    server: Server,
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
        server: Server,
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
    pub fn patience(&self, begin_by: Instant) -> Budget {
        let attempts = self.server.attempts;
        Budget { wake: WakeOn::Termination, attempts, until: Instant::NEVER, begin_by, lasting: Lasting::Known }
    }

    /// The budget of whoever gives one up, until `until` at the latest.
    pub fn insistence(&self, until: Instant) -> Budget {
        let (attempts, begin_by) = (self.server.attempts, Instant::NEVER);
        Budget { wake: WakeOn::Nothing, attempts, until, begin_by, lasting: Lasting::Forbidden }
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
        let deadline = self.deadline();
        let socket = self.client.route.connect(deadline)?;
        let (peer, server) = (socket.peer, self.client.route.server());
        let stream: Box<dyn Stream<'a> + 'a> = match (&mut self.client.credentials.tls, server) {
            (Some(tls), Endpoint::Tcp(host, _)) => tls.wrap(host, socket, self.client.log)?,
            _ => Box::new(socket),
        };
        let note = self.client.credentials.tls.as_ref().map_or("", Tls::note);
        match peer {
            Some(peer) => self.client.log.debug(text!("connected to {} ({}){}", *server, peer, note)),
            None => self.client.log.debug(text!("connected to {}", *server)),
        }
        self.log_in(Connection::new(stream), deadline)
    }

    /// AUTH and SELECT go out together, and both must be granted before anything else is sent: after a refused SELECT
    /// the lock would be left in database 0.
    fn log_in(&mut self, connection: Connection<'a>, deadline: Deadline<'a>) -> Result<Connection<'a>, Failure> {
        let password = self.client.credentials.password();
        let (mut request, mut asked) = (Request::default(), Vec::new());
        match (&self.client.server.user, &password) {
            (Some(user), Some(password)) => request.push(&[b"AUTH", user, password]),
            (None, Some(password)) => request.push(&[b"AUTH", password]),
            (_, None) => {}
        }
        if password.is_some() {
            asked.push("AUTH");
        }
        if self.client.server.database != 0 {
            request.push(&[b"SELECT", self.client.server.database.to_string().as_bytes()]);
            asked.push("SELECT");
        }
        if asked.is_empty() {
            return Ok(connection);
        }
        let (connection, replies) = self.converse(connection, &request, deadline)?;
        for (command, reply) in asked.into_iter().zip(replies) {
            match reply {
                Reply::Status(words) if words == b"OK" => {}
                Reply::Error(words) => return Err(self.refused_login(command, &words, password)),
                _ => return Err(Failure::new(Kind::Lost, "not the reply that was asked for")),
            }
        }
        self.client.credentials.worked();
        Ok(connection)
    }

    /// The failure that a refused AUTH or SELECT is. Whoever insists tries again: perhaps with the password that worked.
    fn refused_login(&mut self, command: &'static str, words: &[u8], password: Option<Vec<u8>>) -> Failure {
        let odd = |password: &Vec<u8>| {
            let ends = [password.first(), password.last()];
            ends.iter().flatten().any(|end| end.is_ascii_whitespace()) || password.starts_with(b"\xef\xbb\xbf")
        };
        let hint = if command == "AUTH" && password.as_ref().is_some_and(odd) {
            "; the password begins or ends with white space or a byte order mark"
        } else {
            ""
        };
        self.client.credentials.refused = password;
        let kind = if self.budget.lasting == Lasting::Known { Kind::Final } else { Kind::Busy };
        Failure::new(kind, words!("{} was refused: {}{}", command, Escaped(words), hint))
    }

    /// One exchange on `connection`, with the server's errors judged, and freed of the password before anyone sees them.
    fn converse(
        &self,
        connection: Connection<'a>,
        request: &Request,
        deadline: Deadline<'a>,
    ) -> Result<(Connection<'a>, Vec<Reply>), Failure> {
        let server = self.client.route.server();
        let kind = |words: &[u8]| classify(words, self.budget.lasting, server);
        match connection.exchange(request, deadline) {
            Ok((connection, mut replies)) => {
                for reply in &mut replies {
                    if let Reply::Error(words) = reply {
                        *words = self.client.redacted(words);
                    }
                }
                let judged = &replies[..request.commands - request.informs];
                let obstacle = judged.iter().filter_map(Reply::error).find_map(|words| Some((kind(words)?, words)));
                let Some((kind, words)) = obstacle else { return Ok((connection, replies)) };
                let failure = Failure::new(kind, words!("{}", Escaped(words)));
                // What was answered otherwise was carried out, and a lost connection says just that.
                let done = judged.iter().any(|reply| reply.error().is_none());
                Err(if done && failure.kind == Kind::Busy { Failure { kind: Kind::Lost, ..failure } } else { failure })
            }
            Err(Broken::Refused(words)) => {
                let words = self.client.redacted(&words);
                let kind = kind(&words).unwrap_or(Kind::Final);
                Err(Failure::new(kind, words!("{}", Escaped(&words))))
            }
            // TLS has shown itself, and on a Unix socket there is none.
            Err(Broken::Silent(failure))
                if self.client.credentials.tls.is_none() && matches!(server, Endpoint::Tcp(..)) =>
            {
                Err(Failure::new(failure.kind, words!("{}; is it a port with TLS?", failure.why)))
            }
            Err(Broken::Silent(failure) | Broken::Lost(failure)) => Err(failure),
        }
    }

    /// One attempt: on the open connection or on a new one, which is kept only if nothing failed. Says with a failure
    /// whether it may have been carried out.
    fn attempt(&mut self, build: Build<'_>, again: bool) -> Result<(Vec<Reply>, Instant), (Failure, bool)> {
        let connection = match self.client.connection.take() {
            Some(connection) => connection,
            None => self.connect().map_err(|failure| (failure, false))?,
        };
        let (at, mut request) = (Instant::now(), Request::default());
        build(Sending { at, again }, &mut request);
        if request.commands == 0 {
            self.client.connection = Some(connection);
            return Ok((Vec::new(), at));
        }
        let outcome = self.converse(connection, &request, self.deadline());
        let (mut connection, replies) = outcome.map_err(|failure| {
            let may_be_done = failure.kind == Kind::Lost;
            (failure, may_be_done)
        })?;
        self.client.route.answered(connection.peer());
        self.client.connection = Some(connection);
        Ok((replies, at))
    }

    /// The wait before reconnect number `retry`, of which up to a fifth is random. False if there is to be none: a signal
    /// ended it, or the budget is spent. Whoever minds no signal has five more seconds then.
    fn pause(&mut self, retry: u32, server: &Endpoint, why: &Line) -> bool {
        let pause = clock::jittered(self.client.server.backoff.saturating_mul(retry));
        let end = Instant::after(pause);
        if end > self.budget.until.min(self.budget.begin_by) {
            return false;
        }
        self.client.log.debug(text!("{}: {}; trying again in {}", *server, *why, Span(pause)));
        let insists = self.budget.wake == WakeOn::Nothing;
        let wake = if insists { WakeOn::Termination } else { self.budget.wake };
        if pause.is_zero() || self.client.interrupts.wait(None, end, wake) != Err(WaitError::Interrupted) {
            return true;
        }
        if insists {
            self.client.interrupts.forget_all();
            self.budget.until = self.budget.until.min(Instant::after(HURRY));
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
            let (Failure { kind, why }, done) = match self.attempt(build, may_be_done) {
                Ok((replies, asked)) => return Ok(Answer { replies, asked, repeated: may_be_done }),
                Err(failed) => failed,
            };
            may_be_done |= done;
            self.client.route.failed(&kind);
            let again = match &kind {
                _ if self.client.interrupts.is_pending(self.budget.wake) => false,
                _ if repeat == Repeat::Never => false,
                Kind::Final => false,
                Kind::Moved(node) if redirects < REDIRECTS => {
                    // A redirection is not a failure.
                    self.client.log.debug(text!("the lock lives on another node: {}", *node));
                    redirects += 1;
                    continue;
                }
                _ => tries < self.budget.attempts && self.pause(tries, &server, &why),
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
