//! `budgets`: who is close to their budget, read from LiteLLM's tables, so it works while no daemon runs.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::terminal;
use crate::budgets::book::Book;
use crate::budgets::rules::{Kind, Micros, State};
use crate::budgets::{self, Ranked, load};
use crate::config::Config;
use crate::config::policy::Chats;
use crate::source::Source;
use crate::target::{Target, schema};

/// Show who is close to their budget; reads LiteLLM's database, and works while no daemon runs
#[derive(Debug, Args)]
pub(super) struct Budgets {
    /// Only this kind
    #[arg(long, value_enum)]
    kind: Option<Kind>,
    /// How many of each kind, the fullest first
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(0..=10_000))]
    top: u16,
    /// Only those at 80 % of their limit or more, or over their soft budget
    #[arg(long)]
    near: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// One line. The JSON of `budgets --json` is a list of these.
#[derive(Debug, Serialize)]
struct Line {
    kind: Kind,
    id: String,
    alias: String,
    state: budgets::rules::State,
    spend_usd: Option<f64>,
    /// `null`: no limit.
    limit_usd: Option<f64>,
    soft_limit_usd: Option<f64>,
    /// 1 is all of it. `null` without a limit, and where a limit of 0 is exceeded.
    utilization: Option<f64>,
    /// Unix time.
    resets_at: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Sum {
    kind: Kind,
    spend_usd: f64,
    limit_usd: f64,
    /// Beyond those that are listed.
    more_over_soft_budget: u64,
    states: std::collections::BTreeMap<budgets::rules::State, u64>,
}

#[derive(Debug, Serialize)]
struct Report {
    budgets: Vec<Line>,
    totals: Vec<Sum>,
}

pub(super) async fn budgets(config: &Config, asked: Budgets) -> anyhow::Result<ExitCode> {
    let source = Source::open(config).await?;
    let tables = source.tables(config).await?;
    let mut book = load::read(&source, config, &tables).await?.book;
    if config.policy.budgets.chats == Chats::Customer {
        recall_chats(config, &mut book).await?;
    }
    // Near a soft budget is near a limit, however little of the other one is used.
    let soft = if asked.near { usize::from(asked.top) } else { 0 };
    let mut ranking = budgets::rank(&book, budgets::now(), usize::from(asked.top), soft);
    ranking.kinds.retain(|one, _| asked.kind.is_none_or(|kind| kind == *one));
    let names = load::all_names(&source, config, &ranking).await?;
    let mut report = Report { budgets: Vec::new(), totals: Vec::new() };
    for (kind, found) in ranking.kinds {
        for one in found.shown.into_iter().filter(|one| !asked.near || is_near(one.standing.state())) {
            let name = names.get(&(kind, one.hash)).cloned().unwrap_or_default();
            let (id, alias) = name.labels(&one.hash, true);
            report.budgets.push(line(kind, id, alias, &one));
        }
        report.totals.push(Sum {
            kind,
            spend_usd: found.spend,
            limit_usd: found.limit,
            more_over_soft_budget: found.hidden,
            states: found.states,
        });
    }
    if asked.json {
        terminal::json(&report)?;
    } else {
        terminal::out(&table(&report));
    }
    Ok(ExitCode::SUCCESS)
}

fn is_near(state: State) -> bool {
    matches!(state, State::Soft | State::Warning | State::Exceeded)
}

/// What of people's chats counts is known in Open WebUI's database.
async fn recall_chats(config: &Config, book: &mut Book) -> anyhow::Result<()> {
    let target = Target::open(config).await?;
    // Before the first start nothing is, and all of it counts.
    if schema::is_current(&target).await {
        book.recall(&load::stored(&target).await?, false, budgets::now());
    }
    Ok(())
}

fn line(kind: Kind, id: String, alias: String, one: &Ranked) -> Line {
    let finite = |value: f64| value.is_finite().then_some(value);
    Line {
        kind,
        id,
        alias,
        state: one.standing.state(),
        spend_usd: finite(one.standing.spend),
        limit_usd: one.standing.limit,
        soft_limit_usd: one.standing.soft,
        utilization: one.standing.utilization().and_then(finite),
        resets_at: one.standing.reset.map(seconds),
    }
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds are exact for 285 000 years")]
fn seconds(micros: Micros) -> f64 {
    micros as f64 / 1e6
}

fn table(report: &Report) -> String {
    let mut out = String::new();
    for sum in &report.totals {
        let counts: Vec<String> = sum
            .states
            .iter()
            .filter(|(_, count)| **count > 0)
            .map(|(state, count)| format!("{count} {}", state.name()))
            .collect();
        let counts = if counts.is_empty() { "none".to_owned() } else { counts.join(", ") };
        let _ = writeln!(out, "{:<12}  {:>12.2} USD spent  {counts}", sum.kind.name(), sum.spend_usd);
    }
    if report.budgets.is_empty() {
        return out;
    }
    let _ = writeln!(
        out,
        "\n{:<12}  {:<9}  {:>7}  {:>12}  {:>12}  who",
        "kind", "state", "used", "spend", "limit"
    );
    for line in &report.budgets {
        let used = match (line.utilization, line.limit_usd) {
            // Never rounded up to a share that was not reached.
            (Some(used), _) if used < 10.0 => format!("{:.0} %", (used * 100.0 + 1e-9).floor()),
            (_, Some(_)) => "> 999 %".to_owned(),
            (_, None) => "-".to_owned(),
        };
        let money = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.2}"));
        let who = match line.alias.as_str() {
            "" => line.id.clone(),
            alias => format!("{alias} ({})", line.id),
        };
        // Ids and aliases are free text.
        let who: String = who.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
        let (spend, limit) = (money(line.spend_usd), money(line.limit_usd));
        let _ = writeln!(
            out,
            "{:<12}  {:<9}  {used:>7}  {spend:>12}  {limit:>12}  {who}",
            line.kind.name(),
            line.state.name()
        );
    }
    out
}
