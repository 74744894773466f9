-- Who waits for an e-mail that is free by now: people with a dead letter whose claim nobody outdoes any more, because
-- the projection just moved the e-mails of others. Runs on: target, after update_accounts.sql, in the same transaction.
-- $1 people who were looked at again already (text[]). Returns their LiteLLM user ids.
select l.key as user_id
  from dead_letter l
  join litellm_user u on u.user_id = l.key
 where l.kind = 'account' and l.sqlstate is null
   and l.key <> all ($1)
   -- Nearly every letter is of somebody whose e-mail another person has and keeps.
   and not exists (select from litellm_user h join account a using (user_id)
                    where h.email = u.email and h.user_id <> u.user_id and a.in_step)
   and exists (select from desired_account d where d.user_id = l.key)
