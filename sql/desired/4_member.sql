-- Who should be in which group, by LiteLLM's ids. A user whose row is gone is in none, whatever a
-- roster still says; only people with an account can be members (the writes join the ledger).
--   team: its roster, by user id, else by e-mail.
--   organization: OrganizationMembership, the legacy user.organization_id, and the rosters of its teams.
create or replace view team_person as
select r.team_id, u.user_id from team_roster r join litellm_user u on u.user_id = r.user_id
union all
select r.team_id, u.user_id from team_roster r join litellm_user u on u.email = r.email;

create or replace view desired_member as
select 'team'::text as kind, t.team_id as litellm_id, m.user_id
  from litellm_team t join team_person m using (team_id)
union all
select 'organization', t.organization_id, m.user_id
  from litellm_team t join team_person m using (team_id)
 where t.organization_id is not null
union all
select 'organization', m.organization_id, u.user_id
  from litellm_organization_membership m join litellm_user u using (user_id)
union all
select 'organization', u.organization_id, u.user_id
  from litellm_user u where u.organization_id is not null;
