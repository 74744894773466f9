//! A backlog of spend flushes: row updates that change nothing Open WebUI shows.
//!
//! The daemon remembers within a session what rows look like, so it cannot be stopped to let a
//! backlog grow. It is paused instead (SIGSTOP), for less time than the source's patience with it (15 s), with what
//! the socket buffers hold as a head start. The baseline is treated alike: a process of the same replication client
//! with the same settings that receives, counts and acknowledges at commits, paused while the same flushes are
//! written. Timed: from SIGCONT until the last flush is in the checkpoint, or received.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pgwire_replication::{ReplicationClient, ReplicationConfig, ReplicationEvent};
use rustix::process::Signal;
use testbed::connect;

use crate::Options;
use crate::report::{Figures, Goal, end, line, ratio, title};
use crate::rig::{PUBLICATION, Pair, Rig, drop_slot, send};

/// Rows of one flush.
const FLUSH: usize = 1000;
const FLUSHES: usize = 200;
/// The source gives up a client that says nothing for 15 s.
const PAUSE_MAX: Duration = Duration::from_secs(12);
const BARE_SLOT: &str = "bare";

pub async fn run(rig: &Rig, options: &Options) -> Result<()> {
    let users = options.users.unwrap_or(100_000).max(FLUSH);
    let rows = FLUSH * FLUSHES;
    title(&format!(
        "spend: a backlog of {rows} updates in transactions of {FLUSH}, {users} users, {} runs",
        options.runs
    ));
    let (mut product, mut bare, mut peak) = (Figures::default(), Figures::default(), Figures::default());
    for run in 0..options.runs {
        let pair = rig.pair(users).await?;
        for turn in 0..2 {
            if (run + turn).is_multiple_of(2) {
                let mut daemon = pair.start_daemon()?;
                let meter = pair.meter().await?;
                let before = meter.applied().await?;
                rig.settle().await?;
                daemon.signal(Signal::STOP)?;
                flush(&pair, users).await?;
                let started = Instant::now();
                daemon.signal(Signal::CONT)?;
                let drained = meter.wait(before + i64::try_from(FLUSHES)?, &mut daemon).await?;
                product.add(rows as f64 / (drained - started).as_secs_f64());
                peak.add(daemon.memory().peak);
                daemon.stop()?;
                pair.check(users, 0).await?;
                pair.drop_slot().await?;
            } else {
                bare.add(rows as f64 / receive_only(&pair, users, rows).await?.as_secs_f64());
            }
        }
    }
    line("product", &product.show("rows/s"));
    line("client that only receives", &bare.show("rows/s"));
    ratio("ratio", &product, &bare, Goal::AtLeast(0.8));
    line("peak memory of the daemon", &peak.show("MiB"));
    end();
    Ok(())
}

/// What LiteLLM's jobs write: spend and nothing else.
async fn flush(pair: &Pair<'_>, users: usize) -> Result<()> {
    let client = connect(&pair.source).await?;
    client.batch_execute("set synchronous_commit = off").await?;
    let started = Instant::now();
    let text = format!(
        "do $$ begin
             for f in 0 .. {last} loop
                 update \"LiteLLM_UserTable\" u set spend = spend + 0.25, updated_at = clock_timestamp()
                   from generate_series(1, {FLUSH}) r
                  where u.user_id = md5('person ' || (f * {FLUSH} + r - 1) % {users} + 1)::uuid::text;
                 commit;
             end loop;
         end $$",
        last = FLUSHES - 1
    );
    client.batch_execute(&text).await?;
    // A commit that waits for the disk, so that everything before it can be sent.
    client.batch_execute("set synchronous_commit = on; create table if not exists flushed ()").await?;
    client.batch_execute("drop table flushed").await?;
    ensure!(
        started.elapsed() < PAUSE_MAX,
        "writing the backlog took longer than the source waits for a client"
    );
    Ok(())
}

/// The baseline.
async fn receive_only(pair: &Pair<'_>, users: usize, rows: usize) -> Result<Duration> {
    let client = connect(&pair.source).await?;
    let text = format!(
        "do $$ begin create publication {PUBLICATION} for table \"LiteLLM_UserTable\";
         exception when duplicate_object then null; end $$"
    );
    client.batch_execute(&text).await?;
    let slot = "select pg_create_logical_replication_slot($1::text::name, 'pgoutput')";
    client.execute(slot, &[&BARE_SLOT]).await?;
    let mut receiver = Receiver::start(pair, rows)?;
    receiver.wait_for("streaming")?;
    pair.rig().settle().await?;
    send(&receiver.child, Signal::STOP)?;
    flush(pair, users).await?;
    let started = Instant::now();
    send(&receiver.child, Signal::CONT)?;
    let receiver = tokio::task::spawn_blocking(move || receiver.wait_for("received").map(|()| receiver));
    let receiver = receiver.await??;
    let time = started.elapsed();
    drop(receiver);
    drop_slot(&pair.source, BARE_SLOT).await?;
    Ok(time)
}

/// This program as the client that only receives.
struct Receiver {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
}

impl Receiver {
    fn start(pair: &Pair<'_>, rows: usize) -> Result<Self> {
        let port = pair.rig().source.port().to_string();
        let database = pair.source.rsplit('/').next().context("no database")?;
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--receive", &port, database, BARE_SLOT, &rows.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = BufReader::new(child.stdout.take().context("no standard output")?);
        Ok(Self { child, output })
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
