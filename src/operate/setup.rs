//! `setup`: both databases prepared, or the SQL with which a DBA prepares them.
//!
//! Makes the publication and our schema. Leaves the slot to `run`, which copies at its snapshot, and a publication that a
//! daemon may be following.

use crate::config::Config;
use crate::error::{Error, Result};
use crate::source::{self, Source};
use crate::target::Target;
use crate::target::layout;
use crate::target::schema;

/// What was done about the publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Publication {
    Fine,
    Created,
    /// Its slot exists: a running or earlier daemon must learn that rows may be missing from its stream.
    Left,
}

/// What was prepared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    pub publication: Publication,
    /// LiteLLM's tables that belong in it.
    pub tables: usize,
}

/// Prepares both databases.
///
/// # Errors
/// When LiteLLM's server cannot stream, or either takes no tables or publications of ours.
pub async fn prepare(config: &Config) -> Result<Prepared> {
    let source = Source::open(config).await?;
    let server = source.server().await?;
    if server.timeline.is_none() {
        return Err(Error::Standby);
    }
    if server.wal_level != "logical" {
        return Err(Error::WalLevel { found: server.wal_level });
    }
    // Both sides are looked at before either is touched.
    let slot = source.slot(&config.slot).await?;
    let target = Target::open(config).await?;
    match layout::find(&target, config).await {
        Ok(_) | Err(Error::NoOpenWebUi { .. }) => {}
        Err(error) => return Err(error),
    }
    let tables = source.tables(config).await?;
    let publication = source.publication(config).await?;
    let publication = match Source::publication_repair(config, publication.as_ref(), &tables)? {
        Some(_) if slot.is_some() => Publication::Left,
        Some(repair) => {
            source.repair_publication(config, &repair).await?;
            Publication::Created
        }
        None => Publication::Fine,
    };
    schema::ensure(&target, config).await?;
    Ok(Prepared { publication, tables: tables.len() })
}

/// What a DBA of LiteLLM's database runs. `role` runs the daemon; by default the URL's user.
pub async fn source_sql(config: &Config, role: Option<&str>) -> Result<String> {
    let source = Source::open(config).await?;
    let tables = source.all_tables(config).await?;
    Ok(source::setup_sql(config, &tables, role.unwrap_or(&config.source.user)))
}

/// What a DBA of Open WebUI's database runs.
pub async fn target_sql(config: &Config, role: Option<&str>) -> Result<String> {
    let target = Target::open(config).await?;
    let layout = layout::find(&target, config).await?;
    Ok(crate::target::setup::setup_sql(config, role.unwrap_or(&config.target.user), &layout))
}
