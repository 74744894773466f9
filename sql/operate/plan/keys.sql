-- Who gets a personal API key and who loses one: before (was_key) against after (is_key), by what the keys are hashed to.
-- Runs on: target, in the session of a plan. Returns action (mint, delete), webui_id, email.
with compared as (
    select case when w.user_id is null then 'mint' else 'delete' end as action, coalesce(i.user_id, w.user_id) as user_id
      from is_key i full join was_key w on w.user_id = i.user_id and w.sha256 = i.sha256
     where i.user_id is null or w.user_id is null
)
select c.action, c.user_id::text as webui_id, coalesce(u.email, was.email)::text as email
  from compared c
  left join is_account u on u.id = c.user_id
  left join was_account was on was.id = c.user_id
 order by 1, 3, 2
