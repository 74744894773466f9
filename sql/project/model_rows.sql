-- Makes the rows of the models LiteLLM serves, and retires those it serves no more. Runs on: target, before the grants.
-- $1 now (timestamptz), $2 end of the batch (pg_lsn), $3 one audit row per model (boolean; else a summary),
-- $4 every known model, $5 those of them to be written (text[], Open WebUI ids; a subset where one cannot be).
-- :extra_columns and :extra_values: what this layout's model table needs besides. Returns one row: written, retired.
with wanted as materialized (
    select w.id, r.origin, coalesce(r.active, true) as active, m.id is not null as has_row
      from (select distinct id collate "C" as id from unnest($5::text[]) w(id)) w
      left join model_row r on r.model_id = w.id
      left join model m on m.id = w.id collate "default"
), new_model as (
    -- user_id '': an owner always sees the model. '{}': anything else breaks a page for everybody.
    insert into model (id, user_id, base_model_id, name, params, meta, is_active, created_at, updated_at:extra_columns)
    select id, '', null, id, '{}', '{}', true, at, at:extra_values
      from wanted, (select extract(epoch from $1)::bigint as at) t where not has_row order by id
), back as (
    update model m set is_active = true, updated_at = extract(epoch from $1)::bigint
      from wanted w where m.id = w.id collate "default" and w.has_row and w.origin = 'created' and not w.active
), noted as (
    insert into model_row (model_id, origin)
    select id, case when has_row then 'found' else 'created' end from wanted
     where origin is null or not active or not has_row
    on conflict (model_id) do update
        set active = true, origin = case when excluded.origin = 'created' then 'created' else model_row.origin end
), leaving as materialized (
    select r.model_id, r.origin from model_row r
     where r.active and r.model_id not in (select id collate "C" from unnest($4::text[]) k(id))
), retired as (
    update model m set is_active = false, updated_at = extract(epoch from $1)::bigint
      from leaving l where m.id = l.model_id collate "default" and l.origin = 'created'
), marked as (
    update model_row r set active = false from leaving l where r.model_id = l.model_id
), resolved as (
    delete from dead_letter d where d.kind = 'model' and d.key in (select id from wanted union select model_id from leaving)
), happened as (
    select 'SYNC_MODEL' as operation, id from wanted where not has_row or not active
    union all
    select 'RETIRE_MODEL', model_id from leaving
), audit as (
    insert into sync_audit (operation, record_id, sync_result, created_at, lsn)
    select operation, id, 'SUCCESS', $1, $2 from happened where $3
    union all
    select operation, null, 'SUCCESS', $1, $2 from happened where not $3 group by operation
)
select (select count(*) from happened where operation = 'SYNC_MODEL') as written, (select count(*) from leaving) as retired
