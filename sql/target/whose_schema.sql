-- Whether a schema is ours. Runs on: target. $1 its name, $2 what we make in it (text[]). Returns one row: ours, whether it holds
-- the tables that every release of ours begins with; any, whether it holds anything; others, some of what we never made, NULL
-- where there is none.
select (select count(*) = 3 from pg_catalog.pg_class c
         where c.relnamespace = n.oid and c.relkind = 'r' and c.relname in ('schema_version', 'installed_views', 'checkpoint')) as ours,
       exists (select from pg_catalog.pg_class c where c.relnamespace = n.oid and c.relkind in ('r', 'p', 'v', 'm', 'f')) as any,
       (select string_agg(relname, ', ') from (select c.relname::text from pg_catalog.pg_class c
         where c.relnamespace = n.oid and c.relkind in ('r', 'p', 'v', 'm', 'f') and c.relname <> all ($2)
         order by 1 limit 5) listed) as others
  from (select max(oid) as oid from pg_catalog.pg_namespace where nspname = $1) n
