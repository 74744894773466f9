-- Who keeps a slot from being created: the oldest open write transactions, prepared ones included, which no session shows.
-- Runs on: source. Returns up to 5 rows (who, seconds); other roles' details need pg_read_all_stats.
select who, seconds from (
    select format('pid %s (role %s%s)', pid, coalesce(usename::text, '?'),
                  coalesce(', ' || nullif(application_name, ''), '')) as who,
           extract(epoch from clock_timestamp() - xact_start)::bigint as seconds
      from pg_catalog.pg_stat_activity
     where backend_xid is not null and pid <> pg_backend_pid()
    union all
    select format('prepared transaction %L of %s (end it with: rollback prepared %L, in database %s)', gid, owner, gid, database),
           extract(epoch from clock_timestamp() - prepared)::bigint
      from pg_catalog.pg_prepared_xacts
) open
 order by seconds desc nulls first limit 5
