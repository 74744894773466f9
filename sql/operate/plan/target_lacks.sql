-- What a plan lacks in Open WebUI's database. Runs on: target. $1 Open WebUI's schema, $2 the tables we write in
-- some layout. Returns one text per missing privilege: a plan reads tables and makes temporary ones, and needs nothing else.
select format('select on %s', c.relname)
  from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
 where n.nspname = $1 and c.relkind = 'r'
   and (c.relname = any ($2)
        or exists (select from pg_catalog.pg_attribute a
                    where a.attrelid = c.oid and a.attname = 'access_control' and not a.attisdropped))
   and not (has_schema_privilege(n.oid, 'usage') and has_table_privilege(c.oid, 'select'))
union all
select 'temporary on the database' where not has_database_privilege(current_database(), 'temporary')
 order by 1
