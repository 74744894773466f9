-- Which release our schema is of. Runs on: target. $1 our schema. Returns a row with the name of its version table, or
-- none where no daemon of ours has run.
select format('%I.%I', schemaname, tablename)
  from pg_catalog.pg_tables where schemaname = $1 and tablename = 'schema_version'
