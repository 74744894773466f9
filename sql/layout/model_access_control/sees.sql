-- The base models account $1 (text) sees in Open WebUI, and through what (access_control). Runs on: target.
-- :groups the account's groups. Returns (model id, user | public | owner | a group's id).
with base as materialized (
    select m.id, m.user_id, m.access_control, json_typeof(coalesce(m.access_control, 'null')) as kind
      from model m where m.base_model_id is null and m.is_active
)
select id, 'public' as through from base where kind = 'null'
union
select id, 'user' from base where kind = 'object' and (access_control::jsonb #> '{read,user_ids}') ? $1
union
select b.id, g.group_id
  from base b join (:groups) g(group_id) on (b.access_control::jsonb #> '{read,group_ids}') ? g.group_id
 where b.kind = 'object'
union
select id, 'owner' from base where user_id = $1
 order by 1, 2
