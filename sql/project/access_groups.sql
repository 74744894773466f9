-- Makes the access groups of some sets, and says goodbye to others. Runs on: target, before their members.
-- $1 now (timestamptz), $2 end of the batch (pg_lsn), $3 one audit row per group (boolean; else a summary),
-- $4 sets that have a group, $5 sets that have none (text[]). Their rows are removed by remove_access_groups.sql, after the
-- members left. :extra_columns and :extra_values: what this layout's group table needs besides. Returns one row: written.
with wanted as materialized (
    select s.hash, s.name, 'grp_models_' || s.hash as id, g.id is not null as has_row, g.name as old_name
      from unnest($4::text[]) w(hash)
      join model_set s on s.hash = w.hash collate "C"
      left join "group" g on g.id = 'grp_models_' || w.hash
), new_group as (
    -- The same traps as in groups.sql.
    insert into "group" (id, user_id, name, description, data, meta, created_at, updated_at:extra_columns)
    select id, '', name, 'People with the same models in LiteLLM', '{"config":{"share":"members"}}'::json,
           jsonb_build_object('litellm', jsonb_build_object('models', hash))::json, at, at:extra_values
      from wanted, (select extract(epoch from $1)::bigint as at) t where not has_row order by id
), renamed as (
    update "group" g set name = w.name, updated_at = extract(epoch from $1)::bigint
      from wanted w where g.id = w.id collate "default" and w.has_row and w.old_name is distinct from w.name
), linked as (
    insert into access_group (set_hash, webui_id) select hash, id from wanted on conflict do nothing
), dropped as (
    delete from access_group g using unnest($5::text[]) d(hash) where g.set_hash = d.hash collate "C"
), happened as (
    select * from wanted where not has_row or old_name is distinct from name
), audit as (
    insert into sync_audit (operation, record_id, sync_result, new_data, created_at, lsn)
    select 'SYNC_ACCESS_GROUP', hash, 'SUCCESS', jsonb_build_object('webui_id', id, 'name', name), $1, $2
      from happened where $3
    union all
    select 'SYNC_ACCESS_GROUP', null, 'SUCCESS', jsonb_build_object('count', count(*)), $1, $2
      from happened where not $3 having count(*) > 0
)
select count(*) as written from happened
