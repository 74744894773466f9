-- Undoes our model rows, access groups and grants (access_control). Runs on: target, in a purge. A model we took back is
-- public again, unless somebody limited it since. Returns one row: models, groups, grants removed.
with ours as materialized (
    select g.model_id,
           coalesce(array_agg(g.principal_id) filter (where g.principal_type = 'user'), '{}') as users,
           coalesce(array_agg(g.principal_id) filter (where g.principal_type = 'group'), '{}') as groups
      from model_grant g join model_row r on r.model_id = g.model_id and r.origin = 'found'
     group by g.model_id
), written as (
    update model m
       set access_control = case
               -- Unless somebody has said since who may read it.
               when r.made_public
                    and coalesce(json_array_length(w.rest #> '{read,user_ids}'), 0)
                        + coalesce(json_array_length(w.rest #> '{read,group_ids}'), 0) = 0 then null
               else w.rest end
      from model_row r left join ours o using (model_id)
      join model was on was.id = r.model_id collate "default" and json_typeof(was.access_control) = 'object'
      cross join lateral (select webui_access_control(was.access_control, '{}', coalesce(o.users, '{}'), '{}',
                                                      coalesce(o.groups, '{}')) as rest) w
     where m.id = r.model_id collate "default" and r.origin = 'found' and json_typeof(m.access_control) = 'object'
       and (r.made_public or o.model_id is not null)
), groups as (
    delete from "group" w using access_group g where w.id = g.webui_id collate "default" returning 1
), models as (
    delete from model m using model_row r where m.id = r.model_id collate "default" and r.origin = 'created' returning 1
)
select (select count(*) from models) as models, (select count(*) from groups) as groups, (select count(*) from model_grant) as grants
