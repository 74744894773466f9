//! Whose chats count for whom: what a person's e-mail spent as a customer of LiteLLM's, in the window of the person's own budget.
//!
//! Owns which e-mail is whose, and when a window ended. LiteLLM resets the customer's row with the customer's own budget, if there is one,
//! and never with the user's, so what the customer had spent by then is kept ([`super::book::Book::chat`]). Pure, like the book it is a
//! part of.

use rustc_hash::{FxHashMap as HashMap, FxHashSet as HashSet};

use super::book::{self, Hash, NEVER, NO_EMAIL, User};
use super::rules::Micros;
use crate::stage::budget::Window;

/// What is stored of a customer whose chats count for somebody, with the checkpoint up to which it holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Chat {
    /// LiteLLM's id: the e-mail Open WebUI sent.
    pub customer: String,
    pub spend: f64,
    /// What of it was spent before the window it counts in.
    pub before: f64,
    /// When that window ends, in the user's row.
    pub resets_at: Option<Micros>,
}

/// Somebody without a limit has nothing that chats could count against.
pub(super) fn is_limited(user: &User) -> bool {
    user.email != NO_EMAIL && !user.limit.is_nan()
}

pub(super) fn window(user: &User) -> Window {
    Window { resets_at: (user.reset != NEVER).then_some(user.reset), has_spent: user.spend > 0.0 }
}

#[derive(Debug, Default)]
pub(super) struct Chats {
    customers: HashMap<u64, Vec<Hash>>,
    /// Users with a limit.
    users: HashMap<u64, Vec<Hash>>,
    /// E-mails whose user's window may have ended: when it was to end. `None`: it has.
    ending: Vec<(u64, Option<Micros>)>,
    touched: HashSet<Hash>,
    touched_users: HashSet<Hash>,
    /// Users whose windows are other ones by now.
    windows: HashSet<Hash>,
    /// The windows at the checkpoint of those of whom the stream has not told yet, while the book is ahead of it; whoever is not among
    /// them had none.
    recalled: Option<HashMap<Hash, Window>>,
    /// Of whom it has told.
    told: HashSet<Hash>,
}

impl Chats {
    pub(super) fn customers_of(&self, email: u64) -> &[Hash] {
        self.customers.get(&email).map(Vec::as_slice).unwrap_or_default()
    }

    /// The users with a limit whose e-mail this is.
    pub(super) fn limited(&self, email: u64) -> &[Hash] {
        self.users.get(&email).map(Vec::as_slice).unwrap_or_default()
    }

    pub(super) fn user_changed(&mut self, old: Hash, new: Hash, was: Option<User>, is: User) {
        let was = was.filter(is_limited);
        let is = Some(is).filter(is_limited);
        if was.as_ref().map(window) != is.as_ref().map(window) || old != new {
            self.windows.extend([old, new]);
        }
        let recalled = self.recalled_of(old, new);
        if (was.map(|was| (old, was.email))) != (is.map(|is| (new, is.email))) {
            if let Some(was) = was {
                self.user_gone(old, was);
            }
            if let Some(is) = is {
                self.users.entry(is.email).or_default().push(new);
                self.touch(is.email);
            }
        }
        let same = was.filter(|was| is.is_some_and(|is| was.email == is.email));
        let Some(is) = is else { return };
        let Some(before) = recalled.unwrap_or_else(|| same.as_ref().map(window)) else { return };
        if before.has_spent && is.spend == 0.0 {
            // By LiteLLM, whose clock may be another one than its database's, or by hand.
            self.ending.push((is.email, None));
        } else if let Some(reset) = before.resets_at.filter(|reset| is.reset > *reset) {
            self.ending.push((is.email, Some(reset)));
        }
        if before.resets_at != window(&is).resets_at {
            self.touch(is.email);
        }
    }

    /// What a user's window was at the checkpoint, at the first that the stream says of them after it.
    fn recalled_of(&mut self, old: Hash, new: Hash) -> Option<Option<Window>> {
        let recalled = self.recalled.as_mut()?;
        let is_first = self.told.insert(old);
        self.told.insert(new);
        is_first.then(|| recalled.remove(&old))
    }

    /// Begins from the windows of the checkpoint. `None`: the book is where the stream is.
    pub(super) fn recall(&mut self, windows: Option<&[(String, Window)]>) {
        self.told.clear();
        self.recalled = windows
            .map(|windows| windows.iter().map(|(user, window)| (book::hash([user]), *window)).collect());
    }

    /// Users since this was last asked.
    pub(super) fn take_windows(&mut self) -> Vec<Hash> {
        self.windows.drain().collect()
    }

    pub(super) fn user_gone(&mut self, hash: Hash, was: User) {
        self.windows.insert(hash);
        if let Some(recalled) = &mut self.recalled {
            recalled.remove(&hash);
            self.told.insert(hash);
        }
        self.touch(was.email);
        if let Some(users) = self.users.get_mut(&was.email) {
            users.retain(|user| *user != hash);
            if users.is_empty() {
                self.users.remove(&was.email);
            }
        }
    }

    pub(super) fn users_gone(&mut self) {
        for email in self.users.keys().copied().collect::<Vec<_>>() {
            self.touch(email);
        }
        self.windows.extend(self.users.values().flatten());
        self.users.clear();
        if let Some(recalled) = &mut self.recalled {
            recalled.clear();
        }
    }

    pub(super) fn customer_changed(&mut self, (old, was): (Hash, u64), (new, is): (Hash, u64)) {
        if was == NO_EMAIL && is == NO_EMAIL {
            return;
        }
        if (old, was) != (new, is) {
            if let Some(customers) = self.customers.get_mut(&was) {
                customers.retain(|customer| *customer != old);
                if customers.is_empty() {
                    self.customers.remove(&was);
                }
            }
            if is != NO_EMAIL {
                self.customers.entry(is).or_default().push(new);
            }
        }
        self.touched.extend([old, new]);
        for email in [was, is] {
            self.touched_users.extend(self.users.get(&email).into_iter().flatten());
        }
    }

    /// All that is stored of this e-mail may have changed.
    fn touch(&mut self, email: u64) {
        self.touched.extend(self.customers.get(&email).into_iter().flatten());
        self.touched_users.extend(self.users.get(&email).into_iter().flatten());
    }

    /// The e-mails whose window ended, by the time the transaction was committed that says so. An admin may also have moved the end
    /// of one that goes on.
    pub(super) fn windows_that_ended(&mut self, at: Micros) -> Vec<u64> {
        let ending = std::mem::take(&mut self.ending);
        let ended: Vec<u64> = ending
            .into_iter()
            .filter(|(_, reset)| reset.is_none_or(|reset| reset <= at))
            .map(|(email, _)| email)
            .collect();
        for email in &ended {
            self.touch(*email);
        }
        ended
    }

    /// Customers and users since this was last asked.
    pub(super) fn take_touched(&mut self) -> (Vec<Hash>, Vec<Hash>) {
        (self.touched.drain().collect(), self.touched_users.drain().collect())
    }
}
