//! What a DBA has to run in Open WebUI's database where our own role may not: `setup --print-sql target`.
//!
//! Owns the list of rights we need there. Writes a text and runs nothing.

use crate::config::Config;
use crate::postgres::quote_ident;
use crate::target::layout::{ADDED_PRIVILEGES, Layout};

/// The SQL that prepares Open WebUI's database, for a DBA: least privileges for `role`.
pub fn setup_sql(config: &Config, role: &str, layout: &Layout) -> String {
    let webui = quote_ident(&config.webui_schema);
    let role = quote_ident(role);
    let privileges = ADDED_PRIVILEGES.join(", ");
    let added: String = layout
        .added_tables()
        .map(|table| format!("grant {privileges} on {webui}.{table} to {role};\n"))
        .collect();
    let readable: Vec<String> =
        layout.access_control_tables.iter().map(|table| format!("{webui}.{}", quote_ident(table))).collect();
    let readable = if readable.is_empty() {
        String::new()
    } else {
        format!(
            "-- To see whether anything still refers to a group before it is removed:\ngrant select on {} to {role};\n",
            readable.join(", ")
        )
    };
    format!(
        "-- On Open WebUI's database \"{database}\", as a superuser.
-- If the role does not exist yet: create role {role} login password '…';
grant connect, temporary on database {database_ident} to {role};
grant usage on schema {webui} to {role};
grant select, insert, update on {webui}.\"user\", {webui}.auth to {role};
grant select, insert, update, delete on {webui}.\"group\" to {role};
grant select, insert, update on {webui}.model to {role};
{added}{readable}-- To find the prefix_id of Open WebUI's connection to LiteLLM. Its settings hold secrets: leave this out where there is no
-- prefix, or where the policy has models.prefix.
grant select on {webui}.config to {role};
-- Our own schema. Nothing in it refers to Open WebUI's tables.
create schema {schema} authorization {role};
-- `teardown --purge` also deletes accounts and looks for their chats: run it as the owner, or grant
-- delete on \"user\", auth and model, and select (user_id) on chat.
",
        database = config.target.database,
        database_ident = quote_ident(&config.target.database),
        schema = quote_ident(&config.schema),
    )
}
