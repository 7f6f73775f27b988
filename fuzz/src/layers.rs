//! Settings in three layers, and once more the README's rules of which of them count. On each line stands one: `oHOST=h`
//! as an option, `e` in the environment, `f` in the file.

use super::config::anything;
use super::given::{Given, assignment, text, until_nul};
use super::values::{bare_host, is_more_than_host, number, plain_url};
use golock::config::{Id, Invocation, LockAction, PREFIX};

/// The layers; the stronger one is the larger.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Layer {
    File,
    Environment,
    Option,
}

/// A value in a layer.
#[derive(Clone)]
pub(crate) struct Said {
    id: Id,
    layer: Layer,
    value: Vec<u8>,
    /// Whether a URL says it.
    pub(crate) by_url: bool,
}

/// What is said, of each setting once: the strongest word, and in a layer the last.
pub(crate) struct Settled(Vec<Said>);

/// What the settings come to, as far as this check knows.
enum Expected {
    /// These values.
    Values(Settled),
    /// An error that names one of these.
    Refused(Vec<Id>),
    /// There is no rule.
    Unknown,
}

type Verdict<T> = Result<T, Expected>;

/// Makes the settings of all layers, and compares.
pub(crate) fn layers(input: &[u8]) {
    let said: Vec<_> = input.split(|&byte| byte == b'\n').filter_map(read).collect();
    let said = said.iter().enumerate().filter(|(at, one)| {
        // A name comes once in an environment.
        one.layer != Layer::Environment
            || !said[..*at].iter().any(|other| (other.layer, other.id) == (one.layer, one.id))
    });
    let said: Vec<Said> = said.map(|(_, one)| one.clone()).collect();
    let given = given(&said);
    anything(&given);
    // A line that was meant to be two is refused, also where a stronger source says another value.
    let is_other = |rest: &[u8]| rest[0].is_ascii_whitespace() && rest[1..].starts_with(PREFIX.as_bytes());
    let is_line = |one: &&Said| one.layer != Layer::Option && one.value.windows(PREFIX.len() + 1).any(is_other);
    let slips: Vec<_> = said.iter().filter(is_line).map(|one| one.id).collect();
    let settled = if slips.is_empty() { Settled::of(&said).settle() } else { Err(Expected::Refused(slips)) };
    match (settled.unwrap_or_else(|expected| expected), given.parse()) {
        (Expected::Unknown, _) => {}
        (Expected::Values(settled), Ok(Invocation::Lock(LockAction::Status, config))) => settled.assert_same(&config),
        (Expected::Refused(ids), Err(error)) => {
            let why = error.why.to_string();
            let is_named = |id: &Id| names(*id).iter().any(|name| why.contains(name));
            assert!(ids.iter().any(is_named), "{why} is told, and not of {ids:?}");
        }
        (Expected::Values(_), made) => panic!("they make sense: {made:?}"),
        (Expected::Refused(ids), made) => panic!("{ids:?} make no sense: {made:?}"),
    }
}

fn read(line: &[u8]) -> Option<Said> {
    let (&layer, line) = line.split_first()?;
    let (name, value) = assignment(line)?;
    let id = Id::named(name).filter(|id| *id != Id::Config)?;
    let layer = match layer {
        b'o' => Layer::Option,
        b'e' => Layer::Environment,
        // Nothing else has to be escaped in a file.
        b'f' if !value.contains(&b'\'') => Layer::File,
        _ => return None,
    };
    Some(Said { id, layer, value: until_nul(value).to_vec(), by_url: false })
}

/// The option and the variable of `id`.
fn names(id: Id) -> [String; 2] {
    [format!("--{}", id.row().option()), format!("{PREFIX}{}", id.row().name)]
}

/// The settings as golock is given them, with a command to have a name.
fn given(said: &[Said]) -> Given {
    let mut given = Given { args: vec!["--status".into()], file: Some(Vec::new()), ..Given::default() };
    for Said { id, layer, value, .. } in said {
        let [option, name] = names(*id);
        match layer {
            Layer::Option => given.args.push(text(&[option.as_bytes(), b"=", value].concat())),
            Layer::Environment => given.env.push((name.into(), text(value))),
            Layer::File => given.file.iter_mut().for_each(|file| {
                file.extend([name.as_bytes(), b"='", value, b"'\n"].concat());
            }),
        }
    }
    given.args.push("true".into());
    given
}

impl Settled {
    fn of(said: &[Said]) -> Self {
        let mut settled = Self(Vec::new());
        for one in said {
            match settled.0.iter_mut().find(|other| other.id == one.id) {
                Some(other) if other.layer > one.layer => {}
                Some(other) => *other = one.clone(),
                None => settled.0.push(one.clone()),
            }
        }
        settled
    }

    /// What is said of `id`, unless it is nothing.
    pub(crate) fn said(&self, id: Id) -> Option<&Said> {
        self.0.iter().find(|said| said.id == id && !said.value.is_empty())
    }

    fn has(&self, id: Id) -> bool {
        self.said(id).is_some()
    }

    /// Whether `id` stands in the file.
    pub(crate) fn is_in_file(&self, id: Id) -> bool {
        self.layer(id) == Some(Layer::File)
    }

    fn layer(&self, id: Id) -> Option<Layer> {
        self.said(id).map(|said| said.layer)
    }

    /// The value that counts: that which is given, or the default.
    pub(crate) fn value(&self, id: Id) -> &[u8] {
        self.said(id).map_or(id.row().default.as_bytes(), |said| &said.value)
    }

    /// The same, unless it is empty.
    pub(crate) fn some(&self, id: Id) -> Option<Vec<u8>> {
        Some(self.value(id).to_vec()).filter(|value| !value.is_empty())
    }

    /// What it means.
    pub(crate) fn number(&self, id: Id) -> u64 {
        number(id, self.value(id)).unwrap_or_default()
    }

    /// Whether it is a yes, or a number that is not 0.
    pub(crate) fn is_on(&self, id: Id) -> bool {
        self.number(id) != 0
    }

    fn drop(&mut self, id: Id) {
        self.0.retain(|said| said.id != id);
    }

    /// Of two that exclude each other, the stronger one counts.
    fn exclude(&mut self, one: Id, other: Id) -> Verdict<()> {
        match (self.layer(one), self.layer(other)) {
            (Some(first), Some(second)) if first == second => Err(Expected::Refused(vec![one, other])),
            (Some(first), Some(second)) => {
                self.drop(if first > second { other } else { one });
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The rules, in the order of the README.
    fn settle(mut self) -> Verdict<Expected> {
        let is_bad = |said: &&Said| !said.value.is_empty() && number(said.id, &said.value).is_none();
        let bad: Vec<_> = self.0.iter().filter(is_bad).map(|said| said.id).collect();
        if !bad.is_empty() {
            return Err(Expected::Refused(bad));
        }
        if self.is_on(Id::Local) {
            if self.is_on(Id::Lease) {
                self.exclude(Id::Local, Id::Lease)?;
            }
            if [Id::Host, Id::Url].into_iter().any(|id| self.layer(id) > self.layer(Id::Local)) {
                self.drop(Id::Local);
            }
        }
        self.spread_url()?;
        self.exclude(Id::Auth, Id::AuthFile)?;
        self.refuse_halves()?;
        // Beside --status, which is asked for here.
        if self.is_on(Id::Reset) && self.layer(Id::Reset) == Some(Layer::Option) {
            return Err(Expected::Refused(vec![Id::Reset]));
        }
        let formats = [&b""[..], b"cronlock", b"golock"];
        if !formats.contains(&self.value(Id::KeyFormat)) {
            return Err(Expected::Refused(vec![Id::KeyFormat]));
        }
        if self.is_on(Id::Local) {
            self.refuse_redis_options()?;
            if self.some(Id::LocalDir).is_some_and(|folder| !folder.starts_with(b"/")) {
                return Err(Expected::Refused(vec![Id::LocalDir]));
            }
        } else {
            self.refuse_unheard_tls()?;
            self.refuse_slips()?;
        }
        Ok(Expected::Values(self))
    }

    /// A URL stands for the parts that it names and for those that it leaves out.
    fn spread_url(&mut self) -> Verdict<()> {
        self.exclude(Id::Url, Id::Host)?;
        let Some(url) = self.said(Id::Url).cloned() else { return Ok(()) };
        let parts = [Id::Port, Id::User, Id::Auth, Id::AuthFile, Id::Db, Id::Tls];
        if let Some(same) = parts.into_iter().find(|&part| self.layer(part) == Some(url.layer)) {
            return Err(Expected::Refused(vec![Id::Url, same]));
        }
        let said = plain_url(&url.value).ok_or(Expected::Unknown)?;
        // An empty HOST above a URL unsets HOST, and nothing of the URL.
        self.drop(Id::Host);
        for (id, value) in said {
            let is_stronger = self.0.iter().any(|other| other.id == id && other.layer > url.layer);
            if !is_stronger {
                self.drop(id);
                self.0.push(Said { id, value, by_url: true, ..url.clone() });
            }
        }
        if self.layer(Id::AuthFile) < Some(url.layer) {
            self.drop(Id::AuthFile);
        }
        Ok(())
    }

    fn refuse_halves(&self) -> Verdict<()> {
        for (one, others) in
            [(Id::TlsCert, &[Id::TlsKey][..]), (Id::TlsKey, &[Id::TlsCert]), (Id::User, &[Id::Auth, Id::AuthFile])]
        {
            if self.has(one) && !others.iter().any(|&other| self.has(other)) {
                return Err(Expected::Refused(vec![one, Id::Url]));
            }
        }
        let is_meant = self.layer(Id::KillAfter) > Some(Layer::File) && self.is_on(Id::KillAfter);
        if is_meant && !self.has(Id::Timeout) && !self.has(Id::Lease) {
            return Err(Expected::Refused(vec![Id::KillAfter]));
        }
        let is_explicit = self.has(Id::Grace) && self.layer(Id::Grace) >= self.layer(Id::Release);
        if is_explicit && self.number(Id::Grace) > self.number(Id::Release) {
            return Err(Expected::Refused(vec![Id::Grace]));
        }
        Ok(())
    }

    /// Whoever names certificates wants TLS, unless it is said that there is none.
    fn refuse_unheard_tls(&self) -> Verdict<()> {
        if self.is_on(Id::Tls) {
            return Ok(());
        }
        let url = self.said(Id::Tls).filter(|tls| tls.by_url).map(|tls| tls.layer);
        let about = [Id::TlsCa, Id::TlsCert, Id::TlsName, Id::TlsSkipVerify];
        let about = about.into_iter().filter(|&id| self.has(id) && (id != Id::TlsSkipVerify || self.is_on(id)));
        let wanted: Vec<_> =
            about.filter(|&id| url.map_or(!self.has(Id::Tls), |url| self.layer(id) >= Some(url))).collect();
        if wanted.is_empty() { Ok(()) } else { Err(Expected::Refused(wanted)) }
    }

    fn refuse_redis_options(&self) -> Verdict<()> {
        let is_stray = |said: &&Said| said.layer == Layer::Option && said.id.concerns_redis() && !said.by_url;
        if self.layer(Id::Local) != Some(Layer::Option) {
            return Ok(());
        }
        let stray: Vec<_> = self.0.iter().filter(is_stray).collect();
        match stray.iter().all(|said| said.value.is_empty()) {
            _ if stray.is_empty() => Ok(()),
            true => Err(Expected::Unknown),
            false => Err(Expected::Refused(stray.iter().map(|said| said.id).collect())),
        }
    }

    /// A HOST that is something else.
    fn refuse_slips(&self) -> Verdict<()> {
        let is_text = |value| str::from_utf8(value).is_ok();
        if self.is_on(Id::Tls) && !is_text(self.value(Id::TlsName)) {
            return Err(Expected::Refused(vec![Id::TlsName]));
        }
        let (host, is_by_url) = (self.value(Id::Host), self.said(Id::Host).is_some_and(|said| said.by_url));
        if host.starts_with(b"/") {
            return if self.is_on(Id::Tls) { Err(Expected::Refused(vec![Id::Tls, Id::Url])) } else { Ok(()) };
        }
        let is_url = host.windows(3).any(|part| part == b"://") || host.starts_with(b"unix:") || host.contains(&b'@');
        if !is_text(host) || is_more_than_host(host) || (!is_by_url && (is_url || bare_host(host).is_none())) {
            return Err(Expected::Refused(vec![Id::Host]));
        }
        Ok(())
    }
}
