-- Everybody whose models may have changed because something of their team or their organization did. (Nobody's API key follows
-- from that.) Runs on: target, after team_roster.sql. :team_rights and :organization_rights give LiteLLM ids. Returns (kind 'models', id).
with organization as materialized (
    select id as organization_id from :organization_rights as given(id)
), team as materialized (
    select id as team_id from :team_rights as given(id)
    union
    select t.team_id from organization join litellm_team t using (organization_id)
)
select 'models' as kind, r.user_id as id from team join team_roster r using (team_id) where r.user_id is not null
union
select 'models', u.user_id from team join team_roster r using (team_id) join litellm_user u on u.email = r.email
union
-- A key may be for a team whose roster does not name its owner.
select 'models', k.user_id from team join litellm_key k using (team_id)
 where k.user_id is not null and k.team_id <> 'litellm-dashboard'
union
select 'models', m.user_id from organization join litellm_organization_membership m using (organization_id)
union
select 'models', u.user_id from organization join litellm_user u using (organization_id)
