-- Everybody a team's name or organization matters to. Runs on: target, after team_roster.sql.
-- :team_people gives the team ids. Returns (kind 'user', id).
with team as materialized (
    select id as team_id from :team_people as given(id)
)
select 'user' as kind, r.user_id as id from team join team_roster r using (team_id) where r.user_id is not null
union
select 'user', u.user_id from team join team_roster r using (team_id) join litellm_user u on u.email = r.email
union
select 'user', u.user_id from team join litellm_user u using (team_id)
