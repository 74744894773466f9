//! How much of its time reading takes.
//!
//! Owns the rests between what is read of many rows. Reads nothing.

use std::time::{Duration, Instant};

/// How many bytes are read between two rests: about a millisecond of either server's time.
pub const PIECE: usize = 64 * 1024;
/// The longest rest: whoever kept us waiting for longer was not busy with us.
const LONGEST: Duration = Duration::from_millis(20);

/// How fast rows are read through a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// Nobody is waiting, or everybody is waiting for this.
    Full,
    /// Half the time is left to whoever works beside it: on few processors, the stream would wait for its turn.
    Half,
}

/// The rests of one reading.
#[derive(Debug)]
pub struct Rests {
    pace: Pace,
    since: Instant,
}

impl Pace {
    pub fn begin(self) -> Rests {
        Rests { pace: self, since: Instant::now() }
    }

    fn rest(self, worked: Duration) -> Option<Duration> {
        (self == Self::Half).then(|| worked.min(LONGEST))
    }
}

impl Rests {
    /// To be waited for after each piece.
    pub async fn rest(&mut self) {
        if let Some(rest) = self.pace.rest(self.since.elapsed()) {
            tokio::time::sleep(rest).await;
            self.since = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rest_is_as_long_as_the_work_before_it_but_not_endless() {
        let [short, long] = [1, 5_000].map(Duration::from_millis);
        assert_eq!([Pace::Half.rest(short), Pace::Half.rest(long)], [Some(short), Some(LONGEST)]);
        assert_eq!([Pace::Full.rest(short), Pace::Full.rest(long)], [None; 2]);
    }
}
