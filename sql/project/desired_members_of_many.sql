-- desired_member of the touched people and groups, for many of them. A CTE of project/member_difference.sql.
select d.kind, d.litellm_id, d.user_id from desired_member d
 where d.user_id in (select user_id from touched_account)
    or (d.kind, d.litellm_id) in (select kind, litellm_id from touched_group)
