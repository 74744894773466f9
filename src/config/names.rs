//! Whether names and places fit: of the slot, the publication and the schemas, and of both databases beside each other.
//!
//! Pure judgement: each answers with what is wrong and how to write it, or with nothing. Reads no variable and no file.

use super::secrets::{SOURCE_URL, TARGET_URL};
use super::{Address, Endpoint, Host};

/// Postgres cuts longer names off silently, and then they are not found again.
const MAX_NAME_BYTES: usize = 63;

/// A slot name is also a directory name on the server, hence the narrow alphabet.
pub(super) fn slot_problem(slot: &str) -> Option<String> {
    let is_valid = !slot.is_empty()
        && slot.len() <= MAX_NAME_BYTES
        && slot.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    (!is_valid).then(|| {
        format!(
            "--slot \"{}\" is not a slot name; use 1 to 63 lower-case letters, digits and \
             underscores",
            slot.escape_default()
        )
    })
}

/// Names we choose ourselves need no quoting anywhere. That also keeps a publication's name
/// whole: the server is sent a comma-separated list and folds its case.
pub(super) fn own_name_problem(flag: &str, name: &str) -> Option<String> {
    let mut chars = name.chars();
    let begins_well = chars.next().is_some_and(|c| c.is_ascii_lowercase() || c == '_');
    let is_valid = begins_well
        && chars.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '$')
        && name.len() <= MAX_NAME_BYTES
        && !name.starts_with("pg_")
        && !["public", "information_schema"].contains(&name);
    (!is_valid).then(|| {
        format!(
            "--{flag} \"{}\" cannot be used; use up to 63 lower-case letters, digits and \
             underscores, not beginning with a digit or pg_, and no name that PostgreSQL brings \
             along",
            name.escape_default()
        )
    })
}

/// Names the products chose: any identifier goes, because it is quoted where it is used.
pub(super) fn product_schema_problem(flag: &str, schema: &str) -> Option<String> {
    let is_valid = schema.len() <= MAX_NAME_BYTES && !schema.contains('\0');
    (!is_valid).then(|| format!("{flag}: a schema name has at most 63 bytes; correct it here or in the URL"))
}

/// Uninstalling drops our schema.
pub(super) fn shared_schema_problem(schema: &str, webui_schema: &str) -> Option<String> {
    (schema == webui_schema).then(|| {
        format!(
            "--schema and Open WebUI's schema are both \"{webui_schema}\"; give ours another \
             name, because uninstalling drops it"
        )
    })
}

pub(super) fn same_place_problem(
    source: &Endpoint,
    target: &Endpoint,
    litellm_schema: &str,
    webui_schema: &str,
) -> Option<String> {
    let is_one_server =
        |one: &Address, other: &Address| one.port == other.port && server(&one.host) == server(&other.host);
    let shared = target
        .addresses
        .iter()
        .find(|theirs| source.addresses.iter().any(|ours| is_one_server(ours, theirs)))?;
    (source.database == target.database && litellm_schema == webui_schema).then(|| {
        format!(
            "{SOURCE_URL} and {TARGET_URL} name the same database and schema ({shared}/{}, \
             \"{webui_schema}\"); point one at LiteLLM's and the other at Open WebUI's",
            target.database
        )
    })
}

/// The host as far as two spellings of one can be told to be the same without asking a server.
fn server(host: &Host) -> Host {
    match host {
        Host::Tcp(name) => match name.to_lowercase().trim_end_matches('.') {
            "localhost" | "127.0.0.1" | "::1" => Host::Tcp("localhost".to_owned()),
            name => Host::Tcp(name.to_owned()),
        },
        Host::Socket(directory) => Host::Socket(directory.components().collect()),
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, reason = "a test fails by panicking")]
mod tests {
    use crate::config::tests::{SOURCE, TARGET, load_with_urls, problems};

    #[test]
    fn source_and_target_must_differ() {
        for (source, target) in [
            ("postgresql://u@localhost/d", "postgresql://v@127.0.0.1:5432/d"),
            ("postgresql://u@DB.example/d", "host=db.example. dbname=d"),
            ("postgresql://u@%2Frun/d", "postgresql:///d?host=/run/"),
            ("postgresql://u@h/d?schema=x", "postgresql://v@h/d?schema=x"),
            ("postgresql://u@a,b/d", "postgresql://v@b,c/d"),
        ] {
            let all = problems(&[], source, target);
            assert_eq!(all.len(), 1, "{source}: {all:?}");
            assert!(all[0].contains("the same database and schema"), "{all:?}");
        }
        for (source, target) in [
            ("postgresql://u@h/d", "postgresql://u@h:5433/d"),
            ("postgresql://u@h/d", "postgresql://u@h/e"),
            ("postgresql://u@h/d?schema=x", "postgresql://u@h/d"),
        ] {
            assert!(load_with_urls(&[], source, target).is_ok(), "{source}");
        }
    }

    #[test]
    fn names_are_checked() {
        let long = "a".repeat(64);
        for (flag, good, bad) in [
            ("--slot", ["a", "0_b"].as_slice(), ["", "A", "a-b", "a$", "ä", &long].as_slice()),
            (
                "--publication",
                &["a", "_a$1"],
                &["", "A", "1a", "a b", "a,b", "a\"b", "a'b", "a\0b", "$a", "pg_a", &long],
            ),
            ("--schema", &["a"], &["", "information_schema", "pg_catalog", &long]),
            ("--litellm-schema", &["", "Any \"name\""], &[&long, "a\0"]),
            ("--webui-schema", &["Any, name"], &[&long]),
            ("--http", &["off", "[::1]:80", "0.0.0.0:0"], &["", "localhost", ":80", "1.2.3.4"]),
        ] {
            for value in good {
                assert!(load_with_urls(&[flag, value], SOURCE, TARGET).is_ok(), "{flag} {value}");
            }
            for value in bad {
                let all = problems(&[flag, value], SOURCE, TARGET);
                assert_eq!(all.len(), 1, "{flag} {value}: {all:?}");
            }
        }
    }
}
