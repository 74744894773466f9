//! What can be configured, as the handbook lists it.
//!
//! Owns the two texts that are made from the code: the table of flags and variables, and the policy file with every key. A
//! test compares them with `docs/src/configuration.md`.

use clap::{Arg, Args as _, Command};

use super::Settings;
use super::secrets::{HTTP_TOKEN, MODELS_CA, MODELS_KEY, MODELS_URL, SOURCE_URL, TARGET_URL};

/// The policy file with every key and its default.
pub const POLICY: &str = include_str!("policy.toml");

/// Variables that no flag has, because they hold secrets or belong to them: name, default, what they are. Those with a file
/// form are listed in [`IN_FILES`].
const VARIABLES: &[(&str, &str, &str)] = &[
    (
        HTTP_TOKEN,
        "none",
        "What the [status page](operating/status-page.md) asks for; needed when it is reachable from other machines",
    ),
    (MODELS_URL, "none", "LiteLLM's address, to ask which models it serves"),
    (MODELS_KEY, "none", "A LiteLLM key that lists them all"),
    (MODELS_CA, "Mozilla's", "File of authorities (PEM) to believe about that address"),
    ("RUST_LOG", "`info`", "Log level"),
];
/// `NAME_FILE` names a file with the value.
const IN_FILES: &[&str] = &[SOURCE_URL, TARGET_URL, HTTP_TOKEN, MODELS_KEY];

/// The table of flags and variables, in Markdown.
pub fn settings() -> String {
    let mut table = "| environment | flag | default | |\n|---|---|---|---|\n".to_owned();
    let command = Settings::augment_args(Command::new("settings"));
    for argument in command.get_arguments().filter(|argument| argument.get_long().is_some()) {
        table.push_str(&flag(argument));
    }
    for (name, default, what) in VARIABLES {
        table.push_str(&format!("| {} | | {default} | {what} |\n", variable(name)));
    }
    table
}

fn flag(argument: &Arg) -> String {
    let id = argument.get_id().as_str();
    let name = match id {
        "source_url_file" => SOURCE_URL.to_owned(),
        "target_url_file" => TARGET_URL.to_owned(),
        _ => argument.get_env().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
    };
    let value: String =
        argument.get_value_names().unwrap_or_default().iter().map(|name| format!(" {name}")).collect();
    let long = argument.get_long().unwrap_or_default();
    let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
    // What clap cannot know stands in the help.
    let (what, told) = match help.split_once(" [default: ") {
        Some((what, told)) => (what.to_owned(), told.trim_end_matches(']').to_owned()),
        None => (help, String::new()),
    };
    let known: Vec<String> =
        argument.get_default_values().iter().map(|value| format!("`{}`", value.to_string_lossy())).collect();
    let default = if IN_FILES.contains(&name.as_str()) {
        "required".to_owned()
    } else if !known.is_empty() {
        known.join(" ")
    } else if told.is_empty() {
        "none".to_owned()
    } else {
        told
    };
    let choices: Vec<String> =
        argument.get_possible_values().iter().map(|value| format!("`{}`", value.get_name())).collect();
    let choices = if choices.is_empty() { String::new() } else { format!(": {}", choices.join(" or ")) };
    format!("| {} | `--{long}{value}` | {default} | {what}{choices} |\n", variable(&name))
}

fn variable(name: &str) -> String {
    if IN_FILES.contains(&name) { format!("`{name}`, or `{name}_FILE`") } else { format!("`{name}`") }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::config::Policy;

    #[test]
    fn the_policy_file_has_every_key_and_its_default() {
        assert_eq!(Policy::parse(POLICY), Ok(Policy::default()));
        let file: toml::Table = POLICY.parse().unwrap();
        let sections: Vec<&str> =
            file.iter().filter(|(_, value)| value.is_table()).map(|(name, _)| name.as_str()).collect();
        // What a wrong key is told: the keys there are.
        let known = |text: &str| -> BTreeSet<String> {
            let problems = Policy::parse(text).unwrap_err().join(" ");
            let (_, listed) = problems.split_once("expected ").unwrap();
            let (listed, _) = listed.split_once(';').unwrap();
            listed.split('`').skip(1).step_by(2).map(str::to_owned).collect()
        };
        let has = |table: &toml::Table| -> BTreeSet<String> { table.keys().cloned().collect() };
        assert_eq!(has(&file), known("blub = 1"));
        for section in sections {
            let table = file[section].as_table().unwrap();
            assert_eq!(has(table), known(&format!("[{section}]\nblub = 1")), "{section}");
        }
    }
}
