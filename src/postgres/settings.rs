//! The settings of every session of ours, on either side.
//!
//! Owns the one table of them. A default of the role, the database or the server decides nothing about us: neither what a
//! value looks like as text, nor what is hidden from us, nor how long we may take. They travel with the start-up packet, so
//! they hold from the first statement on, and after the URL's own `options`, which are honoured where they say something else.

use super::quote::startup_options;

/// What holds on both sides. Each side adds its own: see `Source` and `Target`.
const ALWAYS: &[(&str, &str)] = &[
    // Values of the stream, of a copy and of a look are equal as text.
    ("DateStyle", "ISO"),
    ("TimeZone", "UTC"),
    ("IntervalStyle", "postgres"),
    ("extra_float_digits", "1"),
    ("bytea_output", "hex"),
    // What we send is read as it was meant.
    ("standard_conforming_strings", "on"),
    ("array_nulls", "on"),
    ("transform_null_equals", "off"),
    ("default_transaction_isolation", "read committed"),
    ("default_transaction_deferrable", "off"),
    // A hidden row is not a missing row: a policy that would hide one fails the statement.
    ("row_security", "off"),
    // Somebody's patience with everybody's statements is not ours: whoever waits here has a limit of its own.
    ("idle_session_timeout", "0"),
    // A session of ours that was dropped stops its running statement too, also while it waits for a lock.
    ("client_connection_check_interval", "2s"),
    // Parameters of a statement that fails hold people's data, and API keys in the clear: not for the server's log.
    ("log_parameter_max_length_on_error", "0"),
    // The server notices a daemon that vanished without a word.
    ("tcp_keepalives_idle", "5"),
    ("tcp_keepalives_interval", "2"),
    ("tcp_keepalives_count", "3"),
    ("tcp_user_timeout", "15s"),
];

/// What a server older than 17 does not know, and what may only be said once it is known which server this is: run on every
/// new session. A server that takes no writes by default is told that we mean to. A database in SQL_ASCII holds bytes of any
/// encoding, and refuses rows to whoever asks for UTF-8 where they are none: it is asked for them as they are.
pub const AFTER_LOG_IN: &str = "select pg_catalog.set_config(name, '0', false) from pg_catalog.pg_settings where name = 'transaction_timeout';
 select pg_catalog.set_config('client_encoding', 'SQL_ASCII', false) where pg_catalog.getdatabaseencoding() = 'SQL_ASCII';
 set default_transaction_read_only = off";

/// The start-up packet's `options`: those of the URL, then ours and those of this side, which win.
pub fn options(of_the_url: &str, of_the_side: &[(&str, &str)]) -> String {
    let ours: Vec<(&str, &str)> = ALWAYS.iter().chain(of_the_side).copied().collect();
    format!("{of_the_url} {}", startup_options(&ours)).trim_start().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_urls_options_come_first_so_that_ours_win() {
        let options = options("-c work_mem=64MB -c row_security=on", &[("lock_timeout", "200ms")]);
        assert!(options.starts_with("-c work_mem=64MB -c row_security=on -c DateStyle=ISO"), "{options}");
        assert!(
            options.contains("-c row_security=off") && options.ends_with("-c lock_timeout=200ms"),
            "{options}"
        );
        assert!(!super::options("", &[]).starts_with(' '));
    }
}
