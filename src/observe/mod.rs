//! What the daemon shows of itself: its state, the board, metrics, pages, health.
//!
//! Owns every word a person or a machine reads about it. What answers requests reads memory only, so that it answers when
//! both databases are down; only `status`, the report of the command, asks them. Never writes a row.

pub mod board;
pub mod guard;
pub mod http;
pub mod metrics;
pub mod page;
pub mod progress;
pub mod status;
