//! Reading a policy file, and telling everything that is wrong with it at once, each with its key.
//!
//! Knows no key itself: what a key may hold is said where it is declared.

use std::path::Path;

use super::Policy;

impl Policy {
    /// Reads a policy file. The error lists every problem, each with the file and the key.
    pub fn read(file: &Path) -> Result<Self, Vec<String>> {
        let text = std::fs::read_to_string(file).map_err(|error| {
            vec![format!(
                "cannot read the policy file {}: {error}; correct the path, or leave it out to \
                 run with the defaults",
                file.display()
            )]
        })?;
        Self::parse(&text).map_err(|problems| {
            problems.into_iter().map(|problem| format!("{}: {problem}", file.display())).collect()
        })
    }

    pub(crate) fn parse(text: &str) -> Result<Self, Vec<String>> {
        let problem = match toml::from_str(text) {
            Ok(policy) => return Ok(policy),
            Err(error) => error,
        };
        let problems = match text.parse::<toml::Table>() {
            Ok(table) => problems_of(&table),
            // Not TOML at all: only its reader can say where.
            Err(_) => Vec::new(),
        };
        if problems.is_empty() {
            return Err(vec![first_line(&problem.to_string(), problem.message())]);
        }
        Err(problems)
    }
}

/// Serde stops at its first problem, so every key is read once more on its own.
fn problems_of(table: &toml::Table) -> Vec<String> {
    let mut problems = Vec::new();
    for (section, value) in table {
        match value {
            _ if !is_section(section) => {
                problems.extend(problem_with(section, None, value.clone()));
            }
            toml::Value::Table(keys) => {
                problems.extend(
                    keys.iter().filter_map(|(key, value)| problem_with(section, Some(key), value.clone())),
                );
            }
            _ => problems.push(format!("{section}: must be a section; write [{section}]")),
        }
    }
    problems
}

fn is_section(name: &str) -> bool {
    let empty = toml::Table::from_iter([(name.to_owned(), toml::Table::new().into())]);
    empty.try_into::<Policy>().is_ok()
}

fn problem_with(section: &str, key: Option<&str>, value: toml::Value) -> Option<String> {
    let value = match key {
        Some(key) => toml::Table::from_iter([(key.to_owned(), value)]).into(),
        None => value,
    };
    let table = toml::Table::from_iter([(section.to_owned(), value)]);
    let error = table.try_into::<Policy>().err()?;
    let path = key.map_or_else(|| section.to_owned(), |key| format!("{section}.{key}"));
    Some(format!("{path}: {}; correct it or remove it", error.message()))
}

/// Where a text stops being TOML, without the drawing of it.
fn first_line(whole: &str, message: &str) -> String {
    let place = whole.lines().next().unwrap_or_default();
    format!("{}: {}; correct the file", place.to_lowercase(), message.replace('\n', ", "))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::config::policy::{
        Access, AccountIds, Accounts, Adopt, ApiKeys, Audit, Batch, Brake, BudgetPolicy, Budgets, Chats,
        Demote, Failures, Grants, Http, KeyPolicy, Models, NameFormat, Names, Passwords, PublicModels,
        Relink, Source, Verify,
    };

    #[test]
    fn every_key_is_read() {
        let policy = Policy::parse(
            "api_keys = \"off\"\npasswords = \"invite\"\n[accounts]\nadopt = \"skip\"\nadopt_admins = true\nrelink = \"skip\"\n\
             demote = \"always\"\nname = \"user\"\nid = \"plain\"\n[access]\nkeys = \"required\"\nbudgets = \"enforce\"\n[models]\n\
             extra = [\"a\"]\nprefix = \"p\"\npublic = \"take\"\npoll_seconds = 5\n[grants]\n\
             group_min = 1\n[brake]\npeople = 0\npercent = 100\n\
             [source]\nmax_retained_wal = 1048576\nhealing_per_hour = 1\n[failures]\nper_hour = 7\n\
             [verify]\ninterval_hours = 0\njitter_percent = 100\nrepair = false\n\
             [audit]\nretention_days = 1\n[budgets]\ntop = 3\nsoft = 0\nemails = true\nchats = \"user\"\n\
             [http]\nnames = \"show\"\n[batch]\nchanges = 1\nbytes = 65536\n",
        );
        let expected = Policy {
            api_keys: ApiKeys::Off,
            passwords: Passwords::Invite,
            accounts: Accounts {
                adopt: Adopt::Skip,
                adopt_admins: true,
                relink: Relink::Skip,
                demote: Demote::Always,
                name: NameFormat::User,
                id: AccountIds::Plain,
            },
            access: Access { keys: KeyPolicy::Required, budgets: BudgetPolicy::Enforce },
            models: Models {
                extra: vec!["a".to_owned()],
                prefix: "p".to_owned(),
                public: PublicModels::Take,
                poll_seconds: 5,
            },
            grants: Grants { group_min: 1 },
            brake: Brake { people: 0, percent: 100 },
            source: Source { max_retained_wal: 1_048_576, healing_per_hour: 1 },
            failures: Failures { per_hour: 7 },
            verify: Verify { interval_hours: 0, jitter_percent: 100, repair: false },
            audit: Audit { retention_days: 1 },
            budgets: Budgets { top: 3, soft: 0, emails: true, chats: Chats::User },
            http: Http { names: Names::Show },
            batch: Batch { changes: 1, bytes: 65_536 },
        };
        assert_eq!(policy, Ok(expected));
    }

    #[test]
    fn every_problem_is_reported_at_once_with_its_key() {
        let problems = Policy::parse(
            "api_keys = 1\n[accounts]\nadopt = \"take\"\nrelink = 3\ncolour = 1\n[brake]\npeople = \"few\"\n\
             percent = 101\n[batch]\nbytes = 1.5\nchanges = 5\n[blub]\nx = 1\n[audit]\n\
             retention_days = -1\n",
        )
        .unwrap_err();
        assert_eq!(
            problems,
            [
                "accounts.adopt: must be \"adopt\" or \"skip\"; correct it or remove it",
                "accounts.colour: unknown field `colour`, expected one of `adopt`, \
                 `adopt_admins`, `relink`, `demote`, `name`, `id`; correct it or remove it",
                "accounts.relink: must be \"link\" or \"skip\"; correct it or remove it",
                "api_keys: must be \"mint\" or \"off\"; correct it or remove it",
                "audit.retention_days: must be a whole number from 1 to 36500; \
                 correct it or remove it",
                "batch.bytes: must be a whole number from 65536 to 1073741824; \
                 correct it or remove it",
                "blub: unknown field `blub`, expected one of `api_keys`, `passwords`, `accounts`, \
                 `access`, `models`, `grants`, `brake`, `source`, `failures`, `verify`, `audit`, `budgets`, `http`, `batch`; correct it or remove it",
                "brake.people: must be a whole number from 0 to 1000000000; \
                 correct it or remove it",
                "brake.percent: must be a whole number from 0 to 100; correct it or remove it",
            ]
        );
    }

    #[test]
    fn a_value_where_a_section_belongs_and_a_file_that_is_no_toml() {
        for (text, expected) in [
            ("accounts = 3", "accounts: must be a section; write [accounts]"),
            (
                "x",
                "toml parse error at line 1, column 2: key with no value, expected `=`; \
                 correct the file",
            ),
            (
                "[brake]\npeople = 1\npeople = 2",
                "toml parse error at line 3, column 1: duplicate key; correct the file",
            ),
        ] {
            assert_eq!(Policy::parse(text), Err(vec![expected.to_owned()]));
        }
        let missing = Policy::read(Path::new("no-such-policy.toml")).unwrap_err();
        assert!(missing[0].contains("no-such-policy.toml"), "{missing:?}");
    }
}
