-- Who joins and who leaves which group: before (was_member) against after (is_member). Runs on: target, in the session of a
-- plan. Returns action (join, leave), group_id, group_name, webui_id, email. Groups that go take their members along.
with compared as (
    select case when w.user_id is null then 'join' else 'leave' end as action,
           coalesce(i.group_id, w.group_id) as group_id, coalesce(i.user_id, w.user_id) as user_id
      from is_member i full join was_member w on w.group_id = i.group_id and w.user_id = i.user_id
     where i.user_id is null or w.user_id is null
)
select c.action, c.group_id::text as group_id, coalesce(g.name, o.name)::text as group_name, c.user_id::text as webui_id,
       coalesce(u.email, was.email)::text as email
  from compared c
  left join is_group g on g.id = c.group_id
  left join was_group o on o.id = c.group_id
  left join is_account u on u.id = c.user_id
  left join was_account was on was.id = c.user_id
 order by 3, 2, 5, 4
