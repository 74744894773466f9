//! `completions`.

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::Cli;

/// Print what makes a shell complete this program's commands and flags
#[derive(Debug, Args)]
pub(super) struct Completions {
    /// Of which shell
    shell: Shell,
}

pub(super) fn completions(Completions { shell }: &Completions) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(*shell, &mut Cli::command(), "litellm-webui-sync", &mut script);
    // Whoever closes the pipe early has seen enough.
    let written = std::io::stdout().write_all(&script);
    ExitCode::from(u8::from(written.is_err()))
}
