-- Takes models back that are public in Open WebUI (access_control NULL). Runs on: target, where the policy says so, after
-- the model rows. $1 known models (text[], Open WebUI ids). Returns one row: taken.
with taken as (
    update model m set access_control = webui_access_control('{}', '{}', '{}', '{}', '{}')
      from model_row r
     where m.id = any ($1) and r.model_id = m.id collate "C" and m.base_model_id is null
       and json_typeof(coalesce(m.access_control, 'null')) = 'null'
    returning m.id
), noted as (
    update model_row r set made_public = true where r.model_id in (select id collate "C" from taken)
)
select count(*) as taken from taken
