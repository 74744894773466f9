-- Everybody whose access may have changed because something of their team or their organization did. Runs on: target,
-- after team_roster.sql. :team_rights and :organization_rights give LiteLLM ids. Returns (kind 'rights', id).
with organization as materialized (
    select id as organization_id from :organization_rights as given(id)
), team as materialized (
    select id as team_id from :team_rights as given(id)
    union
    select t.team_id from organization join litellm_team t using (organization_id)
)
select 'rights' as kind, r.user_id as id from team join team_roster r using (team_id) where r.user_id is not null
union
select 'rights', u.user_id from team join team_roster r using (team_id) join litellm_user u on u.email = r.email
union
-- A key may be for a team whose roster does not name its owner.
select 'rights', k.user_id from team join litellm_key k using (team_id)
 where k.user_id is not null and k.team_id <> 'litellm-dashboard'
union
select 'rights', m.user_id from organization join litellm_organization_membership m using (organization_id)
union
select 'rights', u.user_id from organization join litellm_user u using (organization_id)
