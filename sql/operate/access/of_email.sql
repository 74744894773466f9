-- The person with an e-mail (usable form, $1), the one with an account first. Runs on: target. Returns 0 or 1 row; because:
-- why there is no account, where that is known.
select u.user_id, u.user_role, (select model_prefix from policy) as model_prefix,
       case when a.user_id is not null then coalesce(a.webui_id, 'usr_' || a.user_id) end as webui_id,
       coalesce((select s.reason from skipped s where s.user_id = u.user_id),
                (select l.reason from dead_letter l where l.kind = 'account' and l.key = u.user_id)) as because
  from litellm_user u left join account a using (user_id)
 where u.email = $1
 order by a.user_id is null, u.created_at, u.user_id
 limit 1
