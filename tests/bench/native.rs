//! A native subscription to compare with.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use testbed::{connect, execute};

use crate::rig::{PATIENCE, Pair, Rig, copy_database, person_id, wait_for_slot};

/// A native subscription to LiteLLM's users, in a database of its own on the target.
#[derive(Debug)]
pub struct Native {
    pub name: &'static str,
    pub url: String,
    source: String,
}

impl Native {
    /// Publishes and subscribes, waits for the copy of what is there, and stops.
    pub async fn subscribe(pair: &Pair<'_>, name: &'static str, synchronous_commit: &str) -> Result<Self> {
        let rig = pair.rig();
        let (host, database) =
            (format!("host=127.0.0.1 port={} user=postgres", rig.source.port()), "litellm_run");
        execute(
            &pair.source,
            "do $$ begin create publication native for table \"LiteLLM_UserTable\";
             exception when duplicate_object then null; end $$",
        )
        .await?;
        let url = copy_database(&rig.target, "litellm", name).await?;
        let subscribe = format!(
            "create subscription {name} connection '{host} dbname={database}' publication native
             with (synchronous_commit = '{synchronous_commit}')"
        );
        execute(&url, &subscribe).await?;
        let client = connect(&url).await?;
        let text = "select count(*) from pg_subscription_rel where srsubstate <> 'r'";
        let started = Instant::now();
        while client.query_one(text, &[]).await?.get::<_, i64>(0) > 0 {
            ensure!(started.elapsed() < PATIENCE, "the native subscription does not get ready");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let native = Self { name, url, source: pair.source.clone() };
        native.disable().await?;
        execute(&native.url, "vacuum analyze \"LiteLLM_UserTable\"").await?;
        Ok(native)
    }

    /// Starts to stream; returns when the source saw it.
    pub async fn enable(&self) -> Result<Instant> {
        execute(&self.url, &format!("alter subscription {} enable", self.name)).await?;
        wait_for_slot(&self.source, self.name, true).await
    }

    pub async fn disable(&self) -> Result<()> {
        execute(&self.url, &format!("alter subscription {} disable", self.name)).await?;
        wait_for_slot(&self.source, self.name, false).await?;
        Ok(())
    }

    /// Waits until person `i` is there.
    pub async fn wait_for_person(&self, i: usize) -> Result<Instant> {
        let client = connect(&self.url).await?;
        let text = format!("select 1 from \"LiteLLM_UserTable\" where user_id = {}", person_id(i));
        let statement = client.prepare(&text).await?;
        let started = Instant::now();
        while client.query_opt(&statement, &[]).await?.is_none() {
            ensure!(started.elapsed() < PATIENCE, "the native subscription does not get there");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(Instant::now())
    }

    /// Ends it, with its slot and database.
    pub async fn end(self, rig: &Rig) -> Result<()> {
        self.disable().await?;
        execute(&self.url, &format!("drop subscription {}", self.name)).await?;
        execute(&rig.target.url("postgres"), &format!("drop database {} with (force)", self.name)).await
    }
}
