//! Whether Open WebUI's tables are those that this session looked at.
//!
//! Owns that question. It is asked in each batch that writes them: Open WebUI may be made anew at any moment, and whoever
//! signs up first becomes its admin only if nobody was written before. Waits for nobody. Also counts what Open WebUI's people share
//! that they must not; decides nothing else.

use crate::error::{Error, Result, Side, on};
use crate::sql;
use crate::target::{QUICK, Target};

/// Open WebUI's people, as they were found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct People {
    /// The table they are in.
    pub oid: i64,
}

/// Where Open WebUI's people are; `None` while there is nobody.
pub async fn find(target: &Target) -> Result<Option<People>> {
    let statement = target.prepare(sql::OPEN_WEBUI, &[]).await?;
    let rows = target.query("look for Open WebUI's people", QUICK, &statement, &[]).await?;
    Ok(rows.first().map(|row| People { oid: row.get(0) }))
}

/// How many e-mails several of them have. Reads everybody.
pub async fn shared_emails(target: &Target) -> Result<i64> {
    let row = target.slow().query_one(sql::SHARED_EMAILS, &[]).await;
    Ok(row.map_err(on(Side::Target, "look for shared e-mails"))?.get("emails"))
}

/// Keeps them where they were until the end of the open transaction. Meant to be sent together with what is written, and before
/// it: [`find`] has prepared it.
///
/// # Errors
/// [`Error::OpenWebUiChanged`] where they are not there any more.
pub async fn hold(target: &Target, people: Option<People>) -> Result<()> {
    match find(target).await {
        Ok(found) if found.is_some() && found == people => Ok(()),
        Ok(_) => Err(Error::OpenWebUiChanged),
        // Undefined table.
        Err(error) if error.sqlstate() == Some("42P01") => Err(Error::OpenWebUiChanged),
        Err(error) => Err(error),
    }
}
