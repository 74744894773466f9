//! Runs the workload scripts, which need psql for its variables, `\if` and `\gset`.
//!
//! They fit LiteLLM 1.110.2 only.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::binaries::candidates;

const SEED: &str = include_str!("../workload/litellm-seed.sql");
const CHURN: &str = include_str!("../workload/litellm-churn.sql");

/// Fills an empty LiteLLM 1.110.2 database, awkward rows included. Deterministic: the same
/// numbers give the same ids, e-mails and tokens.
pub async fn seed(url: &str, users: u32, teams: u32, orgs: u32, keys: u32) -> Result<()> {
    let variables = [("users", users), ("teams", teams), ("orgs", orgs), ("keys", keys)];
    let output = run(url, SEED, &variables).await.context("could not seed the source")?;
    ensure!(!output.contains("refusing"), "could not seed the source: {}", output.trim());
    Ok(())
}

/// One round of what LiteLLM's endpoints and jobs write. `round` makes new ids; `flush_keys` are
/// the keys in each of `flushes` spend flushes; `legacy` adds what only 1.77.3 did.
pub async fn churn(url: &str, round: u32, flush_keys: u32, flushes: u32, legacy: bool) -> Result<()> {
    let variables =
        [("round", round), ("flush_keys", flush_keys), ("flushes", flushes), ("legacy", u32::from(legacy))];
    run(url, CHURN, &variables).await.with_context(|| format!("churn round {round}"))?;
    Ok(())
}

/// Runs a script with variables and returns what it printed.
pub async fn run(url: &str, script: &str, variables: &[(&str, u32)]) -> Result<String> {
    let psql = find()?;
    let mut command = Command::new(&psql);
    command.args(["-X", "-q", "-v", "ON_ERROR_STOP=1"]);
    for (name, value) in variables {
        command.args(["-v", &format!("{name}={value}")]);
    }
    let mut child = command
        .args(["-f", "-", "-d", url])
        .env_remove("PGOPTIONS")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("could not run {}", psql.display()))?;
    let mut stdin = child.stdin.take().context("psql has no standard input")?;
    let write = async move {
        // psql that stops early closes the pipe; its own message says more.
        drop(stdin.write_all(script.as_bytes()).await);
    };
    let ((), output) = tokio::join!(write, child.wait_with_output());
    let output = output.context("could not wait for psql")?;
    ensure!(
        output.status.success(),
        "psql failed ({}): {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The psql program.
pub fn find() -> Result<PathBuf> {
    candidates().into_iter().map(|dir| dir.join("psql")).find(|psql| psql.is_file()).context(
        "no psql found: install the PostgreSQL client (Debian, Ubuntu: apt-get install \
         postgresql-client; Fedora: dnf install postgresql; macOS: brew install libpq)",
    )
}
