//! The benchmark: the daemon against what Postgres does by itself, on the same machine, in the same run.
//!
//! ```text
//! cargo bench -- [WORKLOAD]... [--runs N] [--users N] [--existing N] [--seconds N] [--json FILE]
//! ```
//!
//! | workload | what is timed | measured against | goal |
//! |---|---|---|---|
//! | `bulk` | people of one source transaction, from its COMMIT until all are visible | receiving it, then the bare SQL that writes the same Open WebUI rows; that SQL alone | at most 1.5 times; 2 times |
//! | `single` | a backlog of transactions of one new user each, until drained | a native subscription, `synchronous_commit = on` | at least its rate |
//! | `spend` | a backlog of spend flushes, which change nothing in Open WebUI | a client that receives and acknowledges, nothing else | at least 0.8 of its rate |
//! | `latency` | 200 new or renamed users a second, from the commit until visible | a client that receives one transaction and writes the same rows, with its position, in one durable transaction | p50 at most 1.5 times, p99 at most 2 times |
//! | `access` | a change of one team's models or people, or of everybody's, until all see it | the bare SQL that moves as many people between groups | a team of 5,000 under a second, 20,000 people under 30 |
//! | `first-copy` | people with three keys each and teams, from the start of the daemon until it is ready | COPY out of LiteLLM, COPY into tables like the mirror's, and the bare SQL of the same Open WebUI rows | at most 2.5 times; under 96 MiB |
//! | `verify` | one person changed every 50 ms, while `verify` runs and while it mends | the same in quiet | no stall over 100 ms above quiet's |
//! | `growth` | one change, a spend flush, an idle minute, with 1, 4 and 16 times as many people | the same with the fewest | |
//! | `source-cost` | LiteLLM's transactions a second, followed by the daemon | LiteLLM alone; with triggers that write Open WebUI's over dblink | at least 0.97 of alone |
//! | `memory` | the daemon with 100,000 users, and during a transaction of a million rows | | under 64 and 128 MiB |
//!
//! Without a name all but `memory` run. Source and target are two durable clusters (`fsync` on) on this machine;
//! product and baseline alternate in going first, each run has databases of its own, and figures are medians. Autovacuum
//! is off and a checkpoint is forced before whatever is timed, so that neither falls on one side by chance.
//! The daemon runs as the release binary, a process of its own; its log appears when it fails. A policy file
//! named by `LITELLM_WEBUI_SYNC_CONFIG` is handed on to it.
//!
//! ```text
//! main ─► one file for each workload ─► rig, daemon                clusters, databases, the daemon
//!                                   ├─► native, receiver, floor    whom it is compared with
//!                                   ├─► probe, processes           latencies, processor time
//!                                   └─► report                     medians and the verdicts, and the JSON
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
mod daemon;
mod first_copy;
mod floor;
mod growth;
mod latency;
mod memory;
mod native;
mod probe;
mod processes;
mod receiver;
mod report;
mod rig;
mod single;
mod source_cost;
mod spend;
mod verify;

use std::path::PathBuf;

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
    FirstCopy,
    Verify,
    Growth,
    SourceCost,
    Memory,
}

#[derive(Debug, Clone, Parser)]
pub struct Options {
    /// What to run [default: all but memory]
    workloads: Vec<Workload>,
    /// How often; figures are medians
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Users to write (bulk, single, memory), to copy (first-copy) or to bill (spend) [default: each workload's own]
    #[arg(long)]
    users: Option<usize>,
    /// Users that are there before [default: none; latency and source-cost 20000, verify 50000, memory 100000; growth
    /// begins with 5000]
    #[arg(long)]
    existing: Option<usize>,
    /// Seconds of each thing that goes on for a while (latency, verify, growth, source-cost)
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// A setting of both Postgres servers
    #[arg(long = "set", value_name = "NAME=VALUE")]
    settings: Vec<String>,
    /// The daemon's policy file, an absolute path
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Write everything found to this file as JSON, after each workload
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Cargo says this to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
    /// Be the client that only receives: port, database, slot, rows
    #[arg(long, hide = true, num_args = 4)]
    receive: Option<Vec<String>>,
    /// Be the client that writes what it must: port, database, slot, Open WebUI
    #[arg(long, hide = true, num_args = 4)]
    floor: Option<Vec<String>>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    if let Some(arguments) = &options.receive {
        return receiver::receive(arguments).await;
    }
    if let Some(arguments) = &options.floor {
        return floor::apply(arguments).await;
    }
    if !options.bench {
        println!("this takes minutes: run it with `cargo bench`");
        return Ok(());
    }
    ensure!(options.runs > 0, "--runs must be at least 1");
    let mut workloads = options.workloads.clone();
    if workloads.is_empty() {
        workloads = Workload::value_variants().to_vec();
        workloads.retain(|workload| *workload != Workload::Memory);
    }
    let rig = Rig::start(&options.settings, options.policy.clone()).await?;
    println!("{}\n", rig.describe());
    let mut found = Vec::new();
    for workload in workloads {
        found.push(match workload {
            Workload::Bulk => bulk::run(&rig, &options).await?,
            Workload::Single => single::run(&rig, &options).await?,
            Workload::Spend => spend::run(&rig, &options).await?,
            Workload::Latency => latency::run(&rig, &options).await?,
            Workload::Access => access::run(&rig, &options).await?,
            Workload::FirstCopy => first_copy::run(&rig, &options).await?,
            Workload::Verify => verify::run(&rig, &options).await?,
            Workload::Growth => growth::run(&rig, &options).await?,
            Workload::SourceCost => source_cost::run(&rig, &options).await?,
            Workload::Memory => memory::run(&rig, &options).await?,
        });
        if let Some(file) = &options.json {
            let all = serde_json::json!({ "machine": rig.describe(), "workloads": found });
            std::fs::write(file, format!("{all:#}\n"))?;
        }
    }
    Ok(())
}
