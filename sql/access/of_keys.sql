-- The keys of the people of $1 (text[]), usable at $2 (timestamptz) or not. Runs on: target. Keys of one person that say the
-- same come as one: some people have hundreds.
select user_id, min(token) as token, team_id, models, aliases, key_is_usable(blocked, expires, $2) as usable, key_type,
       allowed_routes, project_id, project_blocked, project_models, group_models, override_models
  from access_key where user_id = any ($1)
 group by user_id, team_id, models, aliases, 6, key_type, allowed_routes, project_id, project_blocked, project_models,
          group_models, override_models
 order by 1, 2
