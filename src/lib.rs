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
//! The rooms below stand in the order of this tree: what a person asks for on top, then what runs, shows and copies, then
//! the stream in the order of its flow, and the ground. A room imports only what stands below it (`tests/it/layering.rs`
//! has the floors); inside the stream a stage knows what the one before it hands on, and of the ground each knows what it needs. `docs/src/architecture.md` follows
//! one change through all of it, and says where to change what.
//!
//! What holds, always. Each has a test that tries to break it:
//!
//! 1. **Exactly once.** Everything a batch does, its audit rows and dead letters, and its checkpoint
//!    ([`target::checkpoint`]) commit in one target transaction. The source is told a position only after
//!    that commit ([`pipeline`]).
//! 2. **Commit order, whole transactions**, whatever their size, in bounded memory ([`stage`]).
//! 3. **The projection is a function** of the mirror, the ledger, the policy and the time ([`project`]): one by
//!    one, all at once or from scratch gives the same active state.
//! 4. **We own what the ledger says.** Columns that people or Open WebUI itself edit are written
//!    when a row is made and never again (`sql/project/`).
//! 5. **Nothing is lost, nobody gets in.** Who leaves is locked, not deleted. Secrets end in [`decode`].
//! 6. **Never a silent gap.** Whether the stream may go on is decided from the catalogs ([`source`]),
//!    and otherwise everything is copied again ([`copy`]).
//! 7. **LiteLLM cannot be harmed**: a publication and a slot are all we have there.
//! 8. **No mass accident**: a batch that would lock out unusually many people is held ([`target::brake`]).
//! 9. **What cannot be read narrows, and says so.** A value that does not parse, a missing column, a hidden row or an
//!    empty answer is never taken for "no limit", "nobody" or "gone".
//! 10. **"Ready" is proved, not remembered**: it follows from what moved last ([`observe`]), and every wait on a database
//!     has a limit.
//! 11. **A look never stops the stream**: what is only for looking at has connections and patience of its own, and what it finds is
//!     written in small batches between two of the stream ([`pipeline`]).
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        clippy::print_stdout,
        reason = "a test that panics points at its line"
    )
)]

// What is typed: flags, help, exit codes, how answers are printed; the demo.
pub mod cli;
// What a person asks for: `setup`, `doctor`, `plan`, `access`, `passwords`, `report`, `resnapshot` and `verify`, `teardown`.
pub mod operate;
// Wires the stages and keeps them running: supervise, lead, receive, apply; keep house, look at everything beside the stream, watch
// the slot, ask for models.
pub mod pipeline;
// What the daemon shows of itself: state, board, metrics, pages, health.
pub mod observe;
// Who is close to their budget, and whose is used up: what a batch is to close and open.
pub mod budgets;
// Copies at a consistent point (the first one, healing), and looks at both ends (`verify`, `resnapshot`, the reconcile).
pub mod copy;

// The stream, in the order of the flow.

// LiteLLM's side: publication, slot, replication session, and whether we can go on.
pub mod source;
// pgoutput in, row changes out.
pub mod decode;
// Folds row changes per key into the parts of a batch.
pub mod stage;
// Writes a part of a batch to our copy of LiteLLM's rows and which budgets are used up, and says who is touched.
pub mod mirror;
// Which models a person may use: LiteLLM's lists, and how the levels narrow each other.
pub mod access;
// Makes Open WebUI's rows what the mirror, the ledger and the policy say they should be.
pub mod project;
// All that is ours in Open WebUI's database: the session, checkpoint, schema, layout, brake, pause, audit, dead letters.
pub mod target;

// The ground: shared by all, knowing none of the above.

// Environment, flags, URLs and the policy file, checked all at once.
pub mod config;
// Connecting, TLS, quoting.
pub mod postgres;
// Which LiteLLM tables are published, which of them mirrored, column by column, and what a change of each touches.
pub mod catalog;
// What can go wrong, and whether to try again or to stop and say what to do.
pub mod error;
// Named crash windows for the tests.
pub mod failpoint;
// JSON as LiteLLM's columns hold it, read one level at a time.
pub mod json;
// Positions in the WAL, and whose WAL it is.
pub mod position;
// Every file of `sql/` as a named constant.
pub mod sql;
