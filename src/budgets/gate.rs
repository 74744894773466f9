//! Which budgets are used up, and when that changes: what closes paths to models.
//!
//! Owns what was last said of it, so that only a crossing says something again, and the ids of those it may have to speak of. Pure:
//! time and positions are given. What it says is written with the batch that it belongs to; where a session ends before that,
//! [`Gate::resume`] begins again from what is stored.

use rustc_hash::{FxHashMap as HashMap, FxHashSet as HashSet};

use super::book::{self, Book, Hash, Touch};
use super::chats::Chat;
use super::rules::{Kind, Micros, Standing};
use crate::stage::budget::{ChatSpend, ChatWindow, Closed, Crossing, Moves, Window};

/// What is stored in the target, as of its checkpoint.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stored {
    pub closed: Vec<StoredClosed>,
    pub chats: Vec<Chat>,
    /// Of users, by their ids.
    pub windows: Vec<(String, Window)>,
}

/// A budget that is stored as used up.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredClosed {
    pub kind: Kind,
    pub id: String,
    pub team: String,
    pub limit: Option<f64>,
    pub resets_at: Option<Micros>,
}

impl StoredClosed {
    fn hash(&self) -> Hash {
        match self.kind {
            Kind::TeamMember => book::hash([&self.id, &self.team]),
            Kind::User | Kind::Key | Kind::Team | Kind::Organization | Kind::Customer => {
                book::hash([&self.id])
            }
        }
    }
}

/// Budgets close nothing and chats are not counted, as the policy says by now: what is stored of both goes.
pub(super) fn nothing_counts(stored: &Stored) -> Moves {
    let open = |one: &StoredClosed| {
        let StoredClosed { kind, id, team, .. } = one.clone();
        Crossing { kind: kind.name(), id, team, closed: None }
    };
    let forget = |chat: &Chat| ChatSpend { customer: chat.customer.clone(), now: None };
    Moves {
        crossings: stored.closed.iter().map(open).collect(),
        chats: stored.chats.iter().map(forget).collect(),
        windows: stored
            .windows
            .iter()
            .map(|(user, _)| ChatWindow { user: user.clone(), now: None })
            .collect(),
    }
}

/// What was last said of a closed one.
#[derive(Debug, Clone, PartialEq)]
struct Said {
    id: String,
    team: String,
    limit: Option<f64>,
    resets_at: Option<Micros>,
}

/// What is stored is what was said last.
fn said(stored: &Stored) -> HashMap<(Kind, Hash), Said> {
    let said = |one: &StoredClosed| {
        let StoredClosed { id, team, limit, resets_at, .. } = one.clone();
        ((one.kind, one.hash()), Said { id, team, limit, resets_at })
    };
    stored.closed.iter().map(said).collect()
}

#[derive(Debug, Default)]
pub(super) struct Gate {
    /// Used-up budgets close paths; otherwise nothing is ever closed, and what was is opened.
    enforce: bool,
    closed: HashMap<(Kind, Hash), Said>,
    /// Ids of those who may be closed by other rows than their own, and of those who are closed; a member's joined by NUL.
    ids: HashMap<(Kind, Hash), Box<str>>,
    touched: HashSet<(Kind, Hash)>,
    everybody: bool,
    /// Customers whose chats are to be stored.
    chats: HashSet<Hash>,
    /// Users whose windows are.
    windows: HashSet<Hash>,
    /// The book was read ahead of the stream: before this position it tells of no moment that ever was.
    settled: u64,
    /// Users whose chats are those of the checkpoint, while the rest of the book is ahead of it: before that position nothing is said of them.
    rewound: HashSet<(Kind, Hash)>,
    /// When somebody's standing next changes by itself.
    due: Option<Micros>,
}

impl Gate {
    pub(super) fn new(enforce: bool) -> Self {
        Self { enforce, ..Self::default() }
    }

    /// Notes what a row may have changed. `id`: of the row, where it is about the one that is touched.
    pub(super) fn note(&mut self, book: &Book, touch: Touch, id: impl FnOnce() -> Option<String>) {
        match touch {
            Touch::Nobody => {}
            Touch::Everybody => self.everybody = true,
            Touch::TeamAndMembers(old, new) => {
                self.everybody = true;
                let own = old.map_or(Touch::One(Kind::Team, new), |old| Touch::Moved(Kind::Team, old, new));
                self.note(book, own, id);
            }
            Touch::Moved(kind, old, new) => {
                self.touched.insert((kind, old));
                self.note(book, Touch::One(kind, new), id);
            }
            Touch::One(kind, hash) => {
                if self.is_plainly_open(book, kind, &hash) {
                    // Nearly every row of a flush. What the time or other rows may bring about is asked for elsewhere.
                    if !book.is_indirect(kind, &hash) {
                        return;
                    }
                } else {
                    self.touched.insert((kind, hash));
                }
                // Forgotten where all was said of them.
                if !self.ids.contains_key(&(kind, hash))
                    && self.is_needed(book, kind, &hash)
                    && let Some(id) = id()
                {
                    self.ids.insert((kind, hash), id.into_boxed_str());
                }
            }
        }
    }

    /// Whether nothing is to be said of somebody: not used up, and not said to be. Not asked where it depends on the time.
    fn is_plainly_open(&self, book: &Book, kind: Kind, hash: &Hash) -> bool {
        let by_rows = match kind {
            Kind::User | Kind::Organization | Kind::Customer => true,
            Kind::Team | Kind::Key => !book.is_indirect(kind, hash),
            Kind::TeamMember => false,
        };
        by_rows
            && self.closes(book, kind, hash, Micros::MAX).is_none()
            && (self.closed.is_empty() || !self.closed.contains_key(&(kind, *hash)))
    }

    /// Whether other rows than their own, or the time, may bring about that they are to be spoken of.
    fn is_needed(&self, book: &Book, kind: Kind, hash: &Hash) -> bool {
        book.standing(kind, hash, Micros::MAX).is_some()
            && (book.is_indirect(kind, hash) || self.closes(book, kind, hash, Micros::MAX).is_some())
    }

    fn closes(&self, book: &Book, kind: Kind, hash: &Hash, now: Micros) -> Option<Standing> {
        // A customer says nothing of a person unless people chat as customers, and are called like one.
        if !self.enforce || kind == Kind::Customer && !book.is_indirect(kind, hash) {
            return None;
        }
        book.standing(kind, hash, now).filter(Standing::is_refused)
    }

    /// Begins from what is stored. `settled`: up to where the book was read ahead of the stream; `in_order`: the stream repeats all that
    /// came after what is stored. Gives what [`Self::crossings`] says then.
    pub(super) fn resume(
        &mut self,
        book: &mut Book,
        stored: &Stored,
        settled: u64,
        in_order: bool,
        now: Micros,
    ) -> Vec<Crossing> {
        self.closed = said(stored);
        book.recall(stored, in_order, now);
        // What was noted while it was read is stored, or is about to be.
        let _ = book.committed(Micros::MIN);
        let _ = book.take_windows();
        self.windows = book.windowed().into_iter().collect();
        for (user, window) in &stored.windows {
            let hash = self.remember(Kind::User, user);
            if book.window(&hash).as_ref() == Some(window) {
                self.windows.remove(&hash);
            } else {
                self.windows.insert(hash);
            }
        }
        self.chats = book.chatting().into_iter().collect();
        for chat in &stored.chats {
            let hash = self.remember(Kind::Customer, &chat.customer);
            if book.chat(&hash) == Some((chat.spend, chat.before, chat.resets_at)) {
                self.chats.remove(&hash);
            } else {
                self.chats.insert(hash);
            }
        }
        self.touched.clear();
        self.everybody = true;
        self.settled = settled;
        self.rewound.clear();
        if in_order && settled > 0 {
            let users = stored.windows.iter().map(|(user, _)| book::hash([user]));
            self.rewound.extend(users.filter(|user| book.has_chats(user)).map(|user| (Kind::User, user)));
        }
        self.crossings(book, now)
    }

    /// Keeps the id of somebody of whom something is stored.
    fn remember(&mut self, kind: Kind, id: &str) -> Hash {
        let hash = book::hash([id]);
        self.ids.entry((kind, hash)).or_insert_with(|| id.into());
        hash
    }

    /// Whether the stream is where the book is.
    pub(super) fn is_settled(&self) -> bool {
        self.settled == 0
    }

    /// What the table says of these is something else than was last said.
    pub(super) fn correct(&mut self, stored: &Stored) {
        self.closed = said(stored);
        for chat in &stored.chats {
            let hash = self.remember(Kind::Customer, &chat.customer);
            self.chats.insert(hash);
        }
        for (user, _) in &stored.windows {
            let hash = self.remember(Kind::User, user);
            self.windows.insert(hash);
        }
        self.everybody = true;
    }

    /// A transaction that was committed `at` this time was taken in.
    pub(super) fn committed(&mut self, book: &mut Book, at: Micros) {
        if let Some(moment) = book.take_new_moment() {
            self.due = Some(self.due.map_or(moment, |due| due.min(moment)));
        }
        let (customers, users) = book.committed(at);
        self.chats.extend(customers);
        self.windows.extend(book.take_windows());
        self.touched.extend(users.into_iter().map(|user| (Kind::User, user)));
    }

    /// Whether there is anything to say at `now`.
    pub(super) fn is_due(&self, now: Micros) -> bool {
        self.everybody
            || !self.touched.is_empty()
            || !self.chats.is_empty()
            || !self.windows.is_empty()
            || self.due.is_some_and(|due| due <= now)
    }

    /// What is to be said at this position.
    pub(super) fn say(&mut self, book: &mut Book, position: u64, now: Micros) -> Moves {
        if position < self.settled {
            return Moves::default();
        }
        if self.settled > 0 {
            self.settled = 0;
            book.settle();
        }
        self.touched.extend(self.rewound.drain());
        if !self.is_due(now) {
            return Moves::default();
        }
        let mut spoken_of: Vec<(Kind, Hash)> = self.touched.iter().copied().collect();
        let chats = std::mem::take(&mut self.chats).into_iter().filter_map(|hash| {
            let (who, now) = ((Kind::Customer, hash), book.chat(&hash));
            spoken_of.push(who);
            Some(ChatSpend { customer: self.ids.get(&who)?.to_string(), now })
        });
        let chats = chats.collect();
        let windows = std::mem::take(&mut self.windows).into_iter().filter_map(|hash| {
            let (who, now) = ((Kind::User, hash), book.window(&hash));
            spoken_of.push(who);
            Some(ChatWindow { user: self.ids.get(&who)?.to_string(), now })
        });
        let windows = windows.collect();
        let crossings = self.crossings(book, now);
        for who in spoken_of {
            if !self.is_needed(book, who.0, &who.1) {
                self.ids.remove(&who);
            }
        }
        Moves { crossings, chats, windows }
    }

    /// Who is closed, or open again, since that was last said: whatever the position.
    pub(super) fn crossings(&mut self, book: &Book, now: Micros) -> Vec<Crossing> {
        let mut crossings = Vec::new();
        let touched = std::mem::take(&mut self.touched);
        if std::mem::take(&mut self.everybody) || self.due.is_some_and(|due| due <= now) {
            self.due = book.next_moment(now);
            let mut closing = Vec::new();
            for kind in Kind::ALL {
                book.each(kind, now, |hash, standing| {
                    if standing.is_refused() {
                        closing.push((kind, *hash));
                    }
                });
            }
            let known: Vec<(Kind, Hash)> = self.closed.keys().copied().collect();
            closing.extend(known);
            closing.sort_unstable();
            closing.dedup();
            crossings.extend(closing.into_iter().filter_map(|one| self.crossing(book, one, now)));
        } else {
            crossings.extend(touched.into_iter().filter_map(|one| self.crossing(book, one, now)));
        }
        crossings
    }

    fn crossing(&mut self, book: &Book, who: (Kind, Hash), now: Micros) -> Option<Crossing> {
        let (kind, hash) = who;
        if self.rewound.contains(&who) {
            return None;
        }
        let Some(standing) = self.closes(book, kind, &hash, now) else {
            let Said { id, team, .. } = self.closed.remove(&who)?;
            return Some(Crossing { kind: kind.name(), id, team, closed: None });
        };
        let (limit, resets_at) = (standing.limit.filter(|_| standing.is_exceeded()), standing.reset);
        if self.closed.get(&who).is_some_and(|said| (said.limit, said.resets_at) == (limit, resets_at)) {
            return None;
        }
        let Some(joined) = self.ids.get(&who) else {
            // Remembered of whoever can get here.
            tracing::error!(
                kind = kind.name(),
                "a used-up budget of nobody known closes nothing until the next start"
            );
            return None;
        };
        let (id, team) = joined.split_once('\0').unwrap_or((joined, ""));
        let said = Said { id: id.to_owned(), team: team.to_owned(), limit, resets_at };
        self.closed.insert(who, said.clone());
        let closed = Some(Closed { spend: standing.spend, limit, resets_at });
        Some(Crossing { kind: kind.name(), id: said.id, team: said.team, closed })
    }
}
