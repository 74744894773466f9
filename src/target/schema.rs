//! Our own schema in the target: migrations forward, and the views with the mapping rules.
//!
//! Owns table `schema_version`. Nothing it creates refers to an object of Open WebUI, so Open
//! WebUI's own migrations never meet it.

use sha2::{Digest, Sha256};
use tokio_postgres::types::ToSql;

use crate::catalog::TABLES;
use crate::config::Config;
use crate::error::{Error, Result, Side, on};
use crate::postgres::quote_ident;
use crate::sql;
use crate::target::{QUICK, Target, within};

/// Serialises starters. Any constant will do; this one spells "lws".
const LOCK: i64 = 0x006c_7773;

/// What a schema holds.
struct Whose {
    ours: bool,
    is_empty: bool,
    /// What we never made there.
    others: Option<String>,
}

async fn whose(target: &Target, schema: &str) -> Result<Whose> {
    let made = made_here();
    let parameters: [&(dyn ToSql + Sync); 2] = [&schema, &made];
    let work = target.raw().query_one(sql::WHOSE_SCHEMA, &parameters);
    let row = within(Side::Target, "look whose schema it is", QUICK, work).await?;
    Ok(Whose { ours: row.get("ours"), is_empty: !row.get::<_, bool>("any"), others: row.get("others") })
}

/// Views that former releases made and this one does not: ours all the same, until the views are installed anew.
const FORMER: &[&str] = &["access_team"];

/// The tables and views of ours, by name.
fn made_here() -> Vec<String> {
    let texts = sql::MIGRATIONS.iter().chain(sql::VIEWS.iter());
    let made = texts.flat_map(|text| {
        ["create table ", "create or replace view "].into_iter().flat_map(|create| text.split(create).skip(1))
    });
    let name = |text: &str| text.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
    let staging =
        TABLES.iter().filter(|table| table.is_mirrored()).map(|table| format!("stage_{}", table.mirror));
    let others = ["schema_version", "installed_views"].iter().chain(FORMER).map(|&name| name.to_owned());
    made.map(name).chain(staging).chain(others).collect()
}

/// Refuses a schema that is not ours: one without our mark, unless it is empty (a DBA made it for us).
///
/// # Errors
/// [`Error::ForeignSchema`]: nothing is to be made in it.
async fn refuse_foreign(target: &Target, schema: &str) -> Result<()> {
    match whose(target, schema).await? {
        Whose { ours: false, is_empty: false, others } => Err(foreign(schema, others)),
        _ => Ok(()),
    }
}

/// Refuses a schema that must not be dropped: one that is not ours, or holds anything we never made.
///
/// # Errors
/// [`Error::ForeignSchema`].
pub async fn refuse_to_drop(target: &Target, schema: &str) -> Result<()> {
    match whose(target, schema).await? {
        Whose { is_empty: true, .. } | Whose { ours: true, others: None, .. } => Ok(()),
        Whose { others, .. } => Err(foreign(schema, others)),
    }
}

fn foreign(schema: &str, others: Option<String>) -> Error {
    Error::ForeignSchema { schema: schema.to_owned(), found: others.unwrap_or_else(|| "tables".to_owned()) }
}

/// Whether it is what this program needs already, as far as can be seen at once.
pub async fn is_current(target: &Target) -> bool {
    let row = target.client().query_one("select max(version) from schema_version", &[]).await;
    let found = row.ok().and_then(|row| row.try_get::<_, Option<i32>>(0).ok().flatten());
    found == Some(known_version())
}

/// What this program makes of a schema.
fn known_version() -> i32 {
    i32::try_from(sql::MIGRATIONS.len()).unwrap_or(i32::MAX)
}

/// Whether a daemon has run here. Changes nothing.
///
/// # Errors
/// When its books are of another release.
pub async fn books_version(target: &Target, config: &Config) -> Result<bool> {
    let action = "look for our schema";
    let client = target.slow();
    let row = client.query_opt(sql::BOOKS_VERSION, &[&config.schema]).await;
    let Some(row) = row.map_err(on(Side::Target, action))? else { return Ok(false) };
    let text = format!("select coalesce(max(version), 0) from {}", row.get::<_, &str>(0));
    let found: i32 = client.query_one(&text, &[]).await.map_err(on(Side::Target, action))?.get(0);
    let known = known_version();
    if found > known {
        return Err(Error::NewerSchema { found, known });
    }
    if found < known {
        return Err(Error::OlderSchema { found, known });
    }
    Ok(true)
}

/// Brings the schema to what this program needs. Two starters at once do no harm; a schema made by a newer
/// program is refused.
pub async fn ensure(target: &Target, config: &Config) -> Result<()> {
    let client = target.client();
    let known = known_version();
    let action = "look at our schema";
    let exists: bool = client
        .query_one(
            "select exists (select from pg_catalog.pg_namespace where nspname = $1)",
            &[&config.schema],
        )
        .await
        .map_err(on(Side::Target, action))?
        .get(0);
    if !exists {
        // Not "if not exists": that asks for the right to create schemas even where a DBA made it.
        let text = format!("create schema {}", quote_ident(&config.schema));
        match client.batch_execute(&text).await {
            // Somebody was quicker, or just as quick: then the catalog's own index objects.
            Err(error) if error.sqlstate().is_some_and(|code| ["42P06", "23505"].contains(&code)) => {}
            other => other.map_err(on(Side::Target, "create our schema"))?,
        }
    }
    refuse_foreign(target, &config.schema).await?;
    let action = "migrate our schema";
    client
        .batch_execute(&format!("begin; select pg_advisory_xact_lock({LOCK})"))
        .await
        .map_err(on(Side::Target, action))?;
    let result = migrate(target, config, known).await;
    let end = if result.is_ok() { "commit" } else { "rollback" };
    client.batch_execute(end).await.map_err(on(Side::Target, action))?;
    result
}

async fn migrate(target: &Target, config: &Config, known: i32) -> Result<()> {
    let client = target.client();
    let action = "migrate our schema";
    let has_versions: bool = client
        .query_one(
            "select exists (select from pg_catalog.pg_tables where schemaname = $1 and tablename = 'schema_version')",
            &[&config.schema],
        )
        .await
        .map_err(on(Side::Target, action))?
        .get(0);
    if !has_versions {
        let text = "create table schema_version (version integer primary key, installed_at timestamptz not null default now());
                    create table installed_views (one boolean primary key default true check (one), digest text not null)";
        client.batch_execute(text).await.map_err(on(Side::Target, action))?;
    }
    let found: i32 = client
        .query_one("select coalesce(max(version), 0) from schema_version", &[])
        .await
        .map_err(on(Side::Target, action))?
        .get(0);
    if found > known {
        return Err(Error::NewerSchema { found, known });
    }
    for (version, text) in (1..).zip(sql::MIGRATIONS) {
        if version <= found {
            continue;
        }
        // The row first: a concurrent starter that slipped past the lock collides here.
        client
            .execute("insert into schema_version (version) values ($1)", &[&version])
            .await
            .map_err(on(Side::Target, action))?;
        // One that was there before may hold everybody.
        let patient = if found == 0 { client } else { target.slow() };
        patient.batch_execute(text).await.map_err(on(Side::Target, action))?;
    }
    if found < known {
        tracing::info!(from = found, to = known, "migrated our schema");
    }
    install_views(target).await
}

/// Of the texts of the views, as `installed_views` has it: the same views say the same of the same mirror.
pub fn views_digest() -> String {
    Sha256::digest(sql::VIEWS.concat()).iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn install_views(target: &Target) -> Result<()> {
    let client = target.client();
    let action = "install the views";
    let text = sql::VIEWS.concat();
    let digest = views_digest();
    let installed = client
        .query_opt("select 1 from installed_views where digest = $1", &[&digest])
        .await
        .map_err(on(Side::Target, action))?;
    if installed.is_some() {
        return Ok(());
    }
    // A view whose columns change cannot be replaced.
    let drop = format!(
        "drop view if exists budget_person, key_concern, access_key, access_organization, access_person, personal_key,
                             desired_member, team_person, desired_group, desired_account, profile, person, {}",
        FORMER.join(", ")
    );
    client.batch_execute(&drop).await.map_err(on(Side::Target, action))?;
    client.batch_execute(&text).await.map_err(on(Side::Target, action))?;
    client
        .execute(
            "insert into installed_views (digest) values ($1) on conflict (one) do update set digest = excluded.digest",
            &[&digest],
        )
        .await
        .map_err(on(Side::Target, action))?;
    Ok(())
}

/// Makes everything of ours in a session where it is temporary.
pub async fn make_temporary(target: &Target) -> Result<()> {
    for text in sql::MIGRATIONS {
        target.execute("make temporary tables", text).await?;
    }
    target.execute("make temporary views", &sql::VIEWS.concat()).await
}
