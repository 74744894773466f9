//! The words that labels of our own are made of.

/// The parts of a batch's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Decoding and staging what came in for it, in all.
    Decode,
    Mirror,
    Project,
    Commit,
}

impl Stage {
    pub const ALL: [Self; 4] = [Self::Decode, Self::Mirror, Self::Project, Self::Commit];

    pub fn name(self) -> &'static str {
        match self {
            Self::Decode => "decode",
            Self::Mirror => "mirror",
            Self::Project => "project",
            Self::Commit => "commit",
        }
    }
}

/// How the publication looked when it was last looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Publication {
    Ok,
    /// A table or a column is missing, or new.
    Changed,
    Missing,
}

impl Publication {
    pub const ALL: [Self; 3] = [Self::Ok, Self::Changed, Self::Missing];

    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Changed => "changed",
            Self::Missing => "missing",
        }
    }
}
