//! What is kept of a value. Pure.
//!
//! The reductions of [`Kind`]: usable e-mails, rosters, the few metadata fields we read, tokens.
//! Nothing here fails, because LiteLLM's columns are free text and JSON that people can type: an e-mail that cannot be used
//! is none, an entry of a roster that names nobody is left out. What decides is never lost to something odd beside it: of a
//! JSON document only the members we keep are read ([`crate::json`]), and they stay as they are.

use std::borrow::Cow;
use std::fmt::Write as _;

use sha2::{Digest, Sha256};

use crate::catalog::Kind;
use crate::json;

/// The longest e-mail every Open WebUI can hold: databases born before 0.9 keep `varchar(255)`.
const EMAIL_MAX_CHARS: usize = 255;

/// What the mirror keeps of `sent`, a value of a column of this kind.
pub fn reduce(kind: Kind, sent: &str) -> Option<Cow<'_, str>> {
    match kind {
        Kind::Text | Kind::Json => Some(Cow::Borrowed(sent)),
        Kind::Array => Some(flat(sent)),
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

/// What stands before the SHA-256 of a key that LiteLLM keeps in the clear.
pub const CLEAR: &str = "clear:";

/// The stored form of a key's token: LiteLLM stores the SHA-256 of a key as 64 hex digits; very
/// old rows hold the key itself, which must not reach the mirror.
///
/// Such a row is told apart from one that holds the SHA-256 of the same key: they are two rows of LiteLLM's, and what is
/// said of the one must not change the other.
pub fn token(sent: &str) -> Cow<'_, str> {
    if is_hash(sent) { Cow::Borrowed(sent) } else { Cow::Owned(format!("{CLEAR}{}", sha256(sent))) }
}

fn is_hash(sent: &str) -> bool {
    sent.len() == 64 && sent.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn sha256(sent: &str) -> String {
    Sha256::digest(sent.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A `text[]` of tokens, each in its stored form. A key in the clear names its row, however that is stored. The result needs no
/// quoting.
fn tokens(sent: &str) -> String {
    let mut stored: Vec<String> = Vec::new();
    for sent in elements(sent).flatten() {
        if !is_hash(&sent) {
            stored.push(sha256(&sent));
        }
        stored.push(token(&sent).into_owned());
    }
    format!("{{{}}}", stored.join(","))
}

/// A `text[]` in one dimension. The type holds any number of them, as Postgres' `unnest` reads them one after the other;
/// whoever reads the mirror counts on one.
fn flat(sent: &str) -> Cow<'_, str> {
    // `{{a},{b}}`, and `[0:1]={a,b}` for one that does not begin at 1.
    if !sent.starts_with("{{") && !sent.starts_with('[') {
        return Cow::Borrowed(sent);
    }
    let quoted = elements(sent).map(|element| match element {
        Some(text) => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
        None => "NULL".to_owned(),
    });
    Cow::Owned(format!("{{{}}}", quoted.collect::<Vec<_>>().join(",")))
}

/// The elements of a `text[]` as Postgres writes it, of whatever dimensions, in order. What is no array has none.
fn elements(sent: &str) -> impl Iterator<Item = Option<String>> {
    let inner = match sent.split_once("={") {
        // Bounds stand before the array; a `={` of an element comes after its brace.
        Some((bounds, inner)) if bounds.starts_with('[') => Some(inner),
        _ => sent.strip_prefix('{'),
    };
    let mut chars = inner.and_then(|inner| inner.strip_suffix('}')).unwrap_or_default().chars();
    std::iter::from_fn(move || {
        let (mut element, mut is_quoted, mut is_inside, mut is_any) = (String::new(), false, false, false);
        loop {
            let next = chars.next();
            match next {
                Some('"') => {
                    (is_quoted, is_any) = (true, true);
                    is_inside = !is_inside;
                }
                Some('\\') => element.extend(chars.next()),
                Some('{' | '}') if !is_inside => {}
                Some(',') | None if !is_inside || next.is_none() => {
                    if is_any {
                        let is_null = !is_quoted && element.eq_ignore_ascii_case("null");
                        return Some((!is_null).then_some(element));
                    }
                    next?;
                }
                Some(other) => {
                    is_any = true;
                    element.push(other);
                }
                None => return None,
            }
        }
    })
}

/// Whether Postgres can store the text. JSON inside a JSON string can hold an escaped NUL, which jsonb refuses.
fn has_nul(text: &str) -> bool {
    text.contains('\0')
}

/// `members_with_roles` as `[{"user_id": …}]` and, for entries without a user id,
/// `[{"user_email": …}]` (normalised). It is `{}` where a roster was never set.
fn roster(sent: &str) -> String {
    let entries = json::array(sent).unwrap_or_default();
    let kept = entries.iter().filter_map(|entry| {
        let entry = json::object(entry.get())?;
        let member = |name: &str| entry.get(name).and_then(|value| json::text(value));
        let (name, value) = match member("user_id") {
            Some(user_id) if has_nul(&user_id) => return None,
            Some(user_id) => ("user_id", user_id),
            None => ("user_email", member("user_email").and_then(|sent| email(&sent))?),
        };
        Some(serde_json::json!({ name: value }).to_string())
    });
    format!("[{}]", kept.collect::<Vec<_>>().join(","))
}

/// A JSON object reduced to `names`.
fn fields(sent: &str, names: &[&str]) -> String {
    let object = json::object(sent).unwrap_or_default();
    let mut kept = String::new();
    for name in names {
        if let Some(value) = object.get(*name) {
            let comma = if kept.is_empty() { "" } else { "," };
            let _ = write!(kept, "{comma}\"{name}\":{}", without_nul(value.get()));
        }
    }
    format!("{{{kept}}}")
}

/// JSON text whose escaped NULs are replacement characters: jsonb refuses them, and the value must not count as missing.
fn without_nul(json: &str) -> Cow<'_, str> {
    const NUL: &str = "\\u0000";
    if !json.contains(NUL) {
        return Cow::Borrowed(json);
    }
    let mut out = String::with_capacity(json.len());
    let mut rest = json;
    while let Some(at) = rest.find('\\') {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        if let Some(after) = from.strip_prefix(NUL) {
            out.push('\u{fffd}');
            rest = after;
        } else {
            // A backslash and what it escapes, which may be another backslash.
            let escape = from.char_indices().nth(2).map_or(from.len(), |(end, _)| end);
            let (escape, after) = from.split_at(escape);
            out.push_str(escape);
            rest = after;
        }
    }
    out.push_str(rest);
    Cow::Owned(out)
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
        assert_eq!(fields(&sent, &["scim_active"]), "{\"scim_active\":\"\u{fffd}\"}");
        let sent = serde_json::to_string(r#"{"team_id":"\\u0000 \u0000x"}"#).unwrap();
        assert_eq!(fields(&sent, &["team_id"]), "{\"team_id\":\"\\\\u0000 \u{fffd}x\"}");
    }

    #[test]
    fn what_is_odd_beside_a_field_does_not_hide_it() {
        let deep = format!("{}{}", "[".repeat(130), "]".repeat(130));
        for odd in [&deep, "1e400", "-1e999"] {
            let sent = format!(r#"{{"x":{odd},"scim_active":false}}"#);
            assert_eq!(fields(&sent, &["scim_active"]), r#"{"scim_active":false}"#);
            let sent = format!(r#"[{{"user_id":"u1","n":{odd}}},{odd},{{"user_id":"u2"}}]"#);
            assert_eq!(roster(&sent), r#"[{"user_id":"u1"},{"user_id":"u2"}]"#);
        }
    }

    #[test]
    fn arrays_are_kept_in_one_dimension() {
        let of = |sent: &str| reduce(Kind::Array, sent).unwrap().into_owned();
        for plain in ["{}", "{a,NULL,\"b c\"}", "{\"{x}\",\"[0:1]={y}\"}"] {
            assert_eq!(of(plain), plain);
        }
        assert_eq!(of("{{gpt-4o},{claude}}"), r#"{"gpt-4o","claude"}"#);
        assert_eq!(of(r#"{{{"a,b",NULL}},{{"c\"{}",""}}}"#), r#"{"a,b",NULL,"c\"{}",""}"#);
        assert_eq!(of("[0:1]={a,b}"), r#"{"a","b"}"#);
        assert_eq!(of("[0:1][5:5]={{a},{NULL}}"), r#"{"a",NULL}"#);
    }

    #[test]
    fn a_key_in_the_clear_becomes_its_hash_and_is_not_taken_for_it() {
        let hash = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
        assert_eq!(token("secret"), format!("clear:{hash}"));
        // Never one that a row of LiteLLM's could have as it is.
        assert_ne!(token(&format!("clear:{hash}")), format!("clear:{hash}"));
        assert_eq!(token(hash), hash);
    }

    #[test]
    fn every_key_in_an_array_becomes_its_hash() {
        let hash = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
        assert_eq!(
            tokens(&format!("{{secret,{hash},NULL,\"secret\"}}")),
            format!("{{{hash},clear:{hash},{hash},{hash},clear:{hash}}}")
        );
        assert_eq!(tokens("{}"), "{}");
        assert_eq!(tokens("secret"), "{}");
        let texts: Vec<_> = elements(r#"{a,"b, \"c\" \\ }","NULL","",null}"#).collect();
        let texts: Vec<_> = texts.iter().map(Option::as_deref).collect();
        assert_eq!(texts, [Some("a"), Some("b, \"c\" \\ }"), Some("NULL"), Some(""), None]);
    }
}
