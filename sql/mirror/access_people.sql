-- Everybody whose access may have changed because something of their team or their organization did. Runs on: target,
-- after team_roster.sql. :access_teams and :access_organizations give LiteLLM ids. Returns (kind 'access', id).
with organization as materialized (
    select distinct id as organization_id from :access_organizations as given(id)
), team as materialized (
    select id as team_id from :access_teams as given(id)
    union
    select t.team_id from organization join litellm_team t using (organization_id)
)
select 'access' as kind, r.user_id as id from team join team_roster r using (team_id) where r.user_id is not null
union
select 'access', u.user_id from team join team_roster r using (team_id) join litellm_user u on u.email = r.email
union
select 'access', m.user_id from organization join litellm_organization_membership m using (organization_id)
union
select 'access', u.user_id from organization join litellm_user u using (organization_id)
