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

/// What one statement is to do to one table.
#[derive(Debug)]
enum Step<'a> {
    Truncate,
    Move(&'a [(RowKey, RowKey)]),
    Delete(Vec<&'a RowKey>),
    Upsert(Vec<(&'a RowKey, &'a Vec<Value>)>),
    /// Rows that the mirror should not have.
    Insert(Vec<(&'a RowKey, &'a Vec<Value>)>),
}

/// One statement with its parameters.
#[derive(Debug)]
struct Work<'a> {
    table: TableId,
    columns: Vec<Vec<Option<&'a str>>>,
    unsent: Option<Vec<i64>>,
    /// Where it meets a row that it thought was not there, [`statements::upsert`] is used instead.
    is_replaceable: bool,
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
    let mut prepared: Vec<(Work<'_>, Statement)> = Vec::new();
    for (id, step) in steps(part, keys) {
        let statement = target.prepare(&in_mode(id, &step.text(id.table()), keys), &[]).await?;
        prepared.push((step.work(id), statement));
    }
    Ok(Writes { prepared, keys })
}

/// Whether the statements of a piece are there, so that [`prepare`] with [`TouchedFrom::Table`] has nothing to wait for.
pub fn is_prepared(target: &Target, piece: &Part) -> bool {
    let mut texts = steps(piece, TouchedFrom::Table)
        .into_iter()
        .map(|(id, step)| in_mode(id, &step.text(id.table()), TouchedFrom::Table));
    texts.all(|text| target.is_prepared(&text))
}

impl Writes<'_> {
    /// Sends every statement without waiting for the one before; the server runs them in order. Gives who is touched.
    pub async fn send(&self, target: &Target) -> Result<Touched> {
        debug_assert_eq!(self.keys, TouchedFrom::Arrays, "pieces have a way of their own");
        let sent = self.prepared.iter().map(|(one, statement)| async move {
            let rows = one.run(target, statement, None, self.keys).await?;
            Ok((one.table.0, rows))
        });
        let results: Result<Vec<(usize, Vec<Row>)>> = join_all(sent).await.into_iter().collect();
        let mut touched = Touched::default();
        for (table, rows) in results? {
            collect(&mut touched, table, rows)?;
        }
        Ok(touched)
    }

    /// Sends all of them without waiting, in a transaction. The touched keys stay on the server. Gives which one, if any, met a row that
    /// it thought was not there: the transaction has failed until [`Self::replace`], and whatever was sent meanwhile has failed with it.
    pub async fn send_piece(&self, target: &Target) -> Result<Option<usize>> {
        self.send_from(target, 0).await
    }

    async fn send_from(&self, target: &Target, first: usize) -> Result<Option<usize>> {
        let some = self.prepared.get(first..).unwrap_or_default();
        let sent = some.iter().map(|(one, statement)| one.run_in_savepoint(target, statement, self.keys));
        // In their order: the first error is why, and those after it say no more than that there was one.
        for (place, result) in join_all(sent).await.into_iter().enumerate() {
            match (result, some.get(place)) {
                (Ok(()), _) => {}
                (Err(error), Some((one, _))) if one.is_replaceable && error.is_about_a_row() => {
                    return Ok(Some(first + place));
                }
                (Err(error), _) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Does the work of the one at this place in the way that takes rows as they are, and that of those after it.
    pub async fn replace(&self, target: &Target, mut place: usize) -> Result<()> {
        while let Some((one, _)) = self.prepared.get(place) {
            let back = "rollback to savepoint piece; release savepoint piece";
            target.execute("go back to a savepoint", back).await?;
            let text = in_mode(one.table, &statements::upsert(one.table.table()), self.keys);
            let statement = target.prepare(&text, &[]).await?;
            // Every value of theirs was sent.
            let unsent = vec![0; one.columns.first().map_or(0, Vec::len)];
            one.run(target, &statement, Some(&unsent), self.keys).await?;
            let Some(next) = self.send_from(target, place + 1).await? else { break };
            place = next;
        }
        Ok(())
    }
}

impl Work<'_> {
    /// Where it may have to be replaced: nothing else is to be lost then.
    async fn run_in_savepoint(
        &self,
        target: &Target,
        statement: &Statement,
        keys: TouchedFrom,
    ) -> Result<()> {
        if !self.is_replaceable {
            self.run(target, statement, None, keys).await?;
            return Ok(());
        }
        tokio::try_join!(
            biased;
            target.execute("set a savepoint", "savepoint piece"),
            self.run(target, statement, None, keys),
            target.execute("release a savepoint", "release savepoint piece"),
        )?;
        Ok(())
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

/// In the order in which they are to be applied.
fn steps(part: &Part, keys: TouchedFrom) -> Vec<(TableId, Step<'_>)> {
    let mut steps = Vec::new();
    for (id, changes) in TableId::all().zip(&part.tables) {
        for segment in &changes.segments {
            segment_steps(segment, keys, |step| steps.push((id, step)));
        }
    }
    steps
}

fn segment_steps<'a>(segment: &'a Segment, keys: TouchedFrom, mut give: impl FnMut(Step<'a>)) {
    if segment.truncate {
        give(Step::Truncate);
    }
    if !segment.moves.is_empty() {
        give(Step::Move(&segment.moves));
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
        give(Step::Delete(gone));
    }
    if !rows.is_empty() {
        give(Step::Upsert(rows));
    }
    if !new_rows.is_empty() {
        give(Step::Insert(new_rows));
    }
}

impl<'a> Step<'a> {
    fn text(&self, table: &Table) -> String {
        match self {
            Self::Truncate => statements::truncate(table),
            Self::Move(_) => statements::shift(table),
            Self::Delete(_) => statements::delete(table),
            Self::Upsert(_) => statements::upsert(table),
            Self::Insert(_) => statements::insert(table),
        }
    }

    fn work(self, id: TableId) -> Work<'a> {
        let (table, is_replaceable) = (id.table(), matches!(self, Self::Insert(_)));
        let (columns, unsent) = match self {
            Self::Truncate => (Vec::new(), None),
            Self::Move(moves) => {
                let mut columns = key_columns(table, moves.iter().map(|(old, _)| old));
                columns.extend(key_columns(table, moves.iter().map(|(_, new)| new)));
                (columns, None)
            }
            Self::Delete(gone) => (key_columns(table, gone.into_iter()), None),
            Self::Upsert(rows) => {
                let (columns, unsent) = row_columns(table, rows);
                (columns, Some(unsent))
            }
            Self::Insert(rows) => (row_columns(table, rows).0, None),
        };
        Work { table: id, columns, unsent, is_replaceable }
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

/// A statement about a table, so that it leaves who is touched where they are looked for.
fn in_mode(id: TableId, text: &str, keys: TouchedFrom) -> String {
    let text = noted(text, keys);
    // Whoever is touched as a user is touched in their access too, and of these rows there may be many.
    let is_user = id.table().mirror == "litellm_user";
    if is_user && keys != TouchedFrom::Arrays { text + " where kind <> 'rights'" } else { text }
}

fn noted(text: &str, keys: TouchedFrom) -> String {
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
    let text = if keys == TouchedFrom::Table { noted(&text, keys) } else { text };
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
    let text = if keys == TouchedFrom::Table { noted(&text, keys) } else { text };
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
