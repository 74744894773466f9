-- A piece of of_teams.sql: the teams whose roster names the people of $1 (text[]), by user id or by e-mail (as team_person has it). :given_people and
-- :one_by_one as in of_people.sql.
select g.id collate "C" as user_id, r.team_id, true as in_roster
  from (:given_people) g cross join lateral (select team_id from team_roster where user_id = g.id collate "C" :one_by_one) r
union
select g.id collate "C", r.team_id, true
  from (:given_people) g
  cross join lateral (select email from litellm_user where user_id = g.id collate "C" :one_by_one) u
  cross join lateral (select team_id from team_roster where email = u.email :one_by_one) r
