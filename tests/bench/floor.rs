//! The least a client can do that loses and repeats nothing: this program as a child process, which receives each transaction
//! and writes the same Open WebUI rows, with its position, in one durable transaction. No mirror, no rule, no ledger, no audit; it
//! knows users and nothing else.

use std::collections::HashMap;
use std::io::Write;

use anyhow::{Context, Result, bail, ensure};
use futures_util::future::try_join_all;
use pgwire_replication::{ReplicationClient, ReplicationEvent};
use testbed::{connect, execute};
use tokio_postgres::types::ToSql;

use crate::receiver::{Child, replication};
use crate::rig::{Pair, copy_database, drop_slot, webui_rows};

const SLOT: &str = "floor";

const INSERT_USER: &str =
    "insert into \"user\" (id, email, name, role, profile_image_url, created_at, updated_at, last_active_at)
     select 'usr_' || $1::text, $2, $3, 'user', '/user.png', at, at, at
       from (select extract(epoch from now())::bigint as at) t";
const INSERT_AUTH: &str =
    "insert into auth (id, email, password, active) values ('usr_' || $1::text, $2, '', true)";
const UPDATE_USER: &str = "update \"user\" set email = $2, name = $3 where id = 'usr_' || $1::text";
const POSITION: &str = "update floor_position set at = $1::text::pg_lsn";

/// The child, and its Open WebUI.
#[derive(Debug)]
pub struct Floor {
    child: Child,
    pub url: String,
    source: String,
}

impl Floor {
    /// Makes an Open WebUI in which people 1 to `existing` are, and starts the child; it streams when this returns.
    pub async fn start(pair: &Pair<'_>, existing: usize) -> Result<Self> {
        let url = copy_database(&pair.rig().target, "webui", "webui_floor").await?;
        let rows = webui_rows(&format!("generate_series(1, {existing})"));
        let books = "create table floor_position (at pg_lsn) with (fillfactor = 10); insert into floor_position values ('0/0')";
        execute(&url, &format!("{rows}; {books}")).await?;
        execute(&url, "vacuum analyze").await?;
        let child = Child::start(pair, SLOT, "--floor", &url).await?;
        Ok(Self { child, url, source: pair.source.clone() })
    }

    /// Ends it, after a look at whether it kept its position.
    pub async fn end(self) -> Result<()> {
        drop(self.child);
        let text = "select at > '0/0' from floor_position";
        let kept: bool = connect(&self.url).await?.query_one(text, &[]).await?.get(0);
        ensure!(kept, "the floor did not keep its position");
        drop_slot(&self.source, SLOT).await
    }
}

/// The child's side of [`Floor`].
pub async fn apply(arguments: &[String]) -> Result<()> {
    let [port, database, slot, target] = arguments else { bail!("four arguments") };
    let client = connect(target).await?;
    let insert_user = client.prepare(INSERT_USER).await?;
    let insert_auth = client.prepare(INSERT_AUTH).await?;
    let update_user = client.prepare(UPDATE_USER).await?;
    let position = client.prepare(POSITION).await?;
    let mut stream = ReplicationClient::connect_gated(replication(port, database, slot)?).await?;
    stream.start().await?;
    stream.wait_started().await?;
    println!("streaming");
    std::io::stdout().flush()?;
    let mut tables = HashMap::new();
    let mut people: Vec<(bool, [Option<String>; 3])> = Vec::new();
    while let Some(event) = stream.recv().await? {
        match event {
            ReplicationEvent::XLogData { data, .. } => match data.first() {
                Some(b'R') => {
                    let (id, places) = relation(&data).context("a relation message")?;
                    tables.insert(id, places);
                }
                Some(kind @ (b'I' | b'U')) => {
                    people.extend(person(&data, &tables).map(|values| (*kind == b'I', values)));
                }
                _ => {}
            },
            ReplicationEvent::Commit { end_lsn, .. } => {
                let at = end_lsn.to_string();
                let position_parameters: [&(dyn ToSql + Sync); 1] = [&at];
                // All of it sent at once: one round trip.
                let rows = people.iter().flat_map(|(is_new, [id, email, name])| {
                    let user: [&(dyn ToSql + Sync); 3] = [id, email, name];
                    let auth: [&(dyn ToSql + Sync); 2] = [id, email];
                    let (client, insert_auth) = (&client, &insert_auth);
                    let statement = if *is_new { &insert_user } else { &update_user };
                    let first = async move { client.execute(statement, &user).await };
                    let second =
                        async move { if *is_new { client.execute(insert_auth, &auth).await } else { Ok(0) } };
                    [futures_util::future::Either::Left(first), futures_util::future::Either::Right(second)]
                });
                tokio::try_join!(
                    client.batch_execute("begin"),
                    try_join_all(rows),
                    client.execute(&position, &position_parameters),
                    client.batch_execute("commit"),
                )?;
                people.clear();
                stream.update_applied_lsn(end_lsn);
            }
            _ => {}
        }
    }
    Ok(())
}

/// Of a Relation message: its number, and where id, e-mail and name are; [`None`] if it is another table's.
fn relation(data: &[u8]) -> Option<(u32, Option<[usize; 3]>)> {
    let id = u32::from_be_bytes(data.get(1..5)?.try_into().ok()?);
    let mut rest = data.get(5..)?;
    let _schema = text(&mut rest)?;
    let table = text(&mut rest)?;
    if table != "LiteLLM_UserTable" {
        return Some((id, None));
    }
    let count = u16::from_be_bytes(rest.get(1..3)?.try_into().ok()?);
    rest = rest.get(3..)?;
    let mut names = Vec::new();
    for _ in 0..count {
        rest = rest.get(1..)?;
        names.push(text(&mut rest)?);
        rest = rest.get(8..)?;
    }
    let place = |wanted: &str| names.iter().position(|name| name == wanted);
    Some((id, Some([place("user_id")?, place("user_email")?, place("user_alias")?])))
}

/// Of an Insert or Update message: id, e-mail and name, if it is of the users.
fn person(data: &[u8], tables: &HashMap<u32, Option<[usize; 3]>>) -> Option<[Option<String>; 3]> {
    let id = u32::from_be_bytes(data.get(1..5)?.try_into().ok()?);
    let places = (*tables.get(&id)?)?;
    // Nobody's key changes here, so there is no old row before the new one.
    let mut rest = data.get(5..)?.strip_prefix(b"N")?;
    let count = u16::from_be_bytes(rest.get(..2)?.try_into().ok()?);
    rest = rest.get(2..)?;
    let mut values = Vec::with_capacity(usize::from(count));
    for _ in 0..count {
        let (kind, after) = rest.split_first()?;
        rest = after;
        values.push(if *kind == b't' {
            let length = u32::from_be_bytes(rest.get(..4)?.try_into().ok()?) as usize;
            let value = rest.get(4..4 + length)?;
            rest = rest.get(4 + length..)?;
            Some(value)
        } else {
            None
        });
    }
    let value = |place: usize| Some(String::from_utf8_lossy((*values.get(place)?)?).into_owned());
    Some(places.map(value))
}

/// A text that ends with a zero.
fn text(rest: &mut &[u8]) -> Option<String> {
    let end = rest.iter().position(|byte| *byte == 0)?;
    let text = String::from_utf8_lossy(&rest[..end]).into_owned();
    *rest = &rest[end + 1..];
    Some(text)
}
