//! The client that only receives: this program as a child process, with the daemon's replication client and settings. It
//! reads, counts and acknowledges at commits, and does nothing with what it reads.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pgwire_replication::{ReplicationClient, ReplicationConfig, ReplicationEvent};
use testbed::connect;

use crate::rig::{PUBLICATION, Pair, drop_slot};

const SLOT: &str = "bare";

/// The child.
pub struct Receiver {
    pub child: Child,
    output: BufReader<std::process::ChildStdout>,
    source: String,
}

impl Receiver {
    /// Makes its slot and starts it; it streams when this returns, and ends after the commit of row number `rows`.
    pub async fn start(pair: &Pair<'_>, rows: usize) -> Result<Self> {
        let client = connect(&pair.source).await?;
        let text = format!(
            "do $$ begin create publication {PUBLICATION} for table \"LiteLLM_UserTable\";
             exception when duplicate_object then null; end $$"
        );
        client.batch_execute(&text).await?;
        let slot = "select pg_create_logical_replication_slot($1::text::name, 'pgoutput')";
        client.execute(slot, &[&SLOT]).await?;
        let port = pair.rig().source.port().to_string();
        let database = pair.source.rsplit('/').next().context("no database")?;
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--receive", &port, database, SLOT, &rows.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = BufReader::new(child.stdout.take().context("no standard output")?);
        let mut receiver = Self { child, output, source: pair.source.clone() };
        receiver.wait_for("streaming")?;
        Ok(receiver)
    }

    /// Waits until it has received everything, and lets its slot go.
    pub async fn finish(mut self) -> Result<Instant> {
        let source = self.source.clone();
        let waited = tokio::task::spawn_blocking(move || {
            self.wait_for("received")?;
            anyhow::Ok(Instant::now())
        });
        let received = waited.await??;
        drop_slot(&source, SLOT).await?;
        Ok(received)
    }

    fn wait_for(&mut self, word: &str) -> Result<()> {
        let mut said = String::new();
        self.output.read_line(&mut said)?;
        ensure!(said.trim() == word, "the receiving client says \"{}\", not \"{word}\"", said.trim());
        Ok(())
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The child's side of [`Receiver`].
pub async fn receive(arguments: &[String]) -> Result<()> {
    let [port, database, slot, rows] = arguments else { anyhow::bail!("four arguments") };
    let mut rows: usize = rows.parse()?;
    let mut config =
        ReplicationConfig::new("127.0.0.1", "postgres", "", database.as_str(), slot.as_str(), PUBLICATION);
    config.port = port.parse()?;
    // As the daemon has them.
    config.status_interval = Duration::from_millis(200);
    config.idle_wakeup_interval = Duration::from_secs(20);
    config.buffer_events = 1024;
    config.options = Some(
        "-c DateStyle=ISO -c TimeZone=UTC -c extra_float_digits=1 -c wal_sender_timeout=15s \
         -c logical_decoding_work_mem=64MB"
            .to_owned(),
    );
    let mut client = ReplicationClient::connect_gated(config).await?;
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
