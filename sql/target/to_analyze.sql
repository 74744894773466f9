-- What is to be analyzed after a large batch, as ANALYZE takes it: our tables, and those of Open WebUI's that belong to our role; others may
-- not be analyzed, and the server would warn of each. Runs on: target. $1 our schema, $2 Open WebUI's, or NULL for ours alone. Never an empty
-- table: a plan made for one that is known to be empty reads all of it, for ever after. Returns one row: the tables, NULL where there are none.
with ours as materialized (
    select c.oid
      from pg_catalog.pg_class c
      join pg_catalog.pg_namespace n on n.oid = c.relnamespace
     where c.relkind = 'r' and c.relpersistence = 'p'
       and pg_catalog.pg_has_role(c.relowner, 'usage')
       and (n.nspname = $1 and (c.relname like 'litellm%' or c.relname in (
                'team_roster', 'account', 'group_link', 'member', 'effective_access', 'access_member', 'model_grant', 'minted_key'))
            or n.nspname = $2 and c.relname in ('user', 'auth', 'group', 'group_member', 'api_key', 'access_grant'))
)
-- Only then: nobody of theirs is waited for who locks another table.
select string_agg(oid::pg_catalog.regclass::text, ', ' order by oid) from ours where pg_catalog.pg_relation_size(oid) > 0
