-- Which grants come and go: the CTEs shared by the layouts. $1 now; :people gives accounts, out of $2 (text[])
-- or all; $3 access groups (text[], Open WebUI ids).
-- A set that has a group is granted to the group, any other to its people. "missing" comes from the layout.
principal as materialized (
    select 'user' as type, id collate "C" as id from :people p(id)
    union
    select 'group', id collate "C" from unnest($3::text[]) p(id)
), held as materialized (
    select p.type, p.id, e.set_hash
      from principal p
      join effective_access e on e.webui_id = p.id
      join "user" w on w.id = e.webui_id collate "default"
     where p.type = 'user' and not exists (select from access_group g where g.set_hash = e.set_hash)
    union all
    select p.type, p.id, g.set_hash
      from principal p join access_group g on g.webui_id = p.id
     where p.type = 'group'
), wanted as materialized (
    -- Never on a model built on another: that is somebody's own work.
    select h.type, h.id, m.id collate "C" as model_id
      from held h
      join model_set s on s.hash = h.set_hash
      cross join unnest(s.models) x(model_id)
      join model_row r on r.model_id = x.model_id collate "C" and r.active
      join model m on m.id = x.model_id collate "default" and m.base_model_id is null
), owned as materialized (
    select g.principal_type as type, g.principal_id as id, g.model_id
      from principal p join model_grant g on g.principal_type = p.type and g.principal_id = p.id
), gone as materialized (
    select type, id, model_id from owned except select type, id, model_id from wanted
), disowned as (
    delete from model_grant o using gone g
     where o.principal_type = g.type and o.principal_id = g.id and o.model_id = g.model_id
)
