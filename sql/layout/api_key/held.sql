-- Which keys the touched people have, in table api_key (Open WebUI 0.6.43 and newer). CTEs of project/key_difference.sql;
-- "holding" is "owner" with present (ours is there), occupied (one is there), row_id (of ours).
--
-- Open WebUI makes one row per person, with the id key_<user>, and so do we. There is no index on user_id: rows that
-- somebody else made are looked for in one pass, and only where the row with that id does not settle it.
at_home as materialized (
    -- A hash of one of LiteLLM's keys is no key: a trigger bridge put it there, and it opens nothing.
    select o.*, k.id as home_id, sha256(convert_to(k.key, 'UTF8')) as held,
           k.id is not null and exists (select from litellm_key t where t.token = k.key collate "C") as is_inert
      from owner o
      left join api_key k on k.id = ('key_' || o.id) collate "default" and k.user_id = o.id collate "default"
), stray as materialized (
    select k.user_id, array_agg(k.id order by k.id) as row_ids,
           array_agg(sha256(convert_to(k.key, 'UTF8')) order by k.id) as hashes
      from api_key k
     where exists (select from at_home h where h.held is null or h.held <> h.sha256)
       -- "is true" keeps this a hashed look-up whatever joins the planner may use.
       and (k.user_id in (select h.id collate "default" from at_home h where h.held is null or h.held <> h.sha256)) is true
       and k.id <> 'key_' || k.user_id
     group by k.user_id
), holding as materialized (
    select h.*, coalesce(h.held = h.sha256 or h.sha256 = any (s.hashes), false) as present,
           (h.held is not null and not h.is_inert) or s.user_id is not null as occupied,
           case when h.held = h.sha256 then h.home_id else s.row_ids[array_position(s.hashes, h.sha256)] end as row_id
      from at_home h left join stray s on s.user_id = h.id collate "default"
)
