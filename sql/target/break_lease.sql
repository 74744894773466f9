-- Ends the session of a leader that holds the lease but does nothing any more: stopped, or gone without a word. Runs on:
-- target, while the slot is held by nobody. $1 our schema. A living leader is never silent for that long.
-- Or that of an earlier session of this very process, whose name says so: it lost its way there, and nobody is told.
-- Returns a row per session ended.
select pg_terminate_backend(l.pid)
  from pg_catalog.pg_locks l
  join pg_catalog.pg_stat_activity a on a.pid = l.pid
 where l.locktype = 'advisory' and l.objsubid = 2 and l.granted
   and l.database = (select oid from pg_catalog.pg_database where datname = current_database())
   and l.classid::bigint = hashtext('litellm_webui_sync')::bigint & 4294967295
   and l.objid::bigint = hashtext($1)::bigint & 4294967295
   and (
       a.state <> 'active' and a.state_change < clock_timestamp() - interval '12 seconds'
       or a.application_name = current_setting('application_name') and a.application_name <> 'litellm-webui-sync'
   )
