//! litellm-webui-sync keeps Open WebUI's accounts, groups and access true to LiteLLM, in real time, exactly once.
//!
//! ```text
//! litellm WAL ─ slot ─▶ source ─▶ decode ─▶ stage ─▶ ┌ one target transaction ─────────────────┐
//!                         ▲       pgoutput    fold   │ mirror ◀ rows                           │
//!                         │       → row       per    │ touched keys ─▶ project ─▶ Open WebUI   │
//!                         │       changes     key    │ ledger · audit · dead letters           │
//!                         │                          │ checkpoint (LSN + exact counters)       │
//!                         └──── feedback ◀───────────┴ commit ─────────────────────────────────┘
//! ```
//!
//! The modules below are in the order of the flow. What holds, always:
//!
//! 1. **Exactly once.** Everything a batch does, its audit rows and dead letters, and its checkpoint
//!    ([`checkpoint`]) commit in one target transaction. The source is told a position only after
//!    that commit ([`pipeline`]).
//! 2. **Commit order, whole transactions**, whatever their size, in bounded memory ([`stage`]).
//! 3. **The projection is a function** of the mirror, the ledger and the policy ([`project`]): one by
//!    one, all at once or from scratch gives the same active state.
//! 4. **We own what the ledger says.** Columns that people or Open WebUI itself edit are written
//!    when a row is made and never again (`sql/project/`).
//! 5. **Nothing is lost, nobody gets in.** Who leaves is locked, not deleted. Secrets end in [`decode`].
//! 6. **Never a silent gap.** Whether the stream may go on is decided from the catalogs ([`source`]),
//!    and otherwise everything is copied again ([`backfill`]).
//! 7. **LiteLLM cannot be harmed**: a publication and a slot are all we have there.
//! 8. **No mass accident**: a batch that would lock out unusually many people is held ([`brake`]).
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        clippy::print_stdout,
        reason = "a test that panics points at its line"
    )
)]

// the stream, in data-flow order
pub mod access;
pub mod backfill;
pub mod checkpoint;
pub mod decode;
pub mod mirror;
pub mod project;
pub mod resnapshot;
pub mod source;
pub mod stage;
// running it
pub mod accept;
pub mod board;
pub mod brake;
pub mod copies;
pub mod pause;
pub mod pipeline;
pub mod poll;
pub mod progress;
pub mod schema;
pub mod teardown;
// looking at it
pub mod audit;
pub mod budgets;
pub mod cli;
pub mod doctor;
pub mod failures;
pub mod guard;
pub mod http;
pub mod metrics;
pub mod page;
pub mod passwords;
pub mod plan;
pub mod status;
// shared by all, knowing none of the above
pub mod catalog;
pub mod certificate;
pub mod config;
pub mod error;
pub mod failpoint;
pub mod postgres;
pub mod sql;
pub mod target;
