-- Gives the touched accounts that move to another e-mail a temporary one, so that swaps and chains
-- do not meet the unique index, which is not deferrable. Runs on: target, in the same transaction
-- right before the final values are written. $1 people who cannot move after all (text[]); :users gives the
-- LiteLLM user ids.
update "user" w set email = 'moving-' || md5(w.id)
  from (select coalesce(a.webui_id, 'usr_' || a.user_id) as id, d.email
          from (select distinct id as user_id from :users as given(id)) t
          join account a on a.user_id = t.user_id
          join desired_account d on d.user_id = t.user_id
         where t.user_id <> all ($1)) m
 where w.id = m.id collate "default" and lower(w.email) <> m.email collate "default"
