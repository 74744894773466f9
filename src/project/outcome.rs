//! What a projection did, counted.

use std::collections::BTreeSet;

use super::run::AccountCounts;
use super::{api_keys, models};
use crate::target::brake::Losing;

/// What a projection did.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub accounts_created: i64,
    pub accounts_updated: i64,
    pub accounts_linked: i64,
    pub groups_written: i64,
    pub groups_removed: i64,
    pub members_added: i64,
    pub members_removed: i64,
    pub conflicts: i64,
    /// Active people this locks out; the caller holds them against the brake, together with the stripped.
    pub departing: i64,
    /// Active people left without any group of ours, without any model, or without the API key we gave them (not because of
    /// the time): hashes of their Open WebUI ids, because the same people often lose all of it and count once.
    pub stripped: BTreeSet<i64>,
    /// Of those who lose their last model, whoever a used-up budget takes some from: not counted together with the others.
    pub closed: BTreeSet<i64>,
    pub keys_minted: i64,
    pub keys_deleted: i64,
    /// Entities that became dead letters because a write failed.
    pub failed: i64,
    /// Changes that were not applied because they would take the last admin away.
    pub kept_admins: i64,
    /// What became of people's models.
    pub access: models::Changes,
}

impl Outcome {
    /// What the brake counts.
    pub fn losing(&self) -> Losing {
        let count = |people: &BTreeSet<i64>| i64::try_from(people.len()).unwrap_or(i64::MAX);
        Losing { departing: self.departing, stripped: count(&self.stripped), closed: count(&self.closed) }
    }

    pub(super) fn count_accounts(&mut self, counts: &AccountCounts) {
        self.accounts_created = counts.created;
        self.conflicts = counts.conflicts;
        self.departing = counts.departing;
    }

    pub(super) fn count_keys(&mut self, counts: api_keys::Counts) {
        self.keys_minted += counts.minted;
        self.keys_deleted += counts.deleted;
        self.stripped.extend(counts.unkeyed);
    }

    pub(super) fn count_access(&mut self, (changes, stripped): (models::Changes, models::Stripped)) {
        self.access.add(changes);
        self.stripped.extend(stripped.people);
        self.closed.extend(stripped.by_budget);
    }

    pub(super) fn add(&mut self, other: Self) {
        self.accounts_created += other.accounts_created;
        self.accounts_updated += other.accounts_updated;
        self.accounts_linked += other.accounts_linked;
        self.groups_written += other.groups_written;
        self.groups_removed += other.groups_removed;
        self.members_added += other.members_added;
        self.members_removed += other.members_removed;
        self.conflicts += other.conflicts;
        self.departing += other.departing;
        self.stripped.extend(other.stripped);
        self.closed.extend(other.closed);
        self.keys_minted += other.keys_minted;
        self.keys_deleted += other.keys_deleted;
        self.failed += other.failed;
        self.kept_admins += other.kept_admins;
        self.access.add(other.access);
    }
}
