//! Runs Postgres' client programs: psql for the workload scripts, which need its variables, `\if` and `\gset`, and fit LiteLLM
//! 1.110.2 only; and `pg_dump` with `pg_restore`.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::binaries::{Binaries, candidates};

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

/// Copies a database into another, an empty one, with `pg_dump` and `pg_restore`: as people back up and restore. Needs them at least as new as
/// the server. Between both, `in_between` runs: what happens after the backup.
pub async fn dump_and_restore(from: &str, to: &str, in_between: impl Future<Output = ()>) -> Result<()> {
    let file = std::env::temp_dir().join(format!("testbed-{}-{}.dump", std::process::id(), file_number()));
    let name = file.to_string_lossy().into_owned();
    call("pg_dump", &["--format=custom", "--file", &name, "--dbname", from]).await?;
    in_between.await;
    let restored = call("pg_restore", &["--exit-on-error", "--dbname", to, &name]).await;
    drop(std::fs::remove_file(file));
    restored
}

/// The server for [`dump_and_restore`]: the one that tests run on, or where its version comes without `pg_dump` the one that does not.
pub fn dumpable() -> Result<Binaries> {
    let program = find_program("pg_dump")?;
    let beside = program.parent().and_then(|dir| Binaries::at(dir).ok());
    beside.map_or_else(Binaries::find, Ok)
}

fn file_number() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Runs a client program to its end.
async fn call(program: &str, arguments: &[&str]) -> Result<()> {
    let path = find_program(program)?;
    let mut command = Command::new(&path);
    let output = command
        .args(arguments)
        .env_remove("PGOPTIONS")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await;
    let output = output.with_context(|| format!("could not run {}", path.display()))?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} failed ({}): {}", output.status, error.trim());
    Ok(())
}

/// The psql program.
pub fn find() -> Result<PathBuf> {
    find_program("psql")
}

fn find_program(name: &str) -> Result<PathBuf> {
    let found = candidates().into_iter().map(|dir| dir.join(name)).find(|program| program.is_file());
    found.with_context(|| format!("no {name} found: {CLIENT}"))
}

const CLIENT: &str = "install the PostgreSQL client (Debian, Ubuntu: apt-get install postgresql-client; \
                      Fedora: dnf install postgresql; macOS: brew install libpq)";
