-- What a trigger bridge to Open WebUI has in LiteLLM's database. Runs on: source. $1 LiteLLM's schema. Returns kind (trigger,
-- function, table, extension), name, drop (the statement that removes it), in the order in which they can be dropped.
--
-- A trigger counts if it is on one of LiteLLM's tables and its function speaks to another database (dblink). The other
-- objects count where they are made of such a bridge's tables: sync_mapping with these columns, and sync_audit beside it.
with book as (
    select n.nspname, c.relname, c.oid
      from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
     where c.relkind = 'r' and c.relname in ('sync_mapping', 'sync_audit')
       and exists (select from pg_catalog.pg_class m
                    where m.relnamespace = n.oid and m.relname = 'sync_mapping'
                      and (select count(*) from pg_catalog.pg_attribute a
                            where a.attrelid = m.oid and a.attname in ('litellm_type', 'litellm_id', 'openwebui_id')) = 3)
), trigger as (
    select t.tgname, c.relname, p.oid as function
      from pg_catalog.pg_trigger t
      join pg_catalog.pg_class c on c.oid = t.tgrelid
      join pg_catalog.pg_namespace n on n.oid = c.relnamespace and n.nspname = $1
      join pg_catalog.pg_proc p on p.oid = t.tgfoid
     where not t.tgisinternal and c.relname like 'LiteLLM\_%' and p.prosrc ~ 'dblink'
), function as (
    select p.oid from pg_catalog.pg_proc p
     where p.oid in (select function from trigger)
        or (p.prosrc ~ '\m(sync_mapping|sync_audit)\M' and exists (select from book)
            and not exists (select from pg_catalog.pg_depend d where d.objid = p.oid and d.deptype = 'e'))
        or p.proname in ('test_api_key_sync_installation') and p.prosrc ~ 'sync_api_key_to_webui'
)
select 1 as place, 'trigger' as kind, format('%s on %s', tgname, relname) as name,
       format('drop trigger %I on %I.%I', tgname, $1, relname) as drop
  from trigger
union all
select 2, 'function', p.proname, format('drop function %s', p.oid::regprocedure)
  from function f join pg_catalog.pg_proc p on p.oid = f.oid
union all
select 3, 'table', relname, format('drop table %I.%I', nspname, relname) from book
union all
select 4, 'extension', extname, format('drop extension %I', extname)
  from pg_catalog.pg_extension where extname = 'dblink' and exists (select from trigger)
 order by 1, 3
