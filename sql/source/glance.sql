-- The state of our slot as in slot_state.sql, and whether anything about LiteLLM's tables moved. Runs on: source, every few seconds;
-- reads catalogs only, so that nobody's lock is waited for. $1 slot name, $2 schema, $3 table names (text[]), $4 publication.
-- Returns one row: the slot's columns (wal_end is there without a slot too; has_slot), and moved, another text after whatever may
-- have changed the tables' columns, files or keys, or the publication: then they are read in full.
with mine as materialized (
    select c.oid, c.xmin, c.relfilenode
      from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
     where n.nspname = $2 and c.relname = any ($3)
), parts as materialized (
    select format('c%s %s %s', oid, xmin, relfilenode) as part from mine
    union all
    select format('a%s %s %s', a.attrelid, a.attnum, a.xmin) from pg_catalog.pg_attribute a
     where a.attrelid in (select oid from mine) and a.attnum > 0
    union all
    select format('i%s %s', i.indexrelid, i.xmin) from pg_catalog.pg_index i where i.indrelid in (select oid from mine)
    union all
    select format('p%s %s', p.oid, p.xmin) from pg_catalog.pg_publication p where p.pubname = $4
    union all
    select format('r%s %s', r.oid, r.xmin) from pg_catalog.pg_publication_rel r
      join pg_catalog.pg_publication p on p.oid = r.prpubid where p.pubname = $4
)
select s.slot_name is not null as has_slot, s.plugin::text, s.database::text, coalesce(s.active, false) as active, s.restart_lsn,
       s.confirmed_flush_lsn, s.wal_status::text, s.safe_wal_size,
       to_jsonb(s) ->> 'invalidation_reason' as invalidation_reason, pg_current_wal_insert_lsn() as wal_end,
       coalesce(pg_wal_lsn_diff(pg_current_wal_insert_lsn(), s.restart_lsn), 0)::bigint as retained_bytes,
       (select md5(string_agg(part, ',' order by part)) from parts) as moved
  from (select $1::text as wanted) w left join pg_catalog.pg_replication_slots s on s.slot_name = w.wanted
