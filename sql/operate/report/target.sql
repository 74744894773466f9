-- Open WebUI's server. Runs on: target. $1 our schema, $2 Open WebUI's. Returns a row: version; has_migration, whether Alembic's table is there and
-- may be read; has_books, whether our schema is.
select current_setting('server_version') as version,
       coalesce(has_table_privilege(to_regclass(format('%I.alembic_version', $2::text)), 'select'), false) as has_migration,
       to_regclass(format('%I.checkpoint', $1::text)) is not null as has_books
