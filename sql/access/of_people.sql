-- The people of $1 (text[]) whose models we look after or looked after, with the set they have by now. Runs on: target.
-- 0 or 1 row each; webui_id is NULL for those who are to have none. failed: they must be written whatever they have, because
-- a dead letter says that they could not be, or because their account was somebody else's. :given_people gives their ids (given.sql,
-- given_together.sql). :one_by_one is "offset 0", which has them looked up one by one (the planner would read everybody for a part of
-- them), or nothing.
select k.id as user_id, p.models, p.webui_id, coalesce(p.budget_closed, false) as budget_closed, e.set_hash, e.webui_id as had_id,
       l.key is not null
           or exists (select from effective_access o where o.webui_id = p.webui_id and o.user_id <> k.id collate "C") as failed
  from (:given_people) k
  left join lateral (select u.*, coalesce(a.webui_id, 'usr_' || a.user_id) as webui_id
                       from access_person u join account a using (user_id) where user_id = k.id collate "C" :one_by_one) p on true
  left join lateral (select * from effective_access where user_id = k.id collate "C" :one_by_one) e on true
  left join dead_letter l on l.kind = 'access' and l.key = k.id collate "C"
 where p.user_id is not null or e.user_id is not null or l.key is not null
