//! `teardown`: takes away what we made.
//!
//! The slot and the publication always; with `purge` also exactly the Open WebUI rows the ledger
//! names, and our schema. Rows we adopted get back what they had.

use crate::config::Config;
use crate::error::{Error, Result, Side, on};
use crate::postgres::quote_ident;
use crate::source::Source;
use crate::source::publication::drop_publication_sql;
use crate::sql::{self, fill};
use crate::target::Target;
use crate::target::checkpoint;
use crate::target::layout;
use crate::target::schema;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purge {
    /// Keep every Open WebUI row and our schema; a later `run` copies afresh.
    Nothing,
    /// Our rows and our schema; accounts with chats are locked and kept.
    Rows,
    /// Accounts with chats too.
    People,
}

/// What was taken away, for a person.
pub type Lines = Vec<String>;

/// Adds to `lines` what it did, as it does it.
///
/// # Errors
/// When a daemon still runs, or something cannot be removed.
pub async fn teardown(config: &Config, purge: Purge, lines: &mut Lines) -> Result<()> {
    let source = Source::open(config).await?;
    let slot = source.slot(&config.slot).await;
    if matches!(&slot, Ok(Some(slot)) if slot.active) {
        return Err(Error::Usage(format!("slot \"{}\" is in use: stop the daemon first", config.slot)));
    }
    // Only now, with nobody on the slot: whoever holds the lease and does nothing is ended.
    let target = Target::open(config).await?;
    if purge != Purge::Nothing {
        schema::refuse_to_drop(&target, &config.schema).await?;
    }
    if !target.take_lease(&config.schema).await? {
        return Err(Error::Usage(
            "a daemon is at work on this Open WebUI database: stop it first".to_owned(),
        ));
    }
    match slot {
        Err(Error::ForeignSlot { slot, what }) => {
            lines.push(format!("kept slot {slot}, which is not ours: it {what}"));
        }
        Err(error) => return Err(error),
        Ok(Some(_)) => {
            source.drop_slot(&config.slot).await?;
            lines.push(format!("dropped slot {}", config.slot));
        }
        Ok(None) => lines.push(format!("there was no slot {}", config.slot)),
    }
    let drop = drop_publication_sql(&config.publication);
    match source.client().batch_execute(&drop).await {
        Ok(()) => lines.push(format!("dropped publication {}", config.publication)),
        // A DBA made it, so a DBA drops it; the rest is ours to do.
        Err(error) if error.sqlstate() == Some("42501") => {
            lines.push(format!(
                "kept publication {}, which is not ours: its owner can run: {drop}",
                config.publication
            ));
        }
        Err(error) => return Err(on(Side::Source, "drop the publication")(error)),
    }

    let text =
        "select exists (select from pg_catalog.pg_tables where schemaname = $1 and tablename = 'checkpoint')";
    let row = target.slow().query_one(text, &[&config.schema]).await;
    if !row.map_err(on(Side::Target, "look at our schema"))?.get::<_, bool>(0) {
        return Ok(());
    }
    if purge == Purge::Nothing {
        // Without a checkpoint the next run copies everything and merges it; the ledger stays.
        checkpoint::forget(&target).await?;
        let text = "delete from backfill where finished_at is null";
        target.execute("forget an unfinished copy", text).await?;
        lines.push(
            "kept every Open WebUI row and our schema; the next run copies LiteLLM's rows afresh".to_owned(),
        );
        return Ok(());
    }
    target.begin_large().await?;
    purge_rows(&target, config, purge, lines).await?;
    let text = format!("drop schema {} cascade", quote_ident(&config.schema));
    target.execute("drop our schema", &text).await?;
    target.commit("commit the teardown").await?;
    lines.push(format!("dropped schema {}", config.schema));
    Ok(())
}

async fn purge_rows(target: &Target, config: &Config, purge: Purge, lines: &mut Lines) -> Result<()> {
    let layout = layout::find(target, config).await?;
    let client = target.slow();
    let action = "remove our rows";
    // Before the accounts: theirs would go with them, uncounted.
    let removed = client.execute(layout.api_keys.purge, &[]).await.map_err(on(Side::Target, action))?;
    lines.push(format!("removed {removed} API keys"));
    let members = layout.group_members;
    let models = fill(layout.model_access.purge, ":leave_access_groups", members.leave_access_groups);
    let row = client.query_one(&models, &[]).await.map_err(on(Side::Target, action))?;
    let (models, groups, grants): (i64, i64, i64) = (row.get(0), row.get(1), row.get(2));
    lines.push(format!("removed {models} models, {groups} access groups, {grants} grants"));
    let removed = client.execute(members.purge, &[]).await.map_err(on(Side::Target, action))?;
    let (before, after) = members.purged;
    lines.push(format!("{before} {removed} {after}"));
    let text = format!(
        "delete from \"group\" g using group_link c
          where g.id = c.webui_id collate \"default\" and c.origin = 'created' and not ({})",
        layout.group_references()
    );
    let removed = client.execute(&text, &[]).await.map_err(on(Side::Target, action))?;
    lines.push(format!("removed {removed} groups (those something else refers to stay)"));
    let row = client.query_one(sql::PURGE_ACCOUNTS, &[&(purge == Purge::People)]).await;
    let row = row.map_err(on(Side::Target, action))?;
    let (deleted, locked, restored): (i64, i64, i64) = (row.get(0), row.get(1), row.get(2));
    lines.push(format!(
        "deleted {deleted} accounts, locked {locked} that have chats, restored {restored} adopted ones"
    ));
    Ok(())
}
