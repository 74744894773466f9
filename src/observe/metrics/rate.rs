//! How fast LiteLLM's server writes WAL: what the headroom of the slot is reckoned with. Pure: the clock is a parameter.

use std::time::Instant;

use super::float;
use crate::position::Lsn;

/// How fast a server writes WAL, smoothed over about a minute.
#[derive(Debug, Default)]
pub struct WalRate {
    begun: Option<Instant>,
    last: Option<(Instant, Lsn)>,
    bytes_per_second: f64,
}

impl WalRate {
    /// The end of its WAL is `end` now. Gives bytes a second.
    pub fn see(&mut self, end: Lsn, at: Instant) -> f64 {
        if let Some((before, from)) = self.last {
            let seconds = at.saturating_duration_since(before).as_secs_f64();
            if seconds > 0.0 {
                let rate = float(u64::from(end).saturating_sub(from.into())) / seconds;
                // At first the plain average, so that it is right from the beginning.
                let age =
                    self.begun.map_or(seconds, |begun| at.saturating_duration_since(begun).as_secs_f64());
                let weight = (1.0 - (-seconds / 60.0).exp()).max(seconds / age);
                self.bytes_per_second += (rate - self.bytes_per_second) * weight;
            }
        }
        self.begun.get_or_insert(at);
        self.last = Some((at, end));
        self.bytes_per_second
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_rate_of_wal_follows_what_is_written() {
        let (mut rate, start) = (WalRate::default(), Instant::now());
        for second in 0..=600 {
            rate.see(Lsn::from(second * 1000), start + Duration::from_secs(second));
        }
        assert!((rate.bytes_per_second - 1000.0).abs() < 10.0, "{}", rate.bytes_per_second);
        for second in 601..=1200 {
            rate.see(Lsn::from(600_000), start + Duration::from_secs(second));
        }
        assert!(rate.bytes_per_second < 1.0);
    }
}
