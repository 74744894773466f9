//! Everybody's spend and limit, as last seen.
//!
//! Owns what is kept per entity: 48 bytes at most, the place in the map included (16 bytes of SHA-256 of LiteLLM's id, no
//! name); nothing of a user or a key that has neither spent nor been limited. Takes rows of a copy and of the stream alike: a value is absolute, so seeing one again changes nothing, and the
//! last one wins. Pure: it has no clock and no connection.

use std::collections::hash_map::Entry;
use std::hash::Hasher as _;

// The keys are hashes already.
use rustc_hash::{FxHashMap as HashMap, FxHashSet as HashSet};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::chats::{self, Chats};
use super::gate::Stored;
use super::rules::{self, Increase, Kind, Micros, Standing};
use crate::catalog::TableId;
use crate::decode::message::TupleValue;
use crate::decode::{Row, RowKey, reduce};
use crate::json;
use crate::postgres::lossy;
use crate::stage::budget::Window as ChatWindow;

/// Whose standing a change may have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Touch {
    Nobody,
    One(Kind, Hash),
    /// From its old key to its new one.
    Moved(Kind, Hash, Hash),
    /// Of a team, from its old key where it had another one, and of everybody in it.
    TeamAndMembers(Option<Hash>, Hash),
    Everybody,
}

/// 16 bytes of the SHA-256 of an id; the parts of a member's are joined by NUL.
pub type Hash = [u8; 16];

/// Never a moment: `None` in one word.
pub(super) const NEVER: Micros = Micros::MIN;
/// No budget row.
const NO_LINK: u32 = 0;
/// Nothing that reads like an e-mail.
pub(super) const NO_EMAIL: u64 = 0;

#[derive(Debug, Clone, Copy)]
pub(super) struct User {
    pub(super) spend: f64,
    /// NaN: none, here and below; LiteLLM reads it so as well.
    pub(super) limit: f64,
    pub(super) reset: Micros,
    /// The beginning of the e-mail's hash; [`NO_EMAIL`]: none.
    pub(super) email: u64,
}

/// A row of LiteLLM_EndUserTable: whoever an application says it asks for.
#[derive(Debug, Clone, Copy)]
struct Customer {
    spend: f64,
    /// Of somebody whose chats count: what was spent before the window they count in.
    before: f64,
    /// As of a [`User`]: of what the customer is called.
    email: u64,
    link: u32,
    blocked: bool,
}

/// One of `budget_limits`: more than one limit at once, each with a window of its own. What was spent in it is a row of
/// LiteLLM_BudgetWindowSpend.
#[derive(Debug, Clone)]
struct Window {
    limit: f64,
    reset: Micros,
    /// When it began at the earliest: what was spent in one that began before is of another.
    from: Micros,
    spent: Hash,
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
    /// Whoever has spent, or is limited; of the others there may be millions.
    customers: HashMap<Hash, Customer>,
    /// By the key's or the team's hash: few have any.
    windows: HashMap<(Kind, Hash), Vec<Window>>,
    /// Since when, and what was spent.
    window_spend: HashMap<Hash, (Micros, f64)>,
    /// Whose chats count for whom, where they do.
    chats: Option<Chats>,
    /// What it has of customers is of the stream's own moment, and not of a later one.
    in_step: bool,
    /// The end of the first to end of the temporary increases that came since this was last asked.
    new_moment: Option<Micros>,
    /// Customers of whom nothing was stored with the checkpoint that the book is ahead of: they had spent nothing by then, unless the stream
    /// tells nothing of them either.
    unstored: HashSet<Hash>,
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
    /// An empty one. `chats`: what people's e-mails spent as customers counts for them.
    pub fn new(chats: bool) -> Self {
        Self { chats: chats.then(Chats::default), ..Self::default() }
    }

    /// Takes in one row. `old`: the key it had before.
    ///
    /// A stream that begins before the copy this book was made of repeats what the copy has. Then a row may move to where
    /// the copy has it already, and what is there knows more than a move can say.
    pub fn row(&mut self, table: TableId, old: Option<&RowKey>, row: &Row<'_>) -> Touch {
        if row.spending().is_empty() {
            return Touch::Nobody;
        }
        let hash = hash(row.key_parts());
        let old = old.map(hash_of_key).filter(|old| *old != hash);
        let touched = |kind| match old {
            Some(old) => Touch::Moved(kind, old, hash),
            None => Touch::One(kind, hash),
        };
        match (table.table().source, row.spending()) {
            ("LiteLLM_UserTable", &[spend, limit, reset, email]) => {
                self.user(hash, old, [spend, limit, reset], email);
                touched(Kind::User)
            }
            ("LiteLLM_VerificationToken", &[spend, limit, duration, reset, budget, metadata, limits]) => {
                self.set_windows(Kind::Key, row.key_parts().next().as_deref(), (old, hash), limits);
                self.key(hash, old, [spend, limit, duration, reset, budget], metadata);
                touched(Kind::Key)
            }
            ("LiteLLM_TeamTable", &[spend, limit, soft, reset, metadata, limits]) => {
                let members_default = self.team(hash, old, [spend, limit, soft, reset], metadata);
                self.set_windows(Kind::Team, row.key_parts().next().as_deref(), (old, hash), limits);
                if members_default { Touch::TeamAndMembers(old, hash) } else { touched(Kind::Team) }
            }
            ("LiteLLM_BudgetTable", &[limit, soft, reset, amount, expiry]) => {
                let is_known = self.numbers.contains_key(&hash);
                let number = self.number(hash);
                let amount = number_of(amount);
                let increase =
                    amount.zip(moment_of(expiry)).map(|(amount, expiry)| Increase { amount, expiry });
                self.comes(increase);
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
                if is_known || old.is_some() { Touch::Everybody } else { Touch::Nobody }
            }
            ("LiteLLM_OrganizationTable", &[spend, budget]) => {
                let link = self.link(budget);
                let new = Organization { spend: 0.0, link: NO_LINK };
                let organization = entry(&mut self.organizations, old, hash, new);
                set_number(&mut organization.spend, spend, 0.0);
                organization.link = link.unwrap_or(organization.link);
                touched(Kind::Organization)
            }
            ("LiteLLM_TeamMembership", &[spend, budget]) => {
                let link = self.link(budget);
                // The second part of its key.
                let team = row.key_parts().nth(1).map_or(0, |team| beginning(&self::hash([team])));
                let member = entry(&mut self.members, old, hash, Member { spend: 0.0, team, link: NO_LINK });
                set_number(&mut member.spend, spend, 0.0);
                member.team = team;
                member.link = link.unwrap_or(member.link);
                touched(Kind::TeamMember)
            }
            ("LiteLLM_EndUserTable", &[spend, budget, blocked]) => {
                self.customer(hash, old, row.key_parts().next().as_deref(), [spend, budget, blocked]);
                touched(Kind::Customer)
            }
            ("LiteLLM_BudgetWindowSpend", &[start, spend]) => {
                let parts: Vec<_> = row.key_parts().collect();
                let [kind, id, duration] = parts.as_slice() else { return Touch::Nobody };
                let spent = window_hash(kind, id, duration);
                let (mut from, mut amount) = self.window_spend.get(&spent).copied().unwrap_or((NEVER, 0.0));
                set_moment(&mut from, start);
                set_number(&mut amount, spend, 0.0);
                self.window_spend.insert(spent, (from, amount));
                whose_window(kind, id)
            }
            _ => Touch::Nobody,
        }
    }

    fn user(
        &mut self,
        hash: Hash,
        old: Option<Hash>,
        [spend, limit, reset]: [TupleValue<'_>; 3],
        email: TupleValue<'_>,
    ) {
        // Nobody else asks.
        let was = self.chats.as_ref().and_then(|_| self.users.get(&old.unwrap_or(hash)).copied());
        let new = User { spend: 0.0, limit: f64::NAN, reset: NEVER, email: NO_EMAIL };
        let mut user = known(&mut self.users, old, hash, new);
        set_number(&mut user.spend, spend, 0.0);
        set_number(&mut user.limit, limit, f64::NAN);
        set_moment(&mut user.reset, reset);
        match email {
            TupleValue::Text(bytes) if self.chats.is_some() => user.email = email_place(&lossy::text(bytes)),
            TupleValue::Unchanged => {}
            TupleValue::Null | TupleValue::Text(_) => user.email = NO_EMAIL,
        }
        if let Some(chats) = &mut self.chats {
            chats.user_changed(old.unwrap_or(hash), hash, was, user);
        }
        keep_or_forget(&mut self.users, hash, user, user.spend != 0.0 || !user.limit.is_nan());
    }

    fn customer(
        &mut self,
        hash: Hash,
        old: Option<Hash>,
        id: Option<&str>,
        [spend, budget, blocked]: [TupleValue<'_>; 3],
    ) {
        let link = self.link(budget);
        let email = id.filter(|_| self.chats.is_some()).map_or(NO_EMAIL, email_place);
        let new = Customer { spend: 0.0, before: 0.0, email, link: NO_LINK, blocked: false };
        let before = self.customers.get(&old.unwrap_or(hash)).copied();
        let was = before.map_or(NO_EMAIL, |customer| customer.email);
        let is_told = self.in_step && !self.unstored.contains(&hash);
        let mut customer = known(&mut self.customers, old, hash, new);
        customer.email = email;
        if self.unstored.remove(&hash) {
            customer.before = 0.0;
        }
        set_number(&mut customer.spend, spend, 0.0);
        customer.link = link.unwrap_or(customer.link);
        match blocked {
            TupleValue::Unchanged => {}
            TupleValue::Null => customer.blocked = false,
            TupleValue::Text(bytes) => customer.blocked = bytes == b"t",
        }
        let is = customer;
        let drop =
            before.filter(|before| before.link != NO_LINK).map_or(0.0, |before| before.spend - is.spend);
        if drop > 0.0 && is_told {
            // LiteLLM resets customers with a budget of their own: what they spent until then still counts for the user.
            customer.before -= drop;
        } else if is.spend < is.before {
            // Of what is less than before, nothing was spent earlier.
            customer.before = is.spend.max(0.0);
        }
        let is_nobody = is.spend == 0.0 && is.link == NO_LINK && !is.blocked;
        if let Some(chats) = &mut self.chats {
            chats.customer_changed(
                (old.unwrap_or(hash), was),
                (hash, if is_nobody { NO_EMAIL } else { email }),
            );
        }
        keep_or_forget(&mut self.customers, hash, customer, !is_nobody);
    }

    /// Takes in `budget_limits` of a key or a team.
    fn set_windows(
        &mut self,
        kind: Kind,
        id: Option<&str>,
        (old, hash): (Option<Hash>, Hash),
        sent: TupleValue<'_>,
    ) {
        let known = old.and_then(|old| self.windows.remove(&(kind, old)));
        match sent {
            TupleValue::Unchanged => {
                if let Some(known) = known {
                    self.windows.entry((kind, hash)).or_insert(known);
                }
            }
            TupleValue::Null => drop(self.windows.remove(&(kind, hash))),
            TupleValue::Text(bytes) => {
                let windows = windows_of(kind, id.unwrap_or_default(), bytes);
                if windows.is_empty() {
                    self.windows.remove(&(kind, hash));
                } else {
                    self.windows.insert((kind, hash), windows);
                }
            }
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
        let mut key = known(&mut self.keys, old, hash, new);
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
                let increase = increase_of(bytes);
                self.comes(increase);
                match increase {
                    Some(increase) => drop(self.increases.insert(hash, increase)),
                    // Nearly always, and nearly always there is none at all.
                    None if self.increases.is_empty() => {}
                    None => drop(self.increases.remove(&hash)),
                }
            }
        }
        let is_limited = !key.limit.is_nan()
            || key.link != NO_LINK
            || self.increases.contains_key(&hash)
            || self.windows.contains_key(&(Kind::Key, hash));
        keep_or_forget(&mut self.keys, hash, key, key.spend != 0.0 || is_limited);
    }

    /// Gives whether another budget row is its members' by now.
    fn team(
        &mut self,
        hash: Hash,
        old: Option<Hash>,
        [spend, limit, soft, reset]: [TupleValue<'_>; 4],
        metadata: TupleValue<'_>,
    ) -> bool {
        let place = beginning(&hash);
        let moved = old.and_then(|old| self.member_defaults.remove(&beginning(&old)));
        if let Some(default) = moved
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
            TupleValue::Unchanged => return moved.is_some(),
            TupleValue::Null => None,
            TupleValue::Text(bytes) => member(bytes, "team_member_budget_id").and_then(|id| json::text(&id)),
        };
        let number = default.map(|id| self.number(self::hash([id])));
        let before = match number {
            Some(number) => self.member_defaults.insert(place, number),
            None => self.member_defaults.remove(&place),
        };
        moved.is_some() || before != number
    }

    /// Takes a row out.
    pub fn delete(&mut self, table: TableId, key: &RowKey) -> Touch {
        let hash = &hash_of_key(key);
        match table.table().source {
            "LiteLLM_UserTable" => {
                let was = self.users.remove(hash);
                if let (Some(chats), Some(was)) = (&mut self.chats, was) {
                    chats.user_gone(*hash, was);
                }
                Touch::One(Kind::User, *hash)
            }
            "LiteLLM_VerificationToken" => {
                self.keys.remove(hash);
                self.increases.remove(hash);
                self.windows.remove(&(Kind::Key, *hash));
                Touch::One(Kind::Key, *hash)
            }
            "LiteLLM_TeamTable" => {
                self.teams.remove(hash);
                self.windows.remove(&(Kind::Team, *hash));
                let had_default = self.member_defaults.remove(&beginning(hash)).is_some();
                if had_default { Touch::Everybody } else { Touch::One(Kind::Team, *hash) }
            }
            "LiteLLM_OrganizationTable" => {
                self.organizations.remove(hash);
                Touch::One(Kind::Organization, *hash)
            }
            "LiteLLM_TeamMembership" => {
                self.members.remove(hash);
                Touch::One(Kind::TeamMember, *hash)
            }
            "LiteLLM_BudgetTable" => {
                self.set_row(*hash, None);
                Touch::Everybody
            }
            "LiteLLM_EndUserTable" => {
                let was = self.customers.remove(hash);
                if let (Some(chats), Some(was)) = (&mut self.chats, was) {
                    chats.customer_changed((*hash, was.email), (*hash, NO_EMAIL));
                }
                Touch::One(Kind::Customer, *hash)
            }
            "LiteLLM_BudgetWindowSpend" => {
                let parts: Vec<&str> = key.parts().collect();
                let [kind, id, duration] = parts.as_slice() else { return Touch::Nobody };
                self.window_spend.remove(&window_hash(kind, id, duration));
                whose_window(kind, id)
            }
            _ => Touch::Nobody,
        }
    }

    /// Takes all rows of a table out.
    pub fn truncate(&mut self, table: TableId) -> Touch {
        match table.table().source {
            "LiteLLM_UserTable" => {
                self.users.clear();
                if let Some(chats) = &mut self.chats {
                    chats.users_gone();
                }
            }
            "LiteLLM_VerificationToken" => {
                self.keys.clear();
                self.increases.clear();
                self.windows.retain(|(kind, _), _| *kind != Kind::Key);
            }
            "LiteLLM_TeamTable" => {
                self.teams.clear();
                self.member_defaults.clear();
                self.windows.retain(|(kind, _), _| *kind != Kind::Team);
            }
            "LiteLLM_OrganizationTable" => self.organizations.clear(),
            "LiteLLM_TeamMembership" => self.members.clear(),
            "LiteLLM_BudgetTable" => self.rows.fill(None),
            "LiteLLM_EndUserTable" => {
                if let Some(chats) = &mut self.chats {
                    for (hash, was) in &self.customers {
                        chats.customer_changed((*hash, was.email), (*hash, NO_EMAIL));
                    }
                }
                self.customers.clear();
            }
            "LiteLLM_BudgetWindowSpend" => self.window_spend.clear(),
            _ => return Touch::Nobody,
        }
        Touch::Everybody
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

    /// Whether anybody has limits in windows of their own.
    pub fn has_windows(&self) -> bool {
        !self.windows.is_empty()
    }

    /// How many entities are known.
    pub fn len(&self) -> usize {
        let people = self.users.len() + self.members.len() + self.customers.len();
        people + self.keys.len() + self.teams.len() + self.organizations.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where everybody of a kind stands at `now`.
    pub fn each(&self, kind: Kind, now: Micros, mut f: impl FnMut(&Hash, Standing)) {
        match kind {
            Kind::User => self.users.iter().for_each(|(hash, user)| f(hash, self.of_user(user))),
            Kind::Key => self.keys.iter().for_each(|(hash, key)| f(hash, self.of_key(hash, key, now))),
            Kind::Team => self.teams.iter().for_each(|(hash, team)| f(hash, self.of_team(hash, team))),
            Kind::Organization => {
                self.organizations.iter().for_each(|(hash, one)| f(hash, self.of_organization(one)));
            }
            Kind::TeamMember => {
                self.members.iter().for_each(|(hash, member)| f(hash, self.of_member(member, now)));
            }
            Kind::Customer => {
                self.customers.iter().for_each(|(hash, customer)| f(hash, self.of_customer(customer)));
            }
        }
    }

    /// Where one stands at `now`. `None`: nobody knows them.
    pub fn standing(&self, kind: Kind, hash: &Hash, now: Micros) -> Option<Standing> {
        match kind {
            Kind::User => self.users.get(hash).map(|user| self.of_user(user)),
            Kind::Key => self.keys.get(hash).map(|key| self.of_key(hash, key, now)),
            Kind::Team => self.teams.get(hash).map(|team| self.of_team(hash, team)),
            Kind::Organization => self.organizations.get(hash).map(|one| self.of_organization(one)),
            Kind::TeamMember => self.members.get(hash).map(|member| self.of_member(member, now)),
            Kind::Customer => self.customers.get(hash).map(|customer| self.of_customer(customer)),
        }
    }

    fn of_user(&self, user: &User) -> Standing {
        let chats = self.chats.as_ref().map_or(0.0, |chats| {
            let counted =
                |hash: &Hash| self.customers.get(hash).map_or(0.0, |one| (one.spend - one.before).max(0.0));
            chats.customers_of(user.email).iter().map(counted).sum()
        });
        standing(Kind::User, user.spend + chats, Some(user.limit), None, user.reset)
    }

    fn of_key(&self, hash: &Hash, key: &ApiKey, now: Micros) -> Standing {
        let budget = self.budget(key.link);
        let increase = Increase::at(self.increases.get(hash).copied(), now);
        // A linked budget row warns and resets; its limit is not enforced.
        let soft = rules::soft(budget.and_then(|budget| budget.soft));
        let reset = match budget {
            Some(budget) if !key.own_window => budget.reset.unwrap_or(NEVER),
            _ => key.reset,
        };
        let own = standing(Kind::Key, key.spend, Some(key.limit + increase), soft, reset);
        self.or_window(own, (Kind::Key, *hash))
    }

    fn of_team(&self, hash: &Hash, team: &Team) -> Standing {
        let own =
            standing(Kind::Team, team.spend, Some(team.limit), rules::limit(Some(team.soft)), team.reset);
        self.or_window(own, (Kind::Team, *hash))
    }

    fn of_organization(&self, organization: &Organization) -> Standing {
        let budget = self.budget(organization.link);
        let soft = rules::soft(budget.and_then(|budget| budget.soft));
        let reset = budget.and_then(|budget| budget.reset).unwrap_or(NEVER);
        standing(Kind::Organization, organization.spend, budget.and_then(|budget| budget.limit), soft, reset)
    }

    fn of_member(&self, member: &Member, now: Micros) -> Standing {
        let own = self.budget(member.link);
        let default = self.member_defaults.get(&member.team).and_then(|link| self.budget(*link));
        let (limit, soft) = member_limit(own, default, now);
        let reset = own.and_then(|budget| budget.reset).unwrap_or(NEVER);
        standing(Kind::TeamMember, member.spend, limit, soft, reset)
    }

    fn of_customer(&self, customer: &Customer) -> Standing {
        let budget = self.budget(customer.link);
        let soft = rules::soft(budget.and_then(|budget| budget.soft));
        let reset = budget.and_then(|budget| budget.reset).unwrap_or(NEVER);
        let limit = budget.and_then(|budget| budget.limit);
        let standing = standing(Kind::Customer, customer.spend, limit, soft, reset);
        Standing { is_blocked: customer.blocked, ..standing }
    }

    /// The window that is used up, where one is and the budget itself is not.
    fn or_window(&self, own: Standing, whose: (Kind, Hash)) -> Standing {
        if self.windows.is_empty() || own.is_exceeded() {
            return own;
        }
        let spent = |window: &Window| {
            let spent = self.window_spend.get(&window.spent).filter(|(start, _)| *start >= window.from);
            spent.map_or(0.0, |(_, spend)| *spend)
        };
        let mut windows = self.windows.get(&whose).into_iter().flatten().map(|window| {
            let of_window = standing(own.kind, spent(window), Some(window.limit), None, window.reset);
            Standing { is_window: true, ..of_window }
        });
        windows.find(Standing::is_exceeded).unwrap_or(own)
    }

    /// When next somebody's standing changes by itself: the end of a temporary increase.
    pub fn next_moment(&self, now: Micros) -> Option<Micros> {
        let of_rows = self.rows.iter().flatten().filter_map(|row| row.increase);
        self.increases
            .values()
            .copied()
            .chain(of_rows)
            .map(|one| one.expiry)
            .filter(|expiry| *expiry > now)
            .min()
    }

    fn comes(&mut self, increase: Option<Increase>) {
        let moment = increase.map(|one| one.expiry);
        self.new_moment = self.new_moment.into_iter().chain(moment).min();
    }

    /// The first moment at which somebody's standing changes by itself because of what came since this was last asked.
    pub fn take_new_moment(&mut self) -> Option<Micros> {
        self.new_moment.take()
    }

    /// Everybody's chats, as they were stored with the checkpoint that the stream begins at. `in_order`: the stream repeats what
    /// came after it; otherwise this book's numbers are of after a gap, and a window that ended in it is over.
    pub fn recall(&mut self, stored: &Stored, in_order: bool, now: Micros) {
        self.unstored.clear();
        self.in_step = in_order && !stored.windows.is_empty();
        if let Some(chats) = &mut self.chats {
            chats.recall(in_order.then_some(stored.windows.as_slice()));
        }
        if in_order && let Some(chats) = &self.chats {
            for user in stored.windows.iter().filter_map(|(user, _)| self.users.get(&hash([user]))) {
                self.unstored.extend(chats.customers_of(user.email));
            }
            for chat in &stored.chats {
                self.unstored.remove(&hash([&chat.customer]));
            }
        }
        for chat in &stored.chats {
            let (hash, email) = (hash([&chat.customer]), email_place(&chat.customer));
            let users: Vec<Hash> =
                self.chats.as_ref().map(|chats| chats.limited(email).to_vec()).unwrap_or_default();
            let ended = !in_order
                && chat.resets_at.is_some_and(|reset| {
                    let moved = |user: &Hash| self.users.get(user).is_some_and(|user| user.reset > reset);
                    reset <= now && users.iter().any(moved)
                });
            let Some(customer) = self.customers.get_mut(&hash) else {
                if in_order {
                    let is = Customer {
                        spend: chat.spend,
                        before: chat.before,
                        email,
                        link: NO_LINK,
                        blocked: false,
                    };
                    self.customers.insert(hash, is);
                    if let Some(chats) = &mut self.chats {
                        chats.customer_changed((hash, NO_EMAIL), (hash, email));
                    }
                }
                continue;
            };
            // What was spent in a gap counts in the window after it.
            customer.before = if ended { chat.spend } else { chat.before };
            if in_order {
                customer.spend = chat.spend;
            }
            if customer.spend < customer.before {
                customer.before = customer.spend.max(0.0);
            }
        }
    }

    /// The transaction that was taken in last was committed at this time. Gives whose chats are to be stored, with the users they
    /// count for.
    pub fn committed(&mut self, at: Micros) -> (Vec<Hash>, Vec<Hash>) {
        let Some(chats) = &mut self.chats else { return Default::default() };
        for email in chats.windows_that_ended(at) {
            for hash in chats.customers_of(email) {
                if let Some(customer) = self.customers.get_mut(hash) {
                    customer.before = customer.spend;
                }
            }
        }
        let (customers, users) = chats.take_touched();
        for hash in &customers {
            // Whoever they count for next counts all of it, as at the first sight: that is how it is stored, too.
            if let Some(customer) = self.customers.get_mut(hash)
                && chats.limited(customer.email).is_empty()
            {
                customer.before = 0.0;
            }
        }
        (customers, users)
    }

    /// The users whose windows are to be stored.
    pub fn take_windows(&mut self) -> Vec<Hash> {
        self.chats.as_mut().map(Chats::take_windows).unwrap_or_default()
    }

    /// What is to be stored of a user's window. `None`: nothing counts for them.
    pub fn window(&self, hash: &Hash) -> Option<ChatWindow> {
        self.chats.as_ref()?;
        self.users.get(hash).filter(|user| chats::is_limited(user)).map(chats::window)
    }

    /// All users whose windows are to be stored.
    pub fn windowed(&self) -> Vec<Hash> {
        self.users.keys().filter(|hash| self.window(hash).is_some()).copied().collect()
    }

    /// The stream is where this is: what users' rows were before is told by nothing else any more.
    pub fn settle(&mut self) {
        if let Some(chats) = &mut self.chats {
            chats.recall(None);
        }
        self.unstored.clear();
        self.in_step = true;
    }

    /// Whether what this user's e-mail spent counts for them.
    pub(super) fn has_chats(&self, user: &Hash) -> bool {
        let email = self.users.get(user).map_or(NO_EMAIL, |user| user.email);
        self.chats.as_ref().is_some_and(|chats| !chats.customers_of(email).is_empty())
    }

    /// What is to be stored of a customer's chats. `None`: they count for nobody.
    pub fn chat(&self, hash: &Hash) -> Option<(f64, f64, Option<Micros>)> {
        let customer = self.customers.get(hash)?;
        let users = self.chats.as_ref()?.limited(customer.email);
        let resets = users.iter().filter_map(|user| self.users.get(user)).map(|user| user.reset).max()?;
        Some((customer.spend, customer.before, (resets != NEVER).then_some(resets)))
    }

    /// So much of what a customer spent was before the window it counts in.
    pub fn count_from(&mut self, customer: &str, spend: f64) {
        if let Some(customer) = self.customers.get_mut(&hash([customer])) {
            customer.before = spend.clamp(0.0, customer.spend.max(0.0));
        }
    }

    /// What a customer spent, by LiteLLM's id.
    pub fn spent(&self, customer: &str) -> Option<f64> {
        Some(self.customers.get(&hash([customer]))?.spend)
    }

    /// Every customer whose chats count for somebody.
    pub fn chatting(&self) -> Vec<Hash> {
        self.customers.keys().filter(|hash| self.chat(hash).is_some()).copied().collect()
    }

    /// Whether somebody's standing follows from other rows than their own, or from the time.
    pub fn is_indirect(&self, kind: Kind, hash: &Hash) -> bool {
        match kind {
            Kind::Organization | Kind::TeamMember => true,
            Kind::Key => self.increases.contains_key(hash) || self.windows.contains_key(&(kind, *hash)),
            Kind::Team => self.windows.contains_key(&(kind, *hash)),
            Kind::User => {
                self.chats.is_some() && self.users.get(hash).is_some_and(|user| !user.limit.is_nan())
            }
            Kind::Customer => {
                self.chats.is_some() && self.customers.get(hash).is_some_and(|one| one.email != NO_EMAIL)
            }
        }
    }
}

fn standing(kind: Kind, spend: f64, limit: Option<f64>, soft: Option<f64>, reset: Micros) -> Standing {
    let (limit, reset) = (rules::limit(limit), (reset != NEVER).then_some(reset));
    Standing { kind, spend, limit, soft, reset, is_window: false, is_blocked: false }
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

/// What is known of a row, which goes with it if it moved; otherwise `new`.
fn known<V: Copy>(map: &mut HashMap<Hash, V>, old: Option<Hash>, hash: Hash, new: V) -> V {
    let moved = moved(map, old, hash);
    map.get(&hash).copied().or(moved).unwrap_or(new)
}

/// Whoever has neither spent nor been limited is nowhere to be seen, and of them there may be millions.
fn keep_or_forget<V>(map: &mut HashMap<Hash, V>, hash: Hash, value: V, is_seen: bool) {
    if is_seen {
        map.insert(hash, value);
    } else {
        map.remove(&hash);
    }
}

/// What leaves its old place, where it is another one.
fn moved<V>(map: &mut HashMap<Hash, V>, old: Option<Hash>, hash: Hash) -> Option<V> {
    old.filter(|old| *old != hash).and_then(|old| map.remove(&old))
}

/// The entry of a row, at its new place if it moved.
fn entry<V: Copy>(map: &mut HashMap<Hash, V>, old: Option<Hash>, hash: Hash, new: V) -> &mut V {
    let moved = moved(map, old, hash);
    map.entry(hash).or_insert(moved.unwrap_or(new))
}

/// Where what somebody spent as a customer is looked for.
fn email_place(text: &str) -> u64 {
    let Some(email) = reduce::email(text) else { return NO_EMAIL };
    let mut hasher = siphasher::sip::SipHasher13::new();
    hasher.write(email.as_bytes());
    hasher.finish().max(NO_EMAIL + 1)
}

/// Whatever case LiteLLM writes the kind in.
fn window_hash(kind: &str, id: &str, duration: &str) -> Hash {
    hash([&kind.to_ascii_lowercase(), id, duration])
}

/// Whom a row of LiteLLM_BudgetWindowSpend is about.
fn whose_window(kind: &str, id: &str) -> Touch {
    match kind.to_ascii_lowercase().as_str() {
        "key" => Touch::One(Kind::Key, hash([id])),
        "team" => Touch::One(Kind::Team, hash([id])),
        _ => Touch::Nobody,
    }
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

/// `budget_limits`. One without a moment of reset has no row of what was spent in it, and is left out.
fn windows_of(kind: Kind, id: &str, sent: &[u8]) -> Vec<Window> {
    let each = std::str::from_utf8(sent).ok().and_then(json::array).unwrap_or_default();
    let window = |one: &RawValue| {
        let fields = json::object(one.get())?;
        let text = |name: &str| fields.get(name).and_then(|value| json::text(value));
        let limit: f64 = serde_json::from_str(fields.get("max_budget")?.get()).ok()?;
        let (duration, reset) = (text("budget_duration")?, rules::moment(&text("reset_at")?)?);
        let from = reset - rules::duration(&duration)?;
        Some(Window { limit, reset, from, spent: window_hash(kind.name(), id, &duration) })
    };
    each.iter().filter_map(|one| window(one)).collect()
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
        for size in [
            size_of::<User>(),
            size_of::<ApiKey>(),
            size_of::<Team>(),
            size_of::<Member>(),
            size_of::<Customer>(),
        ] {
            assert!(size + size_of::<Hash>() <= 48, "{size}");
        }
    }

    #[test]
    fn whoever_has_neither_spent_nor_been_limited_takes_no_room() {
        let mut book = Book::default();
        let mut see = |spend, limit| {
            row(&mut book, USERS, &["u"], &[Some(spend), limit, Some("2030-01-01 00:00:00"), None]);
            book.len()
        };
        assert_eq!([see("0", None), see("0.1", None), see("0", None)], [0, 1, 0]);
        // Nothing is a limit, too.
        assert_eq!([see("0", Some("0")), see("0", None)], [1, 0]);
        // With another id, it is still nobody.
        let values = [TupleValue::Text(b"0"), TupleValue::Null, TupleValue::Null, TupleValue::Null];
        read(&mut book, USERS, Some("u"), &["v"], &values);
        // A key is limited by more than its own number.
        let mut see = |values: [Option<&'static str>; 7]| {
            row(&mut book, KEYS, &["k"], &values);
            book.len()
        };
        let (increase, windows) = (
            r#"{"temp_budget_increase": 5, "temp_budget_expiry": "2999-01-01T00:00:00Z"}"#,
            r#"[{"budget_duration": "1d", "max_budget": 5, "reset_at": "2030-01-01T00:00:00Z"}]"#,
        );
        let nothing = [Some("0"), None, Some("1d"), Some("2030-01-01 00:00:00"), None, Some("{}"), None];
        for (place, value) in [(0, "1"), (1, "0"), (4, "b"), (5, increase), (6, windows)] {
            let mut limited = nothing;
            limited[place] = Some(value);
            assert_eq!([see(limited), see(nothing)], [1, 0], "{place}");
        }
        assert!(book.is_empty());
        assert!(book.users.capacity() < 10 && book.keys.capacity() < 10);
    }

    #[test]
    fn a_stream_that_repeats_what_was_read_ends_where_it_was() {
        let increase = r#"{"temp_budget_increase": 5, "temp_budget_expiry": "2999-01-01T00:00:00Z"}"#;
        let (old, new) = ("a".repeat(64), "b".repeat(64));
        let mut book = Book::default();
        // Read when the key was called `new` already …
        row(&mut book, KEYS, &[&new], &[Some("3"), Some("10"), None, None, None, Some(increase), None]);
        assert_eq!(keys(&book), [(3.0, Some(15.0))]);
        // … and then the stream tells how it came to be, without the metadata, which never changed.
        let text = |text: &'static str| TupleValue::Text(text.as_bytes());
        let null = TupleValue::Null;
        for spend in ["1", "2"] {
            let values = [text(spend), text("10"), null, null, null, TupleValue::Unchanged, null];
            read(&mut book, KEYS, None, &[&old], &values);
        }
        let values = [text("3"), text("10"), null, null, null, TupleValue::Unchanged, null];
        read(&mut book, KEYS, Some(&old), &[&new], &values);
        assert_eq!(keys(&book), [(3.0, Some(15.0))]);
        // Seen for the first time, a move takes along what is not sent.
        read(&mut book, KEYS, Some(&new), &[&old], &values);
        assert_eq!(keys(&book), [(3.0, Some(15.0))]);
        book.delete(TableId::of_source(KEYS).unwrap(), &RowKey::new(&[&old]));
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
                &[Some("x"), Some(""), Some(""), Some("never"), Some("?"), Some(metadata), Some(metadata)],
            );
            row(
                &mut book,
                TEAMS,
                &["t"],
                &[None, Some("1e999"), Some("-0"), None, Some(metadata), Some(metadata)],
            );
        }
        assert_eq!(keys(&book), [(0.0, None)]);
        assert_eq!(book.len(), 2);
    }
}
