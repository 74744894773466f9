-- The keys of the people of $1 (text[]), usable at $2 (timestamptz) or not. Runs on: target. :given_people and :one_by_one as in of_people.sql: what a
-- hash index finds is compared anew, with each of the people if it was asked for all at once. From team_id on, many keys say the same.
select user_id, token, key_is_usable(blocked, expires, $2) as usable, budget_closed,
       team_id, models, aliases, allowed_routes, project_id, project_blocked, project_models, group_models, override_models
  from (:given_people) g cross join lateral (select * from access_key where user_id = g.id collate "C" :one_by_one) k
