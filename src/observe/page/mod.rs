//! The status page: the board and the positions as a report ([`report`]), as JSON and as HTML ([`html`]).
//!
//! Pure: memory in, text out. Asks no database, knows no server, and decides nothing but the words.

pub mod html;
pub mod mask;
pub mod report;
pub mod verdict;
