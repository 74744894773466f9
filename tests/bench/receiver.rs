//! The client that only receives: this program as a child process, with the daemon's replication client and settings. It
//! reads, counts and acknowledges at commits, and does nothing with what it reads.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pgwire_replication::{ReplicationClient, ReplicationConfig, ReplicationEvent};
use testbed::connect;

use crate::rig::{PUBLICATION, Pair, drop_slot};

const SLOT: &str = "bare";

/// This program again, as a client of a slot of its own.
#[derive(Debug)]
pub struct Child {
    pub process: std::process::Child,
    output: BufReader<std::process::ChildStdout>,
}

impl Child {
    /// Makes the slot and starts it as `role` (an option of this program), with `last` as its last argument; it streams
    /// when this returns.
    pub async fn start(pair: &Pair<'_>, slot: &str, role: &str, last: &str) -> Result<Self> {
        let client = connect(&pair.source).await?;
        let text = format!(
            "do $$ begin create publication {PUBLICATION} for table \"LiteLLM_UserTable\";
             exception when duplicate_object then null; end $$"
        );
        client.batch_execute(&text).await?;
        let make = "select pg_create_logical_replication_slot($1::text::name, 'pgoutput')";
        client.execute(make, &[&slot]).await?;
        let port = pair.rig().source.port().to_string();
        let database = pair.source.rsplit('/').next().context("no database")?;
        let mut process = Command::new(std::env::current_exe()?)
            .args([role, &port, database, slot, last])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = BufReader::new(process.stdout.take().context("no standard output")?);
        let mut child = Self { process, output };
        child.wait_for("streaming")?;
        Ok(child)
    }

    fn wait_for(&mut self, word: &str) -> Result<()> {
        let mut said = String::new();
        self.output.read_line(&mut said)?;
        ensure!(said.trim() == word, "the child says \"{}\", not \"{word}\"", said.trim());
        Ok(())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The child that only receives.
#[derive(Debug)]
pub struct Receiver {
    pub child: Child,
    source: String,
}

impl Receiver {
    /// Starts it; it ends after the commit of row number `rows`.
    pub async fn start(pair: &Pair<'_>, rows: usize) -> Result<Self> {
        let child = Child::start(pair, SLOT, "--receive", &rows.to_string()).await?;
        Ok(Self { child, source: pair.source.clone() })
    }

    /// Waits until it has received everything.
    pub fn received(&mut self) -> Result<Instant> {
        tokio::task::block_in_place(|| self.child.wait_for("received"))?;
        Ok(Instant::now())
    }

    /// Lets its slot go.
    pub async fn end(self) -> Result<()> {
        drop(self.child);
        drop_slot(&self.source, SLOT).await
    }
}

/// The daemon's settings of its replication connection, but more events buffered than it allows itself.
pub fn replication(port: &str, database: &str, slot: &str) -> Result<ReplicationConfig> {
    let mut config = ReplicationConfig::new("127.0.0.1", "postgres", "", database, slot, PUBLICATION);
    config.port = port.parse()?;
    config.status_interval = Duration::from_millis(200);
    config.idle_wakeup_interval = Duration::from_secs(20);
    config.buffer_events = 1024;
    config.options = Some(
        "-c DateStyle=ISO -c TimeZone=UTC -c extra_float_digits=1 -c wal_sender_timeout=15s \
         -c logical_decoding_work_mem=64MB"
            .to_owned(),
    );
    Ok(config)
}

/// The child's side of [`Receiver`].
pub async fn receive(arguments: &[String]) -> Result<()> {
    let [port, database, slot, rows] = arguments else { anyhow::bail!("four arguments") };
    let mut rows: usize = rows.parse()?;
    let mut client = ReplicationClient::connect_gated(replication(port, database, slot)?).await?;
    client.start().await?;
    client.wait_started().await?;
    println!("streaming");
    std::io::stdout().flush()?;
    while let Some(event) = client.recv().await? {
        match event {
            ReplicationEvent::XLogData { data, .. } if matches!(data.first(), Some(b'I' | b'U' | b'D')) => {
                rows = rows.saturating_sub(1);
            }
            ReplicationEvent::Commit { end_lsn, .. } => {
                client.update_applied_lsn(end_lsn);
                if rows == 0 {
                    break;
                }
            }
            _ => {}
        }
    }
    println!("received");
    std::io::stdout().flush()?;
    client.shutdown().await?;
    Ok(())
}
