-- All of desired_member. A CTE of project/member_difference.sql.
select d.kind, d.litellm_id, d.user_id from desired_member d
