//! Why somebody may use a model or may not, level by level, for the command `access`.
