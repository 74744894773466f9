//! The configuration: flags, environment and files in, one checked [`Config`] out.
//!
//! Owns the names of flags and variables, their defaults and their limits, and reports every
//! problem at once. Must not connect to anything, and must not be read from deep code: a module
//! is given the few values it needs. No flag takes a database URL, because a process list shows
//! flags to everybody on the machine.

mod limits;
pub mod policy;
pub mod reference;
pub mod url;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, ValueEnum};

pub use policy::Policy;
pub use url::{Address, Endpoint, Host, Secret, SessionAttrs, SslMode, Tls};

const SOURCE_URL: &str = "LITELLM_DATABASE_URL";
const TARGET_URL: &str = "WEBUI_DATABASE_URL";
const MODELS_URL: &str = "LITELLM_WEBUI_SYNC_LITELLM_URL";
const MODELS_KEY: &str = "LITELLM_WEBUI_SYNC_LITELLM_KEY";
const MODELS_CA: &str = "LITELLM_WEBUI_SYNC_LITELLM_CA";
const HTTP_TOKEN: &str = "LITELLM_WEBUI_SYNC_HTTP_TOKEN";
/// Shorter tokens can be guessed.
const MIN_TOKEN_BYTES: usize = 16;
const DEFAULT_PRODUCT_SCHEMA: &str = "public";
/// Postgres cuts longer names off silently, and then they are not found again.
const MAX_NAME_BYTES: usize = 63;

/// The settings every command takes. Read with [`Settings::load`].
#[derive(Debug, Clone, Args)]
// Without `about` clap would show the line above as the program's description.
#[command(next_help_heading = "Settings", about = None, long_about = None)]
pub struct Settings {
    /// File that holds LiteLLM's database URL [default: the URL in env LITELLM_DATABASE_URL, or
    /// the file named by env LITELLM_DATABASE_URL_FILE]
    #[arg(long, value_name = "FILE", global = true)]
    pub source_url_file: Option<PathBuf>,

    /// File that holds Open WebUI's database URL [default: the URL in env WEBUI_DATABASE_URL, or
    /// the file named by env WEBUI_DATABASE_URL_FILE]
    #[arg(long, value_name = "FILE", global = true)]
    pub target_url_file: Option<PathBuf>,

    /// Policy file (TOML)
    // An empty variable means none; clap's own parser for paths refuses it.
    #[arg(
        long,
        value_name = "FILE",
        env = "LITELLM_WEBUI_SYNC_CONFIG",
        value_parser = OsStringValueParser::new().map(PathBuf::from),
        global = true
    )]
    pub config: Option<PathBuf>,

    /// Replication slot in LiteLLM's database
    #[arg(
        long,
        value_name = "NAME",
        env = "LITELLM_WEBUI_SYNC_SLOT",
        default_value = "litellm_webui_sync",
        global = true
    )]
    pub slot: String,

    /// Publication in LiteLLM's database
    #[arg(
        long,
        value_name = "NAME",
        env = "LITELLM_WEBUI_SYNC_PUBLICATION",
        default_value = "litellm_webui_sync",
        global = true
    )]
    pub publication: String,

    /// Our own schema in Open WebUI's database
    #[arg(
        long,
        value_name = "NAME",
        env = "LITELLM_WEBUI_SYNC_SCHEMA",
        default_value = "litellm_webui_sync",
        global = true
    )]
    pub schema: String,

    /// Schema of LiteLLM's tables [default: the URL's schema, else public]
    #[arg(long, value_name = "NAME", env = "LITELLM_WEBUI_SYNC_LITELLM_SCHEMA", global = true)]
    pub litellm_schema: Option<String>,

    /// Schema of Open WebUI's tables [default: the URL's schema, else public]
    #[arg(long, value_name = "NAME", env = "DATABASE_SCHEMA", global = true)]
    pub webui_schema: Option<String>,

    /// Address of the status page, metrics and health checks, or "off"
    #[arg(
        long,
        value_name = "ADDRESS:PORT",
        env = "LITELLM_WEBUI_SYNC_HTTP",
        default_value = "127.0.0.1:9466",
        global = true
    )]
    pub http: String,

    /// Form of the log
    #[arg(
        long,
        value_enum,
        value_name = "FORM",
        env = "LITELLM_WEBUI_SYNC_LOG_FORMAT",
        default_value_t = LogFormat::Text,
        global = true
    )]
    pub log_format: LogFormat,
}

/// Form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

/// What the daemon runs with. Its debug text shows no password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    pub source: Endpoint,
    pub target: Endpoint,
    pub slot: String,
    pub publication: String,
    /// Our own schema in the target.
    pub schema: String,
    pub litellm_schema: String,
    pub webui_schema: String,
    /// `None` when the pages are off.
    pub http: Option<SocketAddr>,
    /// What the status page asks for. `None`: it answers on this machine only.
    pub http_token: Option<Secret>,
    /// `None`: only what its database says is known of LiteLLM's models.
    pub models_api: Option<ModelsApi>,
    pub policy: Policy,
}

/// Where LiteLLM says which models it serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelsApi {
    /// `http` or `https`, with a host.
    pub url: hyper::Uri,
    pub key: Secret,
    /// Authorities to believe instead of the usual ones (PEM).
    pub ca_file: Option<PathBuf>,
}

/// Everything that is wrong with a configuration, each with what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    pub problems: Vec<String>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the configuration cannot be used")?;
        self.problems.iter().try_for_each(|problem| write!(f, "\n  - {problem}"))
    }
}

impl Settings {
    /// Where the pages are served; `None` when they are off.
    ///
    /// # Errors
    /// When that is no address; the text says what one looks like.
    pub fn http_address(&self) -> Result<Option<SocketAddr>, String> {
        http_address(&self.http)
    }

    /// Reads the URLs and the policy, and checks everything.
    pub fn load(self) -> Result<Config, ConfigError> {
        self.load_with(&|name| std::env::var(name).ok())
    }

    fn load_with(self, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, ConfigError> {
        let mut problems = Vec::new();
        let source = endpoint(SOURCE_URL, self.source_url_file.as_deref(), env, &mut problems);
        let target = endpoint(TARGET_URL, self.target_url_file.as_deref(), env, &mut problems);
        let policy = match self.config.filter(|file| !file.as_os_str().is_empty()) {
            Some(file) => Policy::read(&file).unwrap_or_else(|found| {
                problems.extend(found);
                Policy::default()
            }),
            None => Policy::default(),
        };
        problems.extend(slot_problem(&self.slot));
        problems.extend(own_name_problem("publication", &self.publication));
        problems.extend(own_name_problem("schema", &self.schema));
        let http = http_address(&self.http).unwrap_or_else(|problem| {
            problems.push(problem);
            None
        });
        let litellm_schema = product_schema(self.litellm_schema, source.as_ref());
        let webui_schema = product_schema(self.webui_schema, target.as_ref());
        problems.extend(product_schema_problem("--litellm-schema", &litellm_schema));
        problems.extend(product_schema_problem("--webui-schema", &webui_schema));
        if self.schema == webui_schema {
            problems.push(format!(
                "--schema and Open WebUI's schema are both \"{webui_schema}\"; give ours another \
                 name, because uninstalling drops it"
            ));
        }
        let models_api = models_api(env).unwrap_or_else(|problem| {
            problems.push(problem);
            None
        });
        let http_token = http_token(env).unwrap_or_else(|problem| {
            problems.push(problem);
            None
        });
        let endpoints = source.zip(target);
        if let Some((source, target)) = &endpoints {
            problems.extend(same_place_problem(source, target, &litellm_schema, &webui_schema));
        }
        match endpoints {
            Some((source, target)) if problems.is_empty() => Ok(Config {
                source,
                target,
                slot: self.slot,
                publication: self.publication,
                schema: self.schema,
                litellm_schema,
                webui_schema,
                http,
                http_token,
                models_api,
                policy,
            }),
            Some(_) | None => Err(ConfigError { problems }),
        }
    }
}

/// LiteLLM's address and a key that may list its models: both or neither. A process list shows flags, so there are none.
fn models_api(env: &dyn Fn(&str) -> Option<String>) -> Result<Option<ModelsApi>, String> {
    let set = |name: &str| env(name).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    let key = variable_or_file(MODELS_KEY, env)?;
    let (url, key) = match (set(MODELS_URL), key) {
        (Some(url), Some(key)) => (url, key),
        (None, None) => return Ok(None),
        (Some(_), None) => {
            return Err(format!(
                "{MODELS_URL} is set, but not {MODELS_KEY}; set it to a key that may list the models"
            ));
        }
        (None, Some(_)) => {
            return Err(format!("{MODELS_KEY} is set, but not {MODELS_URL}; set it to LiteLLM's address"));
        }
    };
    let is_plain = |key: &str| key.chars().all(|c| c.is_ascii_graphic());
    let parsed = url.parse::<hyper::Uri>().ok().filter(|url| {
        matches!(url.scheme_str(), Some("http" | "https"))
            && url.host().is_some_and(|host| !host.is_empty())
            && !url.authority().is_some_and(|authority| authority.as_str().contains('@'))
    });
    match parsed {
        Some(url) if is_plain(&key) => {
            Ok(Some(ModelsApi { url, key: Secret::new(key), ca_file: set(MODELS_CA).map(PathBuf::from) }))
        }
        Some(_) => Err(format!("{MODELS_KEY} holds characters no key has; copy it again")),
        None => Err(format!("{MODELS_URL} is no address; write one such as http://litellm:4000")),
    }
}

/// A secret from the variable, or from the file that the variable's sibling with `_FILE` names.
fn variable_or_file(variable: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Option<String>, String> {
    let set = |name: &str| env(name).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    let file_variable = format!("{variable}_FILE");
    match (set(variable), set(&file_variable)) {
        (Some(_), Some(_)) => Err(format!("{variable} and {file_variable} are both set; keep one of them")),
        (Some(secret), None) => Ok(Some(secret)),
        (None, Some(file)) => {
            let text = std::fs::read_to_string(&file).map_err(|error| {
                format!(
                    "{file_variable} ({file}): cannot read this file: {error}; correct its path or its permissions"
                )
            })?;
            Ok(Some(text.trim().to_owned()).filter(|secret| !secret.is_empty()))
        }
        (None, None) => Ok(None),
    }
}

/// What the status page asks for. It goes into a header, so it is plain text.
fn http_token(env: &dyn Fn(&str) -> Option<String>) -> Result<Option<Secret>, String> {
    let Some(token) = variable_or_file(HTTP_TOKEN, env)? else { return Ok(None) };
    if token.len() < MIN_TOKEN_BYTES || !token.chars().all(|c| c.is_ascii_graphic()) {
        return Err(format!(
            "{HTTP_TOKEN} must be at least {MIN_TOKEN_BYTES} letters, digits and signs, without spaces; \
             `openssl rand -hex 32` makes one"
        ));
    }
    Ok(Some(Secret::new(token)))
}

/// Finds and reads one database URL: the flag's file, else the variable, else the variable's file.
fn endpoint(
    variable: &str,
    flag_file: Option<&Path>,
    env: &dyn Fn(&str) -> Option<String>,
    problems: &mut Vec<String>,
) -> Option<Endpoint> {
    let file_variable = format!("{variable}_FILE");
    // Compose files hand over unset variables as empty ones.
    let set = |name: &str| env(name).filter(|value| !value.trim().is_empty());
    let (origin, text) = match (flag_file, set(variable), set(&file_variable)) {
        (Some(file), _, _) => (file.display().to_string(), read_url_file(file)),
        (None, Some(_), Some(_)) => {
            problems.push(format!("{variable} and {file_variable} are both set; keep one of them"));
            return None;
        }
        (None, Some(url), None) => (variable.to_owned(), Ok(url)),
        (None, None, Some(file)) => (format!("{file_variable} ({file})"), read_url_file(Path::new(&file))),
        (None, None, None) => {
            let product = if variable == SOURCE_URL { "LiteLLM" } else { "Open WebUI" };
            problems.push(format!(
                "{variable} is not set; set it to {product}'s DATABASE_URL, or {file_variable} to \
                 a file that holds it"
            ));
            return None;
        }
    };
    match text.and_then(|text| Endpoint::parse_with(&text, env)) {
        Ok(endpoint) => Some(endpoint),
        Err(found) => {
            problems.extend(found.into_iter().map(|problem| format!("{origin}: {problem}")));
            None
        }
    }
}

fn read_url_file(file: &Path) -> Result<String, Vec<String>> {
    std::fs::read_to_string(file)
        .map_err(|error| vec![format!("cannot read this file: {error}; correct its path or its permissions")])
}

fn product_schema(given: Option<String>, endpoint: Option<&Endpoint>) -> String {
    given
        .filter(|schema| !schema.is_empty())
        .or_else(|| endpoint?.schema.clone())
        .unwrap_or_else(|| DEFAULT_PRODUCT_SCHEMA.to_owned())
}

/// A slot name is also a directory name on the server, hence the narrow alphabet.
fn slot_problem(slot: &str) -> Option<String> {
    let is_valid = !slot.is_empty()
        && slot.len() <= MAX_NAME_BYTES
        && slot.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    (!is_valid).then(|| {
        format!(
            "--slot \"{}\" is not a slot name; use 1 to 63 lower-case letters, digits and \
             underscores",
            slot.escape_default()
        )
    })
}

/// Names we choose ourselves need no quoting anywhere. That also keeps a publication's name
/// whole: the server is sent a comma-separated list and folds its case.
fn own_name_problem(flag: &str, name: &str) -> Option<String> {
    let mut chars = name.chars();
    let begins_well = chars.next().is_some_and(|c| c.is_ascii_lowercase() || c == '_');
    let is_valid = begins_well
        && chars.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '$')
        && name.len() <= MAX_NAME_BYTES
        && !name.starts_with("pg_")
        && !["public", "information_schema"].contains(&name);
    (!is_valid).then(|| {
        format!(
            "--{flag} \"{}\" cannot be used; use up to 63 lower-case letters, digits and \
             underscores, not beginning with a digit or pg_, and no name that PostgreSQL brings \
             along",
            name.escape_default()
        )
    })
}

/// Names the products chose: any identifier goes, because it is quoted where it is used.
fn product_schema_problem(flag: &str, schema: &str) -> Option<String> {
    let is_valid = schema.len() <= MAX_NAME_BYTES && !schema.contains('\0');
    (!is_valid).then(|| format!("{flag}: a schema name has at most 63 bytes; correct it here or in the URL"))
}

fn http_address(text: &str) -> Result<Option<SocketAddr>, String> {
    match text.trim() {
        "off" => Ok(None),
        address => address.parse().map(Some).map_err(|_| {
            format!(
                "--http \"{}\" is not an address; write one such as 127.0.0.1:9466 or \
                 0.0.0.0:9466, or off",
                address.escape_default()
            )
        }),
    }
}

fn same_place_problem(
    source: &Endpoint,
    target: &Endpoint,
    litellm_schema: &str,
    webui_schema: &str,
) -> Option<String> {
    let is_one_server =
        |one: &Address, other: &Address| one.port == other.port && server(&one.host) == server(&other.host);
    let shared = target
        .addresses
        .iter()
        .find(|theirs| source.addresses.iter().any(|ours| is_one_server(ours, theirs)))?;
    (source.database == target.database && litellm_schema == webui_schema).then(|| {
        format!(
            "{SOURCE_URL} and {TARGET_URL} name the same database and schema ({shared}/{}, \
             \"{webui_schema}\"); point one at LiteLLM's and the other at Open WebUI's",
            target.database
        )
    })
}

/// The host as far as two spellings of one can be told to be the same without asking a server.
fn server(host: &Host) -> Host {
    match host {
        Host::Tcp(name) => match name.to_lowercase().trim_end_matches('.') {
            "localhost" | "127.0.0.1" | "::1" => Host::Tcp("localhost".to_owned()),
            name => Host::Tcp(name.to_owned()),
        },
        Host::Socket(directory) => Host::Socket(directory.components().collect()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        settings: Settings,
        #[command(subcommand)]
        command: Option<Command>,
    }

    #[derive(Debug, clap::Subcommand)]
    enum Command {
        Run,
    }

    const SOURCE: &str = "postgresql://llm:zqsource@db:5432/litellm";
    const TARGET: &str = "postgresql://webui:zqtarget@db:5432/webui";

    fn load(arguments: &[&str], env: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let program = std::iter::once(&"litellm-webui-sync");
        let cli = Cli::try_parse_from(program.chain(arguments)).unwrap();
        cli.settings.load_with(&|name| {
            env.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    fn load_with_urls(arguments: &[&str], source: &str, target: &str) -> Result<Config, ConfigError> {
        load(arguments, &[(SOURCE_URL, source), (TARGET_URL, target), ("USER", "u")])
    }

    fn problems(arguments: &[&str], source: &str, target: &str) -> Vec<String> {
        load_with_urls(arguments, source, target).unwrap_err().problems
    }

    /// A file that is gone again when the test ends.
    struct TestFile(PathBuf);

    impl TestFile {
        fn new(name: &str, text: &str) -> Self {
            let name = format!("litellm-webui-sync-{}-{name}", std::process::id());
            let path = std::env::temp_dir().join(name);
            std::fs::write(&path, text).unwrap();
            Self(path)
        }

        fn path(&self) -> &str {
            self.0.to_str().unwrap()
        }
    }

    impl Drop for TestFile {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    #[test]
    fn two_urls_are_a_whole_configuration() {
        let config = load_with_urls(&[], SOURCE, TARGET).unwrap();
        assert_eq!(config.source.to_string(), "llm@db:5432/litellm");
        assert_eq!(config.target.to_string(), "webui@db:5432/webui");
        assert_eq!(config.slot, "litellm_webui_sync");
        assert_eq!(config.publication, "litellm_webui_sync");
        assert_eq!(config.schema, "litellm_webui_sync");
        assert_eq!(config.litellm_schema, "public");
        assert_eq!(config.webui_schema, "public");
        assert_eq!(config.http, Some(SocketAddr::from(([127, 0, 0, 1], 9466))));
        assert_eq!(config.policy, Policy::default());
        assert!(!format!("{config:?}").contains("zq"));
    }

    #[test]
    fn flags_go_before_and_behind_the_command() {
        for arguments in [["--http", "off", "run"], ["run", "--http", "off"]] {
            assert_eq!(load_with_urls(&arguments, SOURCE, TARGET).unwrap().http, None);
        }
    }

    #[test]
    fn a_schema_comes_from_the_flag_then_the_url() {
        let source = format!("{SOURCE}?schema=llm");
        let target = format!("{TARGET}?options=-csearch_path%3Dweb");
        let config = load_with_urls(&[], &source, &target).unwrap();
        assert_eq!((&*config.litellm_schema, &*config.webui_schema), ("llm", "web"));
        let arguments = ["--litellm-schema", "a", "--webui-schema", "b"];
        let config = load_with_urls(&arguments, &source, &target).unwrap();
        assert_eq!((&*config.litellm_schema, &*config.webui_schema), ("a", "b"));
        let config = load_with_urls(&["--webui-schema", ""], &source, &target).unwrap();
        assert_eq!(config.webui_schema, "web");
    }

    #[test]
    fn urls_and_policy_are_read_from_files() {
        let source = TestFile::new("source-url", &format!("{SOURCE}\n"));
        let target = TestFile::new("target-url", TARGET);
        let policy = TestFile::new("policy", "[audit]\nretention_days = 7\n");
        let arguments = ["--source-url-file", source.path(), "--config", policy.path()];
        // The flag wins over the variable.
        let env = [
            (SOURCE_URL, "postgresql://other/other"),
            ("WEBUI_DATABASE_URL_FILE", target.path()),
            (TARGET_URL, " "),
        ];
        let config = load(&arguments, &env).unwrap();
        assert_eq!(config.source.database, "litellm");
        assert_eq!(config.target.database, "webui");
        assert_eq!(config.policy.audit.retention_days, 7);
        assert_eq!(load_with_urls(&["--config", ""], SOURCE, TARGET).unwrap().policy, Policy::default());
    }

    #[test]
    fn every_problem_is_reported_at_once_and_none_shows_a_password() {
        let policy = TestFile::new("bad-policy", "[brake]\npercent = 200\n");
        let arguments = [
            "--slot",
            "My-Slot",
            "--publication",
            "a,b",
            "--schema",
            "public",
            "--http",
            "9466",
            "--config",
            policy.path(),
        ];
        let target = "postgresql://u:zq@h/d?colour=red";
        let error = load(&arguments, &[(TARGET_URL, target)]).unwrap_err();
        let text = error.to_string();
        for expected in [
            "the configuration cannot be used\n  - ",
            "LITELLM_DATABASE_URL is not set; set it to LiteLLM's DATABASE_URL",
            "WEBUI_DATABASE_URL: unknown parameter \"colour\"; remove it",
            "bad-policy: brake.percent: must be a whole number from 0 to 100",
            "--slot \"My-Slot\" is not a slot name",
            "--publication \"a,b\" cannot be used",
            "--schema \"public\" cannot be used",
            "--schema and Open WebUI's schema are both \"public\"",
            "--http \"9466\" is not an address",
        ] {
            assert!(text.contains(expected), "{expected}\n{text}");
        }
        assert_eq!(error.problems.len(), 8, "{text}");
        assert!(!text.contains("zq"), "{text}");
    }

    #[test]
    fn a_url_that_is_given_twice_or_cannot_be_read_is_a_problem() {
        let env = [(SOURCE_URL, SOURCE), ("LITELLM_DATABASE_URL_FILE", "f"), (TARGET_URL, TARGET)];
        let all = load(&[], &env).unwrap_err().problems;
        assert_eq!(all.len(), 1, "{all:?}");
        assert!(all[0].contains("are both set"), "{all:?}");
        let env = [(SOURCE_URL, SOURCE), ("WEBUI_DATABASE_URL_FILE", "no-such-file")];
        let all = load(&[], &env).unwrap_err().problems;
        assert_eq!(all.len(), 1, "{all:?}");
        assert!(all[0].starts_with("WEBUI_DATABASE_URL_FILE (no-such-file): cannot read"), "{all:?}");
    }

    #[test]
    fn source_and_target_must_differ() {
        for (source, target) in [
            ("postgresql://u@localhost/d", "postgresql://v@127.0.0.1:5432/d"),
            ("postgresql://u@DB.example/d", "host=db.example. dbname=d"),
            ("postgresql://u@%2Frun/d", "postgresql:///d?host=/run/"),
            ("postgresql://u@h/d?schema=x", "postgresql://v@h/d?schema=x"),
            ("postgresql://u@a,b/d", "postgresql://v@b,c/d"),
        ] {
            let all = problems(&[], source, target);
            assert_eq!(all.len(), 1, "{source}: {all:?}");
            assert!(all[0].contains("the same database and schema"), "{all:?}");
        }
        for (source, target) in [
            ("postgresql://u@h/d", "postgresql://u@h:5433/d"),
            ("postgresql://u@h/d", "postgresql://u@h/e"),
            ("postgresql://u@h/d?schema=x", "postgresql://u@h/d"),
        ] {
            assert!(load_with_urls(&[], source, target).is_ok(), "{source}");
        }
    }

    #[test]
    fn names_are_checked() {
        let long = "a".repeat(64);
        for (flag, good, bad) in [
            ("--slot", ["a", "0_b"].as_slice(), ["", "A", "a-b", "a$", "ä", &long].as_slice()),
            (
                "--publication",
                &["a", "_a$1"],
                &["", "A", "1a", "a b", "a,b", "a\"b", "a'b", "a\0b", "$a", "pg_a", &long],
            ),
            ("--schema", &["a"], &["", "information_schema", "pg_catalog", &long]),
            ("--litellm-schema", &["", "Any \"name\""], &[&long, "a\0"]),
            ("--webui-schema", &["Any, name"], &[&long]),
            ("--http", &["off", "[::1]:80", "0.0.0.0:0"], &["", "localhost", ":80", "1.2.3.4"]),
        ] {
            for value in good {
                assert!(load_with_urls(&[flag, value], SOURCE, TARGET).is_ok(), "{flag} {value}");
            }
            for value in bad {
                let all = problems(&[flag, value], SOURCE, TARGET);
                assert_eq!(all.len(), 1, "{flag} {value}: {all:?}");
            }
        }
    }

    #[test]
    fn a_token_comes_from_its_variable_or_its_file_and_is_no_word() {
        let with = |more: &[(&str, &str)]| {
            let mut env = vec![(SOURCE_URL, SOURCE), (TARGET_URL, TARGET)];
            env.extend(more);
            load(&[], &env)
        };
        let file = TestFile::new("token", "zq-0123456789abcdef\n");
        for more in [(HTTP_TOKEN, "zq-0123456789abcdef"), ("LITELLM_WEBUI_SYNC_HTTP_TOKEN_FILE", file.path())]
        {
            let config = with(&[more]).unwrap();
            assert_eq!(config.http_token.as_ref().unwrap().expose(), "zq-0123456789abcdef");
            assert!(!format!("{config:?}").contains("zq-0"));
        }
        assert_eq!(with(&[(HTTP_TOKEN, " ")]).unwrap().http_token, None);
        for more in [
            &[(HTTP_TOKEN, "zq-short")][..],
            &[(HTTP_TOKEN, "zq with spaces in it, and long")],
            &[(HTTP_TOKEN, "zq-0123456789abcdef"), ("LITELLM_WEBUI_SYNC_HTTP_TOKEN_FILE", file.path())],
            &[("LITELLM_WEBUI_SYNC_HTTP_TOKEN_FILE", "no-such-file")],
        ] {
            let problems = with(more).unwrap_err().problems;
            assert!(problems.len() == 1 && !problems[0].contains("zq"), "{problems:?}");
        }
    }

    #[test]
    fn the_models_need_an_address_and_a_key() {
        let with = |more: &[(&str, &str)]| {
            let mut env = vec![(SOURCE_URL, SOURCE), (TARGET_URL, TARGET)];
            env.extend(more);
            load(&[], &env)
        };
        assert_eq!(with(&[]).unwrap().models_api, None);
        let api = with(&[(MODELS_URL, "http://litellm:4000/"), (MODELS_KEY, " sk-zq ")]).unwrap().models_api;
        let api = api.unwrap();
        assert_eq!((api.url.host(), api.key.expose()), (Some("litellm"), "sk-zq"));
        assert!(!format!("{api:?}").contains("sk-zq"));
        for more in [
            &[(MODELS_URL, "http://litellm")][..],
            &[(MODELS_KEY, "sk-zq")],
            &[(MODELS_URL, "litellm:4000"), (MODELS_KEY, "sk-zq")],
            &[(MODELS_URL, "ftp://litellm"), (MODELS_KEY, "sk-zq")],
            &[(MODELS_URL, "http://u:p@litellm"), (MODELS_KEY, "sk-zq")],
            &[(MODELS_URL, "http://litellm"), (MODELS_KEY, "sk\nzq")],
            &[(MODELS_URL, "http://litellm"), ("LITELLM_WEBUI_SYNC_LITELLM_KEY_FILE", "no-such-file")],
        ] {
            let problems = with(more).unwrap_err().problems;
            assert!(problems.len() == 1 && !problems[0].contains("zq"), "{problems:?}");
        }
    }
}
