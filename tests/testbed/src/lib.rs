//! Throwaway Postgres servers with the real LiteLLM and Open WebUI schemas.
//!
//! Used by the integration tests, by `litellm-webui-sync demo` and by the benchmark. Nothing here
//! knows the product: the [`mod@reference`] reader counts what a source committed with Postgres' own
//! functions, so that a test compares two independent answers.
//!
//! ```text
//! Binaries ─► Cluster ─► Database (Schema, load) ─► seed, churn, demo data
//!                  │
//!                  └── Proxy in front of it: cut, blackhole, refuse
//! ```
//!
//! A cluster dies with the process that made it, even if that is killed: see [`cluster`].

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that panics points at its line"))]

pub mod binaries;
pub mod cluster;
pub mod database;
pub mod demo;
#[cfg(feature = "fetch")]
mod fetch;
pub mod lists;
pub mod proxy;
pub mod psql;
pub mod reference;
mod run_as;
mod template;
mod tls;

pub use binaries::Binaries;
pub use cluster::{Cluster, ClusterOptions, Mode};
pub use database::{Schema, connect, execute, load, open_webui_admin};
pub use demo::{LiveChange, SIGN_IN, demo_live_changes, demo_people};
pub use proxy::{End, Proxy};
pub use psql::{churn, dump_and_restore, dumpable, seed};
pub use tls::TlsFiles;
