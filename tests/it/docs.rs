//! The handbook, README and the other documents: their links lead somewhere, and what they name exists.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use clap::Parser as _;
use litellm_webui_sync::cli::Cli;
use litellm_webui_sync::config::reference;
use litellm_webui_sync::observe::progress::State;
use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};
use regex::Regex;

const BOOK: &str = "docs/src";
/// Documents that are no page of the book.
const OTHERS: &[&str] = &[
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "SECURITY.md",
    "sql/README.md",
    "packaging/README.md",
    "packaging/helm/litellm-webui-sync/README.md",
];
const RULES: &str = include_str!("../../grafana/prometheus/rules.yml");
const ERRORS: &str = include_str!("../../src/error.rs");

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Every page of the book, by its path in the repository.
fn pages() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut directories = vec![root().join(BOOK)];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|kind| kind == "md") {
                found.insert(path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    assert!(found.len() > 40);
    found
}

/// What there is to check in a document.
#[derive(Debug, Default)]
struct Document {
    name: String,
    /// Links and pictures.
    links: Vec<String>,
    /// Ids of its headings, as mdBook and the usual hosts of repositories make them.
    anchors: BTreeSet<String>,
    /// Text in backquotes.
    code: Vec<String>,
    /// Lines of blocks marked as sh or bash.
    commands: Vec<String>,
    text: String,
}

fn document(name: &str) -> Document {
    parse(name, read(name))
}

fn parse(name: &str, text: String) -> Document {
    let mut document = Document { name: name.to_owned(), ..Document::default() };
    let (mut heading, mut is_shell) = (None::<String>, false);
    for event in Parser::new_ext(&text, Options::ENABLE_TABLES) {
        match event {
            Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                document.links.push(dest_url.into_string());
            }
            Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
            Event::End(TagEnd::Heading(_)) => {
                let id = anchor(&heading.take().unwrap());
                let again = (1..).map(|n| format!("{id}-{n}")).find(|id| !document.anchors.contains(id));
                let is_new = document.anchors.insert(id);
                document.anchors.extend(again.filter(|_| !is_new));
            }
            Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(language))) => {
                is_shell = matches!(&*language, "sh" | "bash");
            }
            Event::End(TagEnd::CodeBlock) => is_shell = false,
            Event::Text(text) => {
                if let Some(heading) = &mut heading {
                    heading.push_str(&text);
                }
                if is_shell {
                    document.commands.extend(text.lines().map(str::to_owned));
                }
            }
            Event::Code(code) => {
                if let Some(heading) = &mut heading {
                    heading.push_str(&code);
                }
                document.code.push(code.into_string());
            }
            _ => {}
        }
    }
    document.text = text;
    document
}

fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || c.is_whitespace() || matches!(c, '_' | '-'));
    kept.map(|c| if c.is_whitespace() { '-' } else { c.to_ascii_lowercase() }).collect()
}

fn documents() -> BTreeMap<String, Document> {
    let names = pages().into_iter().chain(OTHERS.iter().map(|name| (*name).to_owned()));
    names.map(|name| (name.clone(), document(&name))).collect()
}

/// `to`, seen from the document `from`, as a path in the repository.
fn resolve(from: &str, to: &str) -> String {
    let mut path = PathBuf::new();
    for part in Path::new(from).parent().unwrap().join(to).components() {
        match part {
            Component::ParentDir => assert!(path.pop(), "{from}: {to} leaves the repository"),
            other => path.push(other),
        }
    }
    path.to_str().unwrap().to_owned()
}

#[test]
fn every_link_leads_somewhere() {
    let documents = documents();
    let mut broken = Vec::new();
    for document in documents.values() {
        for link in document.links.iter().filter(|link| !link.contains("://")) {
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let to = if path.is_empty() { document.name.clone() } else { resolve(&document.name, path) };
            let is_there = if anchor.is_empty() {
                root().join(&to).exists()
            } else {
                documents.get(&to).is_some_and(|found| found.anchors.contains(anchor))
            };
            // A book holds its own pages only.
            let is_in_the_book = !document.name.starts_with(BOOK) || to.starts_with(BOOK);
            if !is_there || !is_in_the_book {
                broken.push(format!("{}: {link}", document.name));
            }
        }
    }
    assert!(broken.is_empty(), "lead nowhere, or out of the book:\n{}", broken.join("\n"));
}

#[test]
fn every_page_is_in_the_summary_once() {
    let summary = format!("{BOOK}/SUMMARY.md");
    let mut listed = document(&summary).links;
    let all = listed.len();
    listed.sort();
    listed.dedup();
    assert_eq!(listed.len(), all, "a page is listed twice");
    let listed: BTreeSet<String> = listed.iter().map(|link| resolve(&summary, link)).collect();
    let mut pages = pages();
    pages.remove(&summary);
    assert_eq!(listed, pages);
}

/// Names of the variants of `Error` that stop the daemon.
fn stops() -> Vec<&'static str> {
    let body = ERRORS.split("pub fn reaction(").nth(1).unwrap().split("pub fn remedy(").next().unwrap();
    // The last list of variants; what a match decides case by case stands before it.
    let list = body.rsplit_once("Self::Decode").map(|(_, rest)| rest.split("=>").next().unwrap()).unwrap();
    let variant = Regex::new(r"Self::(\w+)").unwrap();
    let listed = variant.captures_iter(list).map(|found| found.get(1).unwrap().as_str());
    let found: Vec<&str> =
        ["Connect", "Postgres", "Replication", "Decode"].into_iter().chain(listed).collect();
    assert!(found.len() > 12, "{found:?}");
    found
}

fn kebab(name: &str) -> String {
    Regex::new("([a-z])([A-Z])").unwrap().replace_all(name, "$1-$2").to_lowercase()
}

#[test]
fn every_state_alert_and_stop_has_a_page() {
    let states = State::ALL.map(|state| format!("operating/states/{}", state.name()));
    let alerts = RULES.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    let alerts: Vec<String> = alerts.map(|name| format!("alerts/{name}")).collect();
    assert!(alerts.len() > 20);
    let stops = stops().into_iter().map(|name| format!("stops/{}", kebab(name)));
    let wanted: BTreeSet<String> =
        states.into_iter().chain(alerts).chain(stops).map(|page| format!("{BOOK}/{page}.md")).collect();
    let pages = pages();
    for page in &wanted {
        assert!(pages.contains(page), "{page} is missing");
        let text = read(page);
        let body = text.split_once('\n').unwrap().1.trim();
        assert!(body.len() > 60, "{page} says next to nothing");
        let index = Path::new(page).with_file_name("index.md");
        let name = Path::new(page).file_name().unwrap().to_str().unwrap();
        assert!(read(index.to_str().unwrap()).contains(&format!("({name}")), "{name} is not in its index");
    }
    // And none is left of what is gone.
    let folders = ["operating/states", "alerts", "stops"].map(|folder| format!("{BOOK}/{folder}/"));
    let is_one = |page: &&String| folders.iter().any(|folder| page.starts_with(folder));
    let left: Vec<&String> = pages
        .iter()
        .filter(is_one)
        .filter(|page| !page.ends_with("/index.md") && !wanted.contains(*page))
        .collect();
    assert!(left.is_empty(), "pages of nothing: {left:?}");
}

#[test]
fn the_readme_is_short() {
    let lines = read("README.md").lines().count();
    assert!(lines <= 150, "README.md has {lines} lines: what is more belongs in the handbook");
}

/// The arguments of a command of ours on a line of a shell; none where it calls something else.
fn arguments(line: &str) -> Option<Vec<String>> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None::<char>);
    for c in line.chars() {
        match (quote, c) {
            (Some(end), _) if c == end => quote = None,
            (Some(_), _) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                word.get_or_insert_default();
                quote = Some(c);
            }
            (None, '#') if word.is_none() => break,
            (None, '|' | ';' | '&' | '>' | '<') => break,
            (None, _) if c.is_whitespace() => words.extend(word.take()),
            (None, _) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    let ours = |start: &[&str]| words.get(..start.len()).is_some_and(|found| found == start);
    if ours(&["cargo", "run", "--"]) {
        words.drain(..2);
    } else if !ours(&["litellm-webui-sync"]) {
        return None;
    }
    Some(words)
}

#[test]
fn every_command_is_one() {
    assert_eq!(
        arguments("litellm-webui-sync pause --reason \"for a while\" >out  # why"),
        Some(["litellm-webui-sync", "pause", "--reason", "for a while"].map(str::to_owned).to_vec())
    );
    let (mut wrong, mut tried) = (Vec::new(), 0);
    for document in documents().values() {
        let named = document.code.iter().filter(|code| code.starts_with("litellm-webui-sync "));
        for line in document.commands.iter().chain(named.filter(|code| !code.contains('…'))) {
            let Some(arguments) = arguments(line) else { continue };
            tried += 1;
            if let Err(error) = Cli::try_parse_from(arguments) {
                wrong.push(format!("{}: {line}\n{error}", document.name));
            }
        }
    }
    assert!(tried > 60, "only {tried} commands were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_workload_of_the_benchmark_is_in_the_handbook_with_its_command() {
    let program = read("tests/bench/main.rs");
    let variants = program.split_once("enum Workload {").unwrap().1.split_once('}').unwrap().0;
    let workloads: BTreeSet<String> = variants.split(',').map(|name| kebab(name.trim())).collect();
    let page = read("docs/src/benchmark.md");
    let command = Regex::new("`cargo bench -- ([a-z-]+)`").unwrap();
    let named: BTreeSet<String> = command.captures_iter(&page).map(|found| found[1].to_owned()).collect();
    let wanted: BTreeSet<String> = workloads.into_iter().filter(|name| !name.is_empty()).collect();
    assert!(wanted.len() > 5, "only {wanted:?} were found");
    assert_eq!(named, wanted);
}

#[test]
fn every_variable_exists() {
    let known = reference::settings();
    let variable = Regex::new("LITELLM_WEBUI_SYNC_[A-Z_]*[A-Z]").unwrap();
    for document in documents().values() {
        for found in variable.find_iter(&document.text) {
            let name = found.as_str();
            assert!(known.contains(&format!("`{name}`")), "{}: there is no {name}", document.name);
        }
    }
}

#[test]
fn every_file_that_is_named_is_there() {
    let folder = Regex::new(r"^(src|sql|tests|docs|grafana|stack|packaging|\.ci|\.github)/").unwrap();
    let (mut gone, mut looked) = (Vec::new(), 0);
    for document in documents().values().filter(|document| document.name != "CHANGELOG.md") {
        for code in document.code.iter().filter(|code| folder.is_match(code)) {
            // What follows a name are arguments; <…>, * and … stand for many.
            let name = code.split([' ', ':']).next().unwrap();
            if name.contains(['<', '*', '…', '{']) {
                continue;
            }
            looked += 1;
            if !root().join(name).exists() {
                gone.push(format!("{}: {name}", document.name));
            }
        }
    }
    assert!(looked > 15, "only {looked} were found");
    assert!(gone.is_empty(), "not there:\n{}", gone.join("\n"));
}

#[test]
fn nothing_cites_what_is_not_in_the_repository() {
    let cited = Regex::new(r#"docs/src/([a-z-]+\.md)(?:, "([^"]+)")?"#).unwrap();
    let gone = Regex::new(r"\bDESIGN\b|\bfacts/").unwrap();
    let mut wrong = Vec::new();
    let mut directories =
        ["src", "tests", "sql", "grafana", "stack", "packaging"].map(|name| root().join(name)).to_vec();
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
            if path.is_dir() {
                directories.push(path);
            } else if let Ok(text) = std::fs::read_to_string(&path)
                && name != "tests/it/docs.rs"
            {
                wrong.extend(gone.find(&text).map(|found| format!("{name} cites {}", found.as_str())));
                for found in cited.captures_iter(&text) {
                    let page = format!("{BOOK}/{}", &found[1]);
                    let heading = found.get(2).map(|heading| anchor(heading.as_str()));
                    let is_there = root().join(&page).exists()
                        && heading.is_none_or(|heading| document(&page).anchors.contains(&heading));
                    if !is_there {
                        wrong.push(format!("{name} cites {}", &found[0]));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
