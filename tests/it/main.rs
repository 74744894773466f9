//! Integration tests on real Postgres, in reading order.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test that panics points at its line"
)]

mod support;

mod access;
mod access_figures;
mod brake;
mod bridge;
mod budgets;
mod chart;
mod churn;
mod cli;
mod clock;
mod closed;
mod crash;
mod docs;
mod doctor;
mod effect;
mod enforce;
mod failover;
mod failures;
mod faults;
mod first_copy;
mod foreign;
mod grafana;
mod harm;
mod heal;
mod identity;
mod keys;
mod layering;
mod layout;
mod logs;
mod majors;
mod mapping;
mod matrix;
mod metrics;
mod models;
mod network;
mod page;
mod passwords;
mod plan;
mod projection;
mod recordings;
mod releases;
mod report;
mod restore;
mod resnapshot;
mod scenarios;
mod setup;
mod short;
mod sql;
mod stack;
mod stream;
mod takeover;
mod upgrades;
mod verify;
