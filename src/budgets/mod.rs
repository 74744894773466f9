//! Who is close to their budget, and whose is used up: spend, limit and reset of users, keys, teams, organizations, team members and
//! customers.
//!
//! Owns a copy in memory of what LiteLLM's rows say ([`book`]), LiteLLM's rules about it ([`rules`]), whose chats count for whom, who is
//! closed, and the ranking that metrics, status and `budgets` show. Writes to no database: what a batch has to say of it is handed to
//! [`crate::stage`] as [`Moves`], and a change of spend that crosses no limit and is nobody's chats says nothing. [`load`] reads it from
//! LiteLLM's tables; every row of the stream moves it before [`crate::stage`] may drop the row. LiteLLM itself decides on counters that are
//! ahead of its rows by up to a flush, some 15 s.

pub mod book;
mod chats;
mod gate;
pub mod load;
pub mod rules;

use std::cmp::Ordering as Order;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::catalog::TableId;
use crate::config::policy;
use crate::decode::{Change, Row, RowKey, reduce};
use crate::position::Lsn;
use crate::stage::budget::Moves;
use crate::target::checkpoint::Checkpoint;
use book::{Book, Hash};
pub use chats::Chat;
use gate::Gate;
pub use gate::{Stored, StoredClosed};
use load::Loaded;
use rules::{Kind, Micros, Standing, State};

/// A ranking is shown again for this long: whoever asks every millisecond gets it at that price.
const FRESH: Duration = Duration::from_secs(1);
/// The longest label.
const LABEL_MAX_CHARS: usize = 100;

/// One entity of a ranking.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ranked {
    pub hash: Hash,
    pub standing: Standing,
}

/// One kind of a ranking.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct OfKind {
    /// The fullest, then those that reached their soft budget, by how full they are.
    pub shown: Vec<Ranked>,
    /// How many reached their soft budget and are not shown: there are too many of them.
    pub hidden: u64,
    /// By state, over all that have spent or have a limit; each state has its number.
    pub states: BTreeMap<State, u64>,
    /// Over all that have a number to add.
    pub spend: f64,
    pub limit: f64,
}

/// Where everybody stands at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Ranking {
    pub kinds: BTreeMap<Kind, OfKind>,
}

/// Ranks everybody at `now`: the `top` fullest of each kind, and of the others at most `soft` that reached their soft budget.
pub fn rank(book: &Book, now: Micros, top: usize, soft: usize) -> Ranking {
    let of_kind = |kind: Kind| {
        let mut found = OfKind { states: State::ALL.map(|state| (state, 0)).into(), ..OfKind::default() };
        let mut fullest: Vec<Ranked> = Vec::with_capacity(top * 2 + 1);
        let mut over_soft: Vec<Ranked> = Vec::with_capacity((top + soft) * 2 + 1);
        let mut reached = 0_u64;
        book.each(kind, now, |hash, standing| {
            // Who has neither spent nor been limited has nothing to show.
            let has_any = standing.limit.is_some() || standing.spend != 0.0;
            if !has_any && !standing.is_over_soft() {
                return;
            }
            *found.states.entry(standing.state()).or_default() += 1;
            found.spend += rules::limit(Some(standing.spend)).unwrap_or_default();
            found.limit += standing.limit.unwrap_or_default();
            let one = Ranked { hash: *hash, standing };
            if has_any {
                keep(&mut fullest, one, top);
            }
            if standing.is_over_soft() {
                reached += 1;
                keep(&mut over_soft, one, top + soft);
            }
        });
        cut(&mut fullest, top);
        let known: HashSet<Hash> = fullest.iter().map(|one| one.hash).collect();
        let among = fullest.iter().filter(|one| one.standing.is_over_soft()).count() as u64;
        cut(&mut over_soft, top + soft);
        over_soft.retain(|one| !known.contains(&one.hash));
        over_soft.truncate(soft);
        found.hidden = reached - among - over_soft.len() as u64;
        found.shown = fullest;
        found.shown.append(&mut over_soft);
        (kind, found)
    };
    Ranking { kinds: Kind::ALL.map(of_kind).into() }
}

/// Keeps a candidate for the first `most`, in room for twice as many.
fn keep(candidates: &mut Vec<Ranked>, one: Ranked, most: usize) {
    candidates.push(one);
    if candidates.len() > most * 2 {
        cut(candidates, most);
    }
}

fn cut(candidates: &mut Vec<Ranked>, most: usize) {
    candidates.sort_unstable_by(by_fullness);
    candidates.truncate(most);
}

/// The fullest first; without a limit, those who spent most; the hash makes it the same order every time.
fn by_fullness(a: &Ranked, b: &Ranked) -> Order {
    // Not a number comes last.
    let number = |value: f64| if value.is_nan() { f64::NEG_INFINITY } else { value };
    let used = |one: &Ranked| number(one.standing.utilization().unwrap_or(f64::NAN));
    let spent = |one: &Ranked| number(one.standing.spend);
    used(b).total_cmp(&used(a)).then_with(|| spent(b).total_cmp(&spent(a))).then_with(|| a.hash.cmp(&b.hash))
}

/// Who an entity is, read for those that are shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Name {
    /// LiteLLM's id; of a member the user's, then the team's. Empty for a key: its token is never shown.
    pub id: Vec<String>,
    /// What finds it in LiteLLM's table.
    found_by: Vec<String>,
    /// In the same order.
    pub alias: Vec<Option<String>>,
    pub email: Option<String>,
}

impl Name {
    /// `id` and `alias` as they are shown; of a member `team/user`. Unless `emails`, whatever looks like an e-mail is
    /// replaced by a hash, or left out of the alias.
    pub fn labels(&self, hash: &Hash, emails: bool) -> (String, String) {
        let shown = |text: &str| emails || !text.contains('@');
        let id: Vec<String> = self
            .id
            .iter()
            .rev()
            .map(|id| if shown(id) { id.clone() } else { short(&book::hash([id])) })
            .collect();
        let id = if id.is_empty() { short(hash) } else { id.join("/") };
        let id = if id.chars().count() > LABEL_MAX_CHARS {
            format!("{}…{}", cut_text(&id, LABEL_MAX_CHARS - 13), short(hash))
        } else {
            id
        };
        let mut alias: Vec<String> = self
            .alias
            .iter()
            .map(|alias| alias.clone().filter(|alias| shown(alias)).unwrap_or_default())
            .collect();
        // The first is the user's, where there is a user.
        if let (Some(user), true) = (alias.first_mut().filter(|user| user.is_empty()), emails) {
            *user = self.email.as_deref().and_then(reduce::email).unwrap_or_default();
        }
        alias.retain(|alias| !alias.is_empty());
        alias.reverse();
        (id, cut_text(&alias.join("/"), LABEL_MAX_CHARS))
    }
}

fn cut_text(text: &str, chars: usize) -> String {
    text.chars().take(chars).collect()
}

/// The first 12 hex digits: how a key is called.
pub fn short(hash: &Hash) -> String {
    hash.iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

/// An entity as it is shown.
#[derive(Debug, Clone, PartialEq)]
pub struct Shown {
    pub id: String,
    pub alias: String,
    pub standing: Standing,
}

#[derive(Debug, Default)]
struct Inside {
    book: Book,
    /// Where used-up budgets close paths, or chats are counted.
    gate: Option<Gate>,
    /// The generation and timeline the book is of. `None`: nothing was loaded yet.
    source: Option<(uuid::Uuid, i32)>,
    /// Everything up to here was seen.
    through: u64,
    /// So was the beginning of a transaction after that.
    in_transaction: bool,
    ranking: Option<(Instant, Arc<Ranking>)>,
    names: HashMap<(Kind, Hash), Name>,
}

/// The budgets of a running daemon: moved by the stream, read by the pages.
#[derive(Debug)]
pub struct Budgets {
    settings: policy::Budgets,
    inside: Mutex<Inside>,
}

impl Budgets {
    pub fn new(settings: policy::Budgets) -> Self {
        Self { settings, inside: Mutex::default() }
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        // A panic in a holder leaves numbers behind that are at most a flush old.
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a stream from this checkpoint continues what is here without a gap. What it repeats does no harm. On another
    /// timeline, what was seen of the last one may never have been.
    pub fn continues(&self, checkpoint: &Checkpoint, timeline: i32) -> bool {
        let inside = self.inside();
        inside.source == Some((checkpoint.generation.id, timeline))
            // Half of a transaction is nothing that ever was.
            && !inside.in_transaction
            && u64::from(checkpoint.end_lsn) <= inside.through
    }

    /// Begins anew with what was read, after everything up to `checkpoint` was committed and before anything after `ahead` was.
    pub fn begin(&self, loaded: Loaded, checkpoint: &Checkpoint, timeline: i32, ahead: Lsn) {
        let mut inside = self.inside();
        inside.book = loaded.book;
        inside.gate = loaded.gate;
        inside.source = Some((checkpoint.generation.id, timeline));
        inside.through = u64::from(checkpoint.end_lsn).max(ahead.into());
        inside.in_transaction = false;
        inside.ranking = None;
    }

    /// Continues from what is stored with the checkpoint. `in_order`: the stream brings all that came after it; otherwise a copy was made
    /// in between. Gives what is to be said before anything of the stream: it may already know more than the checkpoint.
    pub fn resume(&self, stored: &Stored, in_order: bool) -> Moves {
        let mut inside = self.inside();
        let Inside { book, gate, through, .. } = &mut *inside;
        let Some(gate) = gate else { return gate::nothing_counts(stored) };
        Moves { crossings: gate.resume(book, stored, *through, in_order, now()), ..Moves::default() }
    }

    /// What the target was found to have stored is not what was last said: it is said again.
    pub fn correct(&self, stored: &Stored) {
        if let Some(gate) = &mut self.inside().gate {
            gate.correct(stored);
        }
    }

    /// What is here has a gap, and nothing could be read: better none than a wrong one.
    pub fn forget(&self) {
        *self.inside() = Inside::default();
    }

    /// One change of the stream.
    pub fn change(&self, change: &Change<'_>) {
        if matches!(change, Change::Other | Change::Nothing) {
            return;
        }
        let mut inside = self.inside();
        inside.in_transaction = true;
        let Inside { book, gate, .. } = &mut *inside;
        match change {
            Change::Insert { table, row } => take(book, gate.as_mut(), (*table, None, row)),
            Change::Update { table, old_key, row } => {
                take(book, gate.as_mut(), (*table, old_key.as_ref(), row));
            }
            Change::Delete { table, key } => {
                let touch = book.delete(*table, key);
                if let Some(gate) = gate {
                    gate.note(book, touch, || None);
                }
            }
            Change::Truncate { tables, .. } => {
                for table in tables {
                    let touch = book.truncate(*table);
                    if let Some(gate) = gate {
                        gate.note(book, touch, || None);
                    }
                }
            }
            Change::Other | Change::Nothing => {}
        }
    }

    /// A transaction of the stream ended here. Gives what follows.
    pub fn committed(&self, lsn: Lsn, at: SystemTime) -> Moves {
        let mut inside = self.inside();
        inside.in_transaction = false;
        if let Inside { book, gate: Some(gate), .. } = &mut *inside {
            gate.committed(book, micros(at));
        }
        drop(inside);
        self.passed(lsn)
    }

    /// Everything of the stream up to here was seen, and no transaction is open. Gives what follows.
    pub fn passed(&self, lsn: Lsn) -> Moves {
        let mut inside = self.inside();
        inside.through = inside.through.max(lsn.into());
        let Inside { book, gate: Some(gate), .. } = &mut *inside else { return Moves::default() };
        gate.say(book, lsn.into(), now())
    }

    /// Whether what is said of the positions that were passed is all that there is to say of them: not while the book is ahead of the stream.
    pub fn is_settled(&self) -> bool {
        self.inside().gate.as_ref().is_none_or(Gate::is_settled)
    }

    /// Where everybody stands, at most a second ago. `None` while nothing is known.
    pub fn ranking(&self) -> Option<Arc<Ranking>> {
        let mut inside = self.inside();
        inside.source?;
        if let Some((at, ranking)) = &inside.ranking
            && at.elapsed() < FRESH
        {
            return Some(Arc::clone(ranking));
        }
        let policy::Budgets { top, soft, .. } = self.settings;
        let ranking = Arc::new(rank(&inside.book, now(), top, soft));
        inside.ranking = Some((Instant::now(), Arc::clone(&ranking)));
        Some(ranking)
    }

    /// The shown ones of a kind, by their names. Keys are shown at once, others once they were looked up.
    pub fn shown(&self, ranking: &Ranking, kind: Kind) -> Vec<Shown> {
        let inside = self.inside();
        let Some(of_kind) = ranking.kinds.get(&kind) else { return Vec::new() };
        let nameless = Name::default();
        let shown = of_kind.shown.iter().filter_map(|one| {
            let known = inside.names.get(&(kind, one.hash));
            let name = known.or((kind == Kind::Key).then_some(&nameless))?;
            let (id, alias) = name.labels(&one.hash, self.settings.emails);
            Some(Shown { id, alias, standing: one.standing })
        });
        shown.collect()
    }

    /// Whose name is to be looked up, by kind.
    fn nameless(&self, ranking: &Ranking) -> Vec<(Kind, Hash)> {
        let inside = self.inside();
        everybody(ranking).filter(|one| !inside.names.contains_key(one)).collect()
    }

    /// Who is called what, for looking it up again, and only those still shown.
    fn named(&self, ranking: &Ranking) -> HashMap<(Kind, Hash), Name> {
        let mut inside = self.inside();
        let shown: HashSet<(Kind, Hash)> = everybody(ranking).collect();
        inside.names.retain(|one, _| shown.contains(one));
        inside.names.clone()
    }

    fn name(&self, names: HashMap<(Kind, Hash), Name>) {
        self.inside().names.extend(names);
    }
}

fn everybody(ranking: &Ranking) -> impl Iterator<Item = (Kind, Hash)> {
    ranking.kinds.iter().flat_map(|(kind, of_kind)| of_kind.shown.iter().map(|one| (*kind, one.hash)))
}

/// Takes one row in.
pub(in crate::budgets) fn take(
    book: &mut Book,
    gate: Option<&mut Gate>,
    (table, old, row): (TableId, Option<&RowKey>, &Row<'_>),
) {
    let touch = book.row(table, old, row);
    let Some(gate) = gate else { return };
    // A window's row is about a key or a team, and has neither's id as its key.
    let is_own = table.table().key_len < 3;
    gate.note(book, touch, || is_own.then(|| row.key_parts().collect::<Vec<_>>().join("\0")));
}

/// The clock, as the rules count.
pub fn now() -> Micros {
    micros(SystemTime::now())
}

/// A moment, as the rules count.
pub fn micros(at: SystemTime) -> Micros {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Micros::try_from(since.as_micros()).unwrap_or(Micros::MAX)
}

#[cfg(test)]
mod tests {
    use super::book::tests::{TEAMS, USERS, row};
    use super::*;

    #[test]
    fn the_fullest_come_first_and_those_over_their_soft_budget_up_to_a_number() {
        let mut book = Book::default();
        for number in 1..=20 {
            let (id, spend) = (format!("u{number}"), number.to_string());
            row(&mut book, USERS, &[&id], &[Some(&spend), Some("100"), None, None]);
            // Reached by all but the first four.
            row(&mut book, TEAMS, &[&id], &[Some(&spend), None, Some("5"), None, Some("{}"), None]);
        }
        row(&mut book, USERS, &["nan"], &[Some("NaN"), Some("1"), None, None]);
        row(&mut book, USERS, &["nobody"], &[Some("0"), None, None, None]);
        let ranking = rank(&book, 0, 3, 4);
        let shown = |kind: Kind| -> Vec<f64> {
            ranking.kinds[&kind].shown.iter().map(|one| one.standing.spend).collect()
        };
        assert_eq!(shown(Kind::User), [20.0, 19.0, 18.0]);
        assert_eq!(shown(Kind::Team), [20.0, 19.0, 18.0, 17.0, 16.0, 15.0, 14.0]);
        assert_eq!(ranking.kinds[&Kind::Team].hidden, 9);
        assert_eq!(ranking.kinds[&Kind::Team].states[&State::Soft], 16);
        assert_eq!(ranking.kinds[&Kind::User].states[&State::Unlimited], 0);
        assert_eq!(ranking.kinds[&Kind::User].spend, 210.0);
        assert_eq!(rank(&book, 0, 0, 0).kinds[&Kind::Team].hidden, 16);
    }

    #[test]
    fn labels_are_short_and_hold_no_email() {
        let name = |id: &[&str], alias: &[&str]| Name {
            id: id.iter().map(|id| (*id).to_owned()).collect(),
            alias: alias.iter().map(|alias| Some((*alias).to_owned())).collect(),
            email: Some("Ann@X.test".to_owned()),
            ..Name::default()
        };
        let hash = book::hash(["ann@x.test"]);
        let labels = |name: &Name, emails| name.labels(&hash, emails);
        let ann = name(&["ann@x.test", "t"], &["Ann <ann@x.test>", "Team"]);
        assert_eq!(labels(&ann, false), (format!("t/{}", short(&hash)), "Team".to_owned()));
        assert_eq!(labels(&ann, true), ("t/ann@x.test".to_owned(), "Team/Ann <ann@x.test>".to_owned()));
        assert_eq!(labels(&name(&["ann"], &[""]), true).1, "ann@x.test");
        assert_eq!(labels(&name(&["ann"], &[""]), false).1, "");
        let (id, alias) = labels(&name(&[&"ä".repeat(500)], &[&"ö".repeat(500)]), false);
        assert_eq!((id.chars().count(), alias.chars().count()), (100, 100));
        assert!(id.ends_with(&short(&hash)));
    }
}
