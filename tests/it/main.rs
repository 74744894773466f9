//! Integration tests on real Postgres, in reading order.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test that panics points at its line"
)]

mod support;

mod first_copy;
mod mapping;
mod stream;
mod churn;
mod brake;
mod failures;
mod network;
mod crash;
mod setup;
mod cli;
mod upgrades;
mod sql;
mod layering;
