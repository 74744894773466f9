-- Models that are public in Open WebUI although LiteLLM does not give them to everybody (access_grant). Runs on: target.
-- Returns (model_id), in order.
select r.model_id
  from model_row r
  join model m on m.id = r.model_id collate "default" and m.base_model_id is null and m.is_active
 where r.active
   and exists (select from access_grant a
                where a.resource_type = 'model' and a.resource_id = m.id and a.principal_type = 'user' and a.principal_id = '*'
                  and a.permission = 'read')
   and (select coalesce(sum(s.people), 0) from model_set s where r.model_id = any (s.models)) < (select count(*) from access_person join account using (user_id))
 order by 1
