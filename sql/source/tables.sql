-- LiteLLM's tables as they are: a row for each column. Runs on: source; reads catalogs only, so that nobody's lock is waited for.
-- $1 schema, $2 table names (text[]). Returns (table_name, table_oid, filenode, column_name, attnum, type), in column order, and by
-- what UPDATE and DELETE tell a row once the table is published: identity (relreplident) and identified_by, the columns of
-- the primary key, or of the index that was chosen instead; NULL where there is none. published: whether publication $3 holds it;
-- rows: how many the planner takes it to have, 0 where it does not know; readable: whether we may read it.
select c.relname::text as table_name, c.oid as table_oid, c.relfilenode as filenode, a.attname::text as column_name, a.attnum,
       format_type(a.atttypid, a.atttypmod) as type, c.relreplident::text as identity,
       (select array_agg(k.attname::text order by k.attname)
          from pg_catalog.pg_index i
          join pg_catalog.pg_attribute k on k.attrelid = i.indrelid and k.attnum = any (i.indkey[0:i.indnkeyatts - 1])
         where i.indrelid = c.oid and i.indisvalid and i.indimmediate
           and case c.relreplident when 'd' then i.indisprimary when 'i' then i.indisreplident else false end) as identified_by,
       exists (select from pg_catalog.pg_publication p
                where p.pubname = $3
                  and (p.puballtables
                       or exists (select from pg_catalog.pg_publication_rel r where r.prpubid = p.oid and r.prrelid = c.oid)
                       or exists (select from pg_catalog.pg_publication_namespace s
                                   where s.pnpubid = p.oid and s.pnnspid = n.oid))) as published,
       greatest(c.reltuples, 0)::bigint as rows, has_table_privilege(c.oid, 'select') as readable
  from pg_catalog.pg_class c
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
 where n.nspname = $1 and c.relname = any ($2) and c.relkind in ('r', 'p')
 order by c.relname, a.attnum
