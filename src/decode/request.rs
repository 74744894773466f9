//! What logical messages of ours ask for: a barrier, a resnapshot.
//!
//! Owns the form of these messages, both ways. Anybody may emit a message with our prefix, so whatever is not exactly one of
//! ours is none. Pure, like all of `decode`.

use serde::{Deserialize, Serialize};

use crate::catalog::TableId;

/// Prefix of our logical messages.
pub const MESSAGE_PREFIX: &str = "litellm_webui_sync";

/// Whether a message is a barrier: strictly parsed, because anybody may emit messages.
pub fn is_barrier(prefix: &str, content: &[u8]) -> bool {
    prefix == MESSAGE_PREFIX && content == b"barrier"
}

/// Longer messages are nobody's request.
const MAX_MESSAGE: usize = 4096;

/// What a message asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    pub id: uuid::Uuid,
    /// LiteLLM's names of tables; empty is all of them.
    pub tables: Vec<String>,
    /// Report the difference, and change nothing.
    pub dry_run: bool,
}

impl Request {
    /// The content of the message that asks for this.
    pub fn to_message(&self) -> String {
        format!("resnapshot {}", serde_json::to_string(self).unwrap_or_default())
    }

    /// Reads a message. Anybody may send one: whatever is not exactly a request of ours is none.
    pub fn from_message(prefix: &str, content: &[u8]) -> Option<Self> {
        if prefix != MESSAGE_PREFIX || content.len() > MAX_MESSAGE {
            return None;
        }
        let request: Self = serde_json::from_slice(content.strip_prefix(b"resnapshot ")?).ok()?;
        let known = |name: &String| TableId::mirrored().any(|id| id.table().source == name);
        (request.tables.len() <= TableId::mirrored().count() && request.tables.iter().all(known))
            .then_some(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_requests_are_read() {
        let request =
            Request { id: uuid::Uuid::nil(), tables: vec!["LiteLLM_UserTable".into()], dry_run: true };
        let text = request.to_message();
        assert_eq!(Request::from_message(MESSAGE_PREFIX, text.as_bytes()), Some(request));
        for (prefix, content) in [
            ("other", text.as_str()),
            (MESSAGE_PREFIX, "barrier"),
            (MESSAGE_PREFIX, "resnapshot"),
            (MESSAGE_PREFIX, "resnapshot {}"),
            (MESSAGE_PREFIX, &text.replace("UserTable", "Nobody")),
            (MESSAGE_PREFIX, &text.replace("dry_run", "drop")),
            (MESSAGE_PREFIX, &text.replace(']', &format!("{}]", ",\"LiteLLM_UserTable\"".repeat(20)))),
        ] {
            assert_eq!(Request::from_message(prefix, content.as_bytes()), None, "{content}");
        }
    }
}
