//! The configuration: flags, environment and files in, one checked [`Config`] out.
//!
//! Reads flags, variables and files, each in a file of its own below, and reports every problem at once. Must not connect to
//! anything, and must not be read from deep code: a module is given the few values it needs.

mod limits;
mod names;
pub mod policy;
pub mod reference;
mod secrets;
mod settings;
pub mod url;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use secrets::{SOURCE_URL, TARGET_URL};

pub use policy::Policy;
pub use settings::{LogFormat, Settings};
pub use url::{Address, Endpoint, Host, Secret, SessionAttrs, SslMode, Tls};

const DEFAULT_PRODUCT_SCHEMA: &str = "public";

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
    /// Reads the URLs and the policy, and checks everything.
    pub fn load(self) -> Result<Config, ConfigError> {
        self.load_with(&|name| std::env::var(name).ok())
    }

    fn load_with(self, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, ConfigError> {
        let mut problems = Vec::new();
        let source = secrets::endpoint(SOURCE_URL, self.source_url_file.as_deref(), env);
        let source = noted(source, &mut problems);
        let target = secrets::endpoint(TARGET_URL, self.target_url_file.as_deref(), env);
        let target = noted(target, &mut problems);
        let file = self.config.as_ref().filter(|file| !file.as_os_str().is_empty());
        let policy = file.map_or_else(|| Ok(Policy::default()), |file| Policy::read(file));
        let policy = noted(policy, &mut problems).unwrap_or_default();
        problems.extend(names::slot_problem(&self.slot));
        problems.extend(names::own_name_problem("publication", &self.publication));
        problems.extend(names::own_name_problem("schema", &self.schema));
        let one = |problem| vec![problem];
        let http = noted(self.http_address().map_err(one), &mut problems).flatten();
        let litellm_schema = product_schema(self.litellm_schema, source.as_ref());
        let webui_schema = product_schema(self.webui_schema, target.as_ref());
        problems.extend(names::product_schema_problem("--litellm-schema", &litellm_schema));
        problems.extend(names::product_schema_problem("--webui-schema", &webui_schema));
        problems.extend(names::shared_schema_problem(&self.schema, &webui_schema));
        let models_api = noted(secrets::models_api(env).map_err(one), &mut problems).flatten();
        let http_token = noted(secrets::http_token(env).map_err(one), &mut problems).flatten();
        let endpoints = source.zip(target);
        if let Some((source, target)) = &endpoints {
            problems.extend(names::same_place_problem(source, target, &litellm_schema, &webui_schema));
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

/// What was read; what is wrong with it goes to the rest that is wrong.
fn noted<T>(read: Result<T, Vec<String>>, problems: &mut Vec<String>) -> Option<T> {
    read.map_err(|found| problems.extend(found)).ok()
}

fn product_schema(given: Option<String>, endpoint: Option<&Endpoint>) -> String {
    given
        .filter(|schema| !schema.is_empty())
        .or_else(|| endpoint?.schema.clone())
        .unwrap_or_else(|| DEFAULT_PRODUCT_SCHEMA.to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]
pub(super) mod tests {
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

    pub(in crate::config) const SOURCE: &str = "postgresql://llm:zqsource@db:5432/litellm";
    pub(in crate::config) const TARGET: &str = "postgresql://webui:zqtarget@db:5432/webui";

    pub(in crate::config) fn load(arguments: &[&str], env: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let program = std::iter::once(&"litellm-webui-sync");
        let cli = Cli::try_parse_from(program.chain(arguments)).unwrap();
        cli.settings.load_with(&|name| {
            env.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    pub(in crate::config) fn load_with_urls(
        arguments: &[&str],
        source: &str,
        target: &str,
    ) -> Result<Config, ConfigError> {
        load(arguments, &[(SOURCE_URL, source), (TARGET_URL, target), ("USER", "u")])
    }

    pub(in crate::config) fn problems(arguments: &[&str], source: &str, target: &str) -> Vec<String> {
        load_with_urls(arguments, source, target).unwrap_err().problems
    }

    /// A file that is gone again when the test ends.
    pub(in crate::config) struct TestFile(PathBuf);

    impl TestFile {
        pub(in crate::config) fn new(name: &str, text: &str) -> Self {
            let name = format!("litellm-webui-sync-{}-{name}", std::process::id());
            let path = std::env::temp_dir().join(name);
            std::fs::write(&path, text).unwrap();
            Self(path)
        }

        pub(in crate::config) fn path(&self) -> &str {
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
}
