//! Writes a part of a batch to the mirror and says who is touched.
//!
//! Owns the `litellm_*` tables and `team_roster`. Never begins or commits, never reads or writes a
//! table of Open WebUI, and never decides anything about an account.

pub mod budgets;
pub mod statements;
pub mod users;

use std::time::SystemTime;

use futures_util::future::join_all;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Row, Statement};

use crate::catalog::{TABLES, Table, TableId};
use crate::decode::{RowKey, Value};
use crate::error::Result;
use crate::project::touched::Touched;
use crate::sql::{self, TouchedFrom};
use crate::stage::{Entry, Part, Segment};
use crate::target::{QUICK, SLOW, Target};

/// One statement with its parameters.
#[derive(Debug)]
struct Work<'a> {
    table: usize,
    text: String,
    columns: Vec<Vec<Option<&'a str>>>,
    unsent: Option<Vec<i64>>,
    /// The statement to use where this one met a row that it thought was not there.
    instead: Option<String>,
}

/// The statements of one part, ready to be sent.
#[derive(Debug)]
pub struct Writes<'a> {
    prepared: Vec<(Work<'a>, Statement)>,
    keys: TouchedFrom,
}

/// Prepares what `part` has to say. With [`TouchedFrom::Arrays`] the touched keys come back from
/// [`Writes::send`]; with [`TouchedFrom::Table`] they are left in the temporary table `touched`.
pub async fn prepare<'a>(target: &Target, part: &'a Part, keys: TouchedFrom) -> Result<Writes<'a>> {
    let mut work = Vec::new();
    for (id, changes) in TableId::all().zip(&part.tables) {
        for segment in &changes.segments {
            segment_work(id, segment, keys, &mut work);
        }
    }
    let mut prepared: Vec<(Work<'_>, Statement)> = Vec::with_capacity(work.len());
    for one in work {
        let text = one.in_mode(&one.text, keys);
        let statement = target.prepare(&text, &[]).await?;
        prepared.push((one, statement));
    }
    Ok(Writes { prepared, keys })
}

impl Writes<'_> {
    /// Sends every statement without waiting for the one before; the server runs them in order.
    pub async fn send(&self, target: &Target) -> Result<Touched> {
        if self.keys != TouchedFrom::Arrays {
            return self.send_in_turn(target).await;
        }
        let sent = self.prepared.iter().map(|(one, statement)| async move {
            let rows = one.run(target, statement, None, self.keys).await?;
            Ok((one.table, rows))
        });
        let results: Result<Vec<(usize, Vec<Row>)>> = join_all(sent).await.into_iter().collect();
        let mut touched = Touched::default();
        for (table, rows) in results? {
            collect(&mut touched, table, rows)?;
        }
        Ok(touched)
    }

    /// Sends one after the other, so that one that fails may be replaced. The touched keys stay on the server.
    async fn send_in_turn(&self, target: &Target) -> Result<Touched> {
        for (one, statement) in &self.prepared {
            let Some(instead) = &one.instead else {
                one.run(target, statement, None, self.keys).await?;
                continue;
            };
            let (savepoint, sent) = tokio::join!(
                target.execute("set a savepoint", "savepoint piece"),
                one.run(target, statement, None, self.keys),
            );
            savepoint?;
            match sent {
                Ok(_) => target.execute("release a savepoint", "release savepoint piece").await?,
                Err(error) if error.is_about_a_row() => {
                    let back = "rollback to savepoint piece; release savepoint piece";
                    target.execute("go back to a savepoint", back).await?;
                    let statement = target.prepare(&one.in_mode(instead, self.keys), &[]).await?;
                    // Every value of theirs was sent.
                    let unsent = vec![0; one.columns.first().map_or(0, Vec::len)];
                    one.run(target, &statement, Some(&unsent), self.keys).await?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Touched::default())
    }
}

impl Work<'_> {
    fn in_mode(&self, text: &str, keys: TouchedFrom) -> String {
        let text = in_mode(text, keys);
        // Whoever is touched as a user is touched in their access too, and of these rows there may be many.
        let is_user = TABLES.get(self.table).is_some_and(|table| table.mirror == "litellm_user");
        if is_user && keys != TouchedFrom::Arrays { text + " where kind <> 'rights'" } else { text }
    }

    async fn run(
        &self,
        target: &Target,
        statement: &Statement,
        unsent: Option<&Vec<i64>>,
        keys: TouchedFrom,
    ) -> Result<Vec<Row>> {
        let mut parameters: Vec<&(dyn ToSql + Sync)> = Vec::new();
        for column in &self.columns {
            parameters.push(column);
        }
        if let Some(unsent) = self.unsent.as_ref().or(unsent) {
            parameters.push(unsent);
        }
        target.query("write the mirror", patience(keys), statement, &parameters).await
    }
}

fn segment_work<'a>(id: TableId, segment: &'a Segment, keys: TouchedFrom, work: &mut Vec<Work<'a>>) {
    let table = id.table();
    if segment.truncate {
        work.push(Work {
            table: id.0,
            text: statements::truncate(table),
            columns: Vec::new(),
            unsent: None,
            instead: None,
        });
    }
    if !segment.moves.is_empty() {
        let mut columns = key_columns(table, segment.moves.iter().map(|(old, _)| old));
        columns.extend(key_columns(table, segment.moves.iter().map(|(_, new)| new)));
        work.push(Work { table: id.0, text: statements::shift(table), columns, unsent: None, instead: None });
    }
    let mut gone = Vec::new();
    let (mut rows, mut new_rows) = (Vec::new(), Vec::new());
    for (key, entry) in &segment.rows {
        match entry {
            Entry::Delete => gone.push(key),
            // A small batch is better served by one statement than by two.
            Entry::Insert(values) if keys != TouchedFrom::Arrays => new_rows.push((key, values)),
            Entry::Insert(values) | Entry::Upsert(values) => rows.push((key, values)),
        }
    }
    if !gone.is_empty() {
        let columns = key_columns(table, gone.into_iter());
        work.push(Work {
            table: id.0,
            text: statements::delete(table),
            columns,
            unsent: None,
            instead: None,
        });
    }
    if !rows.is_empty() {
        let (columns, unsent) = row_columns(table, rows);
        let text = statements::upsert(table);
        work.push(Work { table: id.0, text, columns, unsent: Some(unsent), instead: None });
    }
    if !new_rows.is_empty() {
        let (columns, _) = row_columns(table, new_rows);
        let (text, instead) = (statements::insert(table), Some(statements::upsert(table)));
        work.push(Work { table: id.0, text, columns, unsent: None, instead });
    }
}

/// The rows as one array per column, and for each row which of its values were not sent.
fn row_columns<'a>(
    table: &Table,
    mut rows: Vec<(&'a RowKey, &'a Vec<Value>)>,
) -> (Vec<Vec<Option<&'a str>>>, Vec<i64>) {
    // RowKey order is what an index likes best.
    rows.sort_unstable_by_key(|(key, _)| *key);
    let mut columns = vec![Vec::with_capacity(rows.len()); table.columns.len()];
    let mut unsent = Vec::with_capacity(rows.len());
    for (_, values) in &rows {
        let mut mask = 0_i64;
        for (place, (column, value)) in columns.iter_mut().zip(values.iter()).enumerate() {
            column.push(match value {
                Value::Text(text) => Some(&**text),
                Value::Null => None,
                Value::Unchanged => {
                    mask |= 1 << place;
                    None
                }
            });
        }
        unsent.push(mask);
    }
    (columns, unsent)
}

fn key_columns<'a>(table: &Table, keys: impl Iterator<Item = &'a RowKey>) -> Vec<Vec<Option<&'a str>>> {
    let mut columns = vec![Vec::new(); table.key_len];
    for key in keys {
        for (column, part) in columns.iter_mut().zip(key.parts()) {
            column.push(Some(part));
        }
    }
    columns
}

fn in_mode(text: &str, keys: TouchedFrom) -> String {
    match keys {
        TouchedFrom::Arrays => text.to_owned(),
        TouchedFrom::Table | TouchedFrom::Everything | TouchedFrom::Remaining => {
            statements::into_touched(text).unwrap_or_else(|| text.to_owned())
        }
    }
}

fn collect(touched: &mut Touched, table: usize, rows: Vec<Row>) -> Result<()> {
    for row in rows {
        let kind: &str = row.get(0);
        touched.add(table, kind, row.get(1))?;
    }
    Ok(())
}

/// Whose keys expired between two moments (`None`: ever): nothing in the stream says so.
pub async fn expired(target: &Target, after: Option<SystemTime>, now: SystemTime) -> Result<Touched> {
    let statement = target.prepare(sql::EXPIRED_KEYS, &[Type::TIMESTAMPTZ, Type::TIMESTAMPTZ]).await?;
    let rows = target.query("look for expired keys", QUICK, &statement, &[&after, &now]).await?;
    let mut touched = Touched::default();
    collect(&mut touched, 0, rows)?;
    Ok(touched)
}

/// The second step of propagation: rosters entry by entry, people of a team, claims to freed e-mails.
pub async fn propagate(target: &Target, touched: &mut Touched) -> Result<()> {
    propagate_in(target, touched, TouchedFrom::Arrays).await
}

/// How many people are touched, or will be once [`propagate`] has looked them up; beyond `enough` it is not counted further.
pub async fn reach(target: &Target, touched: &Touched, enough: usize) -> Result<usize> {
    let known = touched.reach();
    if known > enough || !touched.leads_on() {
        return Ok(known);
    }
    let lists = [&touched.rosters, &touched.team_people, &touched.team_rights, &touched.organization_rights];
    let [rosters, team_people, team_rights, organization_rights] = lists.map(list);
    let enough = i64::try_from(enough).unwrap_or(i64::MAX).saturating_add(1);
    let statement = target.prepare(sql::REACH, &[]).await?;
    let parameters: &[&(dyn ToSql + Sync)] =
        &[&rosters, &team_people, &team_rights, &organization_rights, &enough];
    let rows = target.query("count who is touched", QUICK, &statement, parameters).await?;
    let more: i64 = rows.first().map_or(0, |row| row.get(0));
    Ok(known.saturating_add(usize::try_from(more).unwrap_or_default()))
}

/// Makes the temporary table `touched`, before the transaction that notes in it begins.
pub async fn prepare_to_note(target: &Target) -> Result<()> {
    target.execute("prepare for a large batch", sql::CREATE_TOUCHED).await
}

/// Notes these in the temporary table `touched` too.
pub async fn note(target: &Target, touched: &Touched) -> Result<()> {
    let lists = [
        ("rights", list(&touched.rights)),
        ("models", list(&touched.models)),
        ("team_rights", list(&touched.team_rights)),
        ("organization_rights", list(&touched.organization_rights)),
    ];
    for (kind, ids) in lists.iter().filter(|(_, ids)| !ids.is_empty()) {
        let text = "insert into touched (kind, id) select $1, id from unnest($2::text[]) as given(id)";
        let statement = target.prepare(text, &[Type::TEXT, Type::TEXT_ARRAY]).await?;
        target.query("note who is touched", SLOW, &statement, &[kind, ids]).await?;
    }
    Ok(())
}

/// What [`propagate_noted`] says.
#[derive(Debug, Clone, Copy)]
pub struct Noted {
    /// [`Touched::all_rights`].
    pub all_rights: bool,
    /// How many keys were noted, some of them more than once.
    pub keys: i64,
    /// [`Touched::is_only_models`].
    pub only_models: bool,
}

/// The same for what is noted in the temporary table `touched`.
pub async fn propagate_noted(target: &Target) -> Result<Noted> {
    analyze_noted(target).await?;
    let statement = target.prepare("select distinct kind from touched", &[]).await?;
    let mut kinds = Touched::default();
    for row in target.query("look at what is touched", SLOW, &statement, &[]).await? {
        // The ids themselves stay where they are: one stands for all.
        kinds.add(TABLES.len(), row.get(0), String::new())?;
    }
    let only_models = kinds.is_only_models();
    propagate_in(target, &mut kinds, TouchedFrom::Table).await?;
    if kinds.leads_on() || !kinds.emails.is_empty() {
        analyze_noted(target).await?;
    }
    let statement = target.prepare("select count(*) from touched", &[]).await?;
    let rows = target.query("count who is touched", SLOW, &statement, &[]).await?;
    let keys = rows.first().map_or(0, |row| row.get(0));
    Ok(Noted { all_rights: kinds.all_rights, keys, only_models })
}

/// What follows is planned for as many keys as there are.
async fn analyze_noted(target: &Target) -> Result<()> {
    target.execute("analyze the touched keys", "analyze touched").await
}

/// What nothing leads to is not asked: each question reads all there is.
async fn propagate_in(target: &Target, touched: &mut Touched, keys: TouchedFrom) -> Result<()> {
    let rosters = list(&touched.rosters);
    step(target, touched, keys, sql::TEAM_ROSTER, &rosters).await?;
    let team_people = list(&touched.team_people);
    step(target, touched, keys, sql::TEAM_PEOPLE, &team_people).await?;
    rights_people(target, touched, keys).await?;
    let emails = list(&touched.emails);
    if !emails.is_empty() {
        let text = sql::with_keys(sql::OUT_OF_STEP, keys, 1);
        let statement = target.prepare(&text, &[]).await?;
        let users = list(&touched.users);
        let parameters: &[&(dyn ToSql + Sync)] = if keys == TouchedFrom::Arrays { &[&users] } else { &[] };
        target.query("mark accounts", patience(keys), &statement, parameters).await?;
    }
    step(target, touched, keys, sql::EMAIL_PEERS, &emails).await
}

/// Everybody in a team or under an organization whose access may have changed.
async fn rights_people(target: &Target, touched: &mut Touched, keys: TouchedFrom) -> Result<()> {
    let (teams, organizations) = (list(&touched.team_rights), list(&touched.organization_rights));
    if teams.is_empty() && organizations.is_empty() {
        return Ok(());
    }
    let text = sql::with_keys(sql::RIGHTS_PEOPLE, keys, 1);
    let text = if keys == TouchedFrom::Table { in_mode(&text, keys) } else { text };
    let statement = target.prepare(&text, &[]).await?;
    let parameters: &[&(dyn ToSql + Sync)] =
        if keys == TouchedFrom::Arrays { &[&teams, &organizations] } else { &[] };
    let rows = target.query("find whose access is touched", patience(keys), &statement, parameters).await?;
    if keys == TouchedFrom::Arrays { collect(touched, 0, rows) } else { Ok(()) }
}

async fn step(
    target: &Target,
    touched: &mut Touched,
    keys: TouchedFrom,
    text: &str,
    ids: &Vec<String>,
) -> Result<()> {
    if ids.is_empty() {
        return Ok(());
    }
    let text = sql::with_keys(text, keys, 1);
    let text = if keys == TouchedFrom::Table { in_mode(&text, keys) } else { text };
    let statement = target.prepare(&text, &[]).await?;
    let parameters: &[&(dyn ToSql + Sync)] = if keys == TouchedFrom::Arrays { &[ids] } else { &[] };
    let rows = target.query("find who is touched", patience(keys), &statement, parameters).await?;
    if keys == TouchedFrom::Arrays { collect(touched, 0, rows) } else { Ok(()) }
}

fn patience(keys: TouchedFrom) -> std::time::Duration {
    if keys == TouchedFrom::Arrays { QUICK } else { SLOW }
}

fn list(ids: &std::collections::BTreeSet<String>) -> Vec<String> {
    ids.iter().cloned().collect()
}
