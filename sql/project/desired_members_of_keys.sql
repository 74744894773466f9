-- desired_member of the touched people and groups, in a form the planner turns into look-ups.
-- A CTE of project/member_difference.sql; :users, :teams and :organizations are arrays.
select kind, litellm_id, user_id from desired_member where user_id = any (:user_array)
union
select kind, litellm_id, user_id from desired_member where kind = 'team' and litellm_id = any (:team_array)
union
select kind, litellm_id, user_id from desired_member where kind = 'organization' and litellm_id = any (:organization_array)
