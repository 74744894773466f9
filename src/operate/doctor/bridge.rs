//! The trigger bridge that some come from: triggers in LiteLLM's database that write Open WebUI's over dblink.
//!
//! Owns how it is recognised, and what is said about it. Reads only; never shows a function's text, which holds a password.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::{Check, Verdict, finding};
use crate::config::Config;
use crate::error::{Result, Side, on};
use crate::source::Source;
use crate::sql;
use crate::target::Target;

/// How long passwords are tried: each takes a fifth of a second or more.
const PATIENCE: Duration = Duration::from_secs(10);

/// What of it is in LiteLLM's database.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Bridge {
    /// (kind, name, the statement that drops it), in the order in which they can be dropped.
    pub objects: Vec<(String, String, String)>,
}

impl Bridge {
    /// Whether it still writes to Open WebUI.
    pub fn is_at_work(&self) -> bool {
        self.objects.iter().any(|(kind, _, _)| kind == "trigger")
    }
}

/// Looks for it in LiteLLM's database.
pub async fn find(source: &Source, config: &Config) -> Result<Bridge> {
    let rows = source.client().query(sql::DOCTOR_BRIDGE_SOURCE, &[&config.litellm_schema]).await;
    let rows = rows.map_err(on(Side::Source, "look for a trigger bridge"))?;
    Ok(Bridge {
        objects: rows.iter().map(|row| (row.get("kind"), row.get("name"), row.get("drop"))).collect(),
    })
}

pub(super) fn judge(bridge: &Bridge) -> Option<Check> {
    let names = |wanted: &str| -> Vec<&str> {
        let these = bridge.objects.iter().filter(|(kind, _, _)| kind == wanted);
        these.map(|(_, name, _)| name.as_str()).collect()
    };
    let (triggers, functions, tables) = (names("trigger"), names("function"), names("table"));
    if triggers.is_empty() && functions.is_empty() && tables.is_empty() {
        return None;
    }
    let (extension, drops): (Vec<_>, Vec<_>) =
        bridge.objects.iter().partition(|(kind, _, _)| kind == "extension");
    let drops: Vec<String> = drops.iter().map(|(_, _, drop)| format!("{drop};")).collect();
    let extension: String =
        extension.iter().map(|(_, _, drop)| format!(" And if nothing else needs it: {drop};")).collect();
    let found = format!(
        "triggers: {}; functions: {}; tables: {}",
        listed(&triggers),
        listed(&functions),
        listed(&tables)
    );
    let why = if triggers.is_empty() {
        "it does nothing any more; its functions hold the password of Open WebUI's database, its tables people's data"
    } else {
        "it holds up LiteLLM's own writes, and overwrites in Open WebUI what we write; its functions hold the password of Open \
         WebUI's database"
    };
    let fix = format!(
        "in LiteLLM's database, before `run`: begin; {} commit;{extension} The first copy takes over the accounts, groups and keys it made",
        drops.join(" ")
    );
    Some(finding(
        if triggers.is_empty() { Verdict::Warning } else { Verdict::Problem },
        "trigger bridge",
        found,
        why,
        fix,
    ))
}

fn listed(names: &[&str]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// What is left of it in Open WebUI's database: its tables, and passwords that are the person's e-mail.
/// `has_books`: a daemon of ours has run.
pub(super) async fn target(target: &Target, config: &Config, has_books: bool) -> Result<Vec<Check>> {
    let mut checks = Vec::new();
    let rows = target.slow().query(sql::DOCTOR_BRIDGE_TARGET, &[&config.schema]).await;
    let drops: Vec<String> = rows
        .map_err(on(Side::Target, "look for a trigger bridge"))?
        .iter()
        .map(|row| format!("{};", row.get::<_, &str>(0)))
        .collect();
    if !drops.is_empty() {
        checks.push(finding(
            Verdict::Warning,
            "tables of a trigger bridge in Open WebUI's database",
            drops.len().to_string(),
            "nobody needs them, and they hold people's data",
            drops.join(" "),
        ));
    }
    // It made them of the e-mail as LiteLLM had it; here it is in lower case by now.
    let before = if has_books {
        "(select a.before ->> 'auth_email' from account a where coalesce(a.webui_id, 'usr_' || a.user_id) = w.id collate \"C\")"
    } else {
        "null"
    };
    let text = sql::fill(sql::DOCTOR_BRIDGE_PASSWORDS, ":before", before);
    // Without a right to the log-ins, another finding says so.
    let Ok(rows) = target.slow().query(&text, &[]).await else { return Ok(checks) };
    let candidates: Vec<(Vec<String>, String)> =
        rows.iter().map(|row| (row.get("emails"), row.get("password"))).collect();
    let total = candidates.len();
    let tried = tokio::task::spawn_blocking(move || try_emails(&candidates));
    let Ok((guessed, tried)) = tried.await else { return Ok(checks) };
    if guessed > 0 {
        let rest = if tried < total {
            format!(", of {tried} tried; {total} were made in the same way")
        } else {
            String::new()
        };
        checks.push(finding(
            Verdict::Problem,
            "passwords that are the e-mail",
            format!("{guessed} accounts{rest}"),
            "whoever knows somebody's e-mail can sign in as them",
            "in Open WebUI's database: update auth set password = '' where id like 'usr\\_%' and password like '$2a$%'; (Open WebUI \
             itself writes $2b$: a password somebody chose stays). People then sign in by SSO, or with what `passwords export` \
             hands out",
        ));
    }
    Ok(checks)
}

/// How many of these are their e-mail, and how many were tried in time.
fn try_emails(candidates: &[(Vec<String>, String)]) -> (usize, usize) {
    let started = Instant::now();
    let (mut guessed, mut tried) = (0, 0);
    for (emails, hash) in candidates {
        if started.elapsed() > PATIENCE {
            break;
        }
        tried += 1;
        let emails: BTreeSet<&String> = emails.iter().collect();
        guessed += usize::from(emails.iter().any(|email| bcrypt::verify(email, hash).unwrap_or(false)));
    }
    (guessed, tried)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_at_work_is_a_problem_and_what_is_left_over_is_not() {
        let object =
            |kind: &str, name: &str| (kind.to_owned(), name.to_owned(), format!("drop {kind} {name}"));
        assert_eq!(judge(&Bridge::default()), None);
        let bridge = Bridge { objects: vec![object("table", "sync_mapping")] };
        assert!(!bridge.is_at_work());
        assert_eq!(judge(&bridge).unwrap().verdict, Verdict::Warning);
        let bridge = Bridge { objects: vec![object("trigger", "t"), object("extension", "dblink")] };
        let check = judge(&bridge).unwrap();
        assert_eq!(check.verdict, Verdict::Problem);
        assert!(
            check.fix.contains("begin; drop trigger t; commit; And if nothing else needs it: drop extension"),
            "{}",
            check.fix
        );
    }

    #[test]
    fn only_a_password_that_is_the_email_counts() {
        let hash = |password: &str| bcrypt::hash(password, 4).unwrap().replacen("$2b$", "$2a$", 1);
        let one =
            |emails: &[&str], hash: String| (emails.iter().map(|&email| email.to_owned()).collect(), hash);
        let these = [
            one(&["a@x.test"], hash("a@x.test")),
            one(&["b@x.test", "B@x.test"], hash("B@x.test")),
            one(&["c@x.test", "c@x.test"], hash("chosen")),
            one(&["d@x.test"], "$2a$nonsense".to_owned()),
        ];
        assert_eq!(try_emails(&these), (2, 4));
    }
}
