//! Whether the server's history is the one we followed. Pure.
//!
//! Owns the comparison of what the slot sends again, before the checkpoint, with what the checkpoint remembers. A server
//! that was restored from a copy of its files has the same identifier, the same timeline and an older slot, and once LiteLLM
//! has written to it again, its WAL is as long as it was: positions alone cannot tell. What lies between the slot's own
//! position and the checkpoint can: it is sent again, and either holds the transaction we applied last, or another history.
//!
//! Where the slot is at the checkpoint nothing is sent again, and nothing needs to be: the server itself remembers that we
//! got that far.

use std::time::SystemTime;

use crate::position::Lsn;

/// What the stream must hold before the checkpoint.
#[derive(Debug, Clone, Copy)]
pub struct Overlap {
    checkpoint: Lsn,
    /// The transaction we applied last, if it ends after the slot's position.
    last: Option<(Lsn, SystemTime)>,
    seen: bool,
}

/// The server's history is another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Differs;

impl Overlap {
    /// `from`: the slot's position. `last`: where the last applied transaction with changes ended, and when it was committed.
    /// `None`: nothing is sent again.
    pub fn new(from: Lsn, checkpoint: Lsn, last: Option<(Lsn, SystemTime)>) -> Option<Self> {
        let last = last.filter(|(end, _)| *end > from);
        (from < checkpoint).then_some(Self { checkpoint, last, seen: false })
    }

    /// Whether a position is before the checkpoint: what begins there was applied, if it is our history.
    pub fn covers(&self, lsn: Lsn) -> bool {
        lsn < self.checkpoint
    }

    /// A transaction with changes that began before the checkpoint ended.
    ///
    /// # Errors
    /// [`Differs`] when it cannot have been applied.
    pub fn ended(&mut self, end_lsn: Lsn, committed_at: SystemTime) -> Result<(), Differs> {
        match self.last {
            Some(last) if (end_lsn, committed_at) == last => self.seen = true,
            Some((last, _)) if end_lsn < last => {}
            _ => return Err(Differs),
        }
        Ok(())
    }

    /// The stream has reached the checkpoint.
    ///
    /// # Errors
    /// [`Differs`] when the transaction we applied last was not in it.
    pub fn reached(&self) -> Result<(), Differs> {
        if self.last.is_none() || self.seen { Ok(()) } else { Err(Differs) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn lsn(value: u64) -> Lsn {
        Lsn::from(value)
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn our_own_history_holds_the_last_transaction_and_nothing_after_it() {
        let mut overlap = Overlap::new(lsn(10), lsn(40), Some((lsn(30), at(3)))).unwrap();
        assert!(overlap.covers(lsn(39)) && !overlap.covers(lsn(40)));
        assert_eq!(overlap.ended(lsn(20), at(2)), Ok(()));
        assert_eq!(overlap.reached(), Err(Differs));
        assert_eq!(overlap.ended(lsn(30), at(3)), Ok(()));
        assert_eq!(overlap.reached(), Ok(()));
        assert_eq!(overlap.ended(lsn(35), at(4)), Err(Differs), "never applied");
    }

    #[test]
    fn another_history_differs_even_where_it_is_as_long() {
        let overlap = Overlap::new(lsn(10), lsn(40), Some((lsn(30), at(3)))).unwrap();
        assert_eq!({ overlap }.ended(lsn(30), at(9)), Err(Differs), "the same place at another time");
        assert_eq!({ overlap }.ended(lsn(31), at(3)), Err(Differs));
        assert_eq!(overlap.reached(), Err(Differs));
    }

    #[test]
    fn nothing_is_asked_of_what_the_slot_remembers_itself() {
        assert!(Overlap::new(lsn(40), lsn(40), Some((lsn(30), at(3)))).is_none());
        // Idle positions only: nothing may have happened since.
        let mut idle = Overlap::new(lsn(30), lsn(40), Some((lsn(30), at(3)))).unwrap();
        assert_eq!(idle.reached(), Ok(()));
        assert_eq!(idle.ended(lsn(35), at(4)), Err(Differs));
        let mut fresh = Overlap::new(lsn(10), lsn(40), None).unwrap();
        assert_eq!(fresh.reached(), Ok(()));
        assert_eq!(fresh.ended(lsn(20), at(4)), Err(Differs));
    }
}
