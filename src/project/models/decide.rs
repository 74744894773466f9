//! What each of some people is to have.
//!
//! Owns how they are read: a chunk at a time, the next one while the one before is decided. The rule itself is
//! [`crate::access`]; writes nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use super::Rules;
use super::people::{Look, People, next_of_all};
use crate::access::ModelSet;
use crate::access::bits::Bits;
use crate::access::lists::KnownModels;
use crate::access::person::decide;
use crate::access::read::Answers;
use crate::error::Result;
use crate::target::Target;

/// A person and what they are to have.
pub(super) type Decided = (String, Option<Arc<ModelSet>>);
/// The sets met so far, each made once.
type Sets = HashMap<Bits, Option<Arc<ModelSet>>>;

/// How many people are read at a time.
const CHUNK: usize = 2_000;

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
        let mut answers = Answers::default();
        // The server looks up the next of them while those before are decided: one turn more than there are parts.
        for chunk in people.ids.chunks(CHUNK).map(Some).chain([None]) {
            let next = async {
                match (chunk, people.look) {
                    (Some(chunk), Look::BeforeAccounts) => Answers::of_everybody(target, chunk, now).await,
                    (Some(chunk), Look::News | Look::Closely) => Answers::about(target, chunk, now).await,
                    (None, _) => Ok(Answers::default()),
                }
            };
            let judged = async { self.judge(&answers, people.look, &mut sets, &mut decided) };
            let (next, judged) = tokio::join!(next, judged);
            judged?;
            answers = next?;
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

    fn judge(
        &self,
        answers: &Answers,
        look: Look,
        sets: &mut Sets,
        decided: &mut Vec<Decided>,
    ) -> Result<()> {
        for (id, known) in answers.read()? {
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
        Ok(())
    }

    fn set(&self, may: &Bits) -> Option<ModelSet> {
        let prefix = &self.rules.prefix;
        ModelSet::new(
            self.known_models.named(may).into_iter().map(|name| format!("{prefix}{name}")).collect(),
        )
    }
}
