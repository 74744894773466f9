-- The base models account $1 (text) sees in Open WebUI, and through what (access_grant). Runs on: target.
-- :groups the account's groups. Returns (model id, user | public | owner | a group's id).
select m.id, case when a.principal_type = 'user' then case a.principal_id when '*' then 'public' else 'user' end
                  else a.principal_id end as through
  from model m
  join access_grant a on a.resource_type = 'model' and a.resource_id = m.id and a.permission = 'read'
 where m.base_model_id is null and m.is_active
   and (a.principal_type = 'user' and a.principal_id in ($1, '*') or a.principal_type = 'group' and a.principal_id in (:groups))
union
select m.id, 'owner' from model m where m.base_model_id is null and m.is_active and m.user_id = $1
 order by 1, 2
