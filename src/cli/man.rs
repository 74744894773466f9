//! `man`.
//!
//! Owns what the manual pages say beyond the commands' own help. The rest is made from the commands, and cannot differ.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Command, CommandFactory};
use clap_mangen::Man as Page;

use super::{Cli, terminal};

/// Print the manual page, or write one page for each command into a folder
#[derive(Debug, Args)]
pub(super) struct Man {
    /// Where to write them; the page of the whole program is printed without it
    folder: Option<PathBuf>,
}

pub(super) fn man(Man { folder }: &Man) -> ExitCode {
    let Some(folder) = folder else {
        let page = whole(command());
        // Whoever closes the pipe early has seen enough.
        let written = page.and_then(|page| io::stdout().write_all(&page));
        return ExitCode::from(u8::from(written.is_err()));
    };
    match write_all(folder) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            terminal::note(&format!("error: could not write to {}: {error}", folder.display()));
            ExitCode::from(1)
        }
    }
}

/// The program as it is installed. Nobody looks up how `help` works in a manual.
fn command() -> Command {
    Cli::command().disable_help_subcommand(true)
}

fn write_all(folder: &Path) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    clap_mangen::generate_to(command(), folder)?;
    // Again, because this one says more.
    std::fs::write(folder.join("litellm-webui-sync.1"), whole(command())?)
}

/// The page of the whole program.
fn whole(command: Command) -> io::Result<Vec<u8>> {
    let page = Page::new(command);
    let mut text = Vec::new();
    page.render_title(&mut text)?;
    page.render_name_section(&mut text)?;
    page.render_synopsis_section(&mut text)?;
    page.render_description_section(&mut text)?;
    page.render_options_section(&mut text)?;
    page.render_subcommands_section(&mut text)?;
    text.extend_from_slice(MORE.as_bytes());
    Ok(text)
}

/// What no flag says: the variables that have none, exit codes and files.
const MORE: &str = r"
.SH ENVIRONMENT
Each setting above names the variable that stands for it. These have no flag, because a list of processes shows flags to everybody:
.TP
\fBLITELLM_DATABASE_URL\fR, or \fBLITELLM_DATABASE_URL_FILE\fR
LiteLLM's database, as LiteLLM itself is given it, or a file that holds it. Required.
.TP
\fBWEBUI_DATABASE_URL\fR, or \fBWEBUI_DATABASE_URL_FILE\fR
Open WebUI's database. Required.
.TP
\fBLITELLM_WEBUI_SYNC_HTTP_TOKEN\fR, or \fBLITELLM_WEBUI_SYNC_HTTP_TOKEN_FILE\fR
What the status page asks for. Needed when it is reachable from other machines.
.TP
\fBLITELLM_WEBUI_SYNC_LITELLM_URL\fR
LiteLLM's address, to ask which models it serves.
.TP
\fBLITELLM_WEBUI_SYNC_LITELLM_KEY\fR, or \fBLITELLM_WEBUI_SYNC_LITELLM_KEY_FILE\fR
A LiteLLM key that lists them all.
.TP
\fBLITELLM_WEBUI_SYNC_LITELLM_CA\fR
File of authorities (PEM) to believe about that address, instead of Mozilla's.
.TP
\fBRUST_LOG\fR
Log level, \fBinfo\fR by default.
.SH EXIT STATUS
.TP
\fB0\fR
Fine.
.TP
\fB1\fR
Failed.
.TP
\fB2\fR
Usage or configuration.
.TP
\fB3\fR
Findings: something differs, or could not be written.
.SH SIGNALS
\fBSIGTERM\fR and \fBSIGINT\fR end the daemon in order: what is under way is finished, and the exit status is 0.
.SH FILES
Those of the Debian package:
.TP
\fI/etc/litellm\-webui\-sync/environment\fR
The variables of the service.
.TP
\fI/etc/litellm\-webui\-sync/policy.toml\fR
The policy file of the service.
.SH EXAMPLES
.nf
litellm\-webui\-sync plan
litellm\-webui\-sync run
litellm\-webui\-sync status
.fi
";

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use regex::Regex;

    use super::*;
    use crate::config::reference;

    /// What `man` shows, more or less: without escapes.
    fn shown(page: &[u8]) -> String {
        String::from_utf8_lossy(page).replace("\\-", "-").replace("\\fB", "").replace("\\fR", "")
    }

    #[test]
    fn the_page_has_every_variable_and_every_command() {
        let page = shown(&whole(command()).unwrap());
        let variable = Regex::new("[A-Z][A-Z]+_[A-Z_]*[A-Z]").unwrap();
        let known = reference::settings();
        let known: BTreeSet<&str> = variable.find_iter(&known).map(|found| found.as_str()).collect();
        assert!(known.len() > 10, "{known:?}");
        for name in known {
            assert!(page.contains(name), "{name}");
        }
        for command in command().get_subcommands() {
            assert!(page.contains(&format!("litellm-webui-sync-{}(1)", command.get_name())), "{command}");
        }
    }

    #[test]
    fn every_command_gets_a_page() {
        let folder = std::env::temp_dir().join(format!("man-{}", std::process::id()));
        write_all(&folder).unwrap();
        let mut pages: BTreeSet<String> = BTreeSet::new();
        for entry in std::fs::read_dir(&folder).unwrap() {
            pages.insert(entry.unwrap().file_name().into_string().unwrap());
        }
        let whole_page = std::fs::read_to_string(folder.join("litellm-webui-sync.1")).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        for command in command().get_subcommands() {
            assert!(pages.contains(&format!("litellm-webui-sync-{}.1", command.get_name())), "{command}");
        }
        assert!(pages.contains("litellm-webui-sync-failures-list.1"), "{pages:?}");
        assert!(!pages.iter().any(|name| name.contains("help")), "{pages:?}");
        assert!(whole_page.contains("EXIT STATUS"));
    }
}
