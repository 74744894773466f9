-- Brings team_roster in line with members_with_roles. Runs on: target, after litellm_team was written.
-- :rosters gives the team ids. Returns who joined or left: (kind 'user', id).
with team as materialized (
    select id as team_id from :rosters as given(id)
), entry as materialized (
    select distinct t.team_id, e ->> 'user_id' as user_id, e ->> 'user_email' as email
      from team join litellm_team t using (team_id)
      cross join lateral jsonb_array_elements(t.members_with_roles) e
), gone as (
    delete from team_roster r using team
     where r.team_id = team.team_id
       and not exists (select from entry e
                        where e.team_id = r.team_id
                          and (e.user_id = r.user_id or e.email = r.email))
    returning r.user_id, r.email
), added as (
    insert into team_roster (team_id, user_id, email)
    select e.team_id, e.user_id, e.email from entry e
     where not exists (select from team_roster r
                        where r.team_id = e.team_id
                          and (r.user_id = e.user_id or r.email = e.email))
    returning user_id, email
), moved as (
    select * from gone union all select * from added
)
select 'user' as kind, user_id as id from moved where user_id is not null
union
select 'user', u.user_id from moved join litellm_user u using (email)
