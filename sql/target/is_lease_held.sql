-- Whether any session holds the lease. Runs on: target. $1 our schema.
select exists (
    select from pg_catalog.pg_locks l
     where l.locktype = 'advisory' and l.objsubid = 2 and l.granted
       and l.database = (select oid from pg_catalog.pg_database where datname = current_database())
       and l.classid::bigint = hashtext('litellm_webui_sync')::bigint & 4294967295
       and l.objid::bigint = hashtext($1)::bigint & 4294967295
)
