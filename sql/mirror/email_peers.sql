-- Everybody whose claim to an e-mail may have changed because another one was freed: the people who
-- want it, the e-mails these leave in turn, and so on. Runs on: target, after out_of_step.sql.
-- :emails gives the freed e-mails. Returns (kind 'user', id).
-- Looked up e-mail by e-mail ("offset 0"): who is out of step became so just now, and the planner, which knows of hardly anybody,
-- would go through all of them for each e-mail.
with recursive freed(email) as (
    select id collate "C" from :emails as given(id)
    union
    select next.email
      from freed cross join lateral (
          select a.email
            from (select user_id from litellm_user where email = freed.email offset 0) u
            cross join lateral (select email from account where user_id = u.user_id and not in_step offset 0) a
          union all
          select u.email
            from (select user_id from account where email = freed.email and not in_step offset 0) a
            cross join lateral (select email from litellm_user where user_id = a.user_id and email is not null offset 0) u
      ) next
)
select 'user' as kind, u.user_id as id
  from freed cross join lateral (select user_id from litellm_user where email = freed.email offset 0) u
union
select 'user', a.user_id
  from freed cross join lateral (select user_id from account where email = freed.email and not in_step offset 0) a
