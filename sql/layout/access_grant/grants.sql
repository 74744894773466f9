-- Brings grants in line (access_grant; Open WebUI 0.8.0 and newer). Runs on: target, after the access groups.
-- $1 now (timestamptz), $2 and $3 see grant_difference.sql. Returns one row: added, removed.
with :grant_difference, missing as materialized (
    select w.type, w.id, w.model_id from wanted w
     where not exists (select from access_grant a
                        where a.resource_type = 'model' and a.resource_id = w.model_id collate "default"
                          and a.principal_type = w.type and a.principal_id = w.id collate "default"
                          and a.permission = 'read')
), removed as (
    delete from access_grant a using gone g
     where a.resource_type = 'model' and a.resource_id = g.model_id collate "default"
       and a.principal_type = g.type and a.principal_id = g.id collate "default" and a.permission = 'read'
), added as (
    insert into access_grant (id, resource_type, resource_id, principal_type, principal_id, permission, created_at)
    select gen_random_uuid()::text, 'model', model_id, type, id, 'read', extract(epoch from $1)::bigint
      from missing order by type, id, model_id
    on conflict (resource_type, resource_id, principal_type, principal_id, permission) do nothing
), owned_now as (
    insert into model_grant (principal_type, principal_id, model_id) select type, id, model_id from missing
    on conflict do nothing
)
select (select count(*) from missing) as added, (select count(*) from gone) as removed
