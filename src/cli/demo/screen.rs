//! How the demo prints.

use std::io::{IsTerminal, Write};

/// Standard output, coloured for a terminal and plain for everything else.
#[derive(Debug)]
pub(super) struct Screen {
    is_terminal: bool,
}

impl Screen {
    pub(super) fn new() -> Self {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { is_terminal: std::io::stdout().is_terminal() && !no_color }
    }

    /// A reader that has seen enough (`| head`) is no reason to fail.
    pub(super) fn line(&self, text: &str) {
        let _ = writeln!(std::io::stdout(), "{text}");
    }

    pub(super) fn heading(&self, text: &str) {
        self.line("");
        self.line(&self.bold(text));
        self.line("");
    }

    pub(super) fn verdict(&self, is_good: bool, text: &str) {
        let mark = if is_good { self.green("ok") } else { self.red("NO") };
        self.line(&format!("{mark} {text}"));
    }

    pub(super) fn bold(&self, text: &str) -> String {
        self.styled("1", text)
    }

    pub(super) fn dim(&self, text: &str) -> String {
        self.styled("2", text)
    }

    pub(super) fn green(&self, text: &str) -> String {
        self.styled("32", text)
    }

    fn red(&self, text: &str) -> String {
        self.styled("31", text)
    }

    fn styled(&self, code: &str, text: &str) -> String {
        if self.is_terminal { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}
