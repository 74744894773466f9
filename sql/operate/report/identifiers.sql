-- What tables, columns, constraints and indexes are called: names that the products gave, or a DBA, and no people. Runs on: either
-- side. $1 schemas (text[]). Returns (name).
select c.relname::text as name
  from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace where n.nspname = any ($1)
 union
select a.attname::text
  from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum > 0
 where n.nspname = any ($1)
 union
select k.conname::text
  from pg_catalog.pg_constraint k join pg_catalog.pg_namespace n on n.oid = k.connamespace where n.nspname = any ($1)
