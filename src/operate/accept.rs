//! `setup --accept-source`: an operator says that another LiteLLM database is right, or that this one is again.
//!
//! Copies nothing and writes nothing in LiteLLM's database: it puts the identity of what the URL leads to into the
//! checkpoint, with the order to copy. The next `run` does, by the ordinary copy, and the brake holds what it would take
//! away from too many people.

use crate::config::Config;
use crate::error::{Error, Result};
use crate::position::Identity;
use crate::position::Lsn;
use crate::source::Source;
use crate::source::session::Session;
use crate::source::start::ACCEPTED;
use crate::target::Target;
use crate::target::checkpoint;
use crate::target::schema;

/// What was accepted in place of what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    pub identity: Identity,
    /// Whether it is the database that was followed before.
    pub same: bool,
    /// The slot that was followed, if it had another name: it may still keep WAL somewhere.
    pub former_slot: Option<String>,
}

/// Makes the next start copy from the LiteLLM database at hand, whatever was followed before. `None`: nothing was, so the next
/// start copies anyway.
///
/// # Errors
/// When a daemon is at work, on the slot or on Open WebUI's database, or a slot of that name is none of ours.
pub async fn accept(config: &Config) -> Result<Option<Accepted>> {
    let source = Source::open(config).await?;
    let server = source.server().await?;
    if server.wal_level != "logical" {
        return Err(Error::WalLevel { found: server.wal_level });
    }
    let database_oid = server.database_oid;
    source.tables(config).await?;
    if source.slot(&config.slot).await?.is_some_and(|slot| slot.active) {
        return Err(Error::Usage(format!("slot \"{}\" is in use: stop the daemon first", config.slot)));
    }
    let name = "litellm-webui-sync setup";
    let identity = Session::open(config, &source.endpoint, name, Lsn::from(0)).await?.identify().await?;
    let target = Target::open(config).await?;
    if !target.take_lease(&config.schema).await? {
        return Err(Error::Usage(
            "a daemon is at work on this Open WebUI database: stop it first".to_owned(),
        ));
    }
    schema::ensure(&target, config).await?;
    let Some(known) = checkpoint::read(&target).await? else { return Ok(None) };
    let generation = known.generation;
    let same =
        generation.system_identifier == identity.system_identifier && generation.database_oid == database_oid;
    checkpoint::accept(&target, &identity, database_oid, &config.slot, ACCEPTED).await?;
    let former_slot = Some(generation.slot).filter(|slot| *slot != config.slot);
    Ok(Some(Accepted { identity, same, former_slot }))
}
