//! `passwords`.

use std::io::{BufRead as _, IsTerminal as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Subcommand;

use super::terminal;
use crate::config::Config;
use crate::config::policy::Passwords as Policy;
use crate::operate::passwords;
use crate::target::Target;

#[derive(Debug, Subcommand)]
pub(super) enum Passwords {
    /// Give everybody without a password a random one, and write them to a new file
    Export {
        /// The file to make; only its owner can read it
        file: PathBuf,
    },
    /// Give one person without a password one; it is asked for, or read from standard input
    Set {
        /// The person's e-mail
        email: String,
    },
}

pub(super) async fn passwords(config: &Config, action: Passwords) -> anyhow::Result<ExitCode> {
    match action {
        Passwords::Export { file } => {
            if config.policy.passwords != Policy::Invite {
                bail!("the policy does not say passwords = \"invite\": people sign in by other means");
            }
            let target = Target::open(config).await?;
            terminal::note("making passwords takes about a minute for a thousand people");
            let exported = passwords::export(&target, &file).await?;
            match exported.people {
                0 => terminal::line("everybody has a password; no file was made"),
                people => terminal::line(&format!(
                    "{people} people can sign in with what {} says; hand it out, and delete it",
                    file.display()
                )),
            }
        }
        Passwords::Set { email } => {
            let password = read()?;
            let target = Target::open(config).await?;
            passwords::set(&target, &email, &password).await?;
            terminal::line(&format!("{email} can sign in with it"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Never from the command line, which everybody on the machine can read.
fn read() -> anyhow::Result<String> {
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        let password = rpassword::prompt_password("Password: ").context("cannot ask for a password")?;
        passwords::check(&password)?;
        if rpassword::prompt_password("Once more: ").context("cannot ask for a password")? != password {
            bail!("these are two different passwords");
        }
        return Ok(password);
    }
    let mut line = String::new();
    stdin.lock().read_line(&mut line).context("cannot read a password from standard input")?;
    let line = line.strip_suffix('\n').unwrap_or(&line);
    Ok(line.strip_suffix('\r').unwrap_or(line).to_owned())
}
