-- Inserts and renames groups, and marks those that are gone. Runs on: target, after the accounts.
-- $1 now (timestamptz), $2 end of the batch (pg_lsn), $3 one audit row per group (boolean; else a summary);
-- :teams and :organizations give LiteLLM ids. :extra_columns and :extra_values: what this layout's
-- group table needs besides. Returns one row: written, gone.
-- A group that is there already is linked and left as it is; one that a trigger bridge made for this organization (its meta
-- says so) is taken over: it is ours from then on.
with touched as (
    select 'team' as kind, id as litellm_id from :teams as given(id)
    union
    select 'organization', id from :organizations as given(id)
), difference as materialized (
    select t.kind, t.litellm_id, d.name, d.provenance, g.name as old_name,
           coalesce(l.webui_id, d.webui_id) as id,
           case
               when d.litellm_id is null then case when l.present then 'gone' else 'same' end
               when l.litellm_id is null and g.id is not null then
                   case when t.kind = 'organization' and g.meta ->> 'organization_id' = t.litellm_id collate "default"
                        then 'take' else 'link' end
               when g.id is null then 'create'
               when not l.present then 'return'
               -- A group that was there before us keeps its name: it is not ours.
               when l.origin = 'created' and g.name is distinct from d.name then 'rename'
               else 'same'
           end as action
      from touched t
      left join desired_group d on d.kind = t.kind and d.litellm_id = t.litellm_id
      left join group_link l on l.kind = t.kind and l.litellm_id = t.litellm_id
      left join "group" g on g.id = coalesce(l.webui_id, d.webui_id) collate "default"
), new_group as (
    -- description '' and a non-NULL user_id: a NULL breaks the groups page for every admin.
    -- share "members": without it the group's name is shown to everybody.
    insert into "group" (id, user_id, name, description, data, meta, created_at, updated_at:extra_columns)
    select id, '', name, '', '{"config":{"share":"members"}}'::json,
           jsonb_build_object('litellm', provenance)::json, at, at:extra_values
      from difference, (select extract(epoch from $1)::bigint as at) t where action = 'create' order by id
), renamed as (
    update "group" g set name = d.name, updated_at = extract(epoch from $1)::bigint
      from difference d
      join group_link l on l.kind = d.kind and l.litellm_id = d.litellm_id
     where g.id = d.id collate "default" and d.action in ('rename', 'return') and l.origin = 'created'
), taken as (
    -- The bridge left NULL where that breaks a page.
    update "group" g
       set name = d.name, user_id = coalesce(g.user_id, ''), description = coalesce(g.description, ''),
           data = coalesce(g.data, '{"config":{"share":"members"}}'::json), updated_at = extract(epoch from $1)::bigint
      from difference d where g.id = d.id collate "default" and d.action = 'take'
), linked as (
    insert into group_link (kind, litellm_id, webui_id, origin)
    select kind, litellm_id, id, case action when 'link' then 'found' else 'created' end
      from difference where action in ('create', 'link', 'take')
    on conflict (kind, litellm_id) do update set present = true
), marked as (
    update group_link l set present = d.action = 'return'
      from difference d
     where l.kind = d.kind and l.litellm_id = d.litellm_id and d.action in ('gone', 'return')
), resolved as (
    delete from dead_letter l using difference d where l.kind = d.kind and l.key = d.litellm_id
), happened as (
    select case kind when 'team' then 'SYNC_TEAM' else 'SYNC_ORG' end as operation, d.* from difference d
     where action not in ('same', 'gone')
), audit as (
    insert into sync_audit (operation, record_id, sync_result, old_data, new_data, created_at, lsn)
    select operation, litellm_id, 'SUCCESS',
           case when old_name is not null then jsonb_build_object('name', old_name) end,
           jsonb_build_object('webui_id', id, 'name', name), $1, $2
      from happened where $3
    union all
    select operation, null, 'SUCCESS', null, jsonb_build_object('count', count(*)), $1, $2
      from happened where not $3 group by operation
)
select count(*) filter (where action not in ('same', 'gone')) as written,
       count(*) filter (where action = 'gone') as gone
  from difference
