-- Takes models back that are public in Open WebUI (access_grant). Runs on: target, where the policy says so, after the model
-- rows. $1 known models (text[], Open WebUI ids). Returns one row: taken.
with taken as (
    delete from access_grant a using model_row r, model m
     where a.resource_type = 'model' and a.resource_id = any ($1) and a.principal_type = 'user' and a.principal_id = '*'
       and r.model_id = a.resource_id collate "C" and m.id = a.resource_id and m.base_model_id is null
    returning r.model_id, a.permission
), noted as (
    update model_row r set made_public = true where r.model_id in (select model_id from taken)
)
select count(*) as taken from taken
