-- Undoes our model rows, access groups and grants (access_grant). Runs on: target, in a purge. A model we took back is public
-- again, unless somebody limited it since. :leave_access_groups is that of the layout of group members. Returns one row: models,
-- groups, grants removed.
with grants as (
    delete from access_grant a using model_grant g
     where a.resource_type = 'model' and a.resource_id = g.model_id collate "default" and a.permission = 'read'
       and a.principal_type = g.principal_type and a.principal_id = g.principal_id collate "default"
    returning 1
), public as (
    insert into access_grant (id, resource_type, resource_id, principal_type, principal_id, permission, created_at)
    select gen_random_uuid()::text, 'model', r.model_id, 'user', '*', 'read', extract(epoch from clock_timestamp())::bigint
      from model_row r
     where r.made_public and r.origin = 'found'
       -- Unless somebody has said since who may read it.
       and not exists (select from access_grant a
                        where a.resource_type = 'model' and a.resource_id = r.model_id collate "default" and a.permission = 'read'
                          and not exists (select from model_grant g
                                           where g.model_id = r.model_id and g.principal_type = a.principal_type collate "C"
                                             and g.principal_id = a.principal_id collate "C"))
    on conflict do nothing
), members as (
    :leave_access_groups
), groups as (
    delete from "group" w using access_group g where w.id = g.webui_id collate "default" returning 1
), models as (
    delete from model m using model_row r where m.id = r.model_id collate "default" and r.origin = 'created' returning 1
)
select (select count(*) from models) as models, (select count(*) from groups) as groups, (select count(*) from grants) as grants
