//! A copy of Open WebUI's tables and of our own, in temporary tables: the projection runs on it as on the real ones.
//!
//! Owns which tables and columns are copied. Reads Open WebUI's tables and our schema; writes temporary tables only.
//! In a session of [`Target::open_temporary`] every statement of the projection means these, because none of them
//! names a schema.

use tokio_postgres::types::ToSql;

use super::Plan;
use crate::config::Config;
use crate::error::{Result, Side};
use crate::postgres::quote_ident;
use crate::sql::{self, fill};
use crate::target::layout::Layout;
use crate::target::schema;
use crate::target::{QUICK, Target, within};

/// Table, column, and what stands for it.
type StandIn = (&'static str, &'static str, &'static str);

/// What is not read, and what stands for it: secrets, pictures, and documents that nothing of ours looks at. Those of a table
/// that only some layouts have stand in the layout.
const STAND_INS: &[StandIn] = &[
    ("user", "profile_image_url", "''"),
    ("user", "profile_banner_image_url", "null"),
    ("user", "settings", "null"),
    ("user", "oauth", "null"),
    ("user", "variables", "null"),
    ("auth", "password", "''"),
    ("auth", "mfa", "null"),
    ("auth", "session_stamp", "null"),
    ("model", "meta", "'{}'"),
    ("model", "params", "'{}'"),
];

/// What a projection reads of our books besides the mirror.
const BOOKS: &[&str] = &[
    "policy",
    "account",
    "group_link",
    "member",
    "dead_letter",
    "skipped",
    "other_model",
    "model_set",
    "effective_access",
    "model_row",
    "access_group",
    "access_member",
    "model_grant",
    "minted_key",
    "budget_closed",
    "chat_spend",
    "chat_window",
];

/// Copies what there is: Open WebUI's rows, and our books if a daemon has run here. Notes how all was before.
pub(super) async fn make(target: &Target, config: &Config, layout: &Layout, plan: &mut Plan) -> Result<()> {
    let tables = layout.tables();
    let action = "look at Open WebUI's tables";
    let parameters: &[&(dyn ToSql + Sync)] = &[&config.webui_schema, &tables];
    let work = target.raw().query(sql::COLUMNS, parameters);
    let columns: Vec<(String, String)> = within(Side::Target, action, QUICK, work)
        .await?
        .iter()
        .map(|row| (row.get("table_name"), row.get("column_name")))
        .collect();
    schema::make_temporary(target).await?;
    let known = schema::books_version(target, config).await?;
    // One point in time. It ends before anything else is done, so that no lock of ours is in Open WebUI's way.
    target.execute("begin to copy", "begin isolation level repeatable read").await?;
    let unread: Vec<StandIn> = STAND_INS.iter().copied().chain(layout.unread()).collect();
    for table in tables {
        let mine: Vec<&str> =
            columns.iter().filter(|(name, _)| name == table).map(|(_, column)| column.as_str()).collect();
        target.execute("copy Open WebUI's rows", &copy(&config.webui_schema, table, &mine, &unread)).await?;
    }
    if known {
        plan.has_run = true;
        for table in BOOKS {
            let text = format!(
                "truncate {table}; insert into {table} select * from {}.{table}; analyze {table}",
                quote_ident(&config.schema)
            );
            target.execute("copy our books", &text).await?;
        }
    }
    target.commit("end copying").await?;
    target.execute("note how it was", sql::PLAN_NOTE_BOOKS).await?;
    note(target, layout, "was").await
}

/// Notes how Open WebUI's tables are now, as `was_…` or `is_…`.
pub(super) async fn note(target: &Target, layout: &Layout, when: &str) -> Result<()> {
    let mut text = sql::PLAN_NOTE.to_owned();
    for (place, with) in [
        (":members_of", layout.group_members.plan),
        (":keys_of", layout.api_keys.plan),
        (":grants_of", layout.model_access.plan),
        (":is_public", layout.model_access.is_public),
    ] {
        text = fill(&text, place, with);
    }
    for table in ["account", "group", "member", "key", "model", "grant"] {
        text = fill(&text, &format!(":note_{table}"), &format!("{when}_{table}"));
    }
    target.execute("note what there is", &text).await
}

/// The statements that make the copy of one table, with its constraints and indexes: what cannot be written there cannot
/// be written here.
fn copy(schema: &str, table: &str, columns: &[&str], unread: &[StandIn]) -> String {
    let stand_in = |column: &str| {
        unread.iter().find(|(of, name, _)| *of == table && *name == column).map(|(_, _, value)| *value)
    };
    let names: Vec<String> = columns.iter().map(|column| quote_ident(column)).collect();
    let values: Vec<String> = columns
        .iter()
        .map(|column| stand_in(column).map_or_else(|| quote_ident(column), str::to_owned))
        .collect();
    let (schema, table) = (quote_ident(schema), quote_ident(table));
    format!(
        "create temporary table {table} (like {schema}.{table} including defaults including constraints including indexes);
         insert into pg_temp.{table} ({}) select {} from {schema}.{table}; analyze pg_temp.{table}",
        names.join(", "),
        values.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_copied() {
        let text = copy("public", "auth", &["id", "password"], STAND_INS);
        assert!(
            text.contains(r#"insert into pg_temp."auth" ("id", "password") select "id", '' from"#),
            "{text}"
        );
    }
}
