//! What each of some people is to have.
//!
//! Owns how they are read: a chunk at a time, the next one while the one before is decided. The rule itself is
//! [`crate::access`]; writes nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use super::Rules;
use super::people::{Look, PART, People, next_of_all};
use crate::access::ModelSet;
use crate::access::bits::Bits;
use crate::access::lists::KnownModels;
use crate::access::people::{Accounts, Known, Lookup, about};
use crate::access::person::decide;
use crate::error::Result;
use crate::project::only;
use crate::target::{QUICK, Target};

/// A person and what they are to have.
pub(super) type Decided = (String, Option<Arc<ModelSet>>);
/// The sets met so far, each made once.
type Sets = HashMap<Bits, Option<Arc<ModelSet>>>;

/// How many people are looked up one by one at a time.
const CHUNK: usize = 2_000;
/// How often, in people, others get their turn while these are decided.
const TURN: usize = 250;
/// Looking one person up takes about as long as reading this many of all.
const AS_MANY: usize = 16;

/// All that a decision follows from, besides the person.
#[derive(Debug)]
pub(super) struct Judge {
    rules: Rules,
    known_models: Arc<KnownModels>,
}

impl Judge {
    pub(super) fn new(rules: Rules, known_models: Arc<KnownModels>) -> Self {
        Self { rules, known_models }
    }

    /// What each person is to have, in order of their ids: of those for whom that is news, or of all, as they are looked at.
    pub(super) async fn decide(
        &self,
        target: &Target,
        people: &People,
        now: SystemTime,
    ) -> Result<Vec<Decided>> {
        let (mut sets, mut decided) = (Sets::new(), Vec::new());
        let mut known = Vec::new();
        let lookup = lookup(target, people.ids.len()).await?;
        let accounts = match people.look {
            Look::News | Look::Closely => Accounts::Written,
            Look::BeforeAccounts => Accounts::ToBeWritten,
        };
        let chunk = if lookup == Lookup::Together { PART } else { CHUNK };
        // Where they are several chunks, the server looks up the next one while the one before is decided: one turn more than they are.
        for chunk in people.ids.chunks(chunk).map(Some).chain([None]) {
            let next = async {
                match chunk {
                    Some(chunk) => about(target, chunk, accounts, lookup, now).await,
                    None => Ok(Vec::new()),
                }
            };
            let judged = self.judge(std::mem::take(&mut known), people.look, &mut sets, &mut decided);
            let (next, ()) = tokio::join!(next, judged);
            known = next?;
        }
        decided.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        Ok(decided)
    }

    /// The same of the next people of all there are, after `last`, which becomes the last of them. `None` after everybody.
    pub(super) async fn next_of_all(
        &self,
        target: &Target,
        look: Look,
        last: &mut String,
        now: SystemTime,
    ) -> Result<Option<Vec<Decided>>> {
        let people = next_of_all(target, look, last).await?;
        let Some(until) = people.ids.last() else { return Ok(None) };
        until.clone_into(last);
        Ok(Some(self.decide(target, &people, now).await?))
    }

    async fn judge(
        &self,
        known: Vec<(String, Known)>,
        look: Look,
        sets: &mut Sets,
        decided: &mut Vec<Decided>,
    ) {
        for (nth, (id, known)) in known.into_iter().enumerate() {
            // What is asked meanwhile has to be sent, and what comes to be taken.
            if nth % TURN == 0 {
                tokio::task::yield_now().await;
            }
            let set = match &known.webui_id {
                Some(_) => {
                    let may = decide(&self.known_models, &known.person, self.rules.keys);
                    sets.entry(may).or_insert_with_key(|may| self.set(may).map(Arc::new)).clone()
                }
                None => None,
            };
            let has = known.has.as_ref().map(|(hash, account)| (hash, account));
            let wants = set.as_ref().map(|set| &set.hash).zip(known.webui_id.as_ref());
            if look != Look::News || has != wants || known.failed {
                decided.push((id, set));
            }
        }
    }

    fn set(&self, may: &Bits) -> Option<ModelSet> {
        let prefix = &self.rules.prefix;
        ModelSet::new(
            self.known_models.named(may).into_iter().map(|name| format!("{prefix}{name}")).collect(),
        )
    }
}

/// How to look up this many people.
async fn lookup(target: &Target, people: usize) -> Result<Lookup> {
    if people <= CHUNK {
        return Ok(Lookup::OneByOne);
    }
    // What the planner believes as well; -1 where it has never been counted.
    let text = "select reltuples::bigint from pg_class where oid = to_regclass('litellm_user')";
    let statement = target.prepare(text, &[]).await?;
    let all: i64 = only(target.query("ask how many people there are", QUICK, &statement, &[]).await?)?.get(0);
    let as_much = i64::try_from(people.saturating_mul(AS_MANY)).unwrap_or(i64::MAX);
    let is_a_good_part = all > 0 && all < as_much;
    Ok(if is_a_good_part { Lookup::Together } else { Lookup::OneByOne })
}
