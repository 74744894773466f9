//! What may become a dead letter: every kind of entity that is written, or not, by itself.
//!
//! Owns the list of kinds and their names. The table keeps the names, and statements in `sql/` write and look for some of
//! them themselves; a test holds every name there against this list. Knows no statement: [`super::failures`] reads and
//! marks the letters, the projection writes them.

/// What a dead letter is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Somebody's account.
    Account,
    /// A change that would take the last admin away from Open WebUI, and is not applied.
    LastAdmin,
    /// Which models somebody may use.
    Access,
    /// Somebody's API key.
    ApiKey,
    /// A model's row.
    Model,
    /// A team's group.
    Team,
    /// An organization's group.
    Organization,
}

impl Kind {
    pub const ALL: [Self; 7] = [
        Self::Account,
        Self::LastAdmin,
        Self::Access,
        Self::ApiKey,
        Self::Model,
        Self::Team,
        Self::Organization,
    ];

    /// As the table has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Account => "account",
            Self::LastAdmin => "last_admin",
            Self::Access => "access",
            Self::ApiKey => "api_key",
            Self::Model => "model",
            Self::Team => "team",
            Self::Organization => "organization",
        }
    }

    /// `None`: a newer program wrote it, or somebody by hand. It is shown and left alone: tried again as something else
    /// it would only seem to be looked after.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// What was tried, as the audit calls it.
    pub fn operation(self) -> &'static str {
        match self {
            Self::Account | Self::LastAdmin => "SYNC_USER",
            Self::Access => "SYNC_MODELS",
            Self::ApiKey => "SYNC_API_KEY",
            Self::Model => "SYNC_MODEL",
            Self::Team => "SYNC_TEAM",
            Self::Organization => "SYNC_ORG",
        }
    }

    /// Whether the letter's key is a LiteLLM user.
    pub fn is_about_a_person(self) -> bool {
        match self {
            Self::Account | Self::LastAdmin | Self::Access | Self::ApiKey => true,
            Self::Model | Self::Team | Self::Organization => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_known_by_its_name() {
        for kind in Kind::ALL {
            assert_eq!(Kind::from_name(kind.name()), Some(kind));
        }
        assert_eq!(Kind::from_name("robot"), None);
    }
}
