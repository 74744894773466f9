-- What the keys of one person "a" come to: by look-ups, for few. A join of project/key_difference.sql. $1 now (timestamptz).
-- newest: when their newest usable key was made; has_expired: one would be usable but for the clock. NULL without keys.
cross join lateral (
     -- A key whose owner is gone from LiteLLM opens nothing here.
     select max(coalesce(k.created_at, '')) filter (where key_is_usable(k.blocked, k.expires, $1)) as newest,
            bool_or(k.blocked is distinct from 't' and not key_is_usable(k.blocked, k.expires, $1)) as has_expired
       from litellm_user u join personal_key k on k.user_id = u.user_id
      where u.user_id = a.user_id) n
