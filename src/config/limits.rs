//! What a value of the policy file may be: one of a few words, or a number between two others.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serializer};

/// A choice and the words the file has for it.
pub(super) trait Choice: Copy + PartialEq + 'static {
    const WORDS: &'static [(&'static str, Self)];

    fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(_, choice)| *choice == self).map_or("", |(word, _)| word)
    }
}

pub(super) fn people<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    in_range(deserializer, 0, 1_000_000_000)
}

pub(super) fn percent<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u8, D::Error> {
    in_range(deserializer, 0, 100)
}

pub(super) fn retained_wal<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    in_range(deserializer, 0, i64::MAX)
}

pub(super) fn healing_per_hour<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    in_range(deserializer, 0, 3600)
}

pub(super) fn failures_per_hour<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    in_range(deserializer, 1, 1_000_000_000)
}

pub(super) fn interval_hours<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i32, D::Error> {
    in_range(deserializer, 0, 24 * 365)
}

pub(super) fn jitter_percent<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i32, D::Error> {
    in_range(deserializer, 0, 100)
}

pub(super) fn retention_days<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    in_range(deserializer, 1, 36_500)
}

pub(super) fn budgets_shown<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    in_range(deserializer, 0, 1000)
}

pub(super) fn batch_changes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    in_range(deserializer, 1, 1_000_000)
}

pub(super) fn batch_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    in_range(deserializer, 64 * 1024, 1024 * 1024 * 1024)
}

pub(super) fn group_min<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i32, D::Error> {
    in_range(deserializer, 1, 1_000_000)
}

pub(super) fn poll_seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    in_range(deserializer, 1, 86_400)
}

pub(super) fn model_names<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let names = Vec::<String>::deserialize(deserializer).unwrap_or_else(|_| vec![String::new()]);
    match names.iter().any(|name| name.is_empty() || name.contains(['*', '\0'])) {
        true => Err(D::Error::custom("must be a list of model names, without patterns")),
        false => Ok(names),
    }
}

pub(super) fn model_prefix<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let prefix = String::deserialize(deserializer).unwrap_or_else(|_| "\0".to_owned());
    match prefix.contains(char::is_control) {
        true => Err(D::Error::custom("must be \"auto\" or the connection's prefix_id")),
        false => Ok(prefix),
    }
}

pub(super) fn one_of<'de, D: Deserializer<'de>, C: Choice>(deserializer: D) -> Result<C, D::Error> {
    let word = String::deserialize(deserializer).unwrap_or_default();
    C::WORDS.iter().find(|(known, _)| *known == word).map(|(_, choice)| *choice).ok_or_else(|| {
        let words: Vec<_> = C::WORDS.iter().map(|(known, _)| format!("\"{known}\"")).collect();
        D::Error::custom(format!("must be {}", words.join(" or ")))
    })
}

/// The way back.
pub(super) fn word<S: Serializer, C: Choice>(choice: &C, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(choice.word())
}

/// A number outside its range and something that is no number get the same answer.
fn in_range<'de, D, T>(deserializer: D, min: i64, max: i64) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: TryFrom<i64>,
{
    i64::deserialize(deserializer)
        .ok()
        .filter(|number| (min..=max).contains(number))
        .and_then(|number| T::try_from(number).ok())
        .ok_or_else(|| D::Error::custom(format!("must be a whole number from {min} to {max}")))
}
