-- Which keys the touched people have, in user.api_key (Open WebUI before 0.6.43). A CTE of project/key_difference.sql;
-- "holding" is "owner" with present (ours is there), occupied (one is there), row_id. A hash of one of LiteLLM's keys is no
-- key: a trigger bridge put it there, and it opens nothing.
holding as materialized (
    select o.*, coalesce(sha256(convert_to(w.api_key, 'UTF8')) = o.sha256, false) as present,
           coalesce(w.api_key <> '' and not exists (select from litellm_key t where t.token = w.api_key collate "C"), false)
               as occupied, w.id as row_id
      from owner o left join "user" w on w.id = o.id collate "default"
)
