//! The rules of the projection, as a digest: whether what was written is still what would be written.
//!
//! Owns which texts count. The views are not among them, because the target knows theirs ([`crate::target::schema`]); nor is
//! the order of the statements, which is the program's, and changes with its version. Runs nothing.

use sha2::{Digest, Sha256};

use crate::access;
use crate::sql;

/// The folders of `sql/` that say what is written.
const FOLDERS: &[&str] = &["access/", "layout/", "project/"];

/// Of the statements of the projection and the rules of access. An edit that means nothing changes it as well: everything
/// is projected once more than needed, and finds nothing to do.
pub fn digest() -> String {
    let mut digest = Sha256::new();
    for (path, text) in sql::ALL {
        if FOLDERS.iter().any(|folder| path.starts_with(folder)) {
            digest.update(text);
        }
    }
    for text in access::RULES {
        digest.update(text);
    }
    digest.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_folder_is_there() {
        for folder in FOLDERS {
            assert!(sql::ALL.iter().any(|(path, _)| path.starts_with(folder)), "{folder}");
        }
        assert_eq!(digest(), digest());
    }
}
