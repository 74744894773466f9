//! `plan`.

use std::io::IsTerminal;

use crate::config::Config;
use crate::operate::plan::{self, table};

/// Prints what `run` would do.
pub(super) async fn plan(config: &Config, all: bool, json: bool) -> anyhow::Result<()> {
    let plan = Box::pin(plan::make(config)).await?;
    if json {
        println!("{}", serde_json::to_string_pretty(&plan)?);
    } else {
        let bold = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        print!("{}", table::text(&plan, all, bold));
    }
    Ok(())
}
