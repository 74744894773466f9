-- Which grants come and which go: before (was_grant) against after (is_grant). Runs on: target, in the session of a plan.
-- Returns action (grant, revoke), model_id, principal_type (user, group), principal_id, principal (an e-mail, or a name).
with compared as (
    select case when w.model_id is null then 'grant' else 'revoke' end as action, coalesce(i.model_id, w.model_id) as model_id,
           coalesce(i.principal_type, w.principal_type) as principal_type, coalesce(i.principal_id, w.principal_id) as principal_id
      from is_grant i
      full join was_grant w on w.model_id = i.model_id and w.principal_type = i.principal_type and w.principal_id = i.principal_id
     where i.model_id is null or w.model_id is null
)
select c.action, c.model_id, c.principal_type, c.principal_id,
       coalesce(u.email, wu.email, g.name, wg.name)::text as principal
  from compared c
  left join is_account u on c.principal_type = 'user' and u.id = c.principal_id collate "default"
  left join was_account wu on c.principal_type = 'user' and wu.id = c.principal_id collate "default"
  left join is_group g on c.principal_type = 'group' and g.id = c.principal_id collate "default"
  left join was_group wg on c.principal_type = 'group' and wg.id = c.principal_id collate "default"
 order by 2, 1, 3, 5, 4
