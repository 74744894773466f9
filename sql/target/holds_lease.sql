-- Whether this session holds the lease. Runs on: target. $1 our schema.
select exists (
    select from pg_catalog.pg_locks l
     where l.locktype = 'advisory' and l.objsubid = 2 and l.granted and l.pid = pg_backend_pid()
       and l.classid::bigint = hashtext('litellm_webui_sync')::bigint & 4294967295
       and l.objid::bigint = hashtext($1)::bigint & 4294967295
)
