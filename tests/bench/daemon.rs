//! The daemon as a child process: starting and stopping it, how far it is, what it takes.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use testbed::connect;
use tokio_postgres::{Client, Statement};

use crate::rig::{PATIENCE, Pair};

/// The daemon's binary, built with the same profile as this benchmark.
const DAEMON: &str = env!("CARGO_BIN_EXE_litellm-webui-sync");

impl Pair<'_> {
    /// Starts the daemon and waits until it has copied everything and streams.
    pub fn start_daemon(&self) -> Result<Daemon> {
        let mut daemon = self.spawn_daemon()?;
        self.wait_until_ready(&mut daemon)?;
        Ok(daemon)
    }

    /// Waits until everything committed so far is visible.
    pub fn wait_until_ready(&self, daemon: &mut Daemon) -> Result<()> {
        let started = Instant::now();
        loop {
            let status = self.command().args(["status", "--wait", "now"]).stderr(Stdio::null()).status()?;
            if status.success() {
                return Ok(());
            }
            daemon.check()?;
            ensure!(started.elapsed() < PATIENCE, "the daemon does not get ready:\n{}", daemon.log());
        }
    }

    /// Starts the daemon and does not wait.
    pub fn spawn_daemon(&self) -> Result<Daemon> {
        let mut child = self.command().arg("run").stderr(Stdio::piped()).spawn()?;
        let log = Arc::new(Mutex::new(String::new()));
        let writer = Arc::clone(&log);
        let stderr = child.stderr.take().context("no standard error")?;
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut log = writer.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        Ok(Daemon { child, log })
    }

    /// A command of the program for these databases.
    pub fn command(&self) -> Command {
        let mut command = Command::new(DAEMON);
        command
            .env("LITELLM_DATABASE_URL", format!("{}?sslmode=disable", self.source))
            .env("WEBUI_DATABASE_URL", format!("{}?sslmode=disable", self.target))
            .env("LITELLM_WEBUI_SYNC_HTTP", "off")
            .env_remove("DATABASE_SCHEMA")
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        if let Some(policy) = &self.rig().policy {
            command.env("LITELLM_WEBUI_SYNC_CONFIG", policy);
        }
        command
    }

    pub async fn meter(&self) -> Result<Meter> {
        let client = connect(&self.target).await?;
        let text = "select transactions_applied, changes_applied from litellm_webui_sync.checkpoint";
        let statement = client.prepare(text).await?;
        Ok(Meter { client, statement })
    }
}

/// Reads how far the daemon is.
#[derive(Debug)]
pub struct Meter {
    client: Client,
    statement: Statement,
}

impl Meter {
    /// Transactions applied so far.
    pub async fn applied(&self) -> Result<i64> {
        Ok(self.client.query_one(&self.statement, &[]).await?.get(0))
    }

    /// Waits until `transactions` are applied: not one more.
    pub async fn wait(&self, transactions: i64, daemon: &mut Daemon) -> Result<Instant> {
        let started = Instant::now();
        loop {
            let applied = self.applied().await?;
            if applied >= transactions {
                let now = Instant::now();
                ensure!(applied == transactions, "{applied} transactions were applied, not {transactions}");
                return Ok(now);
            }
            daemon.check()?;
            ensure!(
                started.elapsed() < PATIENCE,
                "{applied} of {transactions} transactions:\n{}",
                daemon.log()
            );
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// The daemon, a child process.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    log: Arc<Mutex<String>>,
}

/// Memory of a process, in MiB.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    pub now: f64,
    pub peak: f64,
}

impl Daemon {
    pub fn signal(&self, signal: Signal) -> Result<()> {
        send(&self.child, signal)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// An error if it has ended.
    pub fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            Some(status) => bail!("the daemon ended ({status}):\n{}", self.log()),
            None => Ok(()),
        }
    }

    /// As Linux says it; unknown elsewhere.
    pub fn memory(&self) -> Memory {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            let kibibytes = line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok());
            kibibytes.map_or(f64::NAN, |kibibytes| kibibytes / 1024.0)
        };
        Memory { now: field("VmRSS:"), peak: field("VmHWM:") }
    }

    /// Lets it drain and end.
    pub fn stop(mut self) -> Result<()> {
        self.check()?;
        self.signal(Signal::TERM)?;
        let started = Instant::now();
        while self.child.try_wait()?.is_none() {
            ensure!(started.elapsed() < Duration::from_secs(20), "the daemon does not end:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Already gone when it was stopped.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn send(child: &Child, signal: Signal) -> Result<()> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("no process id")?;
    kill_process(pid, signal).context("could not signal the process")
}
