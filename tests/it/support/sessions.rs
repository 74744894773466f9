//! Sessions that look at a database, kept for the next look: to begin one costs a server more than most questions do.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use testbed::connect;
use tokio::time::timeout;
use tokio_postgres::{Client, SimpleQueryMessage};

/// Idle ones, by URL.
static IDLE: Mutex<Option<HashMap<String, Vec<Client>>>> = Mutex::new(None);

/// An idle session behind a link that is lost says nothing.
const PATIENCE: Duration = Duration::from_secs(1);

/// What a query answers. Like in a session of its own: nothing that an earlier one set is left.
pub(super) async fn ask(url: &str, sql: &str) -> Result<Vec<SimpleQueryMessage>, tokio_postgres::Error> {
    let client = match idle(url).await {
        Some(client) => client,
        None => connect(url).await.unwrap(),
    };
    let answer = client.simple_query(sql).await?;
    // At once, and not before the next question: it may have left a transaction open.
    if let Ok(Ok(_)) = timeout(PATIENCE, client.simple_query("discard all")).await {
        with_idle(url, |idle| idle.push(client));
    }
    Ok(answer)
}

/// One that still answers. The runtime that drove it may have ended, and its server too.
async fn idle(url: &str) -> Option<Client> {
    while let Some(client) = with_idle(url, Vec::pop) {
        if let Ok(Ok(_)) = timeout(PATIENCE, client.simple_query("")).await {
            return Some(client);
        }
    }
    None
}

fn with_idle<T>(url: &str, work: impl FnOnce(&mut Vec<Client>) -> T) -> T {
    let mut idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner);
    work(idle.get_or_insert_default().entry(url.to_owned()).or_default())
}
