-- The person with an e-mail (usable form, $1), the one with an account first. Runs on: target. Returns 0 or 1 row.
select u.user_id, u.user_role, (select model_prefix from policy) as model_prefix,
       case when a.user_id is not null then coalesce(a.webui_id, 'usr_' || a.user_id) end as webui_id
  from litellm_user u left join account a using (user_id)
 where u.email = $1
 order by a.user_id is null, u.created_at, u.user_id
 limit 1
