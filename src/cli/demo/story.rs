//! What the demo shows while it happens: the first copy, then changes in LiteLLM, one by one.
//!
//! Commits the changes, and reads in Open WebUI's tables what each did.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use testbed::{Cluster, LiveChange, reference};
use tokio_postgres::Client;

use super::picture::{Group, Picture};
use super::screen::Screen;
use crate::config::Config;
use crate::observe::status::{self, StatusReport, Waited};
use crate::position::Lsn;
use crate::source::Source;
use crate::target::Target;

/// How long anything may take to arrive before the demo counts it as lost.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// Between two live changes, so that a person can follow.
const PAUSE: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(1);
/// Counts independently of the daemon what LiteLLM commits.
pub(super) const REFERENCE_SLOT: &str = "demo_reference";

/// The story, and what it looks at.
#[derive(Debug)]
pub(super) struct Show<'a> {
    pub(super) screen: &'a Screen,
    pub(super) config: Config,
    pub(super) litellm_url: String,
    pub(super) webui_url: String,
    litellm: Client,
    webui: Client,
    /// What the daemon had counted when the independent count began.
    pub(super) counted_before: (i64, i64),
    pub(super) latencies: Vec<Duration>,
}

impl<'a> Show<'a> {
    pub(super) async fn new(screen: &'a Screen, cluster: &Cluster, config: Config) -> Result<Self> {
        let (litellm_url, webui_url) = (cluster.url("litellm"), cluster.url("webui"));
        Ok(Self {
            screen,
            config,
            litellm: testbed::connect(&litellm_url).await?,
            webui: testbed::connect(&webui_url).await?,
            litellm_url,
            webui_url,
            counted_before: (0, 0),
            latencies: Vec::new(),
        })
    }

    /// Waits for the copy of the existing people, and shows who arrived.
    pub(super) async fn first_copy(&mut self, started: Instant) -> Result<()> {
        if let Waited::Failed { reason } = status::wait_now(&self.config, PATIENCE).await? {
            bail!("the first copy did not arrive: {reason}");
        }
        let people: i64 =
            self.litellm.query_one("select count(*) from \"LiteLLM_UserTable\"", &[]).await?.get(0);
        let report = status::report(&self.config).await?;
        let picture = Picture::take(&self.webui).await?;
        let target = Target::open(&self.config).await?;
        let rows = target.client().query("select webui_id, kind from group_link", &[]).await?;
        let kinds: BTreeMap<String, String> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();

        self.screen.heading(&format!(
            "The first copy: everybody is in Open WebUI {:.1} s after this program began",
            started.elapsed().as_secs_f64()
        ));
        self.screen.line(&format!("{people:>5}  users in LiteLLM, of whom"));
        self.screen
            .line(&format!("{:>5}    have an account in Open WebUI and may log in", report.accounts_active));
        for skipped in &report.skipped {
            self.screen.line(&format!("{:>5}    have none: {}", skipped.count, skipped.what));
        }
        for letter in &report.dead_letters {
            self.screen.line(&format!("{:>5}    set aside: {}", letter.count, letter.what));
        }
        let mut groups: Vec<(&str, &Group)> = picture
            .groups
            .iter()
            .map(|(id, group)| (kinds.get(id).map_or("", String::as_str), group))
            .collect();
        groups.sort_by_key(|(kind, group)| (*kind, &group.name));
        self.screen.line("");
        self.screen.line(&self.screen.dim("members  kind          group in Open WebUI"));
        for (kind, group) in groups {
            self.screen.line(&format!("{:>7}  {kind:<12}  {}", group.members.len(), group.name));
        }
        reference::create_reference_slot(&self.litellm_url, REFERENCE_SLOT).await?;
        self.counted_before = counters(&report)?;
        Ok(())
    }

    /// Applies the changes to LiteLLM one by one, and shows what each did to Open WebUI.
    pub(super) async fn live_changes(&mut self, once: bool) -> Result<()> {
        self.screen
            .heading("Live changes: time from the commit in LiteLLM until Open WebUI's database shows it");
        let source = Source::open(&self.config).await?;
        let target = Target::open(&self.config).await?;
        let changes = testbed::demo_live_changes();
        let count = changes.len();
        for (number, change) in (1..).zip(changes) {
            if !once {
                tokio::time::sleep(PAUSE).await;
            }
            let before = Picture::take(&self.webui).await?;
            let latency = self.arrival(&change, &source, &target).await?;
            self.latencies.push(latency);
            let title = self.screen.bold(&format!("{number}/{count}  {}", change.title));
            if number > 1 {
                self.screen.line("");
            }
            self.screen.line(&format!("{title}  {}", self.screen.green(&milliseconds(latency))));
            let after = Picture::take(&self.webui).await?;
            for line in before.differences(&after) {
                self.screen.line(&format!("     {line}"));
            }
        }
        Ok(())
    }

    /// Commits the change and waits until Open WebUI's database has it.
    ///
    /// What is waited for is a barrier behind the change, as in `status --wait now`: a change may
    /// alter nothing there. Its own transaction and the poll are in the time.
    async fn arrival(&self, change: &LiveChange, source: &Source, target: &Target) -> Result<Duration> {
        change.apply(&self.litellm_url).await?;
        let committed = Instant::now();
        let barrier = source.emit_barrier().await?;
        loop {
            let row = target.client().query_one("select end_lsn from checkpoint", &[]).await?;
            if row.get::<_, Lsn>(0) > barrier {
                return Ok(committed.elapsed());
            }
            ensure!(
                committed.elapsed() < PATIENCE,
                "\"{}\" did not arrive within {} s",
                change.title,
                PATIENCE.as_secs()
            );
            tokio::time::sleep(POLL).await;
        }
    }
}

/// The transactions and row changes the daemon has counted.
pub(super) fn counters(report: &StatusReport) -> Result<(i64, i64)> {
    let checkpoint = report.checkpoint.as_ref().context("there is no checkpoint")?;
    Ok((checkpoint.transactions_applied, checkpoint.changes_applied))
}

pub(super) fn milliseconds(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1000.0)
}
