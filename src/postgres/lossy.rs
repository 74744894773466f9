//! Text as a server sent it, whatever its bytes are.
//!
//! Owns what becomes of bytes that are no UTF-8: a database in SQL_ASCII holds what anybody ever wrote, and hands it on as it is.
//! Never fails, and never makes one of two texts that differ: a key must stay the key of its row.

use std::borrow::Cow;
use std::error::Error;
use std::fmt::Write;

use tokio_postgres::types::{FromSql, Type};

/// The text of `bytes`. What is no UTF-8 becomes U+FFFD and its two hexadecimal digits, byte by byte.
pub fn text(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return Cow::Borrowed(text);
    }
    let mut text = String::with_capacity(bytes.len() + 8);
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            // Writing to a string cannot fail.
            let _ = write!(text, "\u{fffd}{byte:02x}");
        }
    }
    Cow::Owned(text)
}

/// A column of a row of LiteLLM's database, read as [`text`]: what is read as a `String` panics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text(pub String);

impl<'a> FromSql<'a> for Text {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(text(raw).into_owned()))
    }

    fn accepts(kind: &Type) -> bool {
        <String as FromSql>::accepts(kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_differ_stay_different_and_what_is_utf8_stays_what_it_is() {
        assert!(matches!(text("Jürgen".as_bytes()), Cow::Borrowed("Jürgen")));
        assert_eq!(text(b"J\xfcrgen"), "J\u{fffd}fcrgen");
        assert_ne!(text(b"a\xfe"), text(b"a\xff"));
        assert_eq!(text(b"\xe2\x82"), "\u{fffd}e2\u{fffd}82");
    }
}
