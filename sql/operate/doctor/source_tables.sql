-- Whether LiteLLM's tables can be copied and followed. Runs on: source. $1 schema, $2 table names (text[]).
-- Returns for each: its name, replica identity, whether we may read it.
select c.relname::text as table_name, c.relreplident::text as identity,
       has_schema_privilege(n.oid, 'usage') and has_table_privilege(c.oid, 'select') as readable
  from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
 where n.nspname = $1 and c.relname = any ($2) and c.relkind = 'r'
 order by 1
