//! The text of the statements that write a mirror table.
//!
//! They differ only in their columns, so they are built here, from [`crate::catalog`], instead of
//! standing in thirty near-equal files. Pure.

use crate::catalog::{Column, Table};
use crate::postgres::quote_ident;

/// Statements end with a query `(kind, id)` of who is touched. A table that touches nobody yet
/// still needs a final query.
const NOBODY: &str = "select null::text as kind, null::text as id where false";

/// Writes rows: `$1…$n` the columns as `text[]`, `$n+1` for each row a bit mask (`bigint[]`) of
/// the columns whose value the source did not send because it did not change.
///
/// Neither the look-up nor the update is a join, so no plan of it can read the whole table: one made while the table was
/// empty, and kept, would otherwise.
///
/// Only rows that differ are written. A row with unsent values that the mirror does not have is
/// reported as kind `missing`: the mirror has lost it, and guessing NULL would be a silent gap.
pub fn upsert(table: &Table) -> String {
    let columns = table.columns;
    let n = columns.len();
    let sent = each(columns, |_, i| format!("${}::text[]", i + 1));
    let names = each(columns, |c, _| c.name.to_owned());
    let typed = each(columns, |c, _| format!("s.{0}::{1} as {0}", c.name, c.kind.sql_type()));
    let key = join_on(table, "m", "s");
    let old = each(columns, |c, _| format!("m.{0} as o_{0}", c.name));
    let new = each(columns, |c, i| {
        format!("case when s.unsent >> {i} & 1 = 1 then m.{0} else s.{0} end as n_{0}", c.name)
    });
    let keys = each(table.key(), |c, _| format!("s.{0} as k_{0}", c.name));
    let o_list = each(columns, |c, _| format!("o_{}", c.name));
    let n_list = each(columns, |c, _| format!("n_{}", c.name));
    let assign = each(columns, |c, _| format!("{0} = excluded.{0}", c.name));
    let key_names = each(table.key(), |c, _| c.name.to_owned());
    let first_key = key_column(table);
    format!(
        "with sent as materialized (
    select {typed}, s.unsent from unnest({sent}, ${mask}::bigint[]) as s({names}, unsent)
), compared as (
    select {keys}, {old}, {new}, m.{first_key} is not null as existed, s.unsent
      from sent s left join lateral (select * from {mirror} m where {key} offset 0) m on true
), changed as materialized (
    select * from compared where not existed or ({o_list}) is distinct from ({n_list})
), updated as (
    insert into {mirror} ({names}) select {n_list} from changed where existed
    on conflict ({key_names}) do update set {assign}
), inserted as (
    insert into {mirror} ({names}) select {n_list} from changed where not existed
)
{touches}
union all
select 'missing', k_{first_key} from changed where not existed and unsent <> 0",
        mask = n + 1,
        mirror = table.mirror,
        touches = touches(table),
    )
}

/// Inserts rows that the mirror does not have: `$1…$n` the columns as `text[]`. Fails where it has one after all.
/// Half the work of [`upsert`], and for many rows.
pub fn insert(table: &Table) -> String {
    let columns = table.columns;
    let sent = each(columns, |_, i| format!("${}::text[]", i + 1));
    let names = each(columns, |c, _| c.name.to_owned());
    let typed = each(columns, |c, _| format!("s.{0}::{1} as {0}", c.name, c.kind.sql_type()));
    let keys = each(table.key(), |c, _| format!("{0} as k_{0}", c.name));
    let old = each(columns, |c, _| format!("null::{1} as o_{0}", c.name, c.kind.sql_type()));
    let new = each(columns, |c, _| format!("{0} as n_{0}", c.name));
    format!(
        "with sent as materialized (
    select {typed} from unnest({sent}) as s({names})
), inserted as (
    insert into {mirror} ({names}) select {names} from sent
), changed as not materialized (
    select {keys}, {old}, {new} from sent
)
{touches}",
        mirror = table.mirror,
        touches = touches(table),
    )
}

/// Deletes rows: `$1…$k` the key columns as `text[]`.
pub fn delete(table: &Table) -> String {
    let keys = table.key();
    let sent = each(keys, |_, i| format!("${}::text[]", i + 1));
    let names = each(keys, |c, _| c.name.to_owned());
    format!(
        "with gone as (
    delete from {mirror} m using unnest({sent}) as s({names}) where {on} returning m.*
), {changed}
{touches}",
        mirror = table.mirror,
        on = join_on(table, "m", "s"),
        changed = gone_as_changed(table),
        touches = touches(table),
    )
}

/// Empties the table, as a TRUNCATE of LiteLLM's did.
pub fn truncate(table: &Table) -> String {
    format!(
        "with gone as (
    delete from {mirror} m returning m.*
), {changed}
{touches}",
        mirror = table.mirror,
        changed = gone_as_changed(table),
        touches = touches(table),
    )
}

/// Moves rows to other keys: `$1…$k` the old key columns, `$k+1…$2k` the new ones, as `text[]`.
/// Whoever the row touched under the old key and whoever it touches under the new one are touched.
pub fn shift(table: &Table) -> String {
    let keys = table.key();
    let sent = each(keys, |_, i| format!("${}::text[]", i + 1));
    let sent_new = each(keys, |_, i| format!("${}::text[]", i + 1 + keys.len()));
    let old_names = each(keys, |c, _| format!("from_{}", c.name));
    let new_names = each(keys, |c, _| format!("to_{}", c.name));
    let on = join(keys, " and ", |c| format!("m.{0} = s.from_{0}", c.name));
    let assign = each(keys, |c, _| format!("{0} = s.to_{0}", c.name));
    let from_keys = each(keys, |c, _| format!("s.from_{0}", c.name));
    let gone_keys = each(keys, |c, _| format!("from_{0} as k_{0}", c.name));
    let came_keys = each(keys, |c, _| format!("{0} as k_{0}", c.name));
    let is_key = |c: &Column| keys.iter().any(|k| k.name == c.name);
    let old_row = each(table.columns, |c, _| {
        if is_key(c) { format!("from_{0} as o_{0}", c.name) } else { format!("{0} as o_{0}", c.name) }
    });
    let new_row = each(table.columns, |c, _| format!("{0} as n_{0}", c.name));
    let nothing_old = each(table.columns, |c, _| format!("null::{1} as o_{0}", c.name, c.kind.sql_type()));
    let nothing_new = each(table.columns, |c, _| format!("null::{1} as n_{0}", c.name, c.kind.sql_type()));
    format!(
        "with moved as (
    update {mirror} m set {assign}
      from unnest({sent}, {sent_new}) as s({old_names}, {new_names}) where {on}
    returning m.*, {from_keys}
), changed as materialized (
    select {gone_keys}, {old_row}, {nothing_new} from moved
    union all
    select {came_keys}, {nothing_old}, {new_row} from moved
)
{touches}",
        mirror = table.mirror,
        touches = touches(table),
    )
}

/// Tells the planner how much the staging table holds: it is asked for by nothing but its key.
pub fn analyze_stage(table: &Table) -> String {
    format!("analyze stage_{} ({})", table.mirror, each(table.key(), |c, _| c.name.to_owned()))
}

/// Makes the mirror table equal to its staging table (`stage_<mirror>`): the merge of a backfill.
/// Returns how many rows were inserted, updated and deleted: the drift.
pub fn merge(table: &Table) -> String {
    let names = each(table.columns, |c, _| c.name.to_owned());
    let m_list = each(table.columns, |c, _| format!("m.{}", c.name));
    let s_list = each(table.columns, |c, _| format!("s.{}", c.name));
    let assign = each(table.columns, |c, _| format!("{0} = s.{0}", c.name));
    let on = join_on(table, "m", "s");
    let order = each(table.key(), |c, _| format!("s.{}", c.name));
    format!(
        "with gone as (
    delete from {mirror} m where not exists (select from stage_{mirror} s where {on}) returning 1
), updated as (
    update {mirror} m set {assign} from stage_{mirror} s
     where {on} and ({m_list}) is distinct from ({s_list}) returning 1
), inserted as (
    insert into {mirror} ({names}) select {s_list} from stage_{mirror} s
     where not exists (select from {mirror} m where {on}) order by {order} returning 1
)
select (select count(*) from inserted) as inserted, (select count(*) from updated) as updated,
       (select count(*) from gone) as deleted",
        mirror = table.mirror,
    )
}

/// How many rows of the mirror table are not what its staging table has: missing, different, too many; and how many bytes the
/// staging table has of them.
pub fn differing(table: &Table) -> String {
    let first = key_column(table);
    format!(
        "select count(*) filter (where m.{first} is null), count(*) filter (where m.{first} is not null and s.{first} is not null),
       count(*) filter (where s.{first} is null), coalesce(sum(pg_column_size(s.*)), 0)::bigint
{}",
        differing_from(table)
    )
}

/// Each of these rows: what is wrong, its key, and the columns of the staging table, all as text.
pub fn differing_rows(table: &Table) -> String {
    let first = key_column(table);
    let keys = each(table.key(), |c, _| format!("coalesce(s.{0}, m.{0})::text", c.name));
    let columns = each(table.columns, |c, _| format!("s.{}::text", c.name));
    format!(
        "select case when m.{first} is null then 'missing' when s.{first} is null then 'too_many' else 'different' end,
       {keys}, {columns}
{}
 order by 2",
        differing_from(table)
    )
}

fn differing_from(table: &Table) -> String {
    let (first, mirror, on) = (key_column(table), table.mirror, join_on(table, "m", "s"));
    let m_list = each(table.columns, |c, _| format!("m.{}", c.name));
    let s_list = each(table.columns, |c, _| format!("s.{}", c.name));
    format!(
        "  from {mirror} m full join stage_{mirror} s on {on}
 where m.{first} is null or s.{first} is null or ({m_list}) is distinct from ({s_list})"
    )
}

/// Wraps a statement that returns touched keys so that it stores them in `touched` instead.
pub fn into_touched(statement: &str) -> Option<String> {
    wrapped(statement, "insert into touched (kind, id) select kind, id from touching")
}

/// A statement that returns touched keys, with its last query as the CTE `touching`, and another one in its place.
pub(super) fn wrapped(statement: &str, last: &str) -> Option<String> {
    // The final query starts at the last line that stands alone at the start of a line after the CTEs.
    let at = statement.rfind("\n)\n")? + 3;
    let (ctes, query) = statement.split_at_checked(at)?;
    let ctes = ctes.trim_end();
    Some(format!("{ctes}, touching (kind, id) as (\n{query}\n)\n{last}"))
}

fn touches(table: &Table) -> &'static str {
    if table.touches.is_empty() { NOBODY } else { table.touches }
}

fn gone_as_changed(table: &Table) -> String {
    let keys = each(table.key(), |c, _| format!("{0} as k_{0}", c.name));
    let old = each(table.columns, |c, _| format!("{0} as o_{0}", c.name));
    let new = each(table.columns, |c, _| format!("null::{1} as n_{0}", c.name, c.kind.sql_type()));
    format!("changed as materialized (\n    select {keys}, {old}, {new} from gone\n)")
}

fn key_column(table: &Table) -> &'static str {
    table.key().first().map_or("", |column| column.name)
}

fn join_on(table: &Table, left: &str, right: &str) -> String {
    join(table.key(), " and ", |c| format!("{left}.{0} = {right}.{0}", c.name))
}

fn each(columns: &[Column], text: impl Fn(&Column, usize) -> String) -> String {
    columns.iter().enumerate().map(|(i, c)| text(c, i)).collect::<Vec<_>>().join(", ")
}

fn join(columns: &[Column], separator: &str, text: impl Fn(&Column) -> String) -> String {
    columns.iter().map(text).collect::<Vec<_>>().join(separator)
}

/// The COPY that reads a table out of LiteLLM. `existing` are the columns it has; the others are NULL.
pub fn copy_out(table: &Table, schema: &str, existing: &[String]) -> String {
    let list = join(table.columns, ", ", |c| {
        if existing.iter().any(|name| name == c.source) { quote_ident(c.source) } else { "null".to_owned() }
    });
    format!("copy (select {list} from only {}.{}) to stdout", quote_ident(schema), quote_ident(table.source))
}

/// The COPY that fills a table's staging table.
pub fn copy_in(table: &Table) -> String {
    let names = each(table.columns, |c, _| c.name.to_owned());
    format!("copy stage_{} ({names}) from stdin", table.mirror)
}
