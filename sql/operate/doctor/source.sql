-- What decides whether LiteLLM's server can feed us. Runs on: source. $1 slot name. Returns one row.
-- Settings a server version lacks come back NULL, so one text serves 15 to 18.
select current_setting('server_version_num')::int as version, current_setting('wal_level') as wal_level,
       current_setting('max_replication_slots')::bigint as slots,
       (select count(*) from pg_catalog.pg_replication_slots where slot_name <> $1) as slots_used,
       current_setting('max_wal_senders')::bigint as senders,
       (select count(*) from pg_catalog.pg_stat_replication) as senders_used,
       (select setting::bigint from pg_catalog.pg_settings where name = 'max_slot_wal_keep_size') as keep_mb,
       -- Bytes of WAL an hour, since the server's statistics began; a few minutes of them say nothing.
       (select round(wal_bytes / extract(epoch from now() - stats_reset) * 3600)::bigint
          from pg_catalog.pg_stat_wal where now() - stats_reset > interval '10 minutes') as wal_per_hour,
       coalesce((select ssl from pg_catalog.pg_stat_ssl where pid = pg_backend_pid()), false) as tls,
       coalesce(host(inet_client_addr()) in ('127.0.0.1', '::1'), true) as local,
       extract(epoch from clock_timestamp())::float8 as clock,
       pg_is_in_recovery() as standby,
       exists (select from pg_catalog.pg_replication_slots where slot_type = 'physical' and active) as has_standby,
       current_setting('synchronized_standby_slots', true) as synchronized_standby_slots,
       (select to_jsonb(s) ->> 'failover' from pg_catalog.pg_replication_slots s where s.slot_name = $1) as failover,
       (select wal_status from pg_catalog.pg_replication_slots where slot_name = $1) as wal_status
