//! Names, values and settings as text that a server takes, whatever they hold.
//!
//! Owns the escaping. Knows no connection.

/// Session settings as the start-up packet's `options`: `-c name=value`, escaped as the server
/// reads them.
pub(super) fn startup_options(settings: &[(&str, &str)]) -> String {
    let mut options = String::new();
    for (name, value) in settings {
        if !options.is_empty() {
            options.push(' ');
        }
        options.push_str("-c ");
        for c in name.chars().chain(['=']).chain(value.chars()) {
            if c == '\\' || c.is_ascii_whitespace() || c == '\x0b' {
                options.push('\\');
            }
            options.push(c);
        }
    }
    options
}

/// A name as SQL, whatever it holds.
pub fn quote_ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text as SQL, whatever it holds and whatever `standard_conforming_strings` says.
pub fn quote_literal(text: &str) -> String {
    let text = text.replace('\'', "''");
    if text.contains('\\') { format!("E'{}'", text.replace('\\', "\\\\")) } else { format!("'{text}'") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values_are_quoted() {
        assert_eq!(quote_ident("user"), "\"user\"");
        assert_eq!(quote_ident("a\"b; --"), "\"a\"\"b; --\"");
        assert_eq!(quote_literal(""), "''");
        assert_eq!(quote_literal("it's"), "'it''s'");
        assert_eq!(quote_literal("a\\'b"), "E'a\\\\''b'");
    }

    #[test]
    fn settings_are_escaped_as_the_server_splits_them() {
        assert_eq!(startup_options(&[]), "");
        assert_eq!(
            startup_options(&[("timezone", "UTC"), ("search_path", "a, \"b\\c\""), ("x.y", "")]),
            "-c timezone=UTC -c search_path=a,\\ \"b\\\\c\" -c x.y="
        );
        assert_eq!(startup_options(&[("a", "\t\n\x0b")]), "-c a=\\\t\\\n\\\x0b");
    }
}
