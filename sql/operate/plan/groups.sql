-- What becomes of groups: before (was_group) against after (is_group). Runs on: target, in the session of a plan.
-- Returns action, kind (organization, team, models), webui_id, name, old_name, members (how many of ours it has after).
-- use: a group that is there already stands for the organization or team.
with known as (
    select kind, webui_id as id, origin from group_link
    union all
    select 'models', webui_id, 'created' from access_group
), ours as (
    select group_id, count(*) as members from (select group_id from member union all select group_id from access_member) m
     group by group_id
), compared as (
    select coalesce(k.kind, wk.kind) as kind, coalesce(i.id, w.id) as id, i.name, w.name as old_name,
           case
               when w.id is null then 'create'
               when i.id is null then 'remove'
               when i.name is distinct from w.name then 'rename'
               when k.id is not null and wk.id is null then 'use'
           end as action
      from is_group i
      full join was_group w on w.id = i.id
      left join known k on k.id = i.id collate "C"
      left join was_known_group wk on wk.id = coalesce(i.id, w.id) collate "C"
)
select c.action, coalesce(c.kind, 'models') as kind, c.id::text as webui_id, coalesce(c.name, c.old_name)::text as name,
       case when c.action = 'rename' then c.old_name::text end as old_name, coalesce(o.members, 0) as members
  from compared c left join ours o on o.group_id = c.id collate "C"
 where c.action is not null
 order by 2, 4, 3
