//! `doctor`: everything that could keep the daemon from its work, all at once, with the exact fix.
//!
//! Owns what a check is, and how checks are shown. A check is a question, a judgement that is pure, and what to do; each is a
//! function in the file of whoever is asked, and a line there that calls it. They read catalogs and our own books, and write
//! nothing anywhere. One that cannot be made because an earlier one failed is left out: the earlier one says what to do
//! first.

mod books;
pub mod bridge;
mod chats;
mod server;
mod source;
mod tables;
mod target;

use std::fmt::Write as _;

use serde::Serialize;

use crate::config::Config;
use crate::error::Error;
use crate::postgres::error_chain;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Fine,
    /// Works, but somebody should know.
    Warning,
    /// Keeps the daemon from its work, or will.
    Problem,
}

/// One check and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    pub name: &'static str,
    pub verdict: Verdict,
    pub found: String,
    /// Why it matters; empty where all is fine.
    pub why: String,
    /// What to do, as exactly as we know; empty where all is fine.
    pub fix: String,
    /// What was found holds names, or what somebody wrote.
    #[serde(skip)]
    pub names: bool,
}

impl Check {
    /// Not for strangers as it is.
    fn naming(self) -> Self {
        Self { names: true, ..self }
    }
}

fn fine(name: &'static str, found: impl Into<String>) -> Check {
    Check {
        name,
        verdict: Verdict::Fine,
        found: found.into(),
        why: String::new(),
        fix: String::new(),
        names: false,
    }
}

fn finding(
    verdict: Verdict,
    name: &'static str,
    found: impl Into<String>,
    why: &str,
    fix: impl Into<String>,
) -> Check {
    Check { name, verdict, found: found.into(), why: why.to_owned(), fix: fix.into(), names: false }
}

/// What could not even be looked at.
fn failed(name: &'static str, error: &Error) -> Check {
    let fix = error.remedy().unwrap_or_else(|| "see the message".to_owned());
    finding(Verdict::Problem, name, error_chain(error), "nothing works without it", fix)
}

/// Makes every check.
pub async fn examine(config: &Config) -> Vec<Check> {
    let mut checks = Vec::new();
    if let Err(error) = source::examine(config, &mut checks).await {
        checks.push(failed("LiteLLM's database", &error));
    }
    if let Err(error) = target::examine(config, &mut checks).await {
        checks.push(failed("Open WebUI's database", &error));
    }
    chats::examine(config, &mut checks).await;
    checks
}

/// For people: what is fine in a line each, findings with why and what to do.
pub fn table(checks: &[Check]) -> String {
    let mut out = String::new();
    for Check { name, verdict, found, why, fix, .. } in checks {
        let mark = match verdict {
            Verdict::Fine => "ok      ",
            Verdict::Warning => "warning ",
            Verdict::Problem => "PROBLEM ",
        };
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{mark} {name}: {found}");
        if *verdict != Verdict::Fine {
            let _ = writeln!(out, "           why: {why}\n           fix: {fix}");
        }
    }
    out
}
