//! Everybody's spend and limit, as last seen.
//!
//! Owns what is kept per entity: 48 bytes at most, the place in the map included (16 bytes of SHA-256 of LiteLLM's id, no
//! name); nothing of a user who has neither spent nor been limited. Takes rows of a copy and of the stream alike: a value is absolute, so seeing one again changes nothing, and the
//! last one wins. Pure: it has no clock and no connection.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::rules::{self, Increase, Kind, Micros, Standing};
use crate::catalog::TableId;
use crate::decode::message::TupleValue;
use crate::decode::{Change, Row, RowKey};
use crate::json;
use crate::postgres::lossy;

/// 16 bytes of the SHA-256 of an id; the parts of a member's are joined by NUL.
pub type Hash = [u8; 16];

/// Never a moment: `None` in one word.
const NEVER: Micros = Micros::MIN;
/// No budget row.
const NO_LINK: u32 = 0;

#[derive(Debug, Clone, Copy)]
struct User {
    spend: f64,
    /// NaN: none, here and below; LiteLLM reads it so as well.
    limit: f64,
    reset: Micros,
}

#[derive(Debug, Clone, Copy)]
struct ApiKey {
    spend: f64,
    limit: f64,
    reset: Micros,
    link: u32,
    /// It has a budget_duration, so it resets by itself and not with its budget row.
    own_window: bool,
}

#[derive(Debug, Clone, Copy)]
struct Team {
    spend: f64,
    limit: f64,
    soft: f64,
    reset: Micros,
}

#[derive(Debug, Clone, Copy)]
struct Organization {
    spend: f64,
    link: u32,
}

#[derive(Debug, Clone, Copy)]
struct Member {
    spend: f64,
    /// The beginning of the team's hash.
    team: u64,
    link: u32,
}

/// A row of LiteLLM_BudgetTable. `None` while only its id is known.
#[derive(Debug, Clone, Copy)]
struct BudgetRow {
    limit: Option<f64>,
    soft: Option<f64>,
    reset: Option<Micros>,
    increase: Option<Increase>,
}

#[derive(Debug, Default)]
pub struct Book {
    users: HashMap<Hash, User>,
    keys: HashMap<Hash, ApiKey>,
    teams: HashMap<Hash, Team>,
    organizations: HashMap<Hash, Organization>,
    members: HashMap<Hash, Member>,
    /// Temporary increases are few, so they are beside the keys that have one.
    increases: HashMap<Hash, Increase>,
    /// The budget row of a team's members who have none, by the beginning of the team's hash: few teams have one.
    member_defaults: HashMap<u64, u32>,
    /// Budget rows by number, 1 and up; numbers are never given back, since rows come and go with people.
    rows: Vec<Option<BudgetRow>>,
    numbers: HashMap<Hash, u32>,
}

/// The hash of an id.
pub fn hash(parts: impl IntoIterator<Item = impl AsRef<str>>) -> Hash {
    let mut digest = Sha256::new();
    for (place, part) in parts.into_iter().enumerate() {
        if place > 0 {
            digest.update([0]);
        }
        digest.update(part.as_ref().as_bytes());
    }
    let mut hash = Hash::default();
    hash.iter_mut().zip(digest.finalize()).for_each(|(to, from)| *to = from);
    hash
}

fn hash_of_key(key: &RowKey) -> Hash {
    hash(key.parts())
}

fn beginning(hash: &Hash) -> u64 {
    let mut first = [0; 8];
    first.iter_mut().zip(hash).for_each(|(to, from)| *to = *from);
    u64::from_be_bytes(first)
}

impl Book {
    /// Takes in one change of the stream.
    pub fn change(&mut self, change: &Change<'_>) {
        match change {
            Change::Insert { table, row } => self.row(*table, None, row),
            Change::Update { table, old_key, row } => self.row(*table, old_key.as_ref(), row),
            Change::Delete { table, key } => self.delete(*table, &hash_of_key(key)),
            Change::Truncate { tables, .. } => tables.iter().for_each(|table| self.truncate(*table)),
            Change::Other | Change::Nothing => {}
        }
    }

    /// Takes in one row. `old`: the key it had before.
    ///
    /// A stream that begins before the copy this book was made of repeats what the copy has. Then a row may move to where
    /// the copy has it already, and what is there knows more than a move can say.
    pub fn row(&mut self, table: TableId, old: Option<&RowKey>, row: &Row<'_>) {
        if row.spending().is_empty() {
            return;
        }
        let hash = hash(row.key_parts());
        let old = old.map(hash_of_key);
        match *row.spending() {
            [spend, limit, reset] => {
                let user =
                    entry(&mut self.users, old, hash, User { spend: 0.0, limit: f64::NAN, reset: NEVER });
                set_number(&mut user.spend, spend, 0.0);
                set_number(&mut user.limit, limit, f64::NAN);
                set_moment(&mut user.reset, reset);
                // Whoever has neither spent nor been limited is nowhere to be seen, and of them there may be millions.
                if user.spend == 0.0 && user.limit.is_nan() {
                    self.users.remove(&hash);
                }
            }
            [spend, limit, duration, reset, budget, metadata] => {
                self.key(hash, old, [spend, limit, duration, reset, budget], metadata);
            }
            [first, second, third, fourth, fifth] if table.table().source == "LiteLLM_TeamTable" => {
                self.team(hash, old, [first, second, third, fourth], fifth);
            }
            [limit, soft, reset, amount, expiry] => {
                let number = self.number(hash);
                let amount = number_of(amount);
                let increase =
                    amount.zip(moment_of(expiry)).map(|(amount, expiry)| Increase { amount, expiry });
                let row = BudgetRow {
                    limit: number_of(limit),
                    soft: number_of(soft),
                    reset: moment_of(reset),
                    increase,
                };
                if let Some(old) = old {
                    self.set_row(old, None);
                }
                debug_assert_ne!(number, NO_LINK);
                self.set_row(hash, Some(row));
            }
            [spend, budget] if table.table().source == "LiteLLM_OrganizationTable" => {
                let link = self.link(budget);
                let new = Organization { spend: 0.0, link: NO_LINK };
                let organization = entry(&mut self.organizations, old, hash, new);
                set_number(&mut organization.spend, spend, 0.0);
                organization.link = link.unwrap_or(organization.link);
            }
            [spend, budget] => {
                let link = self.link(budget);
                // The second part of its key.
                let team = row.key_parts().nth(1).map_or(0, |team| beginning(&self::hash([team])));
                let member = entry(&mut self.members, old, hash, Member { spend: 0.0, team, link: NO_LINK });
                set_number(&mut member.spend, spend, 0.0);
                member.team = team;
                member.link = link.unwrap_or(member.link);
            }
            _ => {}
        }
    }

    fn key(
        &mut self,
        hash: Hash,
        old: Option<Hash>,
        [spend, limit, duration, reset, budget]: [TupleValue<'_>; 5],
        metadata: TupleValue<'_>,
    ) {
        let link = self.link(budget);
        if let Some(increase) = old.and_then(|old| self.increases.remove(&old))
            && !self.keys.contains_key(&hash)
        {
            self.increases.insert(hash, increase);
        }
        let new = ApiKey { spend: 0.0, limit: f64::NAN, reset: NEVER, link: NO_LINK, own_window: false };
        let key = entry(&mut self.keys, old, hash, new);
        set_number(&mut key.spend, spend, 0.0);
        set_number(&mut key.limit, limit, f64::NAN);
        set_moment(&mut key.reset, reset);
        key.link = link.unwrap_or(key.link);
        match duration {
            TupleValue::Null => key.own_window = false,
            TupleValue::Text(_) => key.own_window = true,
            TupleValue::Unchanged => {}
        }
        match metadata {
            TupleValue::Unchanged => {}
            TupleValue::Null => drop(self.increases.remove(&hash)),
            TupleValue::Text(bytes) => {
                match increase_of(bytes) {
                    Some(increase) => drop(self.increases.insert(hash, increase)),
                    // Nearly always, and nearly always there is none at all.
                    None if self.increases.is_empty() => {}
                    None => drop(self.increases.remove(&hash)),
                }
            }
        }
    }

    fn team(
        &mut self,
        hash: Hash,
        old: Option<Hash>,
        [spend, limit, soft, reset]: [TupleValue<'_>; 4],
        metadata: TupleValue<'_>,
    ) {
        let place = beginning(&hash);
        if let Some(default) = old.and_then(|old| self.member_defaults.remove(&beginning(&old)))
            && !self.teams.contains_key(&hash)
        {
            self.member_defaults.insert(place, default);
        }
        let new = Team { spend: 0.0, limit: f64::NAN, soft: f64::NAN, reset: NEVER };
        let team = entry(&mut self.teams, old, hash, new);
        set_number(&mut team.spend, spend, 0.0);
        set_number(&mut team.limit, limit, f64::NAN);
        set_number(&mut team.soft, soft, f64::NAN);
        set_moment(&mut team.reset, reset);
        let default = match metadata {
            TupleValue::Unchanged => return,
            TupleValue::Null => None,
            TupleValue::Text(bytes) => member(bytes, "team_member_budget_id").and_then(|id| json::text(&id)),
        };
        match default {
            Some(id) => {
                let number = self.number(self::hash([id]));
                self.member_defaults.insert(place, number);
            }
            None => drop(self.member_defaults.remove(&place)),
        }
    }

    fn delete(&mut self, table: TableId, hash: &Hash) {
        match table.table().source {
            "LiteLLM_UserTable" => drop(self.users.remove(hash)),
            "LiteLLM_VerificationToken" => {
                self.keys.remove(hash);
                self.increases.remove(hash);
            }
            "LiteLLM_TeamTable" => {
                self.teams.remove(hash);
                self.member_defaults.remove(&beginning(hash));
            }
            "LiteLLM_OrganizationTable" => drop(self.organizations.remove(hash)),
            "LiteLLM_TeamMembership" => drop(self.members.remove(hash)),
            "LiteLLM_BudgetTable" => self.set_row(*hash, None),
            _ => {}
        }
    }

    fn truncate(&mut self, table: TableId) {
        match table.table().source {
            "LiteLLM_UserTable" => self.users.clear(),
            "LiteLLM_VerificationToken" => {
                self.keys.clear();
                self.increases.clear();
            }
            "LiteLLM_TeamTable" => {
                self.teams.clear();
                self.member_defaults.clear();
            }
            "LiteLLM_OrganizationTable" => self.organizations.clear(),
            "LiteLLM_TeamMembership" => self.members.clear(),
            "LiteLLM_BudgetTable" => self.rows.fill(None),
            _ => {}
        }
    }

    /// The number of the budget row with this hash: rows of other tables may come before it.
    fn number(&mut self, hash: Hash) -> u32 {
        match self.numbers.entry(hash) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(place) => {
                self.rows.push(None);
                *place.insert(u32::try_from(self.rows.len()).unwrap_or(NO_LINK))
            }
        }
    }

    fn set_row(&mut self, hash: Hash, row: Option<BudgetRow>) {
        if row.is_none() && !self.numbers.contains_key(&hash) {
            return;
        }
        let number = self.number(hash);
        if let Some(place) = (number as usize).checked_sub(1).and_then(|at| self.rows.get_mut(at)) {
            *place = row;
        }
    }

    fn budget(&self, link: u32) -> Option<&BudgetRow> {
        self.rows.get((link as usize).checked_sub(1)?)?.as_ref()
    }

    /// The number a `budget_id` stands for; `None` where it was not sent.
    fn link(&mut self, budget: TupleValue<'_>) -> Option<u32> {
        match budget {
            TupleValue::Unchanged => None,
            TupleValue::Null => Some(NO_LINK),
            TupleValue::Text(bytes) => Some(self.number(hash([lossy::text(bytes)]))),
        }
    }

    /// How many entities are known.
    pub fn len(&self) -> usize {
        self.users.len() + self.keys.len() + self.teams.len() + self.organizations.len() + self.members.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where everybody of a kind stands at `now`.
    pub fn each(&self, kind: Kind, now: Micros, mut f: impl FnMut(&Hash, Standing)) {
        let new = |spend, limit, soft, reset: Micros| Standing {
            kind,
            spend,
            limit: rules::limit(limit),
            soft,
            reset: (reset != NEVER).then_some(reset),
        };
        match kind {
            Kind::User => {
                for (hash, user) in &self.users {
                    f(hash, new(user.spend, Some(user.limit), None, user.reset));
                }
            }
            Kind::Key => {
                for (hash, key) in &self.keys {
                    let budget = self.budget(key.link);
                    let increase = Increase::at(self.increases.get(hash).copied(), now);
                    // A linked budget row warns and resets; its limit is not enforced.
                    let soft = rules::soft(budget.and_then(|budget| budget.soft));
                    let reset = match budget {
                        Some(budget) if !key.own_window => budget.reset.unwrap_or(NEVER),
                        _ => key.reset,
                    };
                    f(hash, new(key.spend, Some(key.limit + increase), soft, reset));
                }
            }
            Kind::Team => {
                for (hash, team) in &self.teams {
                    f(hash, new(team.spend, Some(team.limit), rules::limit(Some(team.soft)), team.reset));
                }
            }
            Kind::Organization => {
                for (hash, organization) in &self.organizations {
                    let budget = self.budget(organization.link);
                    let soft = rules::soft(budget.and_then(|budget| budget.soft));
                    let reset = budget.and_then(|budget| budget.reset).unwrap_or(NEVER);
                    f(hash, new(organization.spend, budget.and_then(|budget| budget.limit), soft, reset));
                }
            }
            Kind::TeamMember => {
                for (hash, member) in &self.members {
                    let own = self.budget(member.link);
                    let default = self.member_defaults.get(&member.team).and_then(|link| self.budget(*link));
                    let (limit, soft) = member_limit(own, default, now);
                    let reset = own.and_then(|budget| budget.reset).unwrap_or(NEVER);
                    f(hash, new(member.spend, limit, soft, reset));
                }
            }
        }
    }
}

/// A member's own limit, or else the team's for its members, of which 0 is none. A temporary increase of the member's own
/// row counts in both cases.
fn member_limit(
    own: Option<&BudgetRow>,
    default: Option<&BudgetRow>,
    now: Micros,
) -> (Option<f64>, Option<f64>) {
    let increase = Increase::at(own.and_then(|own| own.increase), now);
    if let Some(own) = own
        && let Some(limit) = own.limit
    {
        return (Some(limit + increase), rules::soft(own.soft));
    }
    let limit = default.and_then(|default| default.limit).filter(|limit| *limit > 0.0 || limit.is_nan());
    let soft = own.and_then(|own| own.soft).or(default.and_then(|default| default.soft));
    (limit.map(|limit| limit + increase), rules::soft(soft))
}

/// The entry of a row, at its new place if it moved.
fn entry<V: Copy>(map: &mut HashMap<Hash, V>, old: Option<Hash>, hash: Hash, new: V) -> &mut V {
    let moved = old.filter(|old| *old != hash).and_then(|old| map.remove(&old));
    map.entry(hash).or_insert(moved.unwrap_or(new))
}

fn number_of(value: TupleValue<'_>) -> Option<f64> {
    match value {
        TupleValue::Text(bytes) => std::str::from_utf8(bytes).ok()?.parse().ok(),
        TupleValue::Null | TupleValue::Unchanged => None,
    }
}

fn moment_of(value: TupleValue<'_>) -> Option<Micros> {
    match value {
        TupleValue::Text(bytes) => rules::moment(std::str::from_utf8(bytes).ok()?),
        TupleValue::Null | TupleValue::Unchanged => None,
    }
}

fn set_number(to: &mut f64, value: TupleValue<'_>, nothing: f64) {
    if value != TupleValue::Unchanged {
        *to = number_of(value).unwrap_or(nothing);
    }
}

fn set_moment(to: &mut Micros, value: TupleValue<'_>) {
    if value != TupleValue::Unchanged {
        *to = moment_of(value).unwrap_or(NEVER);
    }
}

/// One member of a metadata object. Most have none of that name, and are not taken apart.
fn member(metadata: &[u8], name: &str) -> Option<Box<RawValue>> {
    let metadata = std::str::from_utf8(metadata).ok()?;
    if metadata.contains(name) { json::object(metadata)?.remove(name) } else { None }
}

fn increase_of(metadata: &[u8]) -> Option<Increase> {
    let expiry = rules::moment(&json::text(&member(metadata, "temp_budget_expiry")?)?)?;
    let amount = serde_json::from_str(member(metadata, "temp_budget_increase")?.get()).ok()?;
    Some(Increase { amount, expiry })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::decode;

    pub(in super::super) const USERS: &str = "LiteLLM_UserTable";
    pub(in super::super) const TEAMS: &str = "LiteLLM_TeamTable";
    const KEYS: &str = "LiteLLM_VerificationToken";

    fn read(book: &mut Book, table: &str, old: Option<&str>, key: &[&str], spending: &[TupleValue<'_>]) {
        let id = TableId::of_source(table).unwrap();
        let mut raw = vec![TupleValue::Null; id.table().columns.len()];
        for (to, part) in raw.iter_mut().zip(key) {
            *to = TupleValue::Text(part.as_bytes());
        }
        raw.extend(spending);
        assert_eq!(spending.len(), id.table().spending.len(), "{table}");
        let old = old.map(|old| RowKey::new(&[old]));
        book.row(id, old.as_ref(), &decode::copied_row(id, raw));
    }

    pub(in super::super) fn row(book: &mut Book, table: &str, key: &[&str], spending: &[Option<&str>]) {
        let spending: Vec<_> = spending
            .iter()
            .map(|value| value.map_or(TupleValue::Null, |text| TupleValue::Text(text.as_bytes())))
            .collect();
        read(book, table, None, key, &spending);
    }

    /// Limits of keys by spend, which tells them apart.
    fn keys(book: &Book) -> Vec<(f64, Option<f64>)> {
        let mut found = Vec::new();
        book.each(Kind::Key, 0, |_, standing| found.push((standing.spend, standing.limit)));
        found.sort_by(|a, b| a.0.total_cmp(&b.0));
        found
    }

    #[test]
    fn an_entity_takes_48_bytes_at_most() {
        // One byte of a full table's eighth for each place.
        for size in [size_of::<User>(), size_of::<ApiKey>(), size_of::<Team>(), size_of::<Member>()] {
            assert!(size + size_of::<Hash>() <= 48, "{size}");
        }
    }

    #[test]
    fn whoever_has_neither_spent_nor_been_limited_takes_no_room() {
        let mut book = Book::default();
        let mut see = |spend, limit| {
            row(&mut book, USERS, &["u"], &[Some(spend), limit, Some("2030-01-01 00:00:00")]);
            book.len()
        };
        assert_eq!([see("0", None), see("0.1", None), see("0", None)], [0, 1, 0]);
        // Nothing is a limit, too.
        assert_eq!([see("0", Some("0")), see("0", None)], [1, 0]);
        // With another id, it is still nobody.
        let values = [TupleValue::Text(b"0"), TupleValue::Null, TupleValue::Null];
        read(&mut book, USERS, Some("u"), &["v"], &values);
        assert!(book.is_empty());
        assert!(book.users.capacity() < 10);
    }

    #[test]
    fn a_stream_that_repeats_what_was_read_ends_where_it_was() {
        let increase = r#"{"temp_budget_increase": 5, "temp_budget_expiry": "2999-01-01T00:00:00Z"}"#;
        let (old, new) = ("a".repeat(64), "b".repeat(64));
        let mut book = Book::default();
        // Read when the key was called `new` already …
        row(&mut book, KEYS, &[&new], &[Some("3"), Some("10"), None, None, None, Some(increase)]);
        assert_eq!(keys(&book), [(3.0, Some(15.0))]);
        // … and then the stream tells how it came to be, without the metadata, which never changed.
        let text = |text: &'static str| TupleValue::Text(text.as_bytes());
        let null = TupleValue::Null;
        for spend in ["1", "2"] {
            let values = [text(spend), text("10"), null, null, null, TupleValue::Unchanged];
            read(&mut book, KEYS, None, &[&old], &values);
        }
        let values = [text("3"), text("10"), null, null, null, TupleValue::Unchanged];
        read(&mut book, KEYS, Some(&old), &[&new], &values);
        assert_eq!(keys(&book), [(3.0, Some(15.0))]);
        // Seen for the first time, a move takes along what is not sent.
        read(&mut book, KEYS, Some(&new), &[&old], &values);
        assert_eq!(keys(&book), [(3.0, Some(15.0))]);
        book.delete(TableId::of_source(KEYS).unwrap(), &hash([&old]));
        assert!(book.is_empty() && book.increases.is_empty());
    }

    #[test]
    fn nonsense_is_no_limit_and_no_panic() {
        let mut book = Book::default();
        for metadata in [
            "",
            "{",
            "null",
            "7",
            "[]",
            r#""{""#,
            r#"{"temp_budget_expiry": 7, "temp_budget_increase": "x"}"#,
        ] {
            row(
                &mut book,
                KEYS,
                &["plain"],
                &[Some("x"), Some(""), Some(""), Some("never"), Some("?"), Some(metadata)],
            );
            row(&mut book, TEAMS, &["t"], &[None, Some("1e999"), Some("-0"), None, Some(metadata)]);
        }
        assert_eq!(keys(&book), [(0.0, None)]);
        assert_eq!(book.len(), 2);
    }
}
