//! What is kept of a value. Pure.
//!
//! The reductions of [`Kind`]: usable e-mails, rosters, the few metadata fields we read, tokens.
//! Nothing here fails: a value that makes no sense to us is kept as "nothing", never as an error,
//! because LiteLLM's columns are free text and JSON that people can type.

use std::borrow::Cow;

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::catalog::Kind;

/// The longest e-mail every Open WebUI can hold: databases born before 0.9 keep `varchar(255)`.
const EMAIL_MAX_CHARS: usize = 255;

/// What the mirror keeps of `sent`, a value of a column of this kind.
pub fn reduce(kind: Kind, sent: &str) -> Option<Cow<'_, str>> {
    match kind {
        Kind::Text | Kind::Array | Kind::Json => Some(Cow::Borrowed(sent)),
        Kind::Email => email(sent).map(Cow::Owned),
        Kind::Roster => Some(Cow::Owned(roster(sent))),
        Kind::Fields(names) => Some(Cow::Owned(fields(sent, names))),
        Kind::Token => Some(token(sent)),
        Kind::Tokens => Some(Cow::Owned(tokens(sent))),
    }
}

/// The usable form of an e-mail: without surrounding Unicode white space, in lower case, one `@`
/// with something on both sides, no white space inside, and short enough for every Open WebUI.
pub fn email(sent: &str) -> Option<String> {
    let email = sent.trim().to_lowercase();
    let (local, domain) = email.split_once('@')?;
    let usable = !local.is_empty()
        && !domain.is_empty()
        && !domain.contains('@')
        && !email.contains(char::is_whitespace)
        && !has_nul(&email)
        && email.chars().count() <= EMAIL_MAX_CHARS;
    usable.then_some(email)
}

/// The stored form of a key's token: LiteLLM stores the SHA-256 of a key as 64 hex digits; very
/// old rows hold the key itself, which must not reach the mirror.
pub fn token(sent: &str) -> Cow<'_, str> {
    if sent.len() == 64 && sent.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Cow::Borrowed(sent);
    }
    let digest = Sha256::digest(sent.as_bytes());
    Cow::Owned(digest.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A `text[]` of tokens, each in its stored form. The result needs no quoting.
fn tokens(sent: &str) -> String {
    let stored: Vec<_> = text_array(sent).iter().map(|sent| token(sent).into_owned()).collect();
    format!("{{{}}}", stored.join(","))
}

/// The elements of a one-dimensional `text[]` as Postgres writes it, without its NULLs. Anything else is empty.
fn text_array(sent: &str) -> Vec<String> {
    let Some(inner) = sent.strip_prefix('{').and_then(|sent| sent.strip_suffix('}')) else {
        return Vec::new();
    };
    let mut elements = Vec::new();
    let mut chars = inner.chars().peekable();
    while chars.peek().is_some() {
        let (mut element, mut quoted) = (String::new(), false);
        let mut inside = false;
        while let Some(next) = chars.next() {
            match next {
                '"' => {
                    quoted = true;
                    inside = !inside;
                }
                '\\' => element.extend(chars.next()),
                ',' if !inside => break,
                other => element.push(other),
            }
        }
        if quoted || !element.eq_ignore_ascii_case("null") {
            elements.push(element);
        }
    }
    elements
}

/// LiteLLM sometimes stores JSON inside a JSON string.
pub fn json(sent: &str) -> Option<Value> {
    match serde_json::from_str(sent).ok()? {
        Value::String(inner) => serde_json::from_str(&inner).ok(),
        value => Some(value),
    }
}

/// Whether Postgres can store the text. JSON inside a JSON string can hold an escaped NUL, which jsonb refuses.
fn has_nul(text: &str) -> bool {
    text.contains('\0')
}

/// `members_with_roles` as `[{"user_id": …}]` and, for entries without a user id,
/// `[{"user_email": …}]` (normalised). It is `{}` where a roster was never set.
fn roster(sent: &str) -> String {
    let entries = match json(sent) {
        Some(Value::Array(entries)) => entries,
        _ => Vec::new(),
    };
    let kept: Vec<Value> = entries
        .iter()
        .filter_map(|entry| {
            let mut kept = Map::new();
            match entry.get("user_id").and_then(Value::as_str) {
                Some(user_id) if has_nul(user_id) => return None,
                Some(user_id) => kept.insert("user_id".to_owned(), user_id.into()),
                None => {
                    let email = entry.get("user_email").and_then(Value::as_str).and_then(email)?;
                    kept.insert("user_email".to_owned(), email.into())
                }
            };
            Some(Value::Object(kept))
        })
        .collect();
    Value::Array(kept).to_string()
}

/// A JSON object reduced to `names`.
fn fields(sent: &str, names: &[&str]) -> String {
    let mut kept = Map::new();
    if let Some(Value::Object(mut object)) = json(sent) {
        for name in names {
            if let Some(value) = object.remove(*name)
                && !value.to_string().contains("\\u0000")
            {
                kept.insert((*name).to_owned(), value);
            }
        }
    }
    Value::Object(kept).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_email_is_usable_after_trimming_and_lower_casing_or_not_at_all() {
        assert_eq!(email(" Ann@Example.COM\u{a0}").as_deref(), Some("ann@example.com"));
        for bad in ["", " ", "ann", "@b", "a@", "a@b@c", "a b@c", "a@b c", "a@b\n@c"] {
            assert_eq!(email(bad), None, "{bad:?}");
        }
        assert!(email(&format!("{}@b", "a".repeat(253))).is_some());
        assert_eq!(email(&format!("{}@b", "a".repeat(254))), None);
    }

    #[test]
    fn a_roster_keeps_ids_and_falls_back_to_emails() {
        let sent = r#"[{"user_id":"u1","user_email":"x@y","role":"admin"},
                       {"user_id":null,"user_email":"Only.Mail@Y","role":"user"},
                       {"user_id":null,"user_email":null}, 7]"#;
        assert_eq!(roster(sent), r#"[{"user_id":"u1"},{"user_email":"only.mail@y"}]"#);
        assert_eq!(roster(r#""[{\"user_id\":\"u1\"}]""#), r#"[{"user_id":"u1"}]"#);
        assert_eq!(roster("{}"), "[]");
        assert_eq!(roster("not json"), "[]");
    }

    #[test]
    fn metadata_keeps_only_named_fields() {
        let sent = r#"{"scim_active": false, "api_key": "secret"}"#;
        assert_eq!(fields(sent, &["scim_active"]), r#"{"scim_active":false}"#);
        assert_eq!(fields("[]", &["scim_active"]), "{}");
    }

    #[test]
    fn an_escaped_nul_in_json_inside_json_never_reaches_the_mirror() {
        let sent =
            serde_json::to_string(r#"[{"user_id":"a\u0000b"},{"user_email":"a\u0000@b"},{"user_id":"c"}]"#)
                .unwrap();
        assert_eq!(roster(&sent), r#"[{"user_id":"c"}]"#);
        let sent = serde_json::to_string(r#"{"scim_active":"\u0000"}"#).unwrap();
        assert_eq!(fields(&sent, &["scim_active"]), "{}");
    }

    #[test]
    fn a_key_in_the_clear_becomes_its_hash() {
        let hash = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
        assert_eq!(token("secret"), hash);
        assert_eq!(token(hash), hash);
    }

    #[test]
    fn every_key_in_an_array_becomes_its_hash() {
        let hash = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
        assert_eq!(
            tokens(&format!("{{secret,{hash},NULL,\"secret\"}}")),
            format!("{{{hash},{hash},{hash}}}")
        );
        assert_eq!(tokens("{}"), "{}");
        assert_eq!(tokens("secret"), "{}");
        assert_eq!(text_array(r#"{a,"b, \"c\" \\ }","NULL",""}"#), ["a", "b, \"c\" \\ }", "NULL", ""]);
    }
}
