-- The audit rows of a membership change: one per group. A CTE of sql/layout/*/members.sql.
insert into sync_audit (operation, record_id, sync_result, new_data, created_at, lsn)
select case l.kind when 'team' then 'SYNC_TEAM_MEMBERS' else 'SYNC_ORG_MEMBERS' end, l.litellm_id, 'SUCCESS',
       jsonb_build_object('kind', l.kind, 'webui_id', h.group_id, 'added', h.added, 'removed', h.removed), $1, $2
  from happened h join group_link l on l.webui_id = h.group_id
 where $3
union all
select 'SYNC_MEMBERS', null, 'SUCCESS',
       jsonb_build_object('groups', count(*), 'added', sum(added), 'removed', sum(removed)), $1, $2
  from happened where not $3 having count(*) > 0
