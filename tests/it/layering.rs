//! Who stands on whom, and who may not know what: rules over the text of `src/`.

use std::path::{Path, PathBuf};

/// The rooms, one floor each: a room imports only what stands below it here. Within a line of `src/lib.rs` the stream is
/// in the order of the flow; this is the same tree by what needs what: a stage knows what the one before it hands on.
const FLOORS: &[&str] = &[
    "main",
    "cli",
    "operate",
    "pipeline",
    "observe",
    "budgets",
    "copy",
    "source",
    "mirror",
    "stage",
    "decode",
    "project",
    "access",
    "target",
    "failpoint",
    "error",
    "postgres",
    "config",
    "catalog",
    "json",
    "position",
    "sql",
];

/// This text only in these files.
const ONLY_IN: &[(&str, &[&str])] = &[
    ("use pgwire_replication", &["src/source/"]),
    ("pgwire_replication::", &["src/source/"]),
    (
        "include_str!(",
        &["src/sql.rs", "src/observe/page/html.rs", "src/config/reference.rs", "src/access/mod.rs"],
    ),
    ("maud::", &["src/observe/page/"]),
    ("prometheus::", &["src/observe/metrics/"]),
    ("axum::", &["src/observe/http.rs"]),
    // A kind of dead letter is a name of the list, and nowhere a string of its own.
    ("\"last_admin\"", &["src/target/dead_letter.rs"]),
    ("update checkpoint", &["src/target/checkpoint.rs"]),
    ("insert into checkpoint", &["src/target/checkpoint.rs"]),
    ("delete from checkpoint", &["src/target/checkpoint.rs"]),
    // Whoever else asks a database has a limit: `client()` and `slow()`.
    (
        ".connection.client",
        &[
            "src/source/",
            "src/target/mod.rs",
            "src/postgres/",
            "src/budgets/",
            "src/copy/",
            "src/operate/plan/",
        ],
    ),
    (".raw()", &["src/target/", "src/copy/", "src/operate/", "src/project/"]),
    ("std::env::var", &["src/config/", "src/cli/", "src/postgres"]),
    // What a command prints goes through one place, which lets nothing but text through.
    ("println!", &["src/cli/demo/"]),
    ("print!(", &["src/cli/demo/"]),
    ("process::exit", &[]),
    (".unwrap()", &[]),
];

/// These words never in these files.
const NEVER_IN: &[(&str, &[&str])] = &[
    ("src/decode/", &["tokio", "async ", "Instant", "SystemTime::now"]),
    ("src/stage/", &["tokio", "async ", "Instant", "SystemTime::now", "crate::target"]),
    ("src/catalog.rs", &["async "]),
    // Whatever the pipeline has done, a room does in which it belongs.
    (
        "src/pipeline/",
        &[
            ".client()",
            ".prepare(",
            ".query(",
            ".execute(",
            "\"select ",
            "\"set ",
            "use crate::sql;",
            "sql::{self",
        ],
    ),
    ("src/project/", &["\"begin\"", "\"commit\""]),
    ("src/mirror/", &["\"begin\"", "\"commit\""]),
    ("src/budgets/book.rs", &["async ", "SystemTime", "Instant", "crate::source", "crate::target"]),
    ("src/budgets/rules.rs", &["async ", "SystemTime", "Instant", "crate::"]),
    ("src/observe/http.rs", &["tokio_postgres", "crate::target", "crate::source"]),
    ("src/observe/page/", &["tokio", "async ", "crate::source"]),
    ("src/observe/board.rs", &["tokio", "async ", "crate::source"]),
    ("src/observe/guard.rs", &["tokio", "async ", "axum"]),
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

/// The room a file is in: its folder under `src/`, or its own name.
fn room(file: &str) -> &str {
    let inside = file.strip_prefix("src/").unwrap();
    inside.split_once('/').map_or_else(|| inside.strip_suffix(".rs").unwrap(), |(folder, _)| folder)
}

/// The paths below `crate::` that a text names, also out of `use crate::{…}`.
fn named(text: &str) -> Vec<String> {
    let flat: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut found = Vec::new();
    for rest in flat.split("crate::").skip(1) {
        let end = if rest.starts_with('{') { rest.find(';') } else { rest.find([' ', ';', ',', ')']) };
        let path = &rest[..end.unwrap_or(rest.len())];
        match path.strip_prefix('{') {
            // A group may hold groups: what stands first on its level is a room.
            Some(group) => {
                let mut depth = 0;
                let mut word = String::new();
                for c in group.chars().chain([',']) {
                    match c {
                        '{' => depth += 1,
                        '}' => depth -= 1,
                        ',' if depth <= 0 => found.push(std::mem::take(&mut word).trim().to_owned()),
                        _ if depth == 0 => word.push(c),
                        _ => {}
                    }
                }
            }
            None => found.push(path.to_owned()),
        }
    }
    found
}

#[test]
fn no_room_imports_one_above_it() {
    let floor = |room: &str| FLOORS.iter().position(|known| *known == room);
    let files = sources();
    let mut found = Vec::new();
    for (name, text) in &files {
        let from = room(name);
        if from == "lib" {
            continue;
        }
        let Some(here) = floor(from) else {
            found.push(format!("{name}: room {from:?} has no floor"));
            continue;
        };
        for path in named(text) {
            let to = path.split("::").next().unwrap();
            // `crate::` in a macro, or a name of this file.
            let Some(there) = floor(to) else { continue };
            if there < here {
                let path = path.replace("::", "/");
                // The file that comes nearest: what follows it is a name inside it.
                let stem = |file: &str| {
                    file["src/".len()..].trim_end_matches(".rs").trim_end_matches("/mod").to_owned()
                };
                let named =
                    files.iter().map(|(file, _)| file.as_str()).filter(|file| path.starts_with(&stem(file)));
                let file = named.max_by_key(|file| stem(file).len()).unwrap_or(to);
                found.push(format!("{name} imports {file}, which stands above it"));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn the_floors_are_the_rooms_there_are() {
    let mut rooms: Vec<String> = sources().iter().map(|(name, _)| room(name).to_owned()).collect();
    rooms.retain(|room| room != "lib");
    rooms.sort();
    rooms.dedup();
    let mut floors: Vec<&str> = FLOORS.to_vec();
    floors.sort_unstable();
    assert_eq!(rooms, floors);
}

#[test]
fn what_a_text_imports_is_found_in_every_form() {
    let text = "use crate::stage::Part;\nuse crate::{decode::{Row, Value}, source,\n catalog::Kind};\n fn f(x: crate::page::X)";
    assert_eq!(named(text), ["stage::Part", "decode::", "source", "catalog::Kind", "page::X"]);
}
