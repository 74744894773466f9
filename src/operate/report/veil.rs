//! Takes out of a report what strangers must not read: secrets always, and people, places and names unless they are asked for.
//!
//! Pure. It does not trust where a text comes from: whatever the databases, the configuration and the servers' messages hold
//! goes through [`Veil::text`]. Of a server's own message only what Postgres itself says is kept, because a trigger may raise
//! anything, and of what stands in quotes only names of tables, columns and constraints.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::LazyLock;

use regex::{Captures, Regex, RegexSet};
use serde_json::Value;

use crate::config::{Config, Endpoint, Host};

/// What is not to be read, and what stands in its place.
type Hidden = (String, &'static str);

/// What a text is freed of.
#[derive(Debug, Default)]
pub(super) struct Veil {
    /// Hidden whatever is asked for, wherever they stand.
    secrets: Vec<Hidden>,
    /// Hosts, roles and the like, as whole words.
    places: Vec<Hidden>,
    /// Names that say nothing of anybody.
    identifiers: BTreeSet<String>,
    names: bool,
}

/// An expression of ours; that each is one, a test says.
macro_rules! pattern {
    ($name:ident = $text:expr) => {
        static $name: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new($text).ok());
    };
}

pattern!(KEY = r"\b[sp]k-[A-Za-z0-9_-]{3,}");
pattern!(CREDENTIALS = r"://[^/\s@]*:[^/\s@]*@");
pattern!(
    PASSWORD = r#"(?i)\b(password|passwd|pwd|sslpassword|token|secret)\s*=\s*('[^']*'|"[^"]*"|[^\s&"']+)"#
);
pattern!(EMAIL = r#"[^\s"'<>(),;:=\[\]{}|/]+@[^\s"'<>(),;:=\[\]{}|/]+"#);
pattern!(ADDRESS = r"\b\d{1,3}(?:\.\d{1,3}){3}\b");
// Other sessions, as `Source::blockers` lists them: greedy, because an application may call itself anything.
pattern!(SESSION = r"\(role .*\) open|prepared transaction .*\) open");
pattern!(QUOTED = r#""([^"]*)""#);
pattern!(SERVER = r"\b(ERROR|FATAL|PANIC): (.*?) \(SQLSTATE ([0-9A-Z]{5})\)(; hint: .*)?");
pattern!(NAMED = r"\b(constraint|table|column) ([^,\n]+)");
/// What Postgres says by itself, whole messages; what stands in quotes in them is looked at like any other.
const OWN_WORDS: &[&str] = &[
    r#"duplicate key value violates unique constraint "[^"]*""#,
    r#"null value in column "[^"]*" of relation "[^"]*" violates not-null constraint"#,
    r#"new row for relation "[^"]*" violates check constraint "[^"]*""#,
    r#"(insert or update|update or delete) on table "[^"]*" violates foreign key constraint "[^"]*"( on table "[^"]*")?"#,
    r"value too long for type [a-z ]+(\(\d+\))?",
    r#"invalid input syntax for type [a-z ]+: "[^"]*""#,
    r"cannot cast type [a-z ]+ to [a-z ]+",
    r"permission denied for (table|schema|view|sequence|database|function|relation) \S+",
    r"must be (superuser|owner)[a-z ]*",
    r#"(relation|column|role|database|schema|publication|replication slot) "[^"]*" does not exist"#,
    r#"relation "[^"]*" already exists"#,
    r#"password authentication failed for user "[^"]*""#,
    r#"no pg_hba\.conf entry for [a-z ]*host "[^"]*", user "[^"]*", database "[^"]*", (no encryption|SSL encryption|SSL off|SSL on)"#,
    r"the database system is (starting up|shutting down|in recovery mode|not yet accepting connections)",
    r"sorry, too many clients already",
    r"remaining connection slots are reserved [a-z -]*",
    r"(terminating connection|canceling statement) due to [a-z -]*",
    r"cannot execute [A-Z ]+ in a read-only transaction",
    r"could not serialize access due to [a-z /]*",
    r"deadlock detected",
    r#"replication slot "[^"]*" is active for PID \d+"#,
    r"all replication slots are in use",
];

fn is_of_postgres(message: &str) -> bool {
    static WHOLE: LazyLock<Option<RegexSet>> =
        LazyLock::new(|| RegexSet::new(OWN_WORDS.iter().map(|own| format!("^(?:{own})$"))).ok());
    WHOLE.as_ref().is_some_and(|own| own.is_match(message))
}

impl Veil {
    /// `names`: people, places and models may be read.
    pub(super) fn new(config: &Config, names: bool) -> Self {
        let mut veil = Self { names, ..Self::default() };
        let secrets = [&config.source.password, &config.target.password].into_iter();
        let more = config.http_token.iter().chain(config.models_api.iter().map(|api| &api.key));
        for secret in secrets.chain(more).map(crate::config::Secret::expose) {
            if !secret.is_empty() {
                veil.secrets.push((secret.to_owned(), "[secret]"));
            }
        }
        for endpoint in [&config.source, &config.target] {
            veil.hide_endpoint(endpoint);
        }
        if let Some(api) = &config.models_api {
            veil.hide(api.url.host().unwrap_or_default(), "[host]");
        }
        // Names that nobody chose say nothing.
        for (name, default, instead) in [
            (&config.slot, "litellm_webui_sync", "[slot]"),
            (&config.publication, "litellm_webui_sync", "[publication]"),
            (&config.schema, "litellm_webui_sync", "[schema]"),
            (&config.litellm_schema, "public", "[schema]"),
            (&config.webui_schema, "public", "[schema]"),
        ] {
            if name == default {
                veil.identifiers.insert(name.clone());
            } else {
                veil.hide(name, instead);
            }
        }
        // The longest first: one may hold another.
        veil.secrets.sort_by_key(|(text, _)| std::cmp::Reverse(text.len()));
        veil.places.sort_by_key(|(text, _)| std::cmp::Reverse(text.len()));
        veil
    }

    fn hide_endpoint(&mut self, endpoint: &Endpoint) {
        self.hide(&endpoint.user, "[role]");
        self.hide(&endpoint.database, "[database]");
        for address in &endpoint.addresses {
            match &address.host {
                Host::Tcp(host) => self.hide(host, "[host]"),
                Host::Socket(directory) => self.hide(&directory.to_string_lossy(), "[socket]"),
            }
        }
        let tls = &endpoint.tls;
        for file in [&tls.root_cert, &tls.client_cert, &tls.client_key].into_iter().flatten() {
            self.hide(&file.to_string_lossy(), "[file]");
        }
    }

    fn hide(&mut self, place: &str, instead: &'static str) {
        if !place.is_empty() {
            self.places.push((place.to_owned(), instead));
        }
    }

    /// These may be read.
    pub(super) fn know(&mut self, identifiers: impl IntoIterator<Item = String>) {
        self.identifiers.extend(identifiers);
    }

    /// Whether people, places and models may be read.
    pub(super) fn shows_names(&self) -> bool {
        self.names
    }

    /// Everything that is text in it.
    pub(super) fn value(&self, value: Value) -> Value {
        match value {
            Value::String(text) => self.text(&text).into(),
            Value::Array(list) => list.into_iter().map(|one| self.value(one)).collect(),
            Value::Object(object) => {
                object.into_iter().map(|(name, value)| (name, self.value(value))).collect()
            }
            other => other,
        }
    }

    pub(super) fn text(&self, text: &str) -> String {
        let mut out = text.to_owned();
        for (secret, instead) in &self.secrets {
            out = out.replace(secret.as_str(), instead);
        }
        out = replaced(&KEY, &out, |_| "[secret]".to_owned());
        out = replaced(&CREDENTIALS, &out, |_| "://[secret]@".to_owned());
        out = replaced(&PASSWORD, &out, |found| format!("{}=[secret]", &found[1]));
        if self.names {
            return out;
        }
        out = replaced(&SERVER, &out, |found| {
            let message = if is_of_postgres(&found[2]) { &found[2] } else { "[message]" };
            format!("{}: {message} (SQLSTATE {})", &found[1], &found[3])
        });
        // Before places: whoever is at a host of ours is not to be told by the rest of it.
        out = replaced(&EMAIL, &out, |_| "[e-mail]".to_owned());
        for (place, instead) in &self.places {
            out = whole_words(&out, place, instead);
        }
        out = replaced(&SESSION, &out, |_| "[…] open".to_owned());
        out = replaced(&ADDRESS, &out, |_| "[address]".to_owned());
        replaced(&QUOTED, &out, |found| match &found[1] {
            text if self.is_plain(text) => format!("\"{text}\""),
            _ => "\"[…]\"".to_owned(),
        })
    }

    /// A dead letter's or an audit row's reason: a text of ours, or a SQLSTATE with names that whoever raised it chose.
    pub(super) fn reason(&self, reason: &str) -> String {
        if self.names || !reason.starts_with("SQLSTATE ") {
            return self.text(reason);
        }
        let known = replaced(&NAMED, reason, |found| match &found[2] {
            name if self.is_plain(name) => format!("{} {name}", &found[1]),
            _ => format!("{} […]", &found[1]),
        });
        self.text(&known)
    }

    /// A name from the catalogs, something of ours, or what this file put there.
    fn is_plain(&self, text: &str) -> bool {
        self.identifiers.contains(text) || (text.starts_with('[') && text.ends_with(']'))
    }
}

fn replaced(pattern: &LazyLock<Option<Regex>>, text: &str, with: impl Fn(&Captures<'_>) -> String) -> String {
    match pattern.as_ref().map(|pattern| pattern.replace_all(text, |found: &Captures<'_>| with(found))) {
        Some(Cow::Owned(text)) => text,
        Some(Cow::Borrowed(_)) | None => text.to_owned(),
    }
}

/// Replaces `what` where it is no part of another word.
fn whole_words(text: &str, what: &str, instead: &str) -> String {
    let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(what) {
        let (before, after) = rest.split_at(at);
        let after = after.strip_prefix(what).unwrap_or_default();
        out.push_str(before);
        let is_whole = !out.ends_with(is_word) && !after.starts_with(is_word);
        out.push_str(if is_whole { instead } else { what });
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn veil(names: bool) -> Veil {
        let mut veil = Veil {
            secrets: vec![("zq secret".to_owned(), "[secret]")],
            places: vec![("db.contoso".to_owned(), "[host]"), ("llm".to_owned(), "[role]")],
            identifiers: BTreeSet::new(),
            names,
        };
        veil.know(["user_email_key".to_owned(), "user".to_owned()]);
        veil
    }

    #[test]
    fn every_pattern_is_one() {
        let all = [&KEY, &CREDENTIALS, &PASSWORD, &EMAIL, &ADDRESS, &SESSION, &QUOTED, &SERVER, &NAMED];
        assert!(all.iter().all(|pattern| pattern.is_some()));
        assert!(is_of_postgres("deadlock detected") && !is_of_postgres("deadlock detected, says Alice"));
    }

    #[test]
    fn secrets_are_hidden_whatever_is_asked_for() {
        for names in [false, true] {
            for (text, expected) in [
                ("it is zq secret, really", "it is [secret], really"),
                ("key sk-abc123 was refused", "key [secret] was refused"),
                ("see postgresql://bob:pw@h/d", "see postgresql://[secret]@h/d"),
                ("host=h password=abc", "host=h password=[secret]"),
                ("token = 'a b'", "token=[secret]"),
            ] {
                assert_eq!(veil(names).text(text), expected);
            }
        }
    }

    #[test]
    fn people_and_places_are_hidden_and_what_is_told_stays() {
        for (text, expected) in [
            ("could not connect to llm@db.contoso:5432/x", "could not connect to [e-mail]:5432/x"),
            ("no answer from db.contoso within 5s", "no answer from [host] within 5s"),
            ("a@x.test and alice@db.contoso", "[e-mail] and [e-mail]"),
            ("pid 7 (role bob, x) open for Al) open for 3 s", "pid 7 […] open for 3 s"),
            ("10.1.2.3 said no", "[address] said no"),
            ("group \"Legal\" is odd", "group \"[…]\" is odd"),
            (
                "could not x: ERROR: duplicate key value violates unique constraint \"user_email_key\" (SQLSTATE 23505)",
                "could not x: ERROR: duplicate key value violates unique constraint \"user_email_key\" (SQLSTATE 23505)",
            ),
            (
                "could not x: ERROR: Alice may not (SQLSTATE P0001); hint: ask Bob",
                "could not x: ERROR: [message] (SQLSTATE P0001)",
            ),
            (
                "ERROR: duplicate key value, says Alice (SQLSTATE 23505): more",
                "ERROR: [message] (SQLSTATE 23505): more",
            ),
            ("LiteLLM's litellm_webui_sync, llmx", "LiteLLM's litellm_webui_sync, llmx"),
        ] {
            assert_eq!(veil(false).text(text), expected);
        }
        assert_eq!(veil(true).text("a@x.test, \"Legal\""), "a@x.test, \"Legal\"");
    }

    #[test]
    fn of_a_reason_only_names_of_the_catalogs_stay() {
        let reason = |text: &str| veil(false).reason(text);
        assert_eq!(
            reason("SQLSTATE 23505, constraint user_email_key, table user"),
            "SQLSTATE 23505, constraint user_email_key, table user"
        );
        assert_eq!(
            reason("SQLSTATE 23514, constraint Alice A., table user"),
            "SQLSTATE 23514, constraint […], table user"
        );
        let own = "another LiteLLM user has a better claim to the e-mail";
        assert_eq!(reason(own), own);
    }
}
