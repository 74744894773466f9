-- What kind of server this is. Runs on: source, also on a standby. Returns its version (server_version_num), wal_level, the
-- database's oid, and the timeline it writes: NULL on a standby, which writes none.
select current_setting('server_version_num')::int, current_setting('wal_level'),
       (select oid::bigint from pg_catalog.pg_database where datname = current_database()),
       case when not pg_is_in_recovery()
            then ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int end
