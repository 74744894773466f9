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
    /// Our rows and our schema; accounts that own something (chats, notes, files, …) are locked and kept.
    Rows,
    /// These accounts too.
    People,
}

/// What was taken away, for a person.
pub type Lines = Vec<String>;

/// Adds to `lines` what it did, as it does it; with `dry_run` what it would do, and does nothing. Open WebUI's database comes first, in
/// one transaction: where that fails, everything is as it was.
///
/// # Errors
/// When a daemon still runs, or something cannot be removed.
pub async fn teardown(config: &Config, purge: Purge, dry_run: bool, lines: &mut Lines) -> Result<()> {
    let source = Source::open(config).await?;
    let slot = source.slot(&config.slot).await;
    if matches!(&slot, Ok(Some(slot)) if slot.active) {
        return Err(Error::Usage(format!("slot \"{}\" is in use: stop the daemon first", config.slot)));
    }
    let slot = match slot {
        Err(Error::ForeignSlot { slot, what }) => {
            lines.push(format!("kept slot {slot}, which is not ours: it {what}"));
            None
        }
        other => {
            let slot = other?;
            if slot.is_none() {
                lines.push(format!("there was no slot {}", config.slot));
            }
            slot
        }
    };
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
    let text =
        "select exists (select from pg_catalog.pg_tables where schemaname = $1 and tablename = 'checkpoint')";
    let row = target.slow().query_one(text, &[&config.schema]).await;
    if row.map_err(on(Side::Target, "look at our schema"))?.get::<_, bool>(0) {
        target.begin_large().await?;
        if purge == Purge::Nothing {
            // Without a checkpoint the next run copies everything and merges it; the ledger stays.
            checkpoint::forget(&target).await?;
            let text = "delete from backfill where finished_at is null";
            target.execute("forget an unfinished copy", text).await?;
            lines.push(
                "kept every Open WebUI row and our schema; the next run copies LiteLLM's rows afresh"
                    .to_owned(),
            );
        } else {
            purge_rows(&target, config, purge, lines).await?;
            let text = format!("drop schema {} cascade", quote_ident(&config.schema));
            target.execute("drop our schema", &text).await?;
            lines.push(format!("dropped schema {}", config.schema));
        }
        if dry_run {
            target.roll_back("end the dry run").await?;
        } else {
            target.commit("commit the teardown").await?;
        }
    }
    if slot.is_some() {
        if !dry_run {
            source.drop_slot(&config.slot).await?;
        }
        lines.push(format!("dropped slot {}", config.slot));
    }
    if dry_run {
        lines.push(format!("dropped publication {}", config.publication));
        return Ok(());
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
    Ok(())
}

/// Everybody who owns anything in Open WebUI, as a query.
async fn owners(target: &Target, config: &Config) -> Result<String> {
    let rows = target.slow().query(sql::PURGE_THINGS, &[&config.webui_schema]).await;
    let rows = rows.map_err(on(Side::Target, "look for what people own"))?;
    let name = |row: &tokio_postgres::Row| quote_ident(row.get("table_name"));
    let hidden: Vec<String> = rows.iter().filter(|row| !row.get::<_, bool>("readable")).map(name).collect();
    if !hidden.is_empty() {
        return Err(Error::Usage(format!(
            "cannot tell who owns something in Open WebUI: on its database, run as its owner: grant select on {} to the user of \
             WEBUI_DATABASE_URL",
            hidden.join(", ")
        )));
    }
    let owned: Vec<String> = rows
        .iter()
        .map(|row| format!("select user_id::text from {} where user_id is not null", name(row)))
        .collect();
    Ok(if owned.is_empty() { "select null::text as user_id".to_owned() } else { owned.join(" union all ") })
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
    let text = fill(sql::PURGE_ACCOUNTS, ":things", &owners(target, config).await?);
    let row = client.query_one(&text, &[&(purge == Purge::People)]).await;
    let row = row.map_err(on(Side::Target, action))?;
    let (deleted, locked, restored): (i64, i64, i64) = (row.get(0), row.get(1), row.get(2));
    lines.push(format!(
        "deleted {deleted} accounts, locked {locked} that have chats or other things of their own, restored {restored} adopted ones"
    ));
    if let Some(kept) = row.get::<_, Option<String>>("kept") {
        lines.push(format!("kept account {kept} as it is: Open WebUI would have no admin without it"));
    }
    Ok(())
}
