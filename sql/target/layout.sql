-- The tables and columns of Open WebUI, and whether e-mails are unique there. Runs on: target.
-- $1 Open WebUI's schema, $2 the tables that shapes are kept in. Returns (table_name, column_name, unique_email): their
-- columns, and access_control wherever it is.
select c.relname::text as table_name, a.attname::text as column_name,
       exists (select from pg_catalog.pg_index i
                join pg_catalog.pg_class t on t.oid = i.indrelid
               where t.relnamespace = n.oid and t.relname = 'user' and i.indisunique
                 and pg_get_indexdef(i.indexrelid) like '%lower(%email%') as unique_email
  from pg_catalog.pg_class c
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
 where n.nspname = $1 and c.relkind in ('r', 'p')
   and (c.relname = any ($2) or a.attname = 'access_control')
