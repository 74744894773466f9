//! The commands, one small file each: its flags and help, and a function that calls the work elsewhere and prints the answer.
//!
//! Exit codes: 0 fine, 1 failed, 2 usage or configuration, 3 found differences or findings.

mod access;
mod approve;
mod aside;
mod budgets;
mod completions;
#[cfg(feature = "demo")]
mod demo;
mod doctor;
mod failures;
mod healthcheck;
mod man;
mod passwords;
mod pause;
mod plan;
mod report;
mod resnapshot;
mod run;
mod setup;
mod status;
mod teardown;
mod terminal;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::config::{Config, ConfigError, Settings};
use crate::error::Error;
use crate::postgres::error_chain;

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
    Setup(setup::Setup),
    Plan(plan::Plan),
    Status(status::Status),
    Access(access::Access),
    Budgets(budgets::Budgets),
    Approve(approve::Approve),
    Doctor(doctor::Doctor),
    Report(report::Report),
    Resnapshot(resnapshot::Resnapshot),
    Verify(resnapshot::Verify),
    Pause(pause::Pause),
    Resume(pause::Resume),
    /// Look at what could not be written
    #[command(subcommand)]
    Failures(failures::Failures),
    /// Give first passwords to accounts that never had one
    #[command(subcommand)]
    Passwords(passwords::Passwords),
    /// Ask the daemon at --http whether it answers; for containers, which have no other program to ask with
    Healthcheck,
    Teardown(teardown::Teardown),
    Completions(completions::Completions),
    Man(man::Man),
    #[cfg(feature = "demo")]
    Demo(demo::Demo),
}

/// Parses the command line and runs the command.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    terminal::speak(cli.settings.log_format);
    crate::failpoint::set_up();
    // One thread for the stream: see `aside`.
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            terminal::failure(&format!("could not start: {error}"), None);
            return ExitCode::from(1);
        }
    };
    let code = runtime.block_on(dispatch(cli)).unwrap_or_else(|error| failed(&error));
    // A name look-up that hangs must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    code
}

async fn dispatch(Cli { settings, command }: Cli) -> anyhow::Result<ExitCode> {
    match command {
        Command::Completions(asked) => Ok(completions::completions(&asked)),
        Command::Man(asked) => Ok(man::man(&asked)),
        Command::Healthcheck => healthcheck::healthcheck(&settings).await,
        #[cfg(feature = "demo")]
        Command::Demo(asked) => {
            run::start_log(settings.log_format, "warn");
            demo::demo(asked).await
        }
        Command::Run => run::run(configured(settings, "info")?).await,
        Command::Setup(asked) => setup::setup(&configured(settings, "warn")?, asked).await,
        Command::Plan(asked) => plan::plan(&configured(settings, "warn")?, asked).await,
        Command::Status(asked) => status::status(&configured(settings, "warn")?, asked).await,
        Command::Access(asked) => access::access(&configured(settings, "warn")?, asked).await,
        Command::Budgets(asked) => budgets::budgets(&configured(settings, "warn")?, asked).await,
        Command::Approve(asked) => approve::approve(&configured(settings, "warn")?, asked).await,
        Command::Doctor(asked) => doctor::doctor(&configured(settings, "warn")?, asked).await,
        Command::Report(asked) => report::report(&configured(settings, "warn")?, asked).await,
        Command::Resnapshot(asked) => resnapshot::resnapshot(&configured(settings, "warn")?, asked).await,
        Command::Verify(asked) => resnapshot::verify(&configured(settings, "warn")?, asked).await,
        Command::Pause(asked) => pause::pause(&configured(settings, "warn")?, asked).await,
        Command::Resume(asked) => pause::resume(&configured(settings, "warn")?, asked).await,
        Command::Failures(asked) => failures::failures(&configured(settings, "warn")?, asked).await,
        Command::Passwords(asked) => passwords::passwords(&configured(settings, "warn")?, asked).await,
        Command::Teardown(asked) => teardown::teardown(&configured(settings, "warn")?, asked).await,
    }
}

/// The checked configuration. The log starts with it, at `level`.
fn configured(settings: Settings, level: &str) -> Result<Config, ConfigError> {
    let log_format = settings.log_format;
    let config = settings.load()?;
    run::start_log(log_format, level);
    Ok(config)
}

/// 3 where differences or findings are what was looked for.
fn code(is_fine: bool) -> ExitCode {
    ExitCode::from(if is_fine { 0 } else { 3 })
}

/// Prints what went wrong, with what to do about it.
fn failed(error: &anyhow::Error) -> ExitCode {
    match error.downcast_ref::<Error>() {
        Some(known) => terminal::failure(&error_chain(known), known.remedy().as_deref()),
        None => terminal::failure(&format!("{error:#}"), None),
    }
    ExitCode::from(if error.is::<ConfigError>() { 2 } else { 1 })
}
