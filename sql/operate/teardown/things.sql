-- Where people keep what is theirs: the tables of Open WebUI's schema $1 that name an owner in user_id, but for those that only
-- say that somebody is there. Runs on: target. Returns (table_name, readable), in order.
select c.relname::text as table_name, has_table_privilege(c.oid, 'select') as readable
  from pg_catalog.pg_class c
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attname = 'user_id' and not a.attisdropped
 where n.nspname = $1 and c.relkind in ('r', 'p') and a.atttypid in ('text'::regtype, 'varchar'::regtype)
   and c.relname not in ('user', 'auth', 'api_key', 'group_member', 'oauth_session')
 order by 1
