-- Which of the named tables and columns exist. Runs on: source or target.
-- $1 schema, $2 table names. Returns (table_name, column_name, attnum, type) in column order.
select c.relname::text as table_name, a.attname::text as column_name, a.attnum, format_type(a.atttypid, a.atttypmod) as type,
       c.oid as table_oid
  from pg_catalog.pg_class c
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
 where n.nspname = $1 and c.relname = any ($2) and c.relkind in ('r', 'p')
 order by c.relname, a.attnum
