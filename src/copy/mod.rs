//! Copies of LiteLLM's existing rows: the first copy, healing, `resnapshot` and `verify` are one mechanism.
//!
//! Owns the consistent point, the staging tables and the record of what was copied and why. It has no second way to write
//! rows: the mirror is made equal to the copy, and the projection is the ordinary one.

pub mod ask;
pub mod backfill;
pub mod compare;
pub mod register;
pub mod request;
pub mod resnapshot;
pub mod still;
pub mod sweep;
pub mod verify;
