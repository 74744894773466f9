//! What a connection text said so far, and the endpoint it adds up to.
//!
//! Owns the meaning of every parameter, the defaults, and the wording of what is wrong.

use std::path::{Path, PathBuf};
use std::time::Duration;

use percent_encoding::percent_decode_str;

use super::text::{
    Parts, complete_options, decode_lossy, is_known_parameter, keyword_value, printable, search_path_of,
};
use super::{Address, Endpoint, Host, Secret, SessionAttrs, SslMode, Tls};

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

/// What a text said so far, and what was wrong with it.
#[derive(Default)]
pub(super) struct Draft {
    /// Several are joined by commas, as libpq writes them; so are the ports, an empty one being the default.
    host: Option<String>,
    port: Option<String>,
    session: Option<SessionAttrs>,
    user: Option<String>,
    password: Option<String>,
    database: Option<String>,
    schema: Option<String>,
    options: String,
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

impl Draft {
    pub(super) fn read_url(&mut self, rest: &str) {
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
        let (mut names, mut ports) = (Vec::new(), Vec::new());
        for text in hosts.split(',') {
            let Some((host, port)) = self.read_host(text) else { return };
            names.push(self.decoded("host", host).unwrap_or_default());
            ports.push(self.decoded("port", port).unwrap_or_default());
        }
        let given = |texts: &[String]| texts.iter().any(|text| !text.is_empty()).then(|| texts.join(","));
        (self.host, self.port) = (given(&names), given(&ports));
    }

    /// Cuts `host:port`; the port may be empty.
    fn read_host<'a>(&mut self, text: &'a str) -> Option<(&'a str, &'a str)> {
        if let Some(bracketed) = text.strip_prefix('[') {
            let Some((address, port)) = bracketed.split_once(']') else {
                self.problem(format!("the IPv6 address has no closing bracket, or {ENCODE_REMEDY}"));
                return None;
            };
            return Some((address, port.strip_prefix(':').unwrap_or(port)));
        }
        if text.matches(':').count() > 1 {
            self.problem(format!(
                "the host holds several colons; put an IPv6 address into brackets, [::1]:5432, \
                 or {ENCODE_REMEDY}"
            ));
            return None;
        }
        Some(text.split_once(':').unwrap_or((text, "")))
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
    pub(super) fn read_keywords(&mut self, text: &str) {
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
            "options" => {
                self.search_path = search_path_of(&value).or(self.search_path.take());
                self.options = complete_options(&value);
            }
            "connect_timeout" => match value.parse::<u64>() {
                // libpq and Prisma wait for ever at 0. A daemon that must notice may not.
                Ok(0) => {}
                Ok(seconds) => self.connect_timeout = Some(Duration::from_secs(seconds)),
                Err(_) => {
                    self.problem("connect_timeout must be a whole number of seconds, such as 10".to_owned());
                }
            },
            "target_session_attrs" => {
                let known = SESSION_ATTRS.iter().find(|(word, _)| *word == value);
                if known.is_none() {
                    // We write, so a standby is of no use.
                    self.not_one_of(name, &SESSION_ATTRS.map(|(word, _)| word));
                }
                self.session = known.map(|(_, attrs)| *attrs);
            }
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

    pub(super) fn finish(mut self, env: &dyn Fn(&str) -> Option<String>) -> Result<Endpoint, Vec<String>> {
        let env = |name: &str| env(name).filter(|value| !value.is_empty());
        let addresses = self.finish_addresses();
        let session = self.finish_session(addresses.len());
        // A URL that could not be read says nothing about what it lacks.
        let is_readable = self.problems.is_empty();
        let user = self.user.take().or_else(|| env("PGUSER")).or_else(|| env("USER"));
        if user.is_none() && is_readable {
            self.problem("no user name; write postgresql://user:password@host/database".to_owned());
        }
        let user = user.unwrap_or_default();
        let password = self.password.take().or_else(|| env("PGPASSWORD")).unwrap_or_default();
        let database = self.database.take().unwrap_or_else(|| user.clone());
        let is_socket = |address: &Address| matches!(address.host, Host::Socket(_));
        let is_local = !addresses.is_empty() && addresses.iter().all(is_socket);
        let tls =
            if is_local { Tls { mode: SslMode::Disable, ..Tls::default() } } else { self.finish_tls(&env) };
        let schema = self.schema.take().or(self.search_path.take());
        let options = std::mem::take(&mut self.options);
        for (what, text) in [
            ("user name", user.as_str()),
            ("password", password.as_str()),
            ("database name", database.as_str()),
            ("schema", schema.as_deref().unwrap_or_default()),
            ("value of options", options.as_str()),
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
            addresses,
            session,
            user,
            password: Secret::new(password),
            database,
            tls,
            schema,
            options,
            connect_timeout: self.connect_timeout.unwrap_or(DEFAULT_CONNECT_TIMEOUT),
        })
    }

    /// One port is for every host; otherwise each has its own.
    fn finish_addresses(&mut self) -> Vec<Address> {
        let hosts = self.host.take().unwrap_or_else(|| "localhost".to_owned());
        let hosts: Vec<&str> = hosts.split(',').map(str::trim).collect();
        let ports = self.port.take().unwrap_or_default();
        let ports: Vec<&str> = ports.split(',').collect();
        if ports.len() > 1 && ports.len() != hosts.len() {
            let s = if hosts.len() == 1 { "" } else { "s" };
            self.problem(format!(
                "there are {} host{s} and {} ports; give one port for all hosts, or one for each",
                hosts.len(),
                ports.len()
            ));
            return Vec::new();
        }
        if hosts.contains(&"") {
            self.problem(
                "the list of hosts has an empty place; write host1:5432,host2:5432 without a comma too many"
                    .to_owned(),
            );
            return Vec::new();
        }
        let mut addresses: Vec<Address> = Vec::new();
        for (place, host) in hosts.iter().enumerate() {
            let port = if ports.len() == 1 { ports.first() } else { ports.get(place) };
            let port = self.finish_port(port.copied().unwrap_or_default());
            let address = Address { host: self.finish_host(host), port };
            // Numbers, not names: a name may be a piece of a password.
            if let Some(twin) = addresses.iter().position(|known| is_same(known, &address)) {
                let (place, twin) = (place + 1, twin + 1);
                self.problem(format!("host {place} of the list is host {twin} again; name each once"));
            }
            addresses.push(address);
        }
        addresses
    }

    fn finish_host(&mut self, host: &str) -> Host {
        if host.starts_with('/') {
            return Host::Socket(PathBuf::from(host));
        }
        if !host.chars().all(|c| c.is_alphanumeric() || "-._:%".contains(c)) {
            self.problem(format!("the host is not a valid host name; if it is right, {ENCODE_REMEDY}"));
        }
        Host::Tcp(host.to_owned())
    }

    fn finish_session(&mut self, hosts: usize) -> SessionAttrs {
        match (self.session, hosts) {
            (Some(SessionAttrs::Any), 2..) => {
                self.problem(
                    "target_session_attrs=any with several hosts may be a standby, which cannot be written; \
                     remove it, or write read-write"
                        .to_owned(),
                );
                SessionAttrs::Any
            }
            (Some(given), _) => given,
            (None, 2..) => SessionAttrs::ReadWrite,
            (None, _) => SessionAttrs::Any,
        }
    }

    fn finish_port(&mut self, port: &str) -> u16 {
        if port.is_empty() {
            return DEFAULT_PORT;
        }
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

/// Two spellings of one address, as far as that can be told without asking a server.
fn is_same(one: &Address, other: &Address) -> bool {
    let name = |host: &Host| match host {
        Host::Tcp(name) => name.to_lowercase().trim_end_matches('.').to_owned(),
        Host::Socket(directory) => directory.components().collect::<PathBuf>().display().to_string(),
    };
    one.port == other.port && name(&one.host) == name(&other.host)
}

const SESSION_ATTRS: [(&str, SessionAttrs); 3] =
    [("any", SessionAttrs::Any), ("read-write", SessionAttrs::ReadWrite), ("primary", SessionAttrs::Primary)];

const SSL_MODES: [(&str, SslMode); 6] = [
    ("disable", SslMode::Disable),
    ("allow", SslMode::Prefer),
    ("prefer", SslMode::Prefer),
    ("require", SslMode::Require),
    ("verify-ca", SslMode::VerifyCa),
    ("verify-full", SslMode::VerifyFull),
];

/// The operating system's bundle of authorities; `None` leaves the built-in one.
fn system_roots(env: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
    env("SSL_CERT_FILE")
        .map(PathBuf::from)
        .or_else(|| SYSTEM_ROOTS.iter().map(Path::new).find(|path| path.exists()).map(Into::into))
}
