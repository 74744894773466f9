//! The report for a person: what, and how it is. What is colour is `cli`'s.

use super::{ModelsReport, StatusReport};
use crate::source::Leader;

impl StatusReport {
    /// The report as lines for a person: what, and how it is.
    pub fn lines(&self) -> Vec<(String, String)> {
        let mut lines: Vec<(String, String)> = Vec::new();
        let mut line = |name: &str, value: String| lines.push((name.to_owned(), value));
        let with_reason = |text: &str| match &self.reason {
            Some(reason) => format!("{text} ({reason})"),
            None => text.to_owned(),
        };
        line("state", with_reason(&self.state));
        if let (Some(bytes), Some(seconds)) = (self.lag_bytes, self.lag_seconds) {
            line("lag", format!("{bytes} bytes, {seconds:.1} s"));
        }
        if let Some(checkpoint) = &self.checkpoint {
            line("checkpoint", format!("{} (epoch {})", checkpoint.end_lsn, checkpoint.epoch));
            line("transactions applied", checkpoint.transactions_applied.to_string());
            line("changes applied", checkpoint.changes_applied.to_string());
            if !checkpoint.projected {
                line("projected", "not yet".to_owned());
            }
        }
        if let Some(slot) = &self.slot {
            let status = slot.wal_status.as_deref().unwrap_or("?");
            let active = if slot.active { "active" } else { "not active" };
            line("slot", format!("{} ({active}, {status}, {} bytes kept)", slot.name, slot.retained_bytes));
        } else {
            line("slot", "none".to_owned());
        }
        if let Some(Leader { session, client, seconds }) = &self.leader {
            let client = client.as_deref().unwrap_or("a local socket");
            line("leader", format!("{session} at {client}, for {:.0} s", seconds.unwrap_or_default()));
        }
        if let Some(layout) = &self.layout {
            line("layout", layout.clone());
        }
        line("accounts", format!("{} active, {} locked", self.accounts_active, self.accounts_locked));
        line("groups", format!("{} with {} members", self.groups, self.members));
        if let Some(models) = &self.models {
            let ModelsReport { known, people, sets, access_groups, grants, public, inheriting } = models;
            line(
                "models",
                format!(
                    "{known}; {people} people have {sets} sets of them: {access_groups} access groups, {grants} grants"
                ),
            );
            for group in inheriting {
                line(
                    "group",
                    format!(
                        "{group}: it stands under an access group, and its members have that one's models"
                    ),
                );
            }
            for model in public {
                line("public model", format!("{model}: everybody sees it, although LiteLLM limits it"));
            }
        }
        if self.budget_closed > 0 {
            let what = "people have fewer models because a budget is used up: `litellm-webui-sync access EMAIL` says why";
            line("budgets", format!("{} {what}", self.budget_closed));
        }
        if self.shared_emails > 0 {
            let what = "several accounts of Open WebUI have the same: see `litellm-webui-sync doctor`";
            line("shared e-mails", format!("{}: {what}", self.shared_emails));
        }
        for skipped in &self.skipped {
            line("skipped", format!("{} {}", skipped.count, skipped.what));
        }
        for letter in &self.dead_letters {
            line("failed", format!("{} {}", letter.count, letter.what));
        }
        if let Some(brake) = &self.brake {
            let what = if brake.approved {
                "approved".to_owned()
            } else {
                format!("run `litellm-webui-sync approve {}` to let it pass", brake.id)
            };
            line("brake", format!("{} of {} people would be locked: {what}", brake.people, brake.active));
        }
        lines
    }
}
