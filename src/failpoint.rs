//! The crash windows, by name: each has a test that dies in it.
//!
//! Without the feature `failpoints` these calls compile to nothing. With it, `FAILPOINTS=name=panic` and the like make a
//! child process die there (crate `fail`).

use crate::error::Result;

/// The mirror is written, Open WebUI is not.
pub const STAGED_NOT_PROJECTED: &str = "staged-not-projected";
/// Everything is written, nothing is committed.
pub const PROJECTED_NOT_COMMITTED: &str = "projected-not-committed";
/// A batch was sent together with its COMMIT, and what became of that is not known.
pub const SENT_NOT_ANSWERED: &str = "sent-not-answered";
/// Committed, but the source was not told.
pub const COMMITTED_NOT_ACKNOWLEDGED: &str = "committed-not-acknowledged";
/// The slot exists, nothing was copied.
pub const SLOT_WITHOUT_COPY: &str = "slot-without-copy";
/// Copied into the staging tables, not merged.
pub const COPIED_NOT_MERGED: &str = "copied-not-merged";

/// A look has mended what differed, and nobody was told.
pub const MENDED_NOT_FINISHED: &str = "mended-not-finished";

/// No window to die in: the BEGIN of a small batch fails, and what was sent together with it arrives.
pub const BEGIN_LOST: &str = "begin-lost";

/// Every window, for the test that visits them all.
pub const ALL: &[&str] = &[
    STAGED_NOT_PROJECTED,
    PROJECTED_NOT_COMMITTED,
    SENT_NOT_ANSWERED,
    COMMITTED_NOT_ACKNOWLEDGED,
    SLOT_WITHOUT_COPY,
    COPIED_NOT_MERGED,
    MENDED_NOT_FINISHED,
];

/// Reads `FAILPOINTS`, for the life of the process.
pub fn set_up() {
    #[cfg(feature = "failpoints")]
    std::mem::forget(fail::FailScenario::setup());
}

/// Does what `FAILPOINTS` says for `name`: nothing, or die.
///
/// # Errors
/// With action `return`: the step counts as failed.
pub fn hit(name: &'static str) -> Result<()> {
    #[cfg(feature = "failpoints")]
    fail::fail_point!(name, |_| Err(crate::error::Error::Usage(format!("failpoint {name}"))));
    let _ = name;
    Ok(())
}
