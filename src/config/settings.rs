//! The flags every command takes, and the variables that stand for them.
//!
//! Owns their names, defaults and help. Judges nothing but what a command needs on its own. No flag takes a database URL or
//! a secret, because a process list shows flags to everybody on the machine: those are in `secrets`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, ValueEnum};

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

impl Settings {
    /// Where the pages are served; `None` when they are off.
    ///
    /// # Errors
    /// When that is no address; the text says what one looks like.
    pub fn http_address(&self) -> Result<Option<SocketAddr>, String> {
        match self.http.trim() {
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
}
