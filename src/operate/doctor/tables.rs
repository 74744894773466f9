//! What is asked of LiteLLM's tables: whether they are published and readable, and what in them cannot be carried over.
//!
//! Reads catalogs, and counts e-mails that are shared. Writes nothing.

use super::{Check, Verdict, failed, finding, fine};
use crate::catalog::TABLES;
use crate::config::Config;
use crate::error::{Error, Result, Side, on};
use crate::postgres::quote_ident;
use crate::source::Source;
use crate::source::tables::{Unfit, unfit};
use crate::sql;

pub(super) async fn publication(source: &Source, config: &Config) -> Result<Option<Check>> {
    let name = "publication";
    let tables = source.tables(config).await?;
    let publication = source.publication(config).await?;
    Ok(Some(match Source::publication_repair(config, publication.as_ref(), &tables) {
        Ok(None) => fine(name, format!("{} tables", publication.map_or(0, |found| found.tables.len()))),
        Ok(Some(_)) if publication.is_none() => fine(name, "not there yet: `run` makes it"),
        Ok(Some(repair)) => finding(
            Verdict::Warning,
            name,
            repair.problem,
            "what is not published as a whole never arrives, and column lists and row filters make LiteLLM's own writes \
             fail; `run` mends what it owns, and copies afresh",
            repair.sql,
        ),
        // Another finding says which tables, and what to do.
        Err(Error::ReplicaIdentity { .. }) => return Ok(None),
        Err(error) => failed(name, &error),
    }))
}

/// Whether we can copy each, and LiteLLM can go on writing to it.
pub(super) async fn rights_and_identities(source: &Source, config: &Config) -> Result<Vec<Check>> {
    let mut checks = Vec::new();
    let names: Vec<&str> = TABLES.iter().map(|table| table.source).collect();
    let client = source.client();
    let rows = client.query(sql::DOCTOR_SOURCE_TABLES, &[&config.litellm_schema, &names]).await;
    let mut unreadable: Vec<String> = Vec::new();
    for row in rows.map_err(on(Side::Source, "examine LiteLLM's tables"))? {
        if !row.get::<_, bool>("readable") {
            unreadable.push(row.get("table_name"));
        }
    }
    if !unreadable.is_empty() {
        checks.push(finding(
            Verdict::Problem,
            "SELECT on LiteLLM's tables",
            format!("not on {}", unreadable.join(", ")),
            "existing rows cannot be copied",
            "`litellm-webui-sync setup --print-sql source` prints the grants",
        ));
    }
    for Unfit { table, problem, sql } in unfit(config, &source.tables(config).await?) {
        checks.push(finding(
            Verdict::Problem,
            "replica identity",
            format!("{table} {problem}"),
            "once it is published, LiteLLM's own updates and deletes fail without one; by other columns than the primary key \
             they could not be followed. `run` waits until it is mended",
            format!("on LiteLLM's database: {sql}"),
        ));
    }
    Ok(checks)
}

/// Before a first copy; after it, our books say who lost out.
pub(super) async fn shared_emails(source: &Source, config: &Config, has_slot: bool) -> Result<Option<Check>> {
    if has_slot {
        return Ok(None);
    }
    let table = format!("{}.\"LiteLLM_UserTable\"", quote_ident(&config.litellm_schema));
    let text = sql::fill(sql::DOCTOR_SHARED_EMAILS, ":user_table", &table);
    // Without a right to the table, another finding says so.
    let Ok(row) = source.client().query_one(&text, &[]).await else { return Ok(None) };
    let people: i64 = row.get("people");
    Ok((people > 0).then(|| {
        finding(
            Verdict::Warning,
            "people who share an e-mail",
            format!("{people} LiteLLM users"),
            "only one of those with the same e-mail can have its account: the oldest",
            "`litellm-webui-sync plan` names the others; give each person an e-mail of their own in LiteLLM",
        )
    }))
}
