-- Brings team_roster in line with members_with_roles. Runs on: target, after litellm_team was written.
-- :rosters gives the team ids. Returns who joined or left: (kind, id): 'user' where their name may begin with the team's, else 'member'.
with team as materialized (
    select id as team_id from :rosters as given(id)
), entry as materialized (
    select distinct t.team_id, e ->> 'user_id' as user_id, e ->> 'user_email' as email
      from team join litellm_team t using (team_id)
      cross join lateral jsonb_array_elements(t.members_with_roles) e
), known as materialized (
    select r.team_id, r.user_id, r.email from team join team_roster r using (team_id)
), gone as materialized (
    select * from known except select * from entry
), came as materialized (
    select * from entry except select * from known
), left_by_id as (
    delete from team_roster r using gone g where r.user_id = g.user_id and r.team_id = g.team_id
), left_by_email as (
    delete from team_roster r using gone g where r.email = g.email and r.team_id = g.team_id
), added as (
    insert into team_roster (team_id, user_id, email) select team_id, user_id, email from came
), moved as (
    select * from gone union all select * from came
), mover as (
    select m.team_id, m.user_id, u.user_alias, u.team_id as own_team, u.teams
      from moved m left join litellm_user u on u.user_id = m.user_id
     where m.user_id is not null
    union all
    select m.team_id, u.user_id, u.user_alias, u.team_id, u.teams from moved m join litellm_user u on u.email = m.email
)
-- Whose name follows from what: desired/2_account.sql.
select distinct case when user_alias is not null and (team_id = own_team or team_id = any (teams)) then 'user' else 'member' end as kind, user_id as id
  from mover
