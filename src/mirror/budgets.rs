//! Keeps which budgets are used up, and what people spent by chatting: written with the batch that says so.
//!
//! Owns the tables `budget_closed`, `chat_spend` and `chat_window`. Decides nothing: what a batch brings was decided in [`crate::budgets`]. Never
//! begins or commits.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use crate::decode::reduce;
use crate::error::Result;
use crate::position::Lsn;
use crate::project::touched::Touched;
use crate::sql;
use crate::stage::budget::{ChatSpend, ChatWindow, Closed, Crossing, Moves};
use crate::target::{QUICK, SLOW, Target};

const BUDGETS: &[Type] = &[
    Type::TIMESTAMPTZ,
    Type::PG_LSN,
    Type::TEXT_ARRAY,
    Type::TEXT_ARRAY,
    Type::TEXT_ARRAY,
    Type::TEXT_ARRAY,
    Type::BOOL_ARRAY,
    Type::FLOAT8_ARRAY,
    Type::FLOAT8_ARRAY,
    Type::TIMESTAMPTZ_ARRAY,
];
const CHATS: &[Type] = &[Type::TEXT_ARRAY, Type::FLOAT8_ARRAY, Type::FLOAT8_ARRAY, Type::TIMESTAMPTZ_ARRAY];
const WINDOWS: &[Type] = &[Type::TEXT_ARRAY, Type::BOOL_ARRAY, Type::TIMESTAMPTZ_ARRAY];
/// More than so many take longer.
const MANY: usize = 1_000;

/// How many budgets were closed and opened, by kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Crossed {
    pub closed: BTreeMap<String, u64>,
    pub opened: BTreeMap<String, u64>,
}

/// Prepares [`write()`], so that it can be sent together with what comes before and after it.
pub async fn prepare(target: &Target, moves: &Moves) -> Result<()> {
    if !moves.crossings.is_empty() {
        target.prepare(sql::STORE_BUDGETS, BUDGETS).await?;
    }
    if !moves.chats.is_empty() {
        target.prepare(sql::STORE_CHATS, CHATS).await?;
    }
    if !moves.windows.is_empty() {
        target.prepare(sql::STORE_WINDOWS, WINDOWS).await?;
    }
    Ok(())
}

/// Writes all of it, in the open transaction, after the mirror. Gives who is touched.
pub async fn write(target: &Target, moves: &Moves, now: SystemTime, lsn: Lsn) -> Result<(Touched, Crossed)> {
    let patience =
        if moves.crossings.len() + moves.chats.len() + moves.windows.len() > MANY { SLOW } else { QUICK };
    let (crossed, chats, windows) = tokio::join!(
        write_crossings(target, &moves.crossings, patience, (now, lsn)),
        write_chats(target, &moves.chats, patience),
        write_windows(target, &moves.windows, patience),
    );
    chats?;
    windows?;
    crossed
}

async fn write_crossings(
    target: &Target,
    crossings: &[Crossing],
    patience: Duration,
    (now, lsn): (SystemTime, Lsn),
) -> Result<(Touched, Crossed)> {
    let (mut touched, mut crossed) = (Touched::default(), Crossed::default());
    if crossings.is_empty() {
        return Ok((touched, crossed));
    }
    let statement = target.prepare(sql::STORE_BUDGETS, BUDGETS).await?;
    let closed: Vec<Option<&Closed>> = crossings.iter().map(|one| one.closed.as_ref()).collect();
    let kinds: Vec<&str> = crossings.iter().map(|one| one.kind).collect();
    let ids: Vec<&str> = crossings.iter().map(|one| one.id.as_str()).collect();
    let teams: Vec<&str> = crossings.iter().map(|one| one.team.as_str()).collect();
    let email = |one: &Crossing| if one.kind == "customer" { reduce::email(&one.id) } else { None };
    let emails: Vec<Option<String>> = crossings.iter().map(email).collect();
    let is_closed: Vec<bool> = closed.iter().map(Option::is_some).collect();
    let spend: Vec<Option<f64>> = closed.iter().map(|one| one.map(|one| one.spend)).collect();
    let limits: Vec<Option<f64>> = closed.iter().map(|one| one.and_then(|one| one.limit)).collect();
    let resets: Vec<Option<SystemTime>> =
        closed.iter().map(|one| one.and_then(|one| moment(one.resets_at))).collect();
    let parameters: &[&(dyn ToSql + Sync)] =
        &[&now, &lsn, &kinds, &ids, &teams, &emails, &is_closed, &spend, &limits, &resets];
    for row in target.query("write used-up budgets", patience, &statement, parameters).await? {
        let (kind, id): (&str, String) = (row.get(0), row.get(1));
        match kind {
            "closed" => *crossed.closed.entry(id).or_default() += 1,
            "opened" => *crossed.opened.entry(id).or_default() += 1,
            kind => touched.add(usize::MAX, kind, id)?,
        }
    }
    Ok((touched, crossed))
}

async fn write_chats(target: &Target, chats: &[ChatSpend], patience: Duration) -> Result<()> {
    if chats.is_empty() {
        return Ok(());
    }
    let statement = target.prepare(sql::STORE_CHATS, CHATS).await?;
    let customers: Vec<&str> = chats.iter().map(|one| one.customer.as_str()).collect();
    let spend: Vec<Option<f64>> = chats.iter().map(|one| one.now.map(|(spend, ..)| spend)).collect();
    let from: Vec<Option<f64>> = chats.iter().map(|one| one.now.map(|(_, from, _)| from)).collect();
    let resets: Vec<Option<SystemTime>> =
        chats.iter().map(|one| one.now.and_then(|(.., resets)| moment(resets))).collect();
    let parameters: &[&(dyn ToSql + Sync)] = &[&customers, &spend, &from, &resets];
    target.query("write what people spent by chatting", patience, &statement, parameters).await?;
    Ok(())
}

async fn write_windows(target: &Target, windows: &[ChatWindow], patience: Duration) -> Result<()> {
    if windows.is_empty() {
        return Ok(());
    }
    let statement = target.prepare(sql::STORE_WINDOWS, WINDOWS).await?;
    let users: Vec<&str> = windows.iter().map(|one| one.user.as_str()).collect();
    let spent: Vec<Option<bool>> = windows.iter().map(|one| one.now.map(|now| now.has_spent)).collect();
    let resets: Vec<Option<SystemTime>> =
        windows.iter().map(|one| one.now.and_then(|now| moment(now.resets_at))).collect();
    let parameters: &[&(dyn ToSql + Sync)] = &[&users, &spent, &resets];
    target.query("write the windows of budgets", patience, &statement, parameters).await?;
    Ok(())
}

/// Rows of `chat_window`: user, whether they spent something themselves, and the moment of reset.
pub type WindowRow = (String, bool, Option<i64>);
/// Rows of `budget_closed`: kind, id, team, limit, and the moment of reset in microseconds since 1970.
pub type ClosedRow = (String, String, String, Option<f64>, Option<i64>);
/// Rows of `chat_spend`: customer, spend, what is not counted, and the moment of reset.
pub type ChatRow = (String, f64, f64, Option<i64>);

/// What is stored, as of the checkpoint, on a session that waits for as long as it takes.
pub async fn stored(target: &Target) -> Result<(Vec<ClosedRow>, Vec<ChatRow>, Vec<WindowRow>)> {
    let action = "read which budgets are used up";
    let budgets = target.prepare(sql::STORED_BUDGETS, &[]).await?;
    let chats = target.prepare(sql::STORED_CHATS, &[]).await?;
    let windows = target.prepare(sql::STORED_WINDOWS, &[]).await?;
    let budgets = target.query(action, QUICK, &budgets, &[]).await?;
    let chats = target.query(action, QUICK, &chats, &[]).await?;
    let windows = target.query(action, QUICK, &windows, &[]).await?;
    let closed = |row: &Row| (row.get(0), row.get(1), row.get(2), row.get(3), micros(row.get(4)));
    let chat = |row: &Row| (row.get(0), row.get(1), row.get(2), micros(row.get(3)));
    let window = |row: &Row| (row.get(0), row.get(1), micros(row.get(2)));
    let windows = windows.iter().map(window).collect();
    Ok((budgets.iter().map(closed).collect(), chats.iter().map(chat).collect(), windows))
}

fn moment(micros: Option<i64>) -> Option<SystemTime> {
    let micros = u64::try_from(micros?).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_micros(micros))
}

fn micros(moment: Option<SystemTime>) -> Option<i64> {
    let since = moment?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    i64::try_from(since.as_micros()).ok()
}
