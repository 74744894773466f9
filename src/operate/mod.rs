//! What a person asks for: the work behind the commands that are not `run`.
//!
//! One file or folder a command. Prints nothing and parses no flags (that is `cli`); runs no stream (that is `pipeline`).

pub mod accept;
pub mod access;
pub mod doctor;
pub mod passwords;
pub mod plan;
pub mod report;
pub mod resnapshot;
pub mod setup;
pub mod teardown;
