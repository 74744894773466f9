//! What is judged of either server: its version, its clock, and the way to it.
//!
//! Asks nothing itself: each side asks for these among its own.

use std::time::SystemTime;

use super::{Check, Verdict, finding, fine};

pub(super) fn version(name: &'static str, number: i32) -> Check {
    let text = format!("PostgreSQL {}", number / 10_000);
    if (150_000..190_000).contains(&number) {
        return fine(name, text);
    }
    finding(Verdict::Warning, name, text, "only 15 to 18 are tested", "use one of these")
}

pub(super) fn tls(name: &'static str, on: bool, local: bool) -> Option<Check> {
    if on || local {
        return None;
    }
    Some(finding(
        Verdict::Warning,
        name,
        "not encrypted, and not on this machine",
        "people's names and e-mails cross the network in the clear",
        "add sslmode=verify-full and sslrootcert=… to its URL",
    ))
}

/// `clock`: the server's, in seconds since 1970.
pub(super) fn clock(name: &'static str, clock: f64) -> Option<Check> {
    apart(name, clock - seconds_now())
}

fn apart(name: &'static str, ahead: f64) -> Option<Check> {
    // Less than this is the time the question took.
    if ahead.abs() < 5.0 {
        return None;
    }
    Some(finding(
        Verdict::Warning,
        name,
        format!("{ahead:+.0} s against this machine's"),
        "keys expire by this machine's clock, and the lag in seconds is wrong",
        "synchronize the clocks (NTP)",
    ))
}

fn seconds_now() -> f64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map(|since| since.as_secs_f64())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_and_connections_are_judged_by_what_matters() {
        assert_eq!(apart("c", 0.4), None);
        assert!(apart("c", -30.0).is_some());
        assert_eq!(tls("t", false, true), None);
        assert!(tls("t", false, false).is_some());
        assert_eq!(version("v", 150_018).verdict, Verdict::Fine);
        assert_eq!(version("v", 130_000).verdict, Verdict::Warning);
    }
}
