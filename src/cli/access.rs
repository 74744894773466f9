//! `access`: who may use which model, and why.

use std::process::ExitCode;

use super::finish;
use crate::config::Config;
use crate::operate::access;

/// Prints the report. 0: Open WebUI shows what LiteLLM allows; 3: it shows something else.
pub(super) async fn access(config: &Config, email: &str, model: Option<&str>, json: bool) -> ExitCode {
    let report = match access::report(config, email, model).await {
        Ok(report) => report,
        Err(error) => return finish(Err(error.into())),
    };
    if json {
        match serde_json::to_string_pretty(&report) {
            Ok(text) => println!("{text}"),
            Err(error) => return finish(Err(error.into())),
        }
    } else {
        print!("{}", report.to_text(model.is_some()));
    }
    if report.agrees || report.note.is_some() { ExitCode::SUCCESS } else { ExitCode::from(3) }
}
