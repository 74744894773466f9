//! Which models a person may use (docs/src/design.md, "Models").
//!
//! Owns the rule: what LiteLLM's lists mean ([`lists`]), how the levels narrow each other ([`person`]), and the
//! reading of both from our mirror ([`read`], [`people`]). The first two are pure. Writes nothing, and knows no table of Open
//! WebUI: `project::models` applies what is decided here, and the command `access` explains it (`operate::access`).

pub mod bits;
pub mod lists;
pub mod people;
pub mod person;
pub mod read;

use sha2::{Digest, Sha256};

/// These rules as they are written: changed ones must reach everybody, and no row in the stream says that they changed.
pub const RULES: &[&str] = &[
    include_str!("mod.rs"),
    include_str!("bits.rs"),
    include_str!("lists.rs"),
    include_str!("people.rs"),
    include_str!("person.rs"),
    include_str!("read.rs"),
];

/// The models some people may use, as Open WebUI's ids in order.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModelSet {
    pub hash: String,
    pub models: Vec<String>,
}

impl ModelSet {
    /// `None` for no model at all: nothing is kept for people without access. `models` are in order.
    pub fn new(models: Vec<String>) -> Option<Self> {
        if models.is_empty() {
            return None;
        }
        let mut digest = Sha256::new();
        for model in &models {
            digest.update(model.as_bytes());
            // No text in Postgres holds a NUL, so no two sets read the same.
            digest.update([0]);
        }
        let hash = digest.finalize().iter().take(12).map(|byte| format!("{byte:02x}")).collect();
        Some(Self { hash, models })
    }

    /// What the access group of the people with this set is called: "Models: claude-3, gpt-4 +3".
    pub fn name(&self) -> String {
        const SHOWN: usize = 2;
        const LONGEST: usize = 60;
        let shown: Vec<String> = self
            .models
            .iter()
            .take(SHOWN)
            .map(|model| {
                let mut name: String = model.chars().filter(|c| !c.is_control()).take(LONGEST).collect();
                if model.chars().count() > LONGEST {
                    name.push('…');
                }
                name
            })
            .collect();
        let more = match self.models.len().saturating_sub(SHOWN) {
            0 => String::new(),
            more => format!(" +{more}"),
        };
        format!("Models: {}{more}", shown.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(models: &[&str]) -> ModelSet {
        ModelSet::new(models.iter().map(|model| (*model).to_owned()).collect()).unwrap()
    }

    #[test]
    fn every_file_of_the_rules_is_among_them() {
        let room = concat!(env!("CARGO_MANIFEST_DIR"), "/src/access");
        assert_eq!(std::fs::read_dir(room).unwrap().count(), RULES.len());
        for file in std::fs::read_dir(room).unwrap() {
            let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
            assert!(RULES.contains(&text.as_str()));
        }
    }

    #[test]
    fn a_set_is_named_after_its_first_models_and_known_by_all_of_them() {
        assert_eq!(set(&["claude-3", "gpt-4", "x", "y", "z"]).name(), "Models: claude-3, gpt-4 +3");
        assert_eq!(set(&["claude-3"]).name(), "Models: claude-3");
        assert_ne!(set(&["a", "b"]).hash, set(&["ab"]).hash);
        assert_eq!(set(&["a", "b"]).hash, set(&["a", "b"]).hash);
        assert!(ModelSet::new(Vec::new()).is_none());
    }
}
