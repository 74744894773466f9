-- Who keeps a slot from being created: the oldest open write transactions. Runs on: source.
-- Returns up to 5 rows; other roles' details need pg_read_all_stats.
select pid, coalesce(usename::text, '?') as role, coalesce(application_name, '') as application,
       extract(epoch from clock_timestamp() - xact_start)::bigint as seconds
  from pg_catalog.pg_stat_activity
 where backend_xid is not null and pid <> pg_backend_pid()
 order by xact_start limit 5
