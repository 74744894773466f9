//! `healthcheck`.

use std::process::ExitCode;

use super::terminal;
use crate::config::Settings;
use crate::observe::http;

/// Needs the daemon's address and nothing else: no database, no secret.
pub(super) async fn healthcheck(settings: &Settings) -> anyhow::Result<ExitCode> {
    let problem = match settings.http_address() {
        Ok(Some(address)) => {
            http::ask_health(address).await?;
            return Ok(ExitCode::SUCCESS);
        }
        Ok(None) => "--http is off: there is nobody to ask".to_owned(),
        Err(problem) => problem,
    };
    terminal::failure(&problem, None);
    Ok(ExitCode::from(2))
}
