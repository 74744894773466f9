//! Reads budgets, and the names of those that are shown, from LiteLLM's tables.
//!
//! Owns what is asked of LiteLLM for the budgets, by the daemon and by the command alike. Writes nothing.

use std::collections::{BTreeMap, HashMap};
use std::pin::pin;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use futures_util::TryStreamExt;
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use super::book::{self, Book, Hash};
use super::gate::{Gate, Stored, StoredClosed};
use super::rules::Kind;
use super::{Budgets, Chat, Name};
use crate::catalog::{Table, TableId};
use crate::config::Config;
use crate::config::policy::{BudgetPolicy, Chats};
use crate::copy::backfill::{STALL, unescape};
use crate::decode::message::TupleValue;
use crate::decode::{self, reduce};
use crate::error::{Error, Result, Side};
use crate::mirror;
use crate::postgres::lossy::Text;
use crate::postgres::quote_ident;
use crate::source::pace::PIECE;
use crate::source::{Source, SourceTable};
use crate::sql;
use crate::stage::budget::{Crossing, Window};
use crate::target::{QUICK, Target, within};

/// The snapshot delays LiteLLM's own index builds, and the stream waits: no longer than this.
const PATIENCE: Duration = Duration::from_secs(60);
/// Looking a name up by its hash reads the whole table, so it may take this share of the time …
const SCAN_SHARE: u32 = 20;
/// … and known names are looked up again by their ids: somebody may have been renamed.
const AGAIN_EVERY: Duration = Duration::from_secs(60);

/// Everybody's budget, and what says which are used up where that closes anything or chats are counted.
#[derive(Debug)]
pub struct Loaded {
    pub book: Book,
    pub(super) gate: Option<Gate>,
}

impl Loaded {
    /// Looks what customers had spent before the windows began that are open now: where nothing is stored of anybody yet.
    pub async fn look_back(&mut self, source: &Source, config: &Config) -> Result<()> {
        let table = format!("{}.\"LiteLLM_DailyEndUserSpend\"", quote_ident(&config.litellm_schema));
        let client = &source.connection.client;
        let text = "select coalesce(has_table_privilege(to_regclass($1), 'select'), false)";
        let parameters: [&(dyn ToSql + Sync); 1] = [&table];
        let work = client.query_one(text, &parameters);
        let action = "look what was spent before";
        if !within(Side::Source, action, QUICK, work).await?.get::<_, bool>(0) {
            tracing::info!(
                "LiteLLM's sums of each day are not there for us: whatever customers ever spent counts for their users"
            );
            return Ok(());
        }
        let text = sql::fill(sql::SPENT_BEFORE, ":schema", &quote_ident(&config.litellm_schema));
        let rows = within(Side::Source, action, PATIENCE, client.query(&text, &[])).await?;
        for row in rows {
            self.book.count_from(&row.get::<_, Text>(0).0, row.get(1));
        }
        Ok(())
    }

    /// Which budgets are to be stored as used up by what was read, and which that are stored are not. `in_order`: it was read at the very
    /// point that the target is at.
    pub fn should(mut self, stored: &Stored, in_order: bool) -> Vec<Crossing> {
        match &mut self.gate {
            None => super::gate::nothing_counts(stored).crossings,
            Some(gate) => gate.resume(&mut self.book, stored, 0, in_order, super::now()),
        }
    }
}

/// Every budget, in one read-only transaction on a session beside `source`, at one snapshot. What is committed before this is called is in it.
pub async fn read(
    source: &Source,
    config: &Config,
    tables: &BTreeMap<String, SourceTable>,
) -> Result<Loaded> {
    let work = async {
        let reader = source.beside().await?;
        reader.begin_reading(config, tables, None, PATIENCE).await?;
        let mut loaded = nothing(config);
        reader.giving_way(source, read_at(&reader, config, tables, &mut loaded)).await?;
        Ok(loaded)
    };
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(loaded) => loaded,
        Err(_) => {
            Err(Error::Silent { side: Side::Source, action: "read budgets", seconds: PATIENCE.as_secs() })
        }
    }
}

/// What everything is read into.
pub fn nothing(config: &Config) -> Loaded {
    let enforce = config.policy.access.budgets == BudgetPolicy::Enforce;
    let chats = config.policy.budgets.chats == Chats::Customer;
    Loaded { book: Book::new(chats), gate: (enforce || chats).then(|| Gate::new(enforce)) }
}

/// The same in a transaction that is open, at the point it looks at.
pub async fn read_at(
    reader: &Source,
    config: &Config,
    tables: &BTreeMap<String, SourceTable>,
    loaded: &mut Loaded,
) -> Result<()> {
    for id in TableId::all().filter(|id| !id.table().spending.is_empty()) {
        if let Some(found) = tables.get(id.table().source) {
            read_table(reader, config, id, found, loaded).await?;
        }
    }
    Ok(())
}

/// What customers spend.
pub const CUSTOMERS: &str = "LiteLLM_EndUserTable";
/// What is spent in the windows of `budget_limits`.
pub const WINDOWS: &str = "LiteLLM_BudgetWindowSpend";

/// Whether the stream tells of a table's rows, and we may read what there is.
pub async fn follows(
    source: &Source,
    config: &Config,
    tables: &BTreeMap<String, SourceTable>,
    name: &str,
) -> Result<bool> {
    if !tables.contains_key(name) {
        return Ok(false);
    }
    let state = source.publication(config).await?;
    Ok(state.is_some_and(|state| state.tables.iter().any(|table| table == name)))
}

/// What the target has stored of all this, as of its checkpoint.
pub async fn stored(target: &Target) -> Result<Stored> {
    let (closed, chats, windows) = mirror::budgets::stored(target).await?;
    let closed = closed.into_iter().filter_map(|(kind, id, team, limit, resets_at)| {
        let kind = Kind::ALL.into_iter().find(|one| one.name() == kind)?;
        Some(StoredClosed { kind, id, team, limit, resets_at })
    });
    let chats = chats.into_iter().map(|(customer, spend, before, resets_at)| Chat {
        customer,
        spend,
        before,
        resets_at,
    });
    let windows =
        windows.into_iter().map(|(user, has_spent, resets_at)| (user, Window { resets_at, has_spent }));
    Ok(Stored { closed: closed.collect(), chats: chats.collect(), windows: windows.collect() })
}

/// What was read at the point that the target was at, against what is stored there: who is to be closed or opened, and the customers whose
/// spend is stored wrong.
pub fn compare(loaded: Loaded, stored: &Stored) -> (Vec<Crossing>, Vec<String>) {
    let is_wrong = |chat: &&Chat| {
        loaded.gate.is_some() && loaded.book.spent(&chat.customer).is_some_and(|spend| spend != chat.spend)
    };
    let customers = stored.chats.iter().filter(is_wrong).map(|chat| chat.customer.clone()).collect();
    (loaded.should(stored, true), customers)
}

/// The COPY that reads the key and the spending columns. What this LiteLLM lacks is NULL.
fn copy_out(table: &Table, schema: &str, found: &SourceTable) -> String {
    let key = table.key().iter().map(|column| column.source);
    let columns: Vec<String> = key
        .chain(table.spending.iter().copied())
        .map(|name| if found.columns.contains_key(name) { quote_ident(name) } else { "null".to_owned() })
        .collect();
    let (schema, name) = (quote_ident(schema), quote_ident(table.source));
    format!("copy (select {} from only {schema}.{name}) to stdout", columns.join(", "))
}

async fn read_table(
    source: &Source,
    config: &Config,
    id: TableId,
    found: &SourceTable,
    loaded: &mut Loaded,
) -> Result<()> {
    let text = copy_out(id.table(), &config.litellm_schema, found);
    let work = source.connection.client.copy_out(&text);
    let mut rows = pin!(within(Side::Source, "read budgets", STALL, work).await?);
    let (mut line, mut read, mut rests) = (BytesMut::new(), 0, source.pace.begin());
    while let Some(chunk) = within(Side::Source, "read budgets", STALL, rows.try_next()).await? {
        line.extend_from_slice(&chunk);
        read += chunk.len();
        if read >= PIECE {
            read = 0;
            rests.rest().await;
        }
        while let Some(end) = line.iter().position(|byte| *byte == b'\n') {
            let row = line.split_to(end + 1);
            take_line(id, row.get(..end).unwrap_or_default(), loaded);
        }
    }
    Ok(())
}

/// A line as a row of the stream would be: mirrored columns that are no key are not there.
fn take_line(id: TableId, line: &[u8], loaded: &mut Loaded) {
    let table = id.table();
    let fields: Vec<Option<Vec<u8>>> = line.split(|byte| *byte == b'\t').map(unescape).collect();
    let value = |field: &Option<Vec<u8>>| -> bool { field.is_some() };
    debug_assert!(fields.iter().take(table.key_len).all(value));
    let mut raw = vec![TupleValue::Null; table.columns.len() + table.spending.len()];
    for (place, field) in fields.iter().enumerate() {
        let place = if place < table.key_len { place } else { place - table.key_len + table.columns.len() };
        if let (Some(to), Some(bytes)) = (raw.get_mut(place), field) {
            *to = TupleValue::Text(bytes);
        }
    }
    super::take(&mut loaded.book, loaded.gate.as_mut(), (id, None, &decode::copied_row(id, raw)));
}

/// How names are looked up: the statement, its columns that are the id, as SQL.
fn statement(kind: Kind) -> (&'static str, &'static [&'static str]) {
    match kind {
        Kind::User => (sql::USER_NAMES, &["u.user_id"]),
        Kind::Key => (sql::KEY_NAMES, &["k.token"]),
        Kind::Team => (sql::TEAM_NAMES, &["t.team_id"]),
        Kind::Organization => (sql::ORGANIZATION_NAMES, &["o.organization_id"]),
        Kind::TeamMember => (sql::MEMBER_NAMES, &["m.user_id", "m.team_id"]),
        Kind::Customer => (sql::CUSTOMER_NAMES, &["c.user_id"]),
    }
}

/// The hash the book has, in SQL. A key's stored token may be the key itself, on old rows; see [`reduce::token`].
fn hash_sql(kind: Kind, columns: &[&str]) -> String {
    let parts: Vec<String> = columns
        .iter()
        .map(|column| match kind {
            Kind::Key => format!(
                "convert_to(case when {column} ~ '^[0-9a-fA-F]{{64}}$' then {column} \
                 else '{}' || encode(sha256({}), 'hex') end, 'UTF8')",
                reduce::CLEAR,
                as_utf8(column)
            ),
            Kind::User | Kind::Team | Kind::Organization | Kind::TeamMember | Kind::Customer => {
                as_utf8(column)
            }
        })
        .collect();
    format!("substr(sha256({}), 1, 16)", parts.join(" || '\\x00'::bytea || "))
}

/// The bytes of a column in UTF-8. A database in SQL_ASCII has them as they are, and cannot say what they mean.
fn as_utf8(column: &str) -> String {
    format!(
        "convert_to({column}, case getdatabaseencoding() when 'SQL_ASCII' then 'SQL_ASCII' else 'UTF8' end)"
    )
}

/// Reads the names of these: over the ids they were found by, by index, where those are known; else over the whole table.
async fn names(
    source: &Source,
    config: &Config,
    kind: Kind,
    wanted: &[(Hash, Option<&Name>)],
) -> Result<HashMap<(Kind, Hash), Name>> {
    let (text, columns) = statement(kind);
    let hashes: Vec<&[u8]> = wanted.iter().map(|(hash, _)| hash.as_slice()).collect();
    let part = |place: usize| -> Vec<&str> {
        let parts = wanted.iter().filter_map(|(_, name)| name.and_then(|name| name.found_by.get(place)));
        parts.map(String::as_str).collect()
    };
    let (first, second) = (part(0), part(1));
    let first: (&(dyn ToSql + Sync), Type) = (&first, Type::TEXT_ARRAY);
    let (which, parameters) = match columns {
        _ if part(0).is_empty() => {
            (format!("{} = any ($1)", hash_sql(kind, columns)), vec![(&hashes as _, Type::BYTEA_ARRAY)])
        }
        [one] => (format!("{one} = any ($1)"), vec![first]),
        _ => {
            let pairs = "(select * from unnest($1::text[], $2::text[]))";
            (format!("({}) in {pairs}", columns.join(", ")), vec![first, (&second as _, Type::TEXT_ARRAY)])
        }
    };
    let text = sql::fill(text, ":schema", &quote_ident(&config.litellm_schema));
    let text = sql::fill(&text, ":which", &which);
    let work = source.connection.client.query_typed(&text, &parameters);
    let rows = within(Side::Source, "look names up", QUICK, work).await?;
    Ok(rows.iter().map(|row| name_of(kind, row)).collect())
}

fn name_of(kind: Kind, row: &Row) -> ((Kind, Hash), Name) {
    let list = |name: &str| -> Vec<Option<String>> {
        // What cannot be read is not shown, and stops nothing.
        let texts: Option<Vec<Option<Text>>> = row.try_get(name).unwrap_or_default();
        texts.unwrap_or_default().into_iter().map(|text| text.map(|Text(text)| text)).collect()
    };
    let ids: Vec<String> = list("ids").into_iter().flatten().collect();
    let alias = list("aliases");
    let email = row.try_get::<_, Option<Text>>("email").ok().flatten().map(|Text(email)| email);
    if kind != Kind::Key {
        let hash = book::hash(&ids);
        return ((kind, hash), Name { id: ids.clone(), found_by: ids, alias, email });
    }
    // A token is never shown, and one that is the key itself not even kept.
    let hash = book::hash(ids.iter().map(|token| reduce::token(token)));
    let found_by = ids.into_iter().filter(|token| reduce::token(token) == *token).collect();
    ((kind, hash), Name { id: Vec::new(), found_by, alias, email })
}

/// The names of everybody in a ranking, for a command.
pub async fn all_names(
    source: &Source,
    config: &Config,
    ranking: &super::Ranking,
) -> Result<HashMap<(Kind, Hash), Name>> {
    let mut found = HashMap::new();
    for (kind, of_kind) in &ranking.kinds {
        let wanted: Vec<(Hash, Option<&Name>)> = of_kind.shown.iter().map(|one| (one.hash, None)).collect();
        if !wanted.is_empty() {
            found.extend(names(source, config, *kind, &wanted).await?);
        }
    }
    Ok(found)
}

/// Keeps the names of those that are shown, for a daemon.
#[derive(Debug)]
pub struct Namer {
    again_every: Duration,
    /// When the last scan ended, and how long it took.
    scanned: Option<(Instant, Duration)>,
    read_again: Option<Instant>,
}

impl Default for Namer {
    fn default() -> Self {
        Self::every(AGAIN_EVERY)
    }
}

impl Namer {
    /// Looks known names up again this often.
    pub fn every(again_every: Duration) -> Self {
        Self { again_every, scanned: None, read_again: None }
    }

    /// Looks up what is missing, and now and then everything again.
    pub async fn look(&mut self, budgets: &Budgets, source: &Source, config: &Config) -> Result<()> {
        let Some(ranking) = budgets.ranking() else { return Ok(()) };
        let due = |last: Option<Instant>, every: Duration| last.is_none_or(|at| at.elapsed() >= every);
        if due(self.read_again, self.again_every) {
            self.read_again = Some(Instant::now());
            let known = budgets.named(&ranking);
            for kind in Kind::ALL {
                let of_kind =
                    known.iter().filter(|((one, _), name)| *one == kind && !name.found_by.is_empty());
                let wanted: Vec<_> = of_kind.map(|((_, hash), name)| (*hash, Some(name))).collect();
                if !wanted.is_empty() {
                    budgets.name(names(source, config, kind, &wanted).await?);
                }
            }
        }
        let nameless = budgets.nameless(&ranking);
        if nameless.is_empty() || self.scanned.is_some_and(|(at, took)| at.elapsed() < took * SCAN_SHARE) {
            return Ok(());
        }
        let begun = Instant::now();
        for kind in Kind::ALL {
            let of_kind = nameless.iter().filter(|(one, _)| *one == kind);
            let wanted: Vec<_> = of_kind.map(|(_, hash)| (*hash, None)).collect();
            if !wanted.is_empty() {
                let found = names(source, config, kind, &wanted).await;
                self.scanned = Some((Instant::now(), begun.elapsed()));
                budgets.name(found?);
            }
        }
        Ok(())
    }
}
