-- A piece of of_teams.sql: teams that people have keys for, but whose roster does not name them: $1 people, $2 their teams (text[]).
select user_id collate "C" as user_id, team_id collate "C" as team_id, false as in_roster
  from unnest($1::text[], $2::text[]) g(user_id, team_id)
