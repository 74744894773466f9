-- The next people to be looked at: whoever LiteLLM has, has an account or has models. Runs on: target. $1 after this id (text),
-- $2 at most this many (bigint).
select id
  from ((select user_id as id from litellm_user where user_id > $1 order by user_id limit $2)
         union
        (select user_id from account where user_id > $1 order by user_id limit $2)
         union
        (select user_id from effective_access where user_id > $1 order by user_id limit $2)) next
 order by id limit $2
