//! Where one database is: a connection URL or string, as people have it.
//!
//! Owns reading every spelling of a Postgres connection that LiteLLM (Prisma), Open WebUI
//! (SQLAlchemy) and libpq take, and keeping its password out of sight. Must not open a
//! connection, and must not print what it was given: the text holds a password, and text that
//! was not understood may hold a piece of it anywhere. A message may name a parameter; it
//! repeats a value only of a parameter that is never secret.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use percent_encoding::percent_decode_str;

const DEFAULT_PORT: u16 = 5432;
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Where operating systems keep the certificate authorities they trust, most common first.
const SYSTEM_ROOTS: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// One database connection, complete: nothing in it is looked up again later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub host: Host,
    pub port: u16,
    pub user: String,
    /// Empty when there is none.
    pub password: Secret,
    pub database: String,
    pub tls: Tls,
    /// Prisma's `schema`, else the first entry of a `search_path` in `options`.
    pub schema: Option<String>,
    pub connect_timeout: Duration,
}

/// The server's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// A host name or an IP address; an IPv6 address without its brackets.
    Tcp(String),
    /// The directory that holds the server's Unix socket.
    Socket(PathBuf),
}

/// How the connection is encrypted and whom it trusts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tls {
    pub mode: SslMode,
    /// Authorities to trust. `None` means the Mozilla roots built into the program.
    pub root_cert: Option<PathBuf>,
    /// `client_cert` and `client_key` are both set or both missing.
    pub client_cert: Option<PathBuf>,
    pub client_key: Option<PathBuf>,
}

/// libpq's `sslmode`. Its `allow` is read as `prefer`, which encrypts in more cases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SslMode {
    Disable,
    /// TLS when the server offers it. Not verified.
    #[default]
    Prefer,
    /// TLS or nothing. Not verified.
    Require,
    /// The certificate comes from a trusted authority, whatever name it carries.
    VerifyCa,
    /// The certificate comes from a trusted authority and names the host.
    VerifyFull,
}

/// Text that no log, error or debug output shows.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself. Only a connection may ask for it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host) if host.contains(':') => write!(f, "[{host}]"),
            Self::Tcp(host) => f.write_str(host),
            Self::Socket(directory) => write!(f, "{}", directory.display()),
        }
    }
}

/// `user@host:port/database`: for people, without the password.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}:{}/{}", self.user, self.host, self.port, self.database)
    }
}

impl Endpoint {
    /// Reads a URL or a keyword/value string; what is missing comes from libpq's defaults.
    ///
    /// The error lists every problem found. No entry contains the password or the whole text.
    pub fn parse(text: &str) -> Result<Self, Vec<String>> {
        Self::parse_with(text, &|name| std::env::var(name).ok())
    }

    /// [`Endpoint::parse`] with the environment as a parameter.
    pub(crate) fn parse_with(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, Vec<String>> {
        let text = without_quotes(text.trim());
        if text.is_empty() {
            return Err(vec!["the connection URL is empty".to_owned()]);
        }
        let mut draft = Draft::default();
        match scheme_of(text) {
            Some((scheme, rest)) => {
                check_scheme(scheme).map_err(|problem| vec![problem])?;
                draft.read_url(rest);
            }
            None if text.contains('=') => draft.read_keywords(text),
            None => {
                return Err(vec![
                    "this is neither a URL nor a keyword/value string; write \
                     postgresql://user:password@host:5432/database"
                        .to_owned(),
                ]);
            }
        }
        draft.finish(env)
    }
}

/// Docker's `--env-file` and `env_file:` of old versions keep the quotes around a value.
fn without_quotes(text: &str) -> &str {
    ['"', '\''].iter().find_map(|&quote| text.strip_prefix(quote)?.strip_suffix(quote)).unwrap_or(text)
}

fn scheme_of(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once("://")?;
    let is_scheme =
        !scheme.is_empty() && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-._".contains(c));
    is_scheme.then_some((scheme, rest))
}

/// Takes `postgres`, `postgresql`, and either with one of SQLAlchemy's drivers behind a `+`.
fn check_scheme(scheme: &str) -> Result<(), String> {
    let lower = scheme.to_ascii_lowercase();
    let base = lower.split('+').next().unwrap_or_default();
    match base {
        "postgres" | "postgresql" => Ok(()),
        "prisma" => {
            Err(format!("\"{scheme}://\" is a Prisma proxy; give the database's own postgresql:// URL"))
        }
        _ => Err(format!(
            "\"{scheme}://\" is not PostgreSQL; both LiteLLM and Open WebUI must keep their data \
             in PostgreSQL, and the URL begins with postgresql://"
        )),
    }
}

/// What a text said so far, and what was wrong with it.
#[derive(Default)]
struct Draft {
    host: Option<String>,
    port: Option<String>,
    user: Option<String>,
    password: Option<String>,
    database: Option<String>,
    schema: Option<String>,
    search_path: Option<String>,
    ssl_mode: Option<SslMode>,
    /// What Prisma's `sslaccept` or SQLAlchemy's `ssl` mean, if nothing says `sslmode`.
    ssl_mode_hint: Option<SslMode>,
    root_cert: Option<String>,
    client_cert: Option<String>,
    client_key: Option<String>,
    connect_timeout: Option<Duration>,
    /// The last parameter understood was a password whose end nothing marks, so a name that
    /// nobody knows may be a piece of it.
    after_password: bool,
    problems: Vec<String>,
}

const ENCODE_REMEDY: &str = "percent-encode the special characters of the user name and the \
     password (@ is %40, : is %3A, / is %2F, ? is %3F, & is %26, % is %25)";

/// A URL behind its `://`, cut where its parts meet, nothing decoded yet.
struct Parts<'a> {
    user_info: Option<&'a str>,
    hosts: &'a str,
    database: &'a str,
    query: &'a str,
}

impl<'a> Parts<'a> {
    /// Follows libpq where the text is clean, and SQLAlchemy where the password is not encoded:
    /// there everything up to the first `@` may be password, so Open WebUI's URL may hold
    /// a `/` or a `?` in it.
    fn cut(rest: &'a str) -> Self {
        let plain = Self::cut_after(None, rest);
        if let Some((user_info, hosts)) = plain.hosts.rsplit_once('@') {
            return Self { user_info: Some(user_info), hosts, ..plain };
        }
        let is_clean = !plain.database.contains('@') && plain.unknown_parameter().is_none();
        match rest.split_once('@') {
            Some((user_info, rest)) if !is_clean => Self::cut_after(Some(user_info), rest),
            _ => plain,
        }
    }

    fn cut_after(user_info: Option<&'a str>, rest: &'a str) -> Self {
        let (before_query, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (hosts, database) = before_query.split_once('/').unwrap_or((before_query, ""));
        Self { user_info, hosts, database, query }
    }

    fn unknown_parameter(&self) -> Option<&'a str> {
        self.parameters().map(|(name, _)| name).find(|name| !is_known_parameter(&decode_lossy(name)))
    }

    fn parameters(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        self.query
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
    }

    /// An `@` behind the host means that the host was cut out of the middle of a password.
    fn host_is_a_guess(&self) -> bool {
        self.database.contains('@') || (self.query.contains('@') && self.unknown_parameter().is_some())
    }
}

impl Draft {
    fn read_url(&mut self, rest: &str) {
        let parts = Parts::cut(rest);
        if parts.host_is_a_guess() {
            // Whatever else is wrong here would be told in words of the password.
            self.problem(format!("the URL has an \"@\" behind the host; {ENCODE_REMEDY}"));
            return;
        }
        if let Some(user_info) = parts.user_info {
            let (user, password) = match user_info.split_once(':') {
                Some((user, password)) => (user, Some(password)),
                None => (user_info, None),
            };
            self.user = self.decoded("user name", user);
            self.password = password.and_then(|password| self.decoded("password", password));
        }
        self.read_hosts(parts.hosts);
        self.database = self.decoded("database name", parts.database);
        for (name, value) in parts.parameters() {
            let name = decode_lossy(name);
            // Only an `options` value has spaces to write, and forms write them as plus signs.
            let value = if name == "options" { value.replace('+', " ") } else { value.to_owned() };
            let value = self.decoded("value of a parameter", &value);
            self.parameter(&name, value, true);
        }
    }

    fn read_hosts(&mut self, hosts: &str) {
        let (host, port) = if let Some(bracketed) = hosts.strip_prefix('[') {
            let Some((address, port)) = bracketed.split_once(']') else {
                self.problem(format!("the IPv6 address has no closing bracket, or {ENCODE_REMEDY}"));
                return;
            };
            (address, port.strip_prefix(':').unwrap_or(port))
        } else if hosts.split(',').all(|host| host.matches(':').count() > 1) && !hosts.is_empty() {
            self.problem(format!(
                "the host holds several colons; put an IPv6 address into brackets, [::1]:5432, \
                 or {ENCODE_REMEDY}"
            ));
            return;
        } else if hosts.contains(',') {
            // finish() says what is wrong with a list; the ports in it would only confuse.
            (hosts, "")
        } else {
            hosts.split_once(':').unwrap_or((hosts, ""))
        };
        self.host = self.decoded("host", host);
        self.port = self.decoded("port", port);
    }

    /// Percent-decodes one part; an empty part counts as missing, as libpq has it.
    ///
    /// A `%` that starts no valid sequence stays as it is, as both products read it.
    fn decoded(&mut self, what: &str, text: &str) -> Option<String> {
        match percent_decode_str(text).decode_utf8() {
            Ok(text) => Some(text.into_owned()).filter(|text| !text.is_empty()),
            Err(_) => {
                self.problem(format!("the {what} is not UTF-8 once decoded; encode it as UTF-8"));
                None
            }
        }
    }

    /// `host=db dbname=litellm password='with spaces'`, by libpq's quoting rules.
    fn read_keywords(&mut self, text: &str) {
        let mut rest = text.trim_start();
        while !rest.is_empty() {
            let end = rest.find(|c: char| c == '=' || c.is_whitespace()).unwrap_or(rest.len());
            let (keyword, after) = rest.split_at(end);
            let Some(value_text) = after.trim_start().strip_prefix('=') else {
                // Not named: a password with a space in it, unquoted, lands here.
                self.problem(
                    "a word of the connection string has no \"=\"; put values that hold spaces \
                     into single quotes"
                        .to_owned(),
                );
                return;
            };
            let is_quoted = value_text.trim_start().starts_with('\'');
            let Some((value, after)) = keyword_value(value_text.trim_start()) else {
                self.problem(
                    "a single quote of the connection string is never closed; write \\' for a \
                     quote inside a quoted value"
                        .to_owned(),
                );
                return;
            };
            self.parameter(keyword, Some(value).filter(|value| !value.is_empty()), !is_quoted);
            rest = after.trim_start();
        }
    }

    /// Takes one parameter, wherever it was written. An empty value counts as missing.
    fn parameter(&mut self, name: &str, value: Option<String>, value_is_open: bool) {
        if !is_known_parameter(name) {
            self.refuse_unknown(name);
            return;
        }
        if let Some(value) = value {
            self.set(name, value);
        }
        self.after_password = name == "password" && value_is_open;
    }

    fn set(&mut self, name: &str, value: String) {
        match name {
            "host" => self.host = Some(value),
            "port" => self.port = Some(value),
            "user" => self.user = Some(value),
            "password" => self.password = Some(value),
            "dbname" | "database" => self.database = Some(value),
            "schema" => self.schema = Some(value),
            "options" => self.search_path = search_path_of(&value).or(self.search_path.take()),
            "connect_timeout" => match value.parse::<u64>() {
                // libpq and Prisma wait for ever at 0. A daemon that must notice may not.
                Ok(0) => {}
                Ok(seconds) => self.connect_timeout = Some(Duration::from_secs(seconds)),
                Err(_) => {
                    self.problem("connect_timeout must be a whole number of seconds, such as 10".to_owned());
                }
            },
            // We write, so a server that cannot be written to is found out anyway.
            "target_session_attrs" => self.only(name, &value, &["any", "read-write"]),
            "sslnegotiation" => self.only(name, &value, &["postgres"]),
            "gssencmode" => self.only(name, &value, &["disable", "prefer"]),
            name => self.set_tls(name, value),
        }
    }

    fn set_tls(&mut self, name: &str, value: String) {
        match name {
            "sslrootcert" => self.root_cert = Some(value),
            "sslcert" => self.client_cert = Some(value),
            "sslkey" => self.client_key = Some(value),
            "sslmode" => {
                let mode = self.ssl_mode_value(name, &value);
                self.ssl_mode = mode.or(self.ssl_mode);
            }
            "ssl" => {
                let mode = match value.to_ascii_lowercase().as_str() {
                    "true" | "1" | "on" => Some(SslMode::Require),
                    "false" | "0" | "off" => Some(SslMode::Disable),
                    _ => self.ssl_mode_value(name, &value),
                };
                self.ssl_mode_hint = mode.or(self.ssl_mode_hint);
            }
            "sslaccept" => match value.as_str() {
                "accept_invalid_certs" => self.ssl_mode_hint = Some(SslMode::Require),
                "strict" => self.ssl_mode_hint = Some(SslMode::VerifyFull),
                _ => self.not_one_of(name, &["accept_invalid_certs", "strict"]),
            },
            // Neither of our two drivers can bind, so what cannot be kept is not promised.
            "channel_binding" if value == "require" => self.problem(
                "channel_binding=require is not supported; write channel_binding=prefer, and \
                 sslmode=verify-full to be sure of the server"
                    .to_owned(),
            ),
            "channel_binding" => self.only(name, &value, &["disable", "prefer"]),
            name => self.refuse(name),
        }
    }

    /// What is known and cannot be had here, with the way around it. The rest is ignored.
    fn refuse(&mut self, name: &str) {
        let problem = match name {
            "sslidentity" => {
                "sslidentity (a PKCS#12 file) cannot be read; convert it with \
                 `openssl pkcs12 -nodes` and give sslcert and sslkey"
            }
            "sslpassword" => {
                "sslpassword: an encrypted client key cannot be read; decrypt it with \
                 `openssl pkey` and protect the file by its permissions"
            }
            "service" | "passfile" => {
                "service and password files are not read; write the connection itself into the URL"
            }
            "hostaddr" => "hostaddr is not supported; give the address or the name as host",
            _ => return,
        };
        self.problem(problem.to_owned());
    }

    fn refuse_unknown(&mut self, name: &str) {
        let problem = if self.after_password {
            format!(
                "an unknown parameter follows the password; if it is a part of it, \
                 {ENCODE_REMEDY}, or put it into single quotes in a keyword/value string"
            )
        } else {
            format!("unknown parameter \"{}\"; remove it", printable(name))
        };
        self.problem(problem);
    }

    fn only(&mut self, name: &str, value: &str, allowed: &[&str]) {
        if !allowed.contains(&value) {
            self.not_one_of(name, allowed);
        }
    }

    fn ssl_mode_value(&mut self, name: &str, value: &str) -> Option<SslMode> {
        let mode = SSL_MODES.iter().find(|(word, _)| *word == value);
        if mode.is_none() {
            self.not_one_of(name, &SSL_MODES.map(|(word, _)| word));
        }
        mode.map(|(_, mode)| *mode)
    }

    /// Does not repeat the value: behind an unencoded `&` it may be anything.
    fn not_one_of(&mut self, name: &str, allowed: &[&str]) {
        let (what, allowed) = match allowed {
            [only] => ("can only be", (*only).to_owned()),
            many => ("must be one of", many.join(", ")),
        };
        self.problem(format!("{name} {what} {allowed}"));
    }

    fn problem(&mut self, problem: String) {
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    fn finish(mut self, env: &dyn Fn(&str) -> Option<String>) -> Result<Endpoint, Vec<String>> {
        let env = |name: &str| env(name).filter(|value| !value.is_empty());
        let host = self.finish_host();
        let port = self.finish_port();
        // A URL that could not be read says nothing about what it lacks.
        let is_readable = self.problems.is_empty();
        let user = self.user.take().or_else(|| env("PGUSER")).or_else(|| env("USER"));
        if user.is_none() && is_readable {
            self.problem("no user name; write postgresql://user:password@host/database".to_owned());
        }
        let user = user.unwrap_or_default();
        let password = self.password.take().or_else(|| env("PGPASSWORD")).unwrap_or_default();
        let database = self.database.take().unwrap_or_else(|| user.clone());
        let tls = match host {
            // PostgreSQL has no TLS on Unix sockets, and libpq ignores sslmode there.
            Host::Socket(_) => Tls { mode: SslMode::Disable, ..Tls::default() },
            Host::Tcp(_) => self.finish_tls(&env),
        };
        let schema = self.schema.take().or(self.search_path.take());
        for (what, text) in [
            ("user name", user.as_str()),
            ("password", password.as_str()),
            ("database name", database.as_str()),
            ("schema", schema.as_deref().unwrap_or_default()),
        ] {
            // The start-up packet ends every value with one.
            if text.contains('\0') {
                self.problem(format!("the {what} holds a zero byte; remove it"));
            }
        }
        if !self.problems.is_empty() {
            return Err(self.problems);
        }
        Ok(Endpoint {
            host,
            port,
            user,
            password: Secret::new(password),
            database,
            tls,
            schema,
            connect_timeout: self.connect_timeout.unwrap_or(DEFAULT_CONNECT_TIMEOUT),
        })
    }

    fn finish_host(&mut self) -> Host {
        let host = self.host.take().unwrap_or_else(|| "localhost".to_owned());
        if host.contains(',') {
            self.problem(
                "several hosts are given; one host is supported for now: give the primary, or \
                 a name that always leads to it"
                    .to_owned(),
            );
        } else if host.starts_with('/') {
            return Host::Socket(PathBuf::from(host));
        } else if !host.chars().all(|c| c.is_alphanumeric() || "-._:%".contains(c)) {
            self.problem(format!("the host is not a valid host name; if it is right, {ENCODE_REMEDY}"));
        }
        Host::Tcp(host)
    }

    fn finish_port(&mut self) -> u16 {
        let Some(port) = self.port.take() else {
            return DEFAULT_PORT;
        };
        match port.trim().parse() {
            Ok(port) if port > 0 => port,
            _ => {
                self.problem(format!(
                    "the port must be a number from 1 to 65535; if it is a part of the password, \
                     {ENCODE_REMEDY}"
                ));
                DEFAULT_PORT
            }
        }
    }

    fn finish_tls(&mut self, env: &dyn Fn(&str) -> Option<String>) -> Tls {
        let is_system = self.root_cert.as_deref() == Some("system");
        let root_cert = match self.root_cert.take() {
            Some(_) if is_system => system_roots(env),
            file => file.map(PathBuf::from),
        };
        let given = self.ssl_mode.or(self.ssl_mode_hint);
        let mode = match given {
            // As libpq has it: trusting everybody a public authority knows makes no sense
            // without the name.
            None if is_system => SslMode::VerifyFull,
            Some(mode) if is_system && mode != SslMode::VerifyFull => {
                self.problem(
                    "sslrootcert=system works with sslmode=verify-full only; write that, or \
                     remove sslrootcert"
                        .to_owned(),
                );
                mode
            }
            // As libpq has it: whoever names the authority wants it checked.
            Some(SslMode::Require) if root_cert.is_some() => SslMode::VerifyCa,
            given => given.unwrap_or_default(),
        };
        let client_cert = self.client_cert.take().map(PathBuf::from);
        let client_key = self.client_key.take().map(PathBuf::from);
        match (&client_cert, &client_key) {
            (Some(_), None) => self.problem(
                "sslcert needs sslkey beside it; if this is Prisma's sslcert (the server's \
                 certificate authority), call it sslrootcert"
                    .to_owned(),
            ),
            (None, Some(_)) => {
                self.problem("sslkey needs sslcert beside it; add it or remove sslkey".to_owned());
            }
            (Some(_), Some(_)) | (None, None) => {}
        }
        Tls { mode, root_cert, client_cert, client_key }
    }
}

const SSL_MODES: [(&str, SslMode); 6] = [
    ("disable", SslMode::Disable),
    ("allow", SslMode::Prefer),
    ("prefer", SslMode::Prefer),
    ("require", SslMode::Require),
    ("verify-ca", SslMode::VerifyCa),
    ("verify-full", SslMode::VerifyFull),
];

/// Parameters with a meaning here, or with an answer in [`Draft::refuse`].
const UNDERSTOOD: [&str; 24] = [
    "host",
    "port",
    "user",
    "password",
    "dbname",
    "database",
    "schema",
    "options",
    "connect_timeout",
    "target_session_attrs",
    "sslnegotiation",
    "gssencmode",
    "sslmode",
    "ssl",
    "sslaccept",
    "channel_binding",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "sslidentity",
    "sslpassword",
    "service",
    "passfile",
    "hostaddr",
];

/// Parameters that tune the product's own pool or driver, or that we set ourselves.
const IGNORED: [&str; 18] = [
    "application_name",
    "fallback_application_name",
    "client_encoding",
    "connection_limit",
    "pool_timeout",
    "socket_timeout",
    "pgbouncer",
    "statement_cache_size",
    "single_use_connections",
    "prepared_statement_cache_size",
    "prepare_threshold",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "tcp_user_timeout",
    "sslcompression",
    "sslsni",
];

fn is_known_parameter(name: &str) -> bool {
    UNDERSTOOD.contains(&name) || IGNORED.contains(&name)
}

fn decode_lossy(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// A parameter's name for a message: what looks like one, and nothing longer.
fn printable(name: &str) -> String {
    let is_name = !name.is_empty()
        && name.len() <= 40
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c));
    if is_name { name.to_owned() } else { "…".to_owned() }
}

/// One value of a keyword/value string and the text behind it; `None` when its quote stays open.
fn keyword_value(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let (quoted, body) = match text.strip_prefix('\'') {
        Some(body) => (true, body),
        None => (false, text),
    };
    let mut chars = body.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
            '\'' if quoted => return Some((value, chars.as_str())),
            c if !quoted && c.is_whitespace() => return Some((value, body.get(at..)?)),
            c => value.push(c),
        }
    }
    (!quoted).then_some((value, ""))
}

/// The first schema of a `search_path` in server options (`-csearch_path=a,b`, `-c search_path=a`,
/// `--search_path=a`), folded as Postgres folds it.
fn search_path_of(options: &str) -> Option<String> {
    let words = split_options(options);
    let mut settings = Vec::new();
    let mut words = words.iter().map(String::as_str);
    while let Some(word) = words.next() {
        if word == "-c" {
            settings.extend(words.next());
        } else {
            settings.extend(word.strip_prefix("--").or_else(|| word.strip_prefix("-c")));
        }
    }
    let path = settings.iter().rev().find_map(|setting| {
        let (name, value) = setting.split_once('=')?;
        (name.replace('-', "_") == "search_path").then_some(value)
    })?;
    path.split(',')
        .map(str::trim)
        .map(|name| match name.strip_prefix('"').and_then(|name| name.strip_suffix('"')) {
            Some(quoted) => quoted.replace("\"\"", "\""),
            None => name.to_lowercase(),
        })
        .find(|name| !name.is_empty() && name != "$user")
}

/// Splits at white space; a backslash keeps the character behind it, as the server reads it.
fn split_options(options: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut chars = options.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => word.extend(chars.next()),
            c if c.is_whitespace() => words.extend(Some(std::mem::take(&mut word))),
            c => word.push(c),
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    words
}

/// The operating system's bundle of authorities; `None` leaves the built-in one.
fn system_roots(env: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
    env("SSL_CERT_FILE")
        .map(PathBuf::from)
        .or_else(|| SYSTEM_ROOTS.iter().map(Path::new).find(|path| path.exists()).map(Into::into))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn parse_in(env: &[(&str, &str)], text: &str) -> Result<Endpoint, Vec<String>> {
        Endpoint::parse_with(text, &|name| {
            env.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    fn parse(text: &str) -> Endpoint {
        parse_in(&[("USER", "os-user")], text).unwrap_or_else(|problems| panic!("{text}: {problems:?}"))
    }

    fn problems(text: &str) -> Vec<String> {
        parse_in(&[("USER", "os-user")], text).expect_err(text)
    }

    fn tcp(host: &str) -> Host {
        Host::Tcp(host.to_owned())
    }

    #[test]
    fn one_connection_is_read_from_every_spelling() {
        let spellings = [
            "postgresql://llm:s3cret@db.example:5433/litellm",
            "postgres://llm:s3cret@db.example:5433/litellm",
            "postgresql+psycopg2://llm:s3cret@db.example:5433/litellm",
            "postgresql+asyncpg://llm:s3cret@db.example:5433/litellm",
            "postgresql+psycopg://llm:s3cret@db.example:5433/litellm",
            "postgresql://?host=db.example&port=5433&user=llm&password=s3cret&dbname=litellm",
            "postgresql://%6clm:s3%63ret@db%2Eexample:5433/lite%6clm",
            "  \"postgresql://llm:s3cret@db.example:5433/litellm\"\n",
            "host=db.example port=5433 user=llm password=s3cret dbname=litellm",
            "host = db.example port= 5433 user ='llm' password='s3cret'dbname=litellm",
        ];
        for text in spellings {
            let endpoint = parse(text);
            assert_eq!(endpoint.host, tcp("db.example"), "{text}");
            assert_eq!(endpoint.port, 5433, "{text}");
            assert_eq!(endpoint.user, "llm", "{text}");
            assert_eq!(endpoint.password.expose(), "s3cret", "{text}");
            assert_eq!(endpoint.database, "litellm", "{text}");
            assert_eq!(endpoint.to_string(), "llm@db.example:5433/litellm");
        }
    }

    #[test]
    fn what_is_missing_comes_from_libpq_defaults() {
        let env = [("USER", "os-user"), ("PGPASSWORD", "from-env")];
        let endpoint = parse_in(&env, "postgresql://").unwrap();
        assert_eq!(endpoint.to_string(), "os-user@localhost:5432/os-user");
        assert_eq!(endpoint.password.expose(), "from-env");
        assert_eq!(endpoint.tls, Tls::default());
        assert_eq!(endpoint.connect_timeout, Duration::from_secs(10));
        assert_eq!(endpoint.schema, None);
        let env = [("USER", "os-user"), ("PGUSER", "pg-user")];
        assert_eq!(parse_in(&env, "postgresql:///db").unwrap().user, "pg-user");
        let nobody = parse_in(&[("USER", "")], "postgresql://h/db").unwrap_err();
        assert!(nobody[0].starts_with("no user name"), "{nobody:?}");
    }

    #[test]
    fn a_password_may_hold_any_character() {
        for (text, password) in [
            ("postgresql://u:p%40ss%3A%2F%3F%23%25@h/d", "p@ss:/?#%"),
            ("postgresql://u:a:b:c@h/d", "a:b:c"),
            ("postgresql://u:a@b@h/d", "a@b"),
            ("postgresql://u:a#b@h/d", "a#b"),
            ("postgresql://u:100%sure@h/d", "100%sure"),
            ("postgresql://u:a+b@h/d", "a+b"),
            ("postgresql://u:p%C3%A4ss@h/d", "päss"),
            ("postgresql://u:päß@h/d", "päß"),
            // Only SQLAlchemy takes these, so they stand in Open WebUI's URLs.
            ("postgresql://u:a/b@h/d", "a/b"),
            ("postgresql://u:1/2@h/d", "1/2"),
            ("postgresql://u:a?b@h/d", "a?b"),
            ("postgresql://u:1?b=c@h/d", "1?b=c"),
            ("postgresql://u:[x]@h/d", "[x]"),
            ("postgresql://h/d?user=u&password=a%26b%20c+d", "a&b c+d"),
            (r"host=h user=u dbname=d password='it\'s \\ x'", r"it's \ x"),
            (r"host=h user=u dbname=d password=a\ b", "a b"),
            ("host=h user=u dbname=d password=postgres://x", "postgres://x"),
        ] {
            let endpoint = parse(text);
            assert_eq!(endpoint.password.expose(), password, "{text}");
            assert_eq!(endpoint.to_string(), "u@h:5432/d", "{text}");
        }
    }

    #[test]
    fn an_at_sign_in_a_parameter_is_not_a_password() {
        let endpoint = parse("postgresql://h:5433/d?user=u@corp&sslmode=disable");
        assert_eq!(endpoint.to_string(), "u@corp@h:5433/d");
        assert!(endpoint.password.is_empty());
    }

    #[test]
    fn ipv6_and_sockets() {
        let endpoint = parse("postgresql://u@[2001:db8::1]:6000/d");
        assert_eq!(endpoint.host, tcp("2001:db8::1"));
        assert_eq!(endpoint.to_string(), "u@[2001:db8::1]:6000/d");
        assert_eq!(parse("postgresql://[::1]/d").host, tcp("::1"));
        assert_eq!(parse("host=::1").host, tcp("::1"));
        for text in [
            "postgresql:///d?host=/var/run/postgresql&user=u",
            "postgresql://u@%2Fvar%2Frun%2Fpostgresql/d",
            "postgresql+psycopg2://u@/d?host=/var/run/postgresql&sslmode=require",
            "host=/var/run/postgresql dbname=d user=u",
        ] {
            let endpoint = parse(text);
            assert_eq!(endpoint.host, Host::Socket("/var/run/postgresql".into()), "{text}");
            assert_eq!(endpoint.tls.mode, SslMode::Disable, "{text}");
            assert_eq!(endpoint.to_string(), "u@/var/run/postgresql:5432/d");
        }
        assert_eq!(parse("postgresql://u@%2Ftmp:6000/d").port, 6000);
    }

    #[test]
    fn parameters_of_prisma_and_sqlalchemy_are_taken() {
        let endpoint = parse(
            "postgresql://u:p@h/d?schema=LLM&connection_limit=10&pool_timeout=60&pgbouncer=true\
             &socket_timeout=9&application_name=x&connect_timeout=3&target_session_attrs=read-write\
             &options=-csearch_path%3Dother",
        );
        assert_eq!(endpoint.schema.as_deref(), Some("LLM"));
        assert_eq!(endpoint.connect_timeout, Duration::from_secs(3));
        assert_eq!(parse("postgresql://h/d?connect_timeout=0").connect_timeout.as_secs(), 10);
    }

    #[test]
    fn a_search_path_is_a_schema() {
        for (options, schema) in [
            ("-csearch_path%3Dwebui", Some("webui")),
            ("-c%20search_path=Webui,public", Some("webui")),
            ("-c+statement_timeout%3D1s+-c+search_path%3Dwebui", Some("webui")),
            (r"--search-path=%22$user%22,%22My\%20One%22", Some("My One")),
            ("-c%20geqo=off", None),
        ] {
            let endpoint = parse(&format!("postgresql://h/d?options={options}"));
            assert_eq!(endpoint.schema.as_deref(), schema, "{options}");
        }
    }

    #[test]
    fn tls_follows_libpq_and_the_products() {
        use SslMode::{Disable, Prefer, Require, VerifyCa, VerifyFull};
        for (query, mode) in [
            ("", Prefer),
            ("sslmode=disable", Disable),
            ("sslmode=allow", Prefer),
            ("sslmode=require", Require),
            ("sslmode=require&sslrootcert=ca.pem", VerifyCa),
            ("sslmode=prefer&sslrootcert=ca.pem", Prefer),
            ("sslmode=verify-ca", VerifyCa),
            ("sslmode=verify-full", VerifyFull),
            ("sslrootcert=system", VerifyFull),
            ("sslaccept=strict", VerifyFull),
            ("sslaccept=accept_invalid_certs", Require),
            ("sslaccept=accept_invalid_certs&sslmode=verify-ca", VerifyCa),
            ("ssl=true", Require),
            ("ssl=verify-full", VerifyFull),
            ("ssl=require&sslmode=disable", Disable),
        ] {
            assert_eq!(parse(&format!("postgresql://h/d?{query}")).tls.mode, mode, "{query}");
        }
        let tls = parse(
            "postgresql://h/d?sslmode=verify-full&sslrootcert=%2Fa%20b%2Fca.pem&sslcert=c.pem\
             &sslkey=k.pem&channel_binding=prefer",
        )
        .tls;
        assert_eq!(tls.root_cert, Some("/a b/ca.pem".into()));
        assert_eq!(tls.client_cert, Some("c.pem".into()));
        assert_eq!(tls.client_key, Some("k.pem".into()));
        let env = [("USER", "u"), ("SSL_CERT_FILE", "own.pem")];
        let system = parse_in(&env, "postgresql://h/d?sslrootcert=system").unwrap();
        assert_eq!(system.tls.root_cert, Some("own.pem".into()));
    }

    #[test]
    fn every_problem_is_reported_at_once() {
        let all = problems(
            "postgresql://u:p@a,b/d?colour=red&sslmode=maybe&sslidentity=x.p12&connect_timeout=soon\
             &sslcert=c&target_session_attrs=standby&shape&sslmode=maybe",
        );
        let expected = [
            "unknown parameter \"colour\"",
            "sslmode must be one of",
            "sslidentity",
            "connect_timeout must be",
            "target_session_attrs must be one of any, read-write",
            "unknown parameter \"shape\"",
            "several hosts are given; one host is supported for now",
            "sslcert needs sslkey",
        ];
        assert_eq!(all.len(), expected.len(), "{all:#?}");
        for text in expected {
            assert!(all.iter().any(|problem| problem.contains(text)), "{text}: {all:#?}");
        }
    }

    #[test]
    fn one_mistake_gets_one_answer() {
        for (text, expected) in [
            ("", "is empty"),
            ("''", "is empty"),
            ("nonsense", "neither a URL nor"),
            ("sqlite:///data/webui.db", "\"sqlite://\" is not PostgreSQL"),
            ("prisma+postgres://accelerate.example", "Prisma proxy"),
            ("postgresql://u@h:0/d", "port must be"),
            ("postgresql://u@h:65536/d", "port must be"),
            ("postgresql://u@h:x/d", "port must be"),
            ("postgresql://u@::1/d", "brackets"),
            ("postgresql://u@[::1/d", "closing bracket"),
            ("postgresql://u@h h/d", "not a valid host name"),
            ("postgresql://a:1,b:2/d", "several hosts"),
            ("postgresql://h/d?host=a&host=b,c", "several hosts"),
            ("postgresql://u:%ff@h/d", "the password is not UTF-8"),
            ("postgresql://u:a%00b@h/d", "the password holds a zero byte"),
            ("postgresql://h/d?sslkey=k", "sslkey needs sslcert"),
            ("postgresql://h/d?sslmode=require&sslrootcert=system", "verify-full only"),
            ("postgresql://h/d?sslmode=require&channel_binding=require", "channel_binding=prefer"),
            ("postgresql://h/d?channel_binding=x", "one of disable, prefer"),
            ("postgresql://h/d?sslnegotiation=direct", "can only be postgres"),
            ("host=h dbname='x", "never closed"),
            ("host=h dbname", "has no \"=\""),
            ("host=h colour=red", "unknown parameter \"colour\""),
        ] {
            let all = problems(text);
            assert_eq!(all.len(), 1, "{text}: {all:?}");
            assert!(all[0].contains(expected), "{text}: {all:?}");
        }
    }

    #[test]
    fn no_message_and_no_debug_text_shows_a_password() {
        // Every text is broken at its password, whose pieces begin with "zq".
        for text in [
            "postgresql://u:zq1@zq2/zq3@h/d",
            "postgresql://u:zq1@zq2?zq3=zq4@h/d",
            "postgresql://u:zq1@zq2:zq3@h:zq/d?colour=red",
            "postgresql://u:zq1?zq2=3&zq4@h/d?colour=red",
            "postgresql://u:1?zq2&zq3@h@zq4/d",
            "postgresql://u:zq1/zq2@zq3/zq4@h/d",
            "postgresql://h/d?user=u&password=zq1&zq2=3&zq4",
            "postgresql://h/d?user=u&password=zq1&sslmode=zq2&connect_timeout=zq3",
            "postgresql://u:zq1@h:zq2/d",
            "host=h password=zq1 zq2",
            "host=h password=zq1 zq2=zq3 zq4=5",
            "host=h password='zq1 zq2",
            "zq1zq2",
            "mysql://u:zq1@h/d",
        ] {
            let all = problems(text);
            assert!(all.iter().all(|problem| !problem.contains("zq")), "{text}: {all:#?}");
        }
        let endpoint = parse("postgresql://u:zq1@h/d");
        assert!(!format!("{endpoint:?} {endpoint} {}", endpoint.password).contains("zq"));
    }

    #[test]
    fn no_text_makes_the_parser_panic() {
        let pieces = [
            "p://",
            "postgresql://",
            "@",
            ":",
            "/",
            "?",
            "&",
            "=",
            "%",
            "%4",
            "'",
            "\\",
            "[",
            "]",
            ",",
            " ",
            "ä",
            "host",
            "password",
            "options=-c",
        ];
        let mut state = 1_usize;
        for _ in 0..50_000 {
            let mut text = String::new();
            for _ in 0..12 {
                // xorshift: the texts need to be many, not random.
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                text.push_str(pieces[state % pieces.len()]);
            }
            let _ = parse_in(&[], &text);
        }
    }
}
