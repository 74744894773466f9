-- Brings grants in line (model.access_control; Open WebUI before 0.8.0). Runs on: target, after the access groups.
-- $1 now (timestamptz; unused, so that both layouts take the same), $2 and $3 see grant_difference.sql.
-- Returns one row: added, removed.
--
-- The document is rebuilt from the row as it is under its lock: other people's entries stay. A row that is public (NULL)
-- says nothing about anybody; naming people there would take it from everybody else.
with :grant_difference, named as materialized (
    select m.id as model_id, 'user' as type, e.id
      from model m cross join json_array_elements_text(
               case when json_typeof(m.access_control #> '{read,user_ids}') = 'array'
                    then m.access_control #> '{read,user_ids}' else '[]' end) e(id)
     where m.id in (select model_id from wanted) and e.id is not null
    union all
    select m.id, 'group', e.id
      from model m cross join json_array_elements_text(
               case when json_typeof(m.access_control #> '{read,group_ids}') = 'array'
                    then m.access_control #> '{read,group_ids}' else '[]' end) e(id)
     where m.id in (select model_id from wanted) and e.id is not null
), missing as materialized (
    select w.type, w.id, w.model_id
      from wanted w join model m on m.id = w.model_id collate "default" and json_typeof(m.access_control) = 'object'
     where (w.type, w.id collate "default", w.model_id collate "default") not in (select type, id, model_id from named)
), per_model as materialized (
    select model_id,
           coalesce(array_agg(id) filter (where is_new and type = 'user'), '{}') as joining_users,
           coalesce(array_agg(id) filter (where not is_new and type = 'user'), '{}') as leaving_users,
           coalesce(array_agg(id) filter (where is_new and type = 'group'), '{}') as joining_groups,
           coalesce(array_agg(id) filter (where not is_new and type = 'group'), '{}') as leaving_groups
      from (select type, id, model_id, true as is_new from missing
             union all
            select type, id, model_id, false from gone) c
     group by model_id
), written as (
    update model m
       set access_control = webui_access_control(m.access_control, p.joining_users, p.leaving_users, p.joining_groups, p.leaving_groups)
      from per_model p where m.id = p.model_id collate "default" and json_typeof(m.access_control) = 'object'
), owned_now as (
    insert into model_grant (principal_type, principal_id, model_id) select type, id, model_id from missing
    on conflict do nothing
)
select (select count(*) from missing) as added, (select count(*) from gone where $1::timestamptz is not null) as removed
