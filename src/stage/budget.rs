//! What a batch says about budgets: who crossed a limit, and what people's chats come to. Decided in [`crate::budgets`], written with
//! the batch in [`crate::mirror::budgets`].

use std::collections::HashMap;

/// A budget row that closes paths from now on, or no longer.
#[derive(Debug, Clone, PartialEq)]
pub struct Crossing {
    pub kind: &'static str,
    /// LiteLLM's id; of a member the user's, of a key its stored token as the mirror has it.
    pub id: String,
    /// Of a member.
    pub team: String,
    /// `None`: open.
    pub closed: Option<Closed>,
}

/// Why it is closed. Money in US dollars.
#[derive(Debug, Clone, PartialEq)]
pub struct Closed {
    pub spend: f64,
    /// `None`: it is blocked.
    pub limit: Option<f64>,
    /// In microseconds since 1970.
    pub resets_at: Option<i64>,
}

/// A customer whose chats count for a person.
#[derive(Debug, Clone, PartialEq)]
pub struct ChatSpend {
    pub customer: String,
    /// Spend, what of it was before the window it counts in, and when that ends. `None`: they count for nobody any more.
    pub now: Option<(f64, f64, Option<i64>)>,
}

/// Somebody for whom chats may count.
#[derive(Debug, Clone, PartialEq)]
pub struct ChatWindow {
    /// LiteLLM's id.
    pub user: String,
    /// `None`: nothing counts for them any more.
    pub now: Option<Window>,
}

/// What of a user's row tells when a window of theirs ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// In microseconds since 1970.
    pub resets_at: Option<i64>,
    /// Their own spend is more than 0.
    pub has_spent: bool,
}

/// All of it, as a batch brings it.
#[derive(Debug, Default)]
pub struct Moves {
    pub crossings: Vec<Crossing>,
    pub chats: Vec<ChatSpend>,
    pub windows: Vec<ChatWindow>,
}

impl Moves {
    pub fn is_empty(&self) -> bool {
        self.crossings.is_empty() && self.chats.is_empty() && self.windows.is_empty()
    }
}

/// What a batch gathers: of one entity the last word counts.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    crossings: HashMap<(&'static str, String, String), Crossing>,
    chats: HashMap<String, ChatSpend>,
    windows: HashMap<String, ChatWindow>,
}

impl Gathered {
    pub(super) fn add(&mut self, moves: Moves) {
        for one in moves.crossings {
            self.crossings.insert((one.kind, one.id.clone(), one.team.clone()), one);
        }
        for one in moves.chats {
            self.chats.insert(one.customer.clone(), one);
        }
        for one in moves.windows {
            self.windows.insert(one.user.clone(), one);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.crossings.is_empty() && self.chats.is_empty() && self.windows.is_empty()
    }

    /// In an order that is always the same: rows are locked in it.
    pub(super) fn take(&mut self) -> Moves {
        let mut crossings: Vec<_> = std::mem::take(&mut self.crossings).into_values().collect();
        crossings.sort_unstable_by(|a, b| (a.kind, &a.id, &a.team).cmp(&(b.kind, &b.id, &b.team)));
        let mut chats: Vec<_> = std::mem::take(&mut self.chats).into_values().collect();
        chats.sort_unstable_by(|a, b| a.customer.cmp(&b.customer));
        let mut windows: Vec<_> = std::mem::take(&mut self.windows).into_values().collect();
        windows.sort_unstable_by(|a, b| a.user.cmp(&b.user));
        Moves { crossings, chats, windows }
    }
}
