-- What kind of server this is. Runs on: source. Returns its version (server_version_num), wal_level, the database's oid.
select current_setting('server_version_num')::int, current_setting('wal_level'),
       (select oid::bigint from pg_catalog.pg_database where datname = current_database())
