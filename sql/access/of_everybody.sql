-- The same as of_people.sql where it is not known yet who has an account, of the people of $1 (text[]): as if everybody had one, and
-- whatever they had. Runs on: target. One row each; webui_id is NULL for those who are to have none. :given_people and :one_by_one as there.
select k.id as user_id, p.models, p.user_id as webui_id, coalesce(p.budget_closed, false) as budget_closed,
       null::text as set_hash, null::text as had_id, false as failed
  from (:given_people) k
  left join lateral (select * from access_person where user_id = k.id collate "C" :one_by_one) p on true
