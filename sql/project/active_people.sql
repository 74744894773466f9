-- Who used Open WebUI lately. Runs on: target. $1 since when (bigint, seconds; NULL: the last two minutes), $2 accounts of that very
-- second that were looked at (text[]), $3 how many (bigint), those longest ago. Only seconds that are over: what follows a sign-in
-- within the same one would be missed; and nobody who was only made: we make accounts by the thousand. Returns rows (id, user_id, at): the account, whose it is in LiteLLM (NULL: nobody's), and when.
with seen as materialized (
    select id collate "C" as id, last_active_at as at
      from "user"
     where last_active_at >= coalesce($1, extract(epoch from clock_timestamp())::bigint - 120)
       and last_active_at < floor(extract(epoch from clock_timestamp()))::bigint - 1
       and last_active_at > created_at
       and not (last_active_at = coalesce($1, 0) and id = any ($2::text[]))
     order by last_active_at limit $3
)
select s.id, coalesce(a.user_id, p.user_id) as user_id, s.at
  from seen s
  left join account a on a.webui_id = s.id
  left join account p on p.webui_id is null and s.id like 'usr\_%' and p.user_id = substr(s.id, 5)
 order by s.at
