-- Removes the groups that are gone from LiteLLM, unless anything in Open WebUI still refers to them.
-- Runs on: target, after our members left. $1 now (timestamptz), $2 end of the batch (pg_lsn);
-- :teams and :organizations give LiteLLM ids; :references is a condition on c.webui_id made of the
-- tables this Open WebUI has. Returns one row: removed, kept.
with candidate as materialized (
    select l.kind, l.litellm_id, l.webui_id, l.origin
      from (select 'team' as kind, id as litellm_id from :teams as given(id)
             union
            select 'organization', id from :organizations as given(id)) t
      join group_link l on l.kind = t.kind and l.litellm_id = t.litellm_id
     where not l.present
), kept as materialized (
    select c.webui_id from candidate c where c.origin = 'created' and (:references)
), finished as materialized (
    select c.* from candidate c where not exists (select from kept k where k.webui_id = c.webui_id)
), removed as (
    delete from "group" g using finished f where g.id = f.webui_id collate "default" and f.origin = 'created'
), forgotten as (
    delete from group_link l using finished f where l.kind = f.kind and l.litellm_id = f.litellm_id
), audit as (
    insert into sync_audit (operation, record_id, sync_result, old_data, created_at, lsn)
    select case kind when 'team' then 'DELETE_TEAM' else 'DELETE_ORG' end, litellm_id, 'SUCCESS',
           jsonb_build_object('webui_id', webui_id), $1, $2
      from finished
)
select (select count(*) from finished) as removed, (select count(*) from kept) as kept
