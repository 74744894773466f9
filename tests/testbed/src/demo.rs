//! Made-up people for the demo, and the changes it shows live. Plain SQL, LiteLLM 1.110.2.

use anyhow::{Context, Result};

use crate::database::{connect, execute};

const PEOPLE: &str = include_str!("../workload/demo-people.sql");
const LIVE: &str = include_str!("../workload/demo-live.sql");

/// What Open WebUI 0.12.4 itself does when somebody signs in. Its group sync is on, and their token names no group.
pub const SIGN_IN: &str = include_str!("../workload/demo-sign-in.sql");

/// Fills an empty LiteLLM 1.110.2 database with 3 organizations, 6 teams, 40 people and 4 models.
pub async fn demo_people(url: &str) -> Result<()> {
    execute(url, PEOPLE).await.context("could not add the people of the demo")
}

/// One thing that happens in LiteLLM after [`demo_people`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveChange {
    /// What happens, for a person to read.
    pub title: &'static str,
    /// The e-mail of somebody to ask about afterwards: it concerns their models.
    pub access: Option<&'static str>,
    /// What LiteLLM's endpoint writes, one transaction after the other.
    pub transactions: Vec<&'static str>,
}

impl LiveChange {
    /// Commits the transactions, in order.
    pub async fn apply(&self, url: &str) -> Result<()> {
        let client = connect(url).await?;
        for transaction in &self.transactions {
            client.batch_execute(transaction).await.with_context(|| self.title)?;
        }
        Ok(())
    }
}

/// The changes of the demo, in the order they fit.
pub fn demo_live_changes() -> Vec<LiveChange> {
    LIVE.split("-- change: ")
        .skip(1)
        .filter_map(|section| {
            let (title, body) = section.split_once('\n')?;
            let (access, body) = match body.strip_prefix("-- access: ") {
                Some(rest) => rest.split_once('\n').map(|(email, body)| (Some(email), body))?,
                None => (None, body),
            };
            let transactions = body.split("\n\n").map(str::trim).filter(|text| !text.is_empty()).collect();
            Some(LiveChange { title: title.trim(), access, transactions })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_several_statements_says_where_its_transaction_ends() {
        let changes = demo_live_changes();
        assert_eq!(changes.len(), 11);
        assert_eq!(changes.iter().filter(|change| change.access.is_some()).count(), 1);
        for text in changes.iter().flat_map(|change| &change.transactions) {
            let is_one = text.matches(";\n").count() == 0;
            let is_wrapped = text.starts_with("begin;") && text.ends_with("commit;");
            assert!(is_one || is_wrapped, "{text}");
        }
    }
}
