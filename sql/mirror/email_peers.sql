-- Everybody whose claim to an e-mail may have changed because another one was freed: the people who
-- want it, the e-mails these leave in turn, and so on. Runs on: target, after out_of_step.sql.
-- :emails gives the freed e-mails. Returns (kind 'user', id).
with recursive freed(email) as (
    select id collate "C" from :emails as given(id)
    union
    select next.email
      from freed cross join lateral (
          select a.email from litellm_user u join account a using (user_id)
           where u.email = freed.email and not a.in_step
          union all
          select u.email from account a join litellm_user u using (user_id)
           where a.email = freed.email and not a.in_step and u.email is not null
      ) next
)
select 'user' as kind, u.user_id as id from freed join litellm_user u using (email)
union
select 'user', a.user_id from freed join account a on a.email = freed.email and not a.in_step
