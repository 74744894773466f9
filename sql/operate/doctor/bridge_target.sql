-- What a trigger bridge has left in Open WebUI's database. Runs on: target. $1 our schema, whose table of that name is not
-- meant. Returns the statements that drop its tables.
select format('drop table %I.%I', n.nspname, c.relname)
  from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
 where c.relkind = 'r' and c.relname in ('sync_mapping', 'sync_audit') and n.nspname <> $1
   and exists (select from pg_catalog.pg_class m
                where m.relnamespace = n.oid and m.relname = 'sync_mapping'
                  and exists (select from pg_catalog.pg_attribute a where a.attrelid = m.oid and a.attname = 'openwebui_id'))
 order by 1
