-- How many rows our tables have, as the planner believes. Runs on: target. $1 our schema.
select coalesce(sum(greatest(c.reltuples, 0)), 0)::bigint
  from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
 where n.nspname = $1 and c.relkind = 'r' and c.relname like 'litellm%'
