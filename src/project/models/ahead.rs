//! What everybody is to have, worked out while their accounts are still being written.
//!
//! Owns the session that reads for it. It sees what is committed, and that is the whole mirror: nobody writes to it while the batch
//! that gives these models holds the checkpoint, and that batch begins with a mirror it does not change. Accounts are not asked for;
//! who has none is given nothing when it is stored. Writes nothing.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::decide::{Decided, Judge};
use crate::error::{Error, Result};
use crate::target::Target;

/// How many bytes may wait to be written, roughly: a company of any size has to fit in little memory.
const WAITING: u32 = 4 << 20;
/// What a person takes, and each name in a set besides its letters: roughly.
const PERSON: usize = 80;
const NAME: usize = 24;

/// Part by part, in order of their ids.
#[derive(Debug)]
pub(super) struct Ahead {
    parts: mpsc::UnboundedReceiver<(Result<Option<Vec<Decided>>>, OwnedSemaphorePermit)>,
}

impl Ahead {
    /// Ends by itself once nobody waits for it.
    pub(super) fn begin(judge: Judge, reader: Target, runtime: &Handle, now: SystemTime) -> Self {
        let (given, parts) = mpsc::unbounded_channel();
        let room = Arc::new(Semaphore::new(usize::try_from(WAITING).unwrap_or(usize::MAX)));
        runtime.spawn(async move {
            let mut last = String::new();
            loop {
                let part = tokio::select! {
                    part = judge.next_of_everybody(&reader, &mut last, now) => part,
                    () = given.closed() => return,
                };
                let weight = part.as_ref().map_or(0, |part| part.as_deref().map_or(0, weight));
                let is_last = !matches!(part, Ok(Some(_)));
                let room = tokio::select! {
                    room = Arc::clone(&room).acquire_many_owned(weight.min(WAITING)) => room,
                    () = given.closed() => return,
                };
                let Ok(room) = room else { return };
                if given.send((part, room)).is_err() || is_last {
                    return;
                }
            }
        });
        Self { parts }
    }

    /// The next ones; `None` after the last.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<Decided>>> {
        // Without a last word it did not come to its end.
        self.parts.recv().await.map_or(Err(Error::Superseded), |(part, _room)| part)
    }
}

/// Bytes. A set that people share counts once.
fn weight(decided: &[Decided]) -> u32 {
    let mut counted = HashSet::new();
    let sets =
        decided.iter().filter_map(|(_, set)| set.as_ref()).filter(|set| counted.insert(Arc::as_ptr(set)));
    let names: usize = sets.flat_map(|set| &set.models).map(|name| name.len() + NAME).sum();
    u32::try_from(decided.len() * PERSON + names).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::ModelSet;

    #[test]
    fn a_set_that_people_share_weighs_once() {
        let set = |names: &[&str]| {
            ModelSet::new(names.iter().map(|name| (*name).to_owned()).collect()).map(Arc::new)
        };
        let shared = set(&["abc", "de"]);
        let of = |set: &Option<Arc<ModelSet>>| ("u".to_owned(), set.clone());
        assert_eq!(weight(&[of(&shared), of(&shared), of(&None)]), 3 * 80 + 27 + 26);
        assert_eq!(weight(&[of(&shared), of(&set(&["abc"]))]), 2 * 80 + 27 + 26 + 27);
    }
}
