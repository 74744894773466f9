//! The benchmark: the daemon against what Postgres does by itself, on the same machine, in the same run.
//!
//! ```text
//! cargo bench -- [bulk] [single] [spend] [latency] [access] [memory] [--runs N] [--users N] [--existing N]
//! ```
//!
//! | workload | what is timed | measured against | goal |
//! |---|---|---|---|
//! | `bulk` | people of one source transaction, from its COMMIT until all are visible | the bare SQL that writes the same Open WebUI rows | at most 2.0 times |
//! | `single` | a backlog of transactions of one new user each, until drained | a native subscription, `synchronous_commit = on` | at least its rate |
//! | `spend` | a backlog of spend flushes, which change nothing in Open WebUI | a client that receives and acknowledges, nothing else | at least 0.8 of its rate |
//! | `latency` | 200 new or renamed users a second, from the commit until visible | a native subscription, `synchronous_commit = on` | p50 at most 2 times, p99 at most 3 times |
//! | `access` | a change of one team's models or people, or of everybody's, until all see it | the bare SQL that moves as many people between groups | a team of 5,000 under a second, 20,000 people under 30 |
//! | `memory` | the daemon with 100,000 users, and during a transaction of a million rows | | under 64 and 128 MiB |
//!
//! Without a name all but `memory` run. Source and target are two durable clusters (`fsync` on) on this machine;
//! product and baseline alternate in going first, each run has databases of its own, and figures are medians. Autovacuum
//! is off and a checkpoint is forced before whatever is timed, so that neither falls on one side by chance.
//! The daemon runs as the release binary, a process of its own; its log appears when it fails. A policy file
//! named by `LITELLM_WEBUI_SYNC_CONFIG` is handed on to it.
//!
//! ```text
//! main ─► bulk, single, spend, latency, access, memory ─► rig      clusters, databases, the daemon
//!                                                    └──► report   medians and the verdict
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    unreachable_pub,
    reason = "a benchmark prints, a panic points at its line, and its figures are far from the limits of their types"
)]

mod access;
mod bulk;
mod latency;
mod memory;
mod receiver;
mod report;
mod rig;
mod single;
mod spend;

use anyhow::{Result, ensure};
use clap::{Parser, ValueEnum};

use rig::Rig;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Workload {
    Bulk,
    Single,
    Spend,
    Latency,
    Access,
    Memory,
}

#[derive(Debug, Clone, Parser)]
pub struct Options {
    /// What to run [default: all but memory]
    workloads: Vec<Workload>,
    /// How often; figures are medians
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Users to write (bulk, single, memory) or to bill (spend) [default: each workload's own]
    #[arg(long)]
    users: Option<usize>,
    /// Users that are there before [default: none; latency 20000, memory 100000]
    #[arg(long)]
    existing: Option<usize>,
    /// Seconds of `latency`
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// A setting of both Postgres servers
    #[arg(long = "set", value_name = "NAME=VALUE")]
    settings: Vec<String>,
    /// Cargo says this to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
    /// Be the client that only receives: port, database, slot, rows
    #[arg(long, hide = true, num_args = 4)]
    receive: Option<Vec<String>>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    if let Some(arguments) = &options.receive {
        return receiver::receive(arguments).await;
    }
    if !options.bench {
        println!("this takes minutes: run it with `cargo bench`");
        return Ok(());
    }
    ensure!(options.runs > 0, "--runs must be at least 1");
    let mut workloads = options.workloads.clone();
    if workloads.is_empty() {
        workloads =
            vec![Workload::Bulk, Workload::Single, Workload::Spend, Workload::Latency, Workload::Access];
    }
    let rig = Rig::start(&options.settings).await?;
    println!("{}\n", rig.describe());
    for workload in workloads {
        match workload {
            Workload::Bulk => bulk::run(&rig, &options).await?,
            Workload::Single => single::run(&rig, &options).await?,
            Workload::Spend => spend::run(&rig, &options).await?,
            Workload::Latency => latency::run(&rig, &options).await?,
            Workload::Access => access::run(&rig, &options).await?,
            Workload::Memory => memory::run(&rig, &options).await?,
        }
    }
    Ok(())
}
