//! Cutting a connection text where its parts meet. Nothing is decoded or judged here.

use percent_encoding::percent_decode_str;

/// Parameters with a meaning here, or with an answer in `Draft::refuse`.
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

/// Whether a parameter of a URL is one that somebody's URLs have: honoured here, or without effect on us.
pub(super) fn is_known_parameter(name: &str) -> bool {
    UNDERSTOOD.contains(&name) || IGNORED.contains(&name)
}

/// A URL behind its `://`, cut where its parts meet, nothing decoded yet.
pub(super) struct Parts<'a> {
    pub(super) user_info: Option<&'a str>,
    pub(super) hosts: &'a str,
    pub(super) database: &'a str,
    pub(super) query: &'a str,
}

impl<'a> Parts<'a> {
    /// Follows libpq where the text is clean, and SQLAlchemy where the password is not encoded:
    /// there everything up to the first `@` may be password, so Open WebUI's URL may hold
    /// a `/` or a `?` in it.
    pub(super) fn cut(rest: &'a str) -> Self {
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

    pub(super) fn parameters(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        self.query
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
    }

    /// An `@` behind the host means that the host was cut out of the middle of a password.
    pub(super) fn host_is_a_guess(&self) -> bool {
        self.database.contains('@') || (self.query.contains('@') && self.unknown_parameter().is_some())
    }
}

pub(super) fn decode_lossy(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// A parameter's name for a message: what looks like one, and nothing longer.
pub(super) fn printable(name: &str) -> String {
    let is_name = !name.is_empty()
        && name.len() <= 40
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c));
    if is_name { name.to_owned() } else { "…".to_owned() }
}

/// One value of a keyword/value string and the text behind it; `None` when its quote stays open.
pub(super) fn keyword_value(text: &str) -> Option<(String, &str)> {
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
pub(super) fn search_path_of(options: &str) -> Option<String> {
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

/// Server options that may have others behind them: without a `-c` that names nothing, which would take the next word.
pub(super) fn complete_options(options: &str) -> String {
    let options = options.trim();
    match options.strip_suffix("-c") {
        Some(rest) if rest.is_empty() || rest.ends_with(char::is_whitespace) => rest.trim_end().to_owned(),
        _ => options.to_owned(),
    }
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
