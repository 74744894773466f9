-- Ends sessions of ours that still fill a staging table: of a leader that is gone without a word. Runs on: target, by whoever has the
-- lease. $1 our schema. Returns a row per session ended.
select pg_terminate_backend(a.pid)
  from pg_catalog.pg_stat_activity a
 where a.usename = current_user and a.application_name like 'litellm-webui-sync%' and a.pid <> pg_backend_pid()
   and exists (
       select from pg_catalog.pg_locks l
         join pg_catalog.pg_class c on c.oid = l.relation
         join pg_catalog.pg_namespace n on n.oid = c.relnamespace
        where l.pid = a.pid and l.locktype = 'relation' and n.nspname = $1 and c.relname like 'stage\_%'
          and l.database = (select oid from pg_catalog.pg_database where datname = current_database())
   )
