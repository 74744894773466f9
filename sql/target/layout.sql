-- The tables of Open WebUI as they are for us. Runs on: target; reads catalogs only.
-- $1 Open WebUI's schema, $2 the tables that shapes are kept in. Returns their columns, and access_control wherever it is:
-- (table_name, column_name, unique_email, hides, unique_keys, encoding). unique_email: whether e-mails are unique there. hides:
-- whether row level security keeps rows of the table from this role. unique_keys: the columns of each unique index, in order
-- of their names, joined by a comma. encoding: the database's.
--
-- What opens a relation is asked of nothing but what was chosen before: somebody else's may be dropped at that moment.
with of_user as materialized (
    select i.indexrelid from pg_catalog.pg_index i
      join pg_catalog.pg_class t on t.oid = i.indrelid
      join pg_catalog.pg_namespace n on n.oid = t.relnamespace
     where n.nspname = $1 and t.relname = 'user' and i.indisunique
)
select c.relname::text as table_name, a.attname::text as column_name,
       exists (select from of_user where pg_get_indexdef(indexrelid) like '%lower(%email%') as unique_email,
       c.relrowsecurity and row_security_active(c.oid) as hides,
       array(select (select string_agg(k.attname, ',' order by k.attname)
                       from pg_catalog.pg_attribute k
                      where k.attrelid = i.indrelid and k.attnum = any (i.indkey[0:i.indnkeyatts - 1]))
               from pg_catalog.pg_index i
              where i.indrelid = c.oid and i.indisunique and i.indisvalid and i.indimmediate
                and i.indpred is null and i.indexprs is null) as unique_keys,
       getdatabaseencoding()::text as encoding
  from pg_catalog.pg_class c
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
 where n.nspname = $1 and c.relkind in ('r', 'p')
   and (c.relname = any ($2) or a.attname = 'access_control')
