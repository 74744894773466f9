-- The same as key_states_of_one.sql for many people: everybody's keys are read once. A join of project/key_difference.sql.
-- $1 now (timestamptz).
left join (select u.user_id,
                  max(coalesce(k.created_at, '')) filter (where key_is_usable(k.blocked, k.expires, $1)) as newest,
                  bool_or(k.blocked is distinct from 't' and not key_is_usable(k.blocked, k.expires, $1)) as has_expired
             from litellm_user u join personal_key k on k.user_id = u.user_id
            group by u.user_id) n on n.user_id = a.user_id
