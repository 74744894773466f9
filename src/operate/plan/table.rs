//! A plan for people: counts first, then the rows, group by group.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::{Account, Plan};

/// Rows shown of each group unless all are asked for.
const SHOWN: usize = 24;

/// The text. `all`: every row; `bold`: for a terminal.
pub fn text(plan: &Plan, all: bool, bold: bool) -> String {
    let mut out = String::new();
    let shown = if all { usize::MAX } else { SHOWN };
    for note in &plan.notes {
        line(&mut out, &format!("note: {note}"));
    }
    let read: Vec<String> = plan
        .litellm
        .iter()
        .filter(|copied| copied.rows > 0)
        .map(|copied| format!("{} {}", copied.rows, copied.table.trim_start_matches("LiteLLM_")))
        .collect();
    line(
        &mut out,
        &format!("read of LiteLLM: {}", if read.is_empty() { "no row".to_owned() } else { read.join(", ") }),
    );
    line(&mut out, &format!("Open WebUI's tables: {}", plan.layout));
    counts(&mut out, plan);
    let sections = Sections { out: &mut out, shown, bold };
    sections.all(plan);
    let end = match (plan.is_empty(), plan.has_run) {
        (true, _) => "Nothing would be written.",
        (false, false) => {
            "Nothing was written. `litellm-webui-sync run` does exactly this, and then follows."
        }
        (false, true) => {
            "Nothing was written. The daemon has run here: this is what everything looked at afresh with this policy would \
             change, and changes on their way show as well. `verify` compares at one point of the stream."
        }
    };
    let _ = write!(out, "\n{end}\n");
    out
}

/// One line a kind: how many of each action.
fn counts(out: &mut String, plan: &Plan) {
    let tally = |actions: Vec<&str>| {
        let mut counted: BTreeMap<&str, usize> = BTreeMap::new();
        for action in actions {
            *counted.entry(action).or_default() += 1;
        }
        let parts: Vec<String> = counted.iter().map(|(action, count)| format!("{count} {action}")).collect();
        if parts.is_empty() { "-".to_owned() } else { parts.join(", ") }
    };
    out.push('\n');
    for (what, actions) in [
        ("accounts", plan.accounts.iter().map(|one| one.action.as_str()).collect()),
        ("groups", plan.groups.iter().map(|one| one.action.as_str()).collect()),
        ("members", plan.members.iter().map(|one| one.action.as_str()).collect()),
        ("API keys", plan.keys.iter().map(|one| one.action.as_str()).collect()),
        ("models", plan.models.iter().map(|one| one.action.as_str()).collect()),
        ("grants", plan.grants.iter().map(|one| one.action.as_str()).collect::<Vec<_>>()),
    ] {
        let _ = writeln!(out, "{what:<9} {}", tally(actions));
    }
    let _ = writeln!(out, "{:<9} {} people get no account", "skipped", plan.skipped.len());
    let _ = writeln!(out, "{:<9} {} cannot be written", "failures", plan.failures.len());
    if !plan.public_models.is_empty() {
        let _ = writeln!(
            out,
            "{:<9} {} models are public in Open WebUI although LiteLLM limits them",
            "public",
            plan.public_models.len()
        );
    }
}

struct Sections<'a> {
    out: &'a mut String,
    shown: usize,
    bold: bool,
}

impl Sections<'_> {
    fn all(mut self, plan: &Plan) {
        for (action, title) in [
            ("create", "Accounts to be created"),
            ("adopt", "Accounts of Open WebUI to be adopted (id, password, settings and chats stay)"),
            ("link", "Accounts to be linked to another LiteLLM user"),
            ("update", "Accounts to be changed"),
            ("unlock", "Accounts to be unlocked"),
            ("lock", "Accounts to be locked"),
        ] {
            let these = plan.accounts.iter().filter(|one| one.action == action);
            self.section(title, these.map(account));
        }
        let skipped = plan.skipped.iter();
        self.section(
            "LiteLLM users who get no account",
            skipped.map(|one| {
                let email = one.email.as_deref().filter(|email| !email.is_empty()).unwrap_or("-");
                format!("{}  {email}  ({})", one.user_id, one.reason)
            }),
        );
        self.section(
            "Cannot be written",
            plan.failures.iter().map(|one| {
                let email = one.email.as_deref().map(|email| format!(" {email}")).unwrap_or_default();
                let critical = if one.critical { "CRITICAL: " } else { "" };
                format!("{} {}{email}: {critical}{}", one.kind, one.key, one.reason)
            }),
        );
        for (action, title) in [
            ("create", "Groups to be created"),
            ("use", "Groups that are there already, and are used"),
            ("rename", "Groups to be renamed"),
            ("remove", "Groups to be removed"),
        ] {
            let these = plan.groups.iter().filter(|one| one.action == action);
            self.section(
                title,
                these.map(|one| {
                    let name = one.name.as_deref().unwrap_or_default();
                    let old = one.old_name.as_deref().map(|old| format!("{old} → ")).unwrap_or_default();
                    format!("{}  {old}{name}  ({}, {} members)", one.webui_id, one.kind, one.members)
                }),
            );
        }
        // Who joins a new group is said by its count; the JSON has each.
        let leaving = plan.members.iter().filter(|one| one.action == "leave");
        self.section(
            "People who leave a group",
            leaving.map(|one| member(one.email.as_deref(), one.group.as_deref())),
        );
        let created =
            |id: &str| plan.groups.iter().any(|group| group.webui_id == id && group.action == "create");
        let joining = plan.members.iter().filter(|one| one.action == "join" && !created(&one.group_id));
        self.section(
            "People who join a group that is there already",
            joining.map(|one| member(one.email.as_deref(), one.group.as_deref())),
        );
        for (action, title) in [
            ("mint", "People who get a personal API key"),
            ("delete", "People who lose the API key we gave them"),
        ] {
            let these = plan.keys.iter().filter(|one| one.action == action);
            self.section(title, these.map(|one| one.email.clone().unwrap_or_else(|| one.webui_id.clone())));
        }
        for (action, title) in [
            ("create", "Models to be listed"),
            ("activate", "Models to be active again"),
            ("retire", "Models to be set inactive"),
            ("take", "Models that are public, and will not be"),
        ] {
            let these = plan.models.iter().filter(|one| one.action == action);
            self.section(title, these.map(|one| one.model_id.clone()));
        }
        for (action, title) in [("grant", "Grants to be given"), ("revoke", "Grants to be taken back")] {
            let these = plan.grants.iter().filter(|one| one.action == action);
            self.section(
                title,
                these.map(|one| {
                    let principal = one.principal.as_deref().unwrap_or(&one.principal_id);
                    format!("{}  to {} {principal}", one.model_id, one.principal_type)
                }),
            );
        }
        self.section("Public models", plan.public_models.iter().cloned());
    }

    fn section(&mut self, title: &str, rows: impl Iterator<Item = String>) {
        let rows: Vec<String> = rows.collect();
        if rows.is_empty() {
            return;
        }
        let title = format!("{title}: {}", rows.len());
        let title = if self.bold { format!("\x1b[1m{title}\x1b[0m") } else { title };
        let _ = write!(self.out, "\n{title}\n");
        for row in rows.iter().take(self.shown) {
            line(self.out, &format!("  {row}"));
        }
        if rows.len() > self.shown {
            let _ =
                writeln!(self.out, "  … and {} more (--all shows them, --json too)", rows.len() - self.shown);
        }
    }
}

fn account(one: &Account) -> String {
    let now = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
    let mut text = now(&one.email);
    let mut differs = |what: &str, old: &Option<String>, new: &Option<String>| {
        if let Some(old) = old {
            let _ = write!(text, "  {what} {old} → {}", now(new));
        }
    };
    if one.action == "create" {
        return format!("{text}  {}  {}", now(&one.name), now(&one.role));
    }
    differs("e-mail", &one.old_email, &one.email);
    differs("name", &one.old_name, &one.name);
    differs("role", &one.old_role, &one.role);
    if one.old_role.is_none() {
        let _ = write!(text, "  role {} stays", now(&one.role));
    }
    text
}

fn member(email: Option<&str>, group: Option<&str>) -> String {
    format!("{}  {}", email.unwrap_or("-"), group.unwrap_or("-"))
}

/// A line in which nobody's name can do anything to the terminal.
fn line(out: &mut String, text: &str) {
    out.extend(text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }));
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_cut_and_names_do_nothing_to_the_terminal() {
        let one = |number: usize| Account {
            action: "create".into(),
            user_id: Some("u".into()),
            webui_id: "usr_u".into(),
            email: Some(format!("{number}@x.test")),
            name: Some("A\u{1b}[2J\nB".into()),
            role: Some("user".into()),
            old_email: None,
            old_name: None,
            old_role: None,
        };
        let plan = Plan { accounts: (0..30).map(one).collect(), ..Plan::default() };
        let short = text(&plan, false, false);
        assert!(short.contains("accounts  30 create") && short.contains("… and 6 more"), "{short}");
        assert!(!short.contains('\u{1b}') && short.lines().all(|line| !line.starts_with('B')), "{short}");
        assert!(text(&plan, true, false).contains("29@x.test"));
        assert!(text(&plan, false, true).contains("\u{1b}[1mAccounts to be created: 30"));
    }
}
