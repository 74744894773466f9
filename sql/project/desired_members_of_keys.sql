-- desired_member of the touched people and groups, key by key: nothing of the view can be planned as a scan
-- ("offset 0" keeps the planner from turning the look-ups into joins). A CTE of project/member_difference.sql;
-- :group_people, :teams and :organizations are arrays.
select d.kind, d.litellm_id, d.user_id
  from unnest(:group_people_array) k(id)
  cross join lateral (select kind, litellm_id, user_id from desired_member where user_id = k.id offset 0) d
union
select d.kind, d.litellm_id, d.user_id
  from unnest(:team_array) k(id)
  cross join lateral (select kind, litellm_id, user_id from desired_member
                       where kind = 'team' and litellm_id = k.id offset 0) d
union
select d.kind, d.litellm_id, d.user_id
  from unnest(:organization_array) k(id)
  cross join lateral (select kind, litellm_id, user_id from desired_member
                       where kind = 'organization' and litellm_id = k.id offset 0) d
