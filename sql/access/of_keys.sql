-- The keys of the people of $1 (text[]), usable at $2 (timestamptz) or not. Runs on: target. Keys of one person that say the
-- same come as one: some people have hundreds. Looked up one by one ("offset 0"): what a hash index finds is compared anew, with
-- each of the people if it was asked for all at once.
select user_id, min(token) as token, team_id, models, aliases, key_is_usable(blocked, expires, $2) as usable,
       allowed_routes, project_id, project_blocked, project_models, group_models, override_models, budget_closed
  from unnest($1::text[]) g(id) cross join lateral (select * from access_key where user_id = g.id collate "C" offset 0) k
 group by user_id, team_id, models, aliases, 6, allowed_routes, project_id, project_blocked, project_models,
          group_models, override_models, budget_closed
 order by 1, 2
