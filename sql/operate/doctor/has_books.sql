-- Whether our schema is there, with the tables of this release. Runs on: target. $1 our schema.
select count(*) = 3 from pg_catalog.pg_tables where schemaname = $1 and tablename in ('dead_letter', 'brake', 'pause')
