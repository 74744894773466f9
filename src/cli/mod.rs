//! The commands: clap types, and one small function each that calls the work elsewhere.
//!
//! Exit codes: 0 fine, 1 failed, 2 usage or configuration, 3 found differences or findings.
#![expect(clippy::print_stdout, reason = "the output of a command is what it is for")]

mod access;
mod budgets;
#[cfg(feature = "demo")]
mod demo;
mod operate;
mod passwords;
mod plan;
mod run;
mod terminal;

use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, Parser, Subcommand};

use crate::budgets::rules::Kind;
use crate::config::{Config, Settings};
use crate::error::Error;
use crate::observe::http;
use crate::observe::status::{self, Waited};
use crate::operate::accept::{self, Accepted};
use crate::operate::teardown::{self, Purge};
use crate::postgres::error_chain;
use crate::source::{self, Source};
use crate::target::Target;
use crate::target::brake;
use crate::target::schema;

/// Keeps Open WebUI's accounts, groups and access true to LiteLLM.
#[derive(Debug, Parser)]
#[command(name = "litellm-webui-sync", version)]
pub struct Cli {
    #[command(flatten)]
    settings: Settings,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon: copy once, then follow LiteLLM
    Run,
    /// Prepare both databases, or print the SQL for a DBA
    Setup {
        /// Print the SQL for a DBA, for one database or for both, and change nothing
        #[arg(long, value_name = "DATABASE", num_args = 0..=1, default_missing_value = "both")]
        print_sql: Option<Which>,
        /// The role that runs the daemon on LiteLLM's database, for --print-sql [default: the URL's user]
        #[arg(long, value_name = "ROLE")]
        source_role: Option<String>,
        /// The role that runs the daemon on Open WebUI's database, for --print-sql [default: the URL's user]
        #[arg(long, value_name = "ROLE")]
        target_role: Option<String>,
        /// Take the LiteLLM database at hand in place of the one that was followed; the next `run` copies it
        #[arg(long, conflicts_with = "print_sql")]
        accept_source: bool,
        /// Print JSON
        #[arg(long, conflicts_with = "print_sql")]
        json: bool,
    },
    /// Show what `run` would do, and do nothing
    Plan {
        /// Show every row, not some of each kind
        #[arg(long)]
        all: bool,
        /// Print JSON, with every row
        #[arg(long)]
        json: bool,
    },
    /// Show where everything stands
    Status {
        /// Print JSON
        #[arg(long)]
        json: bool,
        /// Wait until everything committed in LiteLLM so far is visible in Open WebUI
        #[arg(long, value_name = "WHEN", value_parser = ["now"])]
        wait: Option<String>,
        /// How long to wait
        #[arg(long, value_name = "SECONDS", default_value_t = 60, requires = "wait")]
        timeout: u64,
    },
    /// Explain which models a person may use and sees, level by level
    Access {
        /// The person's e-mail
        email: String,
        /// One model, with every path to it [default: all, in short]
        model: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show who is close to their budget; reads LiteLLM's database, and works while no daemon runs
    Budgets {
        /// Only this kind
        #[arg(long, value_enum)]
        kind: Option<Kind>,
        /// How many of each kind, the fullest first
        #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(0..=10_000))]
        top: u16,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Let a batch pass that would lock out unusually many people
    Approve {
        /// The brake's number, as `status` shows it
        id: i64,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Check everything the daemon needs, and say how to mend what is not right; ends with 3 if there is anything
    Doctor {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Copy LiteLLM's rows again while the daemon runs, and mend whatever differs
    Resnapshot {
        /// Only this table of LiteLLM; may be given several times
        #[arg(long = "table", value_name = "TABLE")]
        tables: Vec<String>,
        /// Report what differs, and change nothing
        #[arg(long)]
        dry_run: bool,
        /// Wait for the end; ends with 3 if anything differed
        #[arg(long)]
        wait: bool,
        #[command(flatten)]
        output: operate::Output,
    },
    /// Compare LiteLLM, the mirror and Open WebUI at one point; ends with 3 if anything differs
    Verify {
        /// Mend what differs
        #[arg(long)]
        repair: bool,
        #[command(flatten)]
        output: operate::Output,
    },
    /// Stop applying, on every daemon of this schema, until `resume`; LiteLLM's server keeps the WAL meanwhile
    Pause {
        /// Why, for `status`
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Go on after `pause`
    Resume {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Look at what could not be written
    Failures {
        #[command(subcommand)]
        action: operate::Failures,
    },
    /// Give first passwords to accounts that never had one
    Passwords {
        #[command(subcommand)]
        action: passwords::Passwords,
    },
    /// Ask the daemon at --http whether it answers; for containers, which have no other program to ask with
    Healthcheck,
    /// Drop the slot and the publication; with --purge also our rows and our schema
    Teardown {
        /// Also remove exactly the Open WebUI rows we made, and our schema
        #[arg(long)]
        purge: bool,
        /// Also delete accounts that have chats
        #[arg(long, requires = "purge")]
        purge_people: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print what makes a shell complete this program's commands and flags
    Completions {
        /// Of which shell
        shell: clap_complete::Shell,
    },
    /// Watch it work: a throwaway Postgres with both databases, people, and live changes
    #[cfg(feature = "demo")]
    Demo {
        /// Exit when the live changes have arrived
        #[arg(long)]
        once: bool,
    },
}

/// Whose SQL `setup --print-sql` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Which {
    Source,
    Target,
    Both,
}

/// Parses the command line and runs the command.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    crate::failpoint::set_up();
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: could not start: {error}");
            return ExitCode::from(1);
        }
    };
    let code = runtime.block_on(dispatch(cli));
    // A name look-up that hangs must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    code
}

async fn dispatch(cli: Cli) -> ExitCode {
    // Needs no configuration.
    if let Command::Completions { shell } = cli.command {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), "litellm-webui-sync", &mut script);
        // Whoever closes the pipe early has seen enough.
        let written = std::io::Write::write_all(&mut std::io::stdout(), &script);
        return ExitCode::from(u8::from(written.is_err()));
    }
    let log_format = cli.settings.log_format;
    #[cfg(feature = "demo")]
    if let Command::Demo { once } = cli.command {
        run::start_log(log_format, "warn");
        return finish(demo::demo(once).await);
    }
    if matches!(cli.command, Command::Healthcheck) {
        return healthcheck(&cli.settings).await;
    }
    let config = match cli.settings.load() {
        Ok(config) => config,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(2);
        }
    };
    run::start_log(log_format, if matches!(cli.command, Command::Run) { "info" } else { "warn" });
    match cli.command {
        Command::Run => finish(run::run(config).await),
        Command::Setup { print_sql: Some(which), source_role, target_role, .. } => {
            finish(print_setup(&config, which, source_role, target_role).await)
        }
        Command::Setup { accept_source: true, json, .. } => finish(accept_source(&config, json).await),
        Command::Setup { json, .. } => finish(set_up(&config, json).await),
        Command::Plan { all, json } => finish(Box::pin(plan::plan(&config, all, json)).await),
        Command::Status { json, wait: None, .. } => finish(show_status(&config, json).await),
        Command::Status { json, wait: Some(_), timeout } => {
            wait(&config, json, Duration::from_secs(timeout)).await
        }
        Command::Access { email, model, json } => {
            access::access(&config, &email, model.as_deref(), json).await
        }
        Command::Budgets { kind, top, json } => {
            finish(budgets::budgets(&config, kind, usize::from(top), json).await)
        }
        Command::Approve { id, json } => finish(approve(&config, id, json).await),
        Command::Doctor { json } => either(operate::doctor(&config, json).await),
        Command::Resnapshot { tables, dry_run, wait, output } => {
            either(operate::resnapshot(&config, tables, dry_run, wait, &output).await)
        }
        Command::Verify { repair, output } => {
            either(operate::resnapshot(&config, Vec::new(), !repair, true, &output).await)
        }
        Command::Pause { reason, json } => finish(operate::pause(&config, reason.as_deref(), json).await),
        Command::Resume { json } => finish(operate::resume(&config, json).await),
        Command::Failures { action } => either(operate::failures(&config, action).await),
        Command::Passwords { action } => finish(passwords::passwords(&config, action).await),
        Command::Teardown { purge, purge_people, json } => {
            let purge = match (purge, purge_people) {
                (_, true) => Purge::People,
                (true, false) => Purge::Rows,
                (false, false) => Purge::Nothing,
            };
            finish(teardown(&config, purge, json).await)
        }
        // Dispatched above: they need no configuration.
        Command::Healthcheck | Command::Completions { .. } => ExitCode::SUCCESS,
        #[cfg(feature = "demo")]
        Command::Demo { .. } => ExitCode::SUCCESS,
    }
}

/// Says what a command did: a sentence for people, or a value for machines.
fn say(json: bool, sentence: &str, value: &serde_json::Value) {
    if json { println!("{value:#}") } else { println!("{sentence}") }
}

/// Needs the daemon's address and nothing else: no database, no secret.
async fn healthcheck(settings: &Settings) -> ExitCode {
    let address = match settings.http_address() {
        Ok(Some(address)) => address,
        Ok(None) => {
            eprintln!("error: --http is off: there is nobody to ask");
            return ExitCode::from(2);
        }
        Err(problem) => {
            eprintln!("error: {problem}");
            return ExitCode::from(2);
        }
    };
    finish(http::ask_health(address).await)
}

/// The code a command ended with, or what went wrong.
fn either(result: anyhow::Result<ExitCode>) -> ExitCode {
    result.unwrap_or_else(|error| finish(Err(error)))
}

/// Prints what went wrong, with what to do about it.
fn finish(result: anyhow::Result<()>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    match error.downcast_ref::<Error>() {
        Some(known) => {
            eprintln!("error: {}", error_chain(known));
            if let Some(remedy) = known.remedy() {
                eprintln!("what to do: {remedy}");
            }
        }
        None => eprintln!("error: {error:#}"),
    }
    ExitCode::from(1)
}

async fn print_setup(
    config: &Config,
    which: Which,
    source_role: Option<String>,
    target_role: Option<String>,
) -> anyhow::Result<()> {
    if which != Which::Target {
        let source = Source::open(config).await?;
        let tables = source.tables(config).await?;
        let role = source_role.unwrap_or_else(|| config.source.user.clone());
        print!("{}", source::setup_sql(config, &tables, &role));
    }
    if which == Which::Both {
        println!();
    }
    if which != Which::Source {
        let target = Target::open(config).await?;
        let layout = crate::target::layout::find(&target, config).await?;
        let role = target_role.unwrap_or_else(|| config.target.user.clone());
        print!("{}", crate::target::setup::setup_sql(config, &role, &layout));
    }
    Ok(())
}

async fn set_up(config: &Config, json: bool) -> anyhow::Result<()> {
    let source = Source::open(config).await?;
    let server = source.server().await?;
    if server.timeline.is_none() {
        return Err(Error::Standby.into());
    }
    if server.wal_level != "logical" {
        return Err(Error::WalLevel { found: server.wal_level }.into());
    }
    let tables = source.tables(config).await?;
    let publication = source.publication(config).await?;
    let (publication, words) = match Source::publication_repair(config, publication.as_ref(), &tables)? {
        // A running or earlier daemon must learn that rows may be missing from its stream.
        Some(_) if source.slot(&config.slot).await?.is_some() => {
            ("left", "left to `run`, because a slot exists already".to_owned())
        }
        Some(repair) => {
            source.repair_publication(config, &repair).await?;
            ("created", format!("created for {} tables", tables.len()))
        }
        None => ("fine", "fine".to_owned()),
    };
    let target = Target::open(config).await?;
    schema::ensure(&target, config).await?;
    let sentence = format!(
        "publication {}: {words}\nschema {}: ready\nthe slot is made by `run`, which copies at its snapshot",
        config.publication, config.schema
    );
    let value = serde_json::json!({
        "publication": { "name": config.publication, "state": publication, "tables": tables.len() },
        "schema": { "name": config.schema, "state": "ready" },
    });
    say(json, &sentence, &value);
    Ok(())
}

async fn accept_source(config: &Config, json: bool) -> anyhow::Result<()> {
    let Some(Accepted { identity, same, former_slot }) = accept::accept(config).await? else {
        let sentence = "nothing was followed yet: `litellm-webui-sync run` copies what it finds";
        say(json, sentence, &serde_json::json!({ "accepted": false }));
        return Ok(());
    };
    let which =
        if same { "the LiteLLM database that was followed before" } else { "another LiteLLM database" };
    let (server, timeline) = (&identity.system_identifier, identity.timeline);
    let mut lines = vec![format!("accepted: {which}, on server {server} (timeline {timeline})")];
    let left = (!same || former_slot.is_some()).then(|| former_slot.unwrap_or_else(|| config.slot.clone()));
    if let Some(slot) = &left {
        lines.push(format!(
            "slot {slot} of what was followed before is left alone: drop it if that server lives on, or it keeps WAL there"
        ));
    }
    lines.push(
        "`litellm-webui-sync run` copies it; until then Open WebUI stays as it is, and the brake holds what would take \
         something from unusually many people"
            .to_owned(),
    );
    let accepted = serde_json::json!({
        "accepted": true, "same": same, "system_identifier": server, "timeline": timeline, "slot_left": left,
    });
    say(json, &lines.join("\n"), &accepted);
    Ok(())
}

async fn show_status(config: &Config, json: bool) -> anyhow::Result<()> {
    let report = status::report(config).await?;
    if json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        terminal::status(&report);
    }
    Ok(())
}

async fn wait(config: &Config, json: bool, timeout: Duration) -> ExitCode {
    let waited = match status::wait_now(config, timeout).await {
        Ok(waited) => waited,
        Err(error) => return finish(Err(error.into())),
    };
    if json && let Err(error) = show_status(config, true).await {
        return finish(Err(error));
    }
    match waited {
        Waited::Reached { dead_letters: 0 } => ExitCode::SUCCESS,
        Waited::Reached { dead_letters } => {
            let entities = if dead_letters == 1 { "entity" } else { "entities" };
            eprintln!("up to date, but {dead_letters} {entities} could not be written: see `status`");
            ExitCode::from(3)
        }
        Waited::Failed { reason } => {
            eprintln!("error: {reason}");
            ExitCode::from(1)
        }
    }
}

async fn approve(config: &Config, id: i64, json: bool) -> anyhow::Result<()> {
    let target = Target::open(config).await?;
    let Some(people) = brake::approve(&target, id).await? else {
        anyhow::bail!("there is no open brake {id}: see `litellm-webui-sync status`");
    };
    let sentence = format!("approved: {people} people may be locked out at once, this time");
    say(json, &sentence, &serde_json::json!({ "approved": id, "people": people }));
    Ok(())
}

async fn teardown(config: &Config, purge: Purge, json: bool) -> anyhow::Result<()> {
    let mut lines = teardown::Lines::new();
    let result = teardown::teardown(config, purge, &mut lines).await;
    if !lines.is_empty() || json {
        say(json, &lines.join("\n"), &serde_json::json!({ "done": lines, "complete": result.is_ok() }));
    }
    Ok(result?)
}
