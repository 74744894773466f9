//! What the demo shows while it happens: the first copy, then changes in LiteLLM, one by one, and one that Open WebUI makes itself.
//!
//! Commits the changes, and reads in Open WebUI's tables what each did.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use testbed::{Cluster, LiveChange, reference};
use tokio_postgres::Client;

use super::difference;
use super::picture::{Group, Picture};
use super::screen::Screen;
use crate::config::Config;
use crate::observe::status::{self, StatusReport, Waited};
use crate::operate::access;
use crate::position::Lsn;
use crate::source::Source;
use crate::target::Target;

/// How long anything may take to arrive before the demo counts it as lost.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// Between two live changes, so that a person can follow.
const PAUSE: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(1);
const POLL_SLOWLY: Duration = Duration::from_millis(20);
const SIGN_IN: &str = "Chloé Marchand signs in to Open WebUI, whose group sync takes her out of her groups";
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
            .map(|(id, group)| (kinds.get(id).map_or("models", String::as_str), group))
            .collect();
        groups.sort_by_key(|(kind, group)| (*kind, &group.name));
        self.screen.line("");
        self.screen.line(&self.screen.dim("members  kind          group in Open WebUI"));
        for (kind, group) in groups {
            self.screen.line(&format!("{:>7}  {kind:<12}  {}", group.members.len(), group.name));
        }
        self.screen.line("");
        self.screen.line(&self.screen.dim(" people  see these models in Open WebUI"));
        for (people, models) in picture.audiences() {
            self.screen.line(&format!("{people:>7}  {}", listed(models)));
        }
        let keys = picture.accounts.values().filter(|account| account.has_key).count();
        self.screen
            .line(&format!("{keys:>7}  have a personal API key, minted because they have one of LiteLLM's"));
        reference::create_reference_slot(&self.litellm_url, REFERENCE_SLOT).await?;
        self.counted_before = counters(&report)?;
        Ok(())
    }

    /// Prints what `access` says of somebody, with every path where it is about one model.
    pub(super) async fn access(&self, email: &str, model: Option<&str>) -> Result<()> {
        let report = access::report(&self.config, email, model).await?;
        let command = ["litellm-webui-sync access", email, model.unwrap_or_default()].join(" ");
        let command = command.trim_end();
        if model.is_some() {
            self.screen.heading(&format!("Who sees what, and why: {command}"));
        } else {
            self.screen.line("");
            self.screen.line(&format!("     {}", self.screen.dim(&format!("$ {command}"))));
        }
        for line in report.to_text(model.is_some()).lines() {
            self.screen.line(&format!("     {line}"));
        }
        Ok(())
    }

    /// Applies the changes to LiteLLM one by one, then Open WebUI's own, and shows what each did to Open WebUI.
    pub(super) async fn live_changes(&mut self, once: bool) -> Result<()> {
        self.screen
            .heading("Live changes: time from the commit in LiteLLM until Open WebUI's database shows it");
        let source = Source::open(&self.config).await?;
        let target = Target::open(&self.config).await?;
        let changes = testbed::demo_live_changes();
        let count = changes.len() + 1;
        for (number, change) in (1..).zip(changes) {
            if !once {
                tokio::time::sleep(PAUSE).await;
            }
            let before = Picture::take(&self.webui).await?;
            let latency = self.arrival(&change, &source, &target).await?;
            self.latencies.push(latency);
            if number > 1 {
                self.screen.line("");
            }
            self.title(number, count, change.title, &milliseconds(latency));
            self.changed(&before, &Picture::take(&self.webui).await?);
            if let Some(email) = change.access {
                self.access(email, None).await?;
            }
        }
        self.sign_in(count).await
    }

    /// Open WebUI's own group sync takes somebody out of our groups, and they are put back.
    async fn sign_in(&self, number: usize) -> Result<()> {
        // Open WebUI counts in seconds, and nobody signs in within the one in which their account is made.
        tokio::time::sleep(PAUSE).await;
        let before = Picture::take(&self.webui).await?;
        testbed::execute(&self.webui_url, testbed::SIGN_IN).await?;
        let taken_out = Instant::now();
        let without = Picture::take(&self.webui).await?;
        ensure!(without != before, "Open WebUI's group sync did nothing");
        let after = loop {
            let picture = Picture::take(&self.webui).await?;
            if picture == before {
                break picture;
            }
            ensure!(taken_out.elapsed() < PATIENCE, "nobody was put back within {} s", PATIENCE.as_secs());
            tokio::time::sleep(POLL_SLOWLY).await;
        };
        let took = format!("put back after {:.1} s", taken_out.elapsed().as_secs_f64());
        self.screen.line("");
        self.title(number, number, SIGN_IN, &took);
        self.changed(&before, &without);
        self.screen.line("");
        self.changed(&without, &after);
        Ok(())
    }

    fn title(&self, number: usize, count: usize, title: &str, took: &str) {
        let title = self.screen.bold(&format!("{number}/{count}  {title}"));
        self.screen.line(&format!("{title}  {}", self.screen.green(took)));
    }

    fn changed(&self, before: &Picture, after: &Picture) {
        for line in difference::lines(before, after) {
            self.screen.line(&format!("     {line}"));
        }
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

fn listed(models: &BTreeSet<String>) -> String {
    let names: Vec<&str> = models.iter().map(String::as_str).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

pub(super) fn milliseconds(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1000.0)
}
