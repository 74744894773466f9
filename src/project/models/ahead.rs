//! What everybody is to have, worked out while their accounts are still being written.
//!
//! Owns the session that reads for it. It sees what is committed, and that is the whole mirror: nobody writes to it while the batch
//! that gives these models holds the checkpoint, and that batch begins with a mirror it does not change. Accounts are not asked for;
//! who has none is given nothing when it is stored. Writes nothing.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::decide::{Decided, Judge};
use super::people::Look;
use crate::error::{Error, Result, Side};
use crate::project::Projection;
use crate::target::Target;

/// How many bytes may wait to be written, roughly: a company of any size has to fit in little memory.
const WAITING: u32 = 4 << 20;
/// How long a part is waited for: a server ends the session that waits after twice as long without a word.
const PATIENCE: Duration = Duration::from_secs(60);
/// What a person takes, and each name in a set besides its letters: roughly.
const PERSON: usize = 80;
const NAME: usize = 24;

/// Part by part, in order of their ids.
#[derive(Debug)]
pub(super) struct Ahead {
    parts: mpsc::UnboundedReceiver<(Result<Option<Vec<Decided>>>, OwnedSemaphorePermit)>,
}

impl Projection {
    /// Begins to work out everybody's models with `reader`, on `runtime`, while the next [`Self::apply`], for everything, writes what comes
    /// before them. To be asked in that very transaction, once it holds the checkpoint; what it has changed itself is not seen.
    ///
    /// # Errors
    /// Where the target cannot be asked which models there are.
    pub async fn look_ahead(
        &self,
        target: &Target,
        reader: Target,
        runtime: &Handle,
        now: SystemTime,
    ) -> Result<()> {
        let access = &self.access;
        let known = access.known_models(target).await?;
        if !known.unused {
            let ahead = Ahead::begin(access.judge(&known.known_models), reader, runtime, now);
            *access.ahead.lock().unwrap_or_else(PoisonError::into_inner) = Some(ahead);
        }
        Ok(())
    }
}

impl Ahead {
    /// Ends by itself once nobody waits for it.
    fn begin(judge: Judge, reader: Target, runtime: &Handle, now: SystemTime) -> Self {
        let (given, parts) = mpsc::unbounded_channel();
        let room = Arc::new(Semaphore::new(usize::try_from(WAITING).unwrap_or(usize::MAX)));
        runtime.spawn(async move {
            let mut last = String::new();
            loop {
                let part = tokio::select! {
                    part = judge.next_of_all(&reader, Look::BeforeAccounts, &mut last, now) => part,
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
        let next = tokio::time::timeout(PATIENCE, self.parts.recv()).await.map_err(|_| Error::Silent {
            side: Side::Target,
            action: "read everybody's models",
            seconds: PATIENCE.as_secs(),
        })?;
        // Without a last word it did not come to its end.
        next.map_or(Err(Error::Superseded), |(part, _room)| part)
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
