-- Frees e-mails for touched people who are to get them. Runs on: target, in the same transaction right before the final
-- values are written. $1 people who cannot move after all (text[]); :users gives the LiteLLM user ids.
--   Accounts that move to another e-mail get a temporary one: the unique index is not deferrable, and swaps and
--   chains would meet it.
--   Locked accounts give their e-mail up to somebody who has an account already (others are linked to them, unless
--   their own person is there and only waits for another e-mail).
with touched as materialized (
    select t.user_id, d.email, a.user_id is not null as has_account, coalesce(a.webui_id, 'usr_' || a.user_id) as id
      from (select id as user_id from :users as given(id)) t
      join desired_account d on d.user_id = t.user_id
      left join account a on a.user_id = t.user_id
), moving as (
    update "user" w set email = 'moving-' || md5(w.id)
      from touched m
     where m.has_account and m.user_id <> all ($1)
       and w.id = m.id collate "default" and lower(w.email) <> m.email collate "default"
), locked as materialized (
    select a.user_id, coalesce(a.webui_id, 'usr_' || a.user_id) as id
      from touched m join account a on a.email = m.email and not a.in_step and a.user_id <> m.user_id
      left join person p on p.user_id = a.user_id and p.unusable_because is null
     where case when p.user_id is null then m.has_account else not a.active end
), freed_user as (
    update "user" w set email = 'departed-' || md5(w.id) || '@departed.invalid' from locked l where w.id = l.id collate "default"
), freed_auth as (
    update auth au set email = 'departed-' || md5(au.id) || '@departed.invalid' from locked l where au.id = l.id collate "default"
)
update account a set email = 'departed-' || md5(l.id) || '@departed.invalid' from locked l where a.user_id = l.user_id
