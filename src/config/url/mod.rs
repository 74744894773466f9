//! Where one database is: a connection URL or string, as people have it.
//!
//! Owns reading every spelling of a Postgres connection that LiteLLM (Prisma), Open WebUI
//! (SQLAlchemy) and libpq take, and keeping its password out of sight. Must not open a
//! connection, and must not print what it was given: the text holds a password, and text that
//! was not understood may hold a piece of it anywhere. A message may name a parameter; it
//! repeats a value only of a parameter that is never secret.

mod draft;
mod text;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use draft::Draft;

/// One database connection, complete: nothing in it is looked up again later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Never empty, none twice. Several belong to one database: a primary and its standbys.
    pub addresses: Vec<Address>,
    /// What the server behind an address must be.
    pub session: SessionAttrs,
    pub user: String,
    /// Empty when there is none.
    pub password: Secret,
    pub database: String,
    pub tls: Tls,
    /// Prisma's `schema`, else the first entry of a `search_path` in `options`.
    pub schema: Option<String>,
    /// The server's command-line options of the URL, as the start-up packet has them; empty when there are none.
    pub options: String,
    pub connect_timeout: Duration,
}

/// Where one server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    pub host: Host,
    pub port: u16,
}

/// libpq's `target_session_attrs`, as far as it fits somebody who writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SessionAttrs {
    /// Whatever answers. The default with one host, and only possible there.
    #[default]
    Any,
    /// A server that takes writes: neither a standby nor read-only by configuration. The default with several hosts.
    ReadWrite,
    /// A server that is no standby.
    Primary,
}

/// The server's host.
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

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// `user@host:port,host:port/database`: for people, without the password.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@", self.user)?;
        for (place, address) in self.addresses.iter().enumerate() {
            write!(f, "{}{address}", if place == 0 { "" } else { "," })?;
        }
        write!(f, "/{}", self.database)
    }
}

impl Endpoint {
    /// The same database at one of its addresses alone, encrypted as that address can be.
    #[must_use]
    pub fn at(&self, address: &Address) -> Self {
        let tls = match address.host {
            // PostgreSQL has no TLS on Unix sockets, and libpq ignores sslmode there.
            Host::Socket(_) => Tls { mode: SslMode::Disable, ..Tls::default() },
            Host::Tcp(_) => self.tls.clone(),
        };
        Self { addresses: vec![address.clone()], tls, ..self.clone() }
    }

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

    fn tcp(host: &str, port: u16) -> Address {
        Address { host: Host::Tcp(host.to_owned()), port }
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
            assert_eq!(endpoint.addresses, [tcp("db.example", 5433)], "{text}");
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
        assert_eq!(endpoint.addresses, [tcp("2001:db8::1", 6000)]);
        assert_eq!(endpoint.to_string(), "u@[2001:db8::1]:6000/d");
        assert_eq!(parse("postgresql://[::1]/d").addresses, [tcp("::1", 5432)]);
        assert_eq!(parse("host=::1").addresses, [tcp("::1", 5432)]);
        for text in [
            "postgresql:///d?host=/var/run/postgresql&user=u",
            "postgresql://u@%2Fvar%2Frun%2Fpostgresql/d",
            "postgresql+psycopg2://u@/d?host=/var/run/postgresql&sslmode=require",
            "host=/var/run/postgresql dbname=d user=u",
        ] {
            let endpoint = parse(text);
            assert_eq!(endpoint.addresses[0].host, Host::Socket("/var/run/postgresql".into()), "{text}");
            assert_eq!(endpoint.tls.mode, SslMode::Disable, "{text}");
            assert_eq!(endpoint.to_string(), "u@/var/run/postgresql:5432/d");
        }
        assert_eq!(parse("postgresql://u@%2Ftmp:6000/d").addresses[0].port, 6000);
    }

    #[test]
    fn several_hosts_are_read_from_every_spelling() {
        for text in [
            "postgresql://u@a:1,b,[::1]:3/d",
            "postgresql://u@a:1,b:5432,[::1]:3/d?target_session_attrs=read-write",
            "postgresql://u@/d?host=a,b,::1&port=1,,3",
            "host=a,b,::1 port=1,5432,3 user=u dbname=d",
        ] {
            let endpoint = parse(text);
            assert_eq!(endpoint.addresses, [tcp("a", 1), tcp("b", 5432), tcp("::1", 3)], "{text}");
            assert_eq!(endpoint.session, SessionAttrs::ReadWrite, "{text}");
            assert_eq!(endpoint.to_string(), "u@a:1,b:5432,[::1]:3/d");
        }
        // As libpq has it: one port is everybody's.
        assert_eq!(parse("host=a,b port=7").addresses, [tcp("a", 7), tcp("b", 7)]);
        let endpoint = parse("postgresql://u@a,b/d?target_session_attrs=primary&sslmode=require");
        assert_eq!(endpoint.session, SessionAttrs::Primary);
        let mixed = parse("host=/tmp,b dbname=d user=u sslmode=require");
        let modes: Vec<SslMode> = mixed.addresses.iter().map(|address| mixed.at(address).tls.mode).collect();
        assert_eq!(modes, [SslMode::Disable, SslMode::Require]);
        assert_eq!(parse("postgresql://h/d").session, SessionAttrs::Any);
        assert_eq!(
            parse("postgresql://h/d?target_session_attrs=read-write").session,
            SessionAttrs::ReadWrite
        );
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
            "postgresql://u:p@a,,b/d?colour=red&sslmode=maybe&sslidentity=x.p12&connect_timeout=soon\
             &sslcert=c&target_session_attrs=standby&shape&sslmode=maybe",
        );
        let expected = [
            "unknown parameter \"colour\"",
            "sslmode must be one of",
            "sslidentity",
            "connect_timeout must be",
            "target_session_attrs must be one of any, read-write",
            "unknown parameter \"shape\"",
            "the list of hosts has an empty place",
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
            ("postgresql://a,b,/d", "the list of hosts has an empty place"),
            ("postgresql://a:1,b:1,a:1/d", "host 3 of the list is host 1 again"),
            ("postgresql://a,A./d", "host 2 of the list is host 1 again"),
            ("postgresql://a:1,b:0/d", "port must be"),
            ("host=a,b,c port=1,2", "3 hosts and 2 ports"),
            ("host=a port=1,2", "1 host and 2 ports"),
            ("postgresql://a,::1/d", "brackets"),
            ("postgresql://a,[::1/d", "closing bracket"),
            ("postgresql://a,[::1]x/d", "port must be"),
            ("postgresql://a,b c/d", "not a valid host name"),
            ("postgresql://a,b/d?target_session_attrs=any", "may be a standby"),
            (
                "postgresql://a,b/d?target_session_attrs=prefer-standby",
                "must be one of any, read-write, primary",
            ),
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
