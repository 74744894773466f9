-- LiteLLM's server, and the migrations it has behind it. Runs on: source. $1 LiteLLM's schema. Returns a row: version; has_migrations, whether Prisma's
-- table is there and may be read.
select current_setting('server_version') as version,
       coalesce(has_table_privilege(to_regclass(format('%I._prisma_migrations', $1::text)), 'select'), false) as has_migrations
