-- The state of our slot. Runs on: source. $1 slot name. Returns 0 or 1 row.
-- Columns that a server version lacks are read through to_jsonb, so one text serves 15 to 18.
select s.plugin::text, s.database::text, s.active, s.restart_lsn, s.confirmed_flush_lsn, s.wal_status::text,
       s.safe_wal_size, to_jsonb(s) ->> 'invalidation_reason' as invalidation_reason,
       pg_current_wal_insert_lsn() as wal_end,
       coalesce(pg_wal_lsn_diff(pg_current_wal_insert_lsn(), s.restart_lsn), 0)::bigint as retained_bytes
  from pg_catalog.pg_replication_slots s
 where s.slot_name = $1
