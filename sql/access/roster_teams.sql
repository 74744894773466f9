-- A piece of of_teams.sql: the teams whose roster names the people of $1 (text[]). Looked up one by one ("offset 0"), as in
-- of_keys.sql.
select distinct g.id collate "C" as user_id, m.team_id, true as in_roster
  from unnest($1::text[]) g(id)
  cross join lateral (select team_id from team_person where user_id = g.id collate "C" offset 0) m
