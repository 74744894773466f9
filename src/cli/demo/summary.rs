//! What came of the demo: whether everything arrived, how fast, and how to look further.
//!
//! Counts what LiteLLM committed without the daemon; what Open WebUI should have is for the product to say, as `verify` does.

use anyhow::{Result, ensure};
use testbed::reference;

use super::story::{PATIENCE, REFERENCE_SLOT, Show, counters, milliseconds};
use crate::copy::verify::differences;
use crate::decode::request::Request;
use crate::observe::status;
use crate::operate::resnapshot;
use crate::target::Target;

impl Show<'_> {
    /// Compares what arrived with what LiteLLM holds and committed, and says how to look further.
    pub(super) async fn summary(&mut self) -> Result<()> {
        self.screen.heading("Summary");
        let report = status::report(&self.config).await?;
        let (transactions, changes) = counters(&report)?;
        let applied = (transactions - self.counted_before.0, changes - self.counted_before.1);
        let counted =
            reference::count(&self.litellm_url, REFERENCE_SLOT, &self.config.publication, None).await?;
        reference::drop_reference_slot(&self.litellm_url, REFERENCE_SLOT).await?;
        let committed = (i64::try_from(counted.transactions)?, i64::try_from(counted.changes)?);
        let exactly = applied == committed;
        self.screen.verdict(
            exactly,
            &format!(
                "LiteLLM committed {} transactions with {} row changes; applied: {} with {}",
                committed.0, committed.1, applied.0, applied.1
            ),
        );
        let (rows, differences) = self.verify().await?;
        let end = if differences.is_empty() { "nothing differs" } else { "these differ" };
        self.screen.verdict(
            differences.is_empty(),
            &format!("verify: {rows} rows of LiteLLM's, the daemon's mirror of them and Open WebUI's compared: {end}"),
        );
        for difference in &differences {
            self.screen.line(&format!("   {difference}"));
        }
        self.screen.line(&format!(
            "   In Open WebUI: {} accounts active, {} locked, {} groups with {} members",
            report.accounts_active, report.accounts_locked, report.groups, report.members
        ));
        self.latencies.sort_unstable();
        if let (Some(p50), Some(slowest)) =
            (self.latencies.get(self.latencies.len() / 2), self.latencies.last())
        {
            self.screen.line(&format!(
                "   Commit to visible: p50 {}, slowest {}",
                milliseconds(*p50),
                milliseconds(*slowest)
            ));
        }
        ensure!(exactly && differences.is_empty(), "not everything arrived");
        Ok(())
    }

    /// What the command `verify` does: LiteLLM's rows are read again, and the product's own rules say what they mean. How many rows
    /// that were, and where LiteLLM, the daemon's mirror of it and Open WebUI differ.
    async fn verify(&self) -> Result<(i64, Vec<String>)> {
        let target = Target::open(&self.config).await?;
        let request = Request { id: uuid::Uuid::new_v4(), tables: Vec::new(), dry_run: true };
        resnapshot::ask(&self.config, &target, &request).await?;
        let answer = resnapshot::wait(&target, &request, PATIENCE, |_| {}).await?;
        let lines = resnapshot::lines(&answer, &differences(&target, answer.id).await?);
        Ok((answer.rows_copied, lines))
    }

    /// The databases, the pages, and commands to try.
    pub(super) fn how_to_look(&self) {
        let program = std::env::args().next().unwrap_or_else(|| "litellm-webui-sync".to_owned());
        let block = |what: &str, lines: &[String]| {
            self.screen.line("");
            self.screen.line(&self.screen.bold(what));
            for line in lines {
                self.screen.line(&format!("  {line}"));
            }
        };
        block("The databases", &[format!("psql {}", self.litellm_url), format!("psql {}", self.webui_url)]);
        if let Some(address) = self.config.http {
            block("The status page", &[format!("http://{address}/ in a browser")]);
            block(
                "For machines",
                &["api/status", "metrics", "readyz"].map(|page| format!("curl http://{address}/{page}")),
            );
        }
        block(
            "Its status",
            &[
                format!("export LITELLM_DATABASE_URL={}", self.litellm_url),
                format!("export WEBUI_DATABASE_URL={}", self.webui_url),
                format!("{program} status"),
                format!("{program} budgets"),
            ],
        );
        let rename = "update \"LiteLLM_TeamTable\" set team_alias = $$Labs$$ where team_id = $$research$$";
        let names = "select name, email from \"user\" order by 1";
        block(
            "A change of your own",
            &[
                format!("psql {} -c '{rename}'", self.litellm_url),
                format!("{program} status --wait now"),
                format!("psql {} -c '{names}'", self.webui_url),
            ],
        );
        self.screen.line("");
        self.screen.line("It runs until Ctrl-C.");
    }
}
