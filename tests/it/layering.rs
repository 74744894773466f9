//! Who may not know what (CONTRIBUTING.md), as text rules over `src/`.

use std::path::{Path, PathBuf};

/// This text only in these files.
const ONLY_IN: &[(&str, &[&str])] = &[
    ("use pgwire_replication", &["src/source/"]),
    ("pgwire_replication::", &["src/source/"]),
    ("include_str!(", &["src/sql.rs", "src/page/html.rs", "src/config/reference.rs"]),
    ("maud::", &["src/page/"]),
    ("prometheus::", &["src/metrics/"]),
    ("axum::", &["src/http.rs"]),
    ("update checkpoint", &["src/checkpoint.rs"]),
    ("insert into checkpoint", &["src/checkpoint.rs"]),
    ("delete from checkpoint", &["src/checkpoint.rs"]),
    ("std::env::var", &["src/config/", "src/cli/", "src/postgres"]),
    ("eprintln!", &["src/cli/", "src/main.rs"]),
    ("process::exit", &[]),
    (".unwrap()", &[]),
];

/// These words never in these files.
const NEVER_IN: &[(&str, &[&str])] = &[
    (
        "src/decode/",
        &["tokio", "async ", "Instant", "SystemTime::now", "crate::target", "crate::source", "crate::stage"],
    ),
    ("src/stage/", &["tokio", "async ", "Instant", "SystemTime::now", "crate::target", "crate::source"]),
    ("src/catalog.rs", &["crate::pipeline", "crate::source", "crate::target", "async "]),
    ("src/project/", &["crate::source", "crate::pipeline", "\"begin\"", "\"commit\""]),
    ("src/mirror/", &["crate::source", "crate::pipeline", "\"commit\""]),
    ("src/budgets/book.rs", &["async ", "SystemTime", "Instant", "crate::source", "crate::target"]),
    ("src/budgets/rules.rs", &["async ", "SystemTime", "Instant", "crate::"]),
    ("src/http.rs", &["tokio_postgres", "crate::target", "crate::source"]),
    ("src/page/", &["tokio", "async ", "crate::target", "crate::source", "crate::pipeline"]),
    ("src/board.rs", &["tokio", "async ", "crate::target", "crate::source", "crate::pipeline"]),
    ("src/guard.rs", &["tokio", "async ", "axum"]),
];

fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    let mut directories = vec![root.join("src")];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|kind| kind == "rs") {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                files.push((name, code(&std::fs::read_to_string(&path).unwrap())));
            }
        }
    }
    assert!(files.len() > 20);
    files
}

/// Without comments, and without the unit tests at the end.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]").next().unwrap();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

#[test]
fn what_belongs_to_one_module_stays_there() {
    let mut found = Vec::new();
    for (name, text) in sources() {
        for (words, homes) in ONLY_IN {
            if text.contains(words) && !homes.iter().any(|home| name.starts_with(home)) {
                found.push(format!("{name} contains {words:?}, which belongs to {homes:?}"));
            }
        }
        for (place, words) in NEVER_IN {
            for word in words.iter().filter(|word| name.starts_with(place) && text.contains(**word)) {
                found.push(format!("{name} contains {word:?}"));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn every_module_says_what_it_is_for() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (name, _) in sources() {
        let text = std::fs::read_to_string(root.join(&name)).unwrap();
        assert!(text.starts_with("//! "), "{name}");
    }
}
