//! How to start: stream, copy, or refuse. Pure.
//!
//! Owns the start-up decision table. Every input was read from catalogs on the session that would stream, never
//! from an error text.

use super::SlotState;
use crate::error::{Error, Result};
use crate::position::Identity;
use crate::position::Lsn;
use crate::target::checkpoint::Checkpoint;

/// How to start, from what was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// Stream from the checkpoint.
    Stream,
    /// Copy LiteLLM's rows at a new slot's consistent point, then stream. `drop_slot`: ours is there and of no use.
    /// `healing`: it is for damage that nobody announced, so it counts against the limit. What an upgrade of LiteLLM does to
    /// its tables is no damage.
    Copy { reason: String, drop_slot: bool, healing: bool },
}

/// The reason of a copy that `setup --accept-source` asks for.
pub const ACCEPTED: &str = "this LiteLLM database was accepted in place of what was followed";

/// How the reason of a copy begins that follows from what LiteLLM did to its own tables.
pub const UPGRADED: &str = "LiteLLM's tables or the publication changed";

/// Everything the decision depends on.
#[derive(Debug)]
pub struct Facts<'a> {
    pub checkpoint: Option<&'a Checkpoint>,
    /// A copy of ours was begun and never finished.
    pub unfinished_copy: bool,
    pub slot: Option<&'a SlotState>,
    pub slot_name: &'a str,
    pub identity: &'a Identity,
    pub database_oid: i64,
    /// Where the checkpoint's timeline was left, if the server is on a newer one.
    pub switch_point: Option<Lsn>,
    pub columns_fingerprint: &'a str,
    /// Somebody is changing LiteLLM's tables right now.
    pub upgrading: bool,
}

/// Whether this is the source the checkpoint belongs to, and the slot is ours to take. Looked at before anything is
/// written anywhere: a wrong URL must leave no trace.
pub fn check(facts: &Facts<'_>) -> Result<()> {
    if facts.slot.is_some_and(|slot| slot.active) {
        return Err(Error::SlotHeld { slot: facts.slot_name.to_owned() });
    }
    let Some(checkpoint) = facts.checkpoint else {
        return match facts.slot {
            Some(_) if !facts.unfinished_copy => Err(Error::StraySlot { slot: facts.slot_name.to_owned() }),
            _ => Ok(()),
        };
    };
    let generation = &checkpoint.generation;
    if generation.system_identifier != facts.identity.system_identifier
        || generation.database_oid != facts.database_oid
    {
        return Err(Error::WrongSource {
            found: "this is not the LiteLLM database the checkpoint belongs to (another server or database)"
                .to_owned(),
        });
    }
    if generation.slot != facts.slot_name {
        return Err(Error::WrongSource {
            found: format!("the checkpoint belongs to slot \"{}\"", generation.slot),
        });
    }
    if facts.identity.timeline < generation.timeline {
        return Err(Error::WrongSource {
            found: "the server is on an older timeline than the one we followed".to_owned(),
        });
    }
    Ok(())
}

/// The start-up decision. Pure.
///
/// `confirmed_flush_lsn <= checkpoint` always holds while only we move the slot, because we acknowledge nothing before
/// it is committed. A server asked to stream from before `confirmed_flush_lsn` skips silently to it, so anything else
/// is a gap.
pub fn decide(facts: &Facts<'_>) -> Result<Start> {
    check(facts)?;
    let asked = facts.checkpoint.is_none_or(|known| known.copy_because.as_deref() == Some(ACCEPTED));
    let copy = |reason: &str| {
        let drop_slot = facts.slot.is_some();
        let healing = !asked && !reason.starts_with(UPGRADED);
        Ok(Start::Copy { reason: reason.to_owned(), drop_slot, healing })
    };
    let Some(checkpoint) = facts.checkpoint else {
        return copy(if facts.slot.is_none() { "first run" } else { "the first copy did not finish" });
    };
    if let Some(reason) = &checkpoint.copy_because {
        return copy(reason);
    }
    let generation = &checkpoint.generation;
    if facts.identity.timeline > generation.timeline
        && facts.switch_point.is_none_or(|point| checkpoint.end_lsn > point)
    {
        return copy("LiteLLM's server failed over and lost changes that were applied here");
    }
    let Some(slot) = facts.slot else { return copy("the slot is gone") };
    if let Some(reason) = slot.lost_because() {
        return copy(&format!("the slot was invalidated: {reason}"));
    }
    match slot.confirmed_flush_lsn {
        Some(confirmed) if confirmed > checkpoint.end_lsn => {
            return copy(match facts.unfinished_copy {
                true => "the last copy did not finish",
                false => "the slot is ahead of the checkpoint (was Open WebUI's database restored?)",
            });
        }
        None => return copy("the slot never reached a consistent point"),
        Some(_) => {}
    }
    if checkpoint.end_lsn > facts.identity.wal_end && facts.identity.timeline == generation.timeline {
        return copy("LiteLLM's server is behind the checkpoint (was it restored?)");
    }
    // In the middle of an upgrade the stream goes on with what it knows: what is copied now would have to be copied again, and
    // whoever watches the tables says when they are calm.
    if checkpoint.columns_fingerprint != facts.columns_fingerprint && !facts.upgrading {
        return copy(UPGRADED);
    }
    Ok(Start::Stream)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::checkpoint::Generation;

    fn checkpoint(end: u64) -> Checkpoint {
        Checkpoint {
            generation: Generation {
                id: uuid::Uuid::nil(),
                system_identifier: "1".into(),
                timeline: 1,
                database_oid: 5,
                slot: "s".into(),
                consistent_point: Lsn::from(10),
            },
            end_lsn: Lsn::from(end),
            transactions_applied: 0,
            changes_applied: 0,
            epoch: 1,
            projected_with: String::new(),
            committed_at: None,
            expired_through: None,
            committed_end: None,
            columns_fingerprint: "f".into(),
            copy_because: None,
        }
    }

    fn slot(confirmed: u64) -> SlotState {
        SlotState {
            plugin: Some("pgoutput".into()),
            database: Some("litellm".into()),
            active: false,
            restart_lsn: Some(Lsn::from(1)),
            confirmed_flush_lsn: Some(Lsn::from(confirmed)),
            wal_status: Some("reserved".into()),
            safe_wal_size: None,
            invalidation_reason: None,
            wal_end: Lsn::from(1000),
            retained_bytes: 0,
        }
    }

    fn identity(timeline: i32) -> Identity {
        Identity { system_identifier: "1".into(), timeline, wal_end: Lsn::from(1000) }
    }

    fn facts<'a>(
        checkpoint: Option<&'a Checkpoint>,
        slot: Option<&'a SlotState>,
        identity: &'a Identity,
    ) -> Facts<'a> {
        Facts {
            checkpoint,
            unfinished_copy: false,
            slot,
            slot_name: "s",
            identity,
            database_oid: 5,
            switch_point: None,
            columns_fingerprint: "f",
            upgrading: false,
        }
    }

    fn reason(result: Result<Start>) -> String {
        match result.unwrap() {
            Start::Copy { reason, .. } => reason,
            Start::Stream => "stream".to_owned(),
        }
    }

    #[test]
    fn nothing_there_is_a_first_copy_and_a_stray_slot_is_not_touched() {
        let identity = identity(1);
        assert_eq!(reason(decide(&facts(None, None, &identity))), "first run");
        let stray = slot(5);
        assert!(matches!(decide(&facts(None, Some(&stray), &identity)), Err(Error::StraySlot { .. })));
        let again = Facts { unfinished_copy: true, ..facts(None, Some(&stray), &identity) };
        assert_eq!(
            decide(&again).unwrap(),
            Start::Copy { reason: "the first copy did not finish".into(), drop_slot: true, healing: false }
        );
    }

    #[test]
    fn a_slot_ahead_of_the_checkpoint_is_a_gap_never_a_stream() {
        let (c, identity) = (checkpoint(100), identity(1));
        assert_eq!(decide(&facts(Some(&c), Some(&slot(100)), &identity)).unwrap(), Start::Stream);
        assert_eq!(decide(&facts(Some(&c), Some(&slot(90)), &identity)).unwrap(), Start::Stream);
        assert!(reason(decide(&facts(Some(&c), Some(&slot(101)), &identity))).contains("ahead"));
    }

    #[test]
    fn a_lost_slot_is_seen_in_the_catalog() {
        let (c, identity) = (checkpoint(100), identity(1));
        let mut lost = slot(100);
        lost.wal_status = Some("lost".into());
        assert!(reason(decide(&facts(Some(&c), Some(&lost), &identity))).contains("WAL was removed"));
        assert_eq!(reason(decide(&facts(Some(&c), None, &identity))), "the slot is gone");
    }

    #[test]
    fn another_server_stops_and_a_failover_asks_its_history() {
        let c = checkpoint(100);
        let mut other = identity(1);
        other.system_identifier = "2".into();
        assert!(matches!(decide(&facts(Some(&c), Some(&slot(90)), &other)), Err(Error::WrongSource { .. })));
        let newer = identity(2);
        let kept = Facts { switch_point: Some(Lsn::from(100)), ..facts(Some(&c), None, &newer) };
        assert_eq!(reason(decide(&kept)), "the slot is gone");
        let slot = slot(90);
        let kept = Facts { switch_point: Some(Lsn::from(100)), ..facts(Some(&c), Some(&slot), &newer) };
        assert_eq!(decide(&kept).unwrap(), Start::Stream);
        let lost = Facts { switch_point: Some(Lsn::from(99)), ..facts(Some(&c), Some(&slot), &newer) };
        assert!(reason(decide(&lost)).contains("failed over"));
    }

    #[test]
    fn what_was_written_down_is_not_forgotten_and_only_an_accepted_source_is_no_healing() {
        let identity = identity(1);
        let slot = slot(100);
        for (because, healing) in [("it differs", true), (ACCEPTED, false)] {
            let known = Checkpoint { copy_because: Some(because.into()), ..checkpoint(100) };
            let start = decide(&facts(Some(&known), Some(&slot), &identity)).unwrap();
            assert_eq!(start, Start::Copy { reason: because.into(), drop_slot: true, healing });
        }
    }

    #[test]
    fn changed_tables_are_copied_once_nobody_changes_them_any_more() {
        let (c, identity, slot) = (checkpoint(100), identity(1), slot(100));
        let changed = Facts { columns_fingerprint: "g", ..facts(Some(&c), Some(&slot), &identity) };
        assert_eq!(reason(decide(&changed)), UPGRADED);
        let meanwhile = Facts { upgrading: true, ..changed };
        assert_eq!(decide(&meanwhile).unwrap(), Start::Stream);
        // A gap is none of the upgrade's.
        assert_eq!(reason(decide(&Facts { slot: None, ..meanwhile })), "the slot is gone");
    }

    #[test]
    fn a_held_slot_means_waiting() {
        let (c, identity) = (checkpoint(100), identity(1));
        let mut held = slot(90);
        held.active = true;
        assert!(matches!(decide(&facts(Some(&c), Some(&held), &identity)), Err(Error::SlotHeld { .. })));
    }
}
