-- What happens in LiteLLM while the demo runs. Runs on: source, after demo-people.sql. Plain SQL; psql runs it as it stands.
-- Each statement is one LiteLLM 1.110.2 sends. A blank line ends a transaction; "change:" starts the next title, and "access:" names
-- whom the demo asks about afterwards.

-- change: Nora Whitfield is hired and joins Platform
insert into public."LiteLLM_UserTable" (user_id, user_alias, user_email, user_role, models, teams, metadata, spend, created_at, updated_at) values ('demo-user-41', 'Nora Whitfield', 'Nora.Whitfield@northwind.example', 'internal_user', '{}', '{}', '{}', 0, timezone('UTC', now()), timezone('UTC', now()));

insert into public."LiteLLM_VerificationToken" (token, key_name, user_id, models, spend, metadata, created_by, created_at, updated_at) values (encode(sha256('sk-demo-41'), 'hex'), 'sk-...o-41', 'demo-user-41', '{}', 0, '{}', 'default_user_id', timezone('UTC', now()), timezone('UTC', now()));

begin;
select pg_advisory_xact_lock(hashtext('platform'));
insert into public."LiteLLM_UserTable" (user_id, teams, models, user_role) values ('demo-user-41', '{platform}', '{}', 'internal_user') on conflict (user_id) do update set user_id = excluded.user_id, updated_at = timezone('UTC', now());
update public."LiteLLM_UserTable" set teams = teams || 'platform'::text, updated_at = timezone('UTC', now()) where user_id = 'demo-user-41' and not ('platform' = any (teams));
insert into public."LiteLLM_TeamMembership" (user_id, team_id) values ('demo-user-41', 'platform') on conflict do nothing;
update public."LiteLLM_TeamTable" set members_with_roles = members_with_roles || '[{"user_id": "demo-user-41", "user_email": "Nora.Whitfield@northwind.example", "role": "user"}]', updated_at = timezone('UTC', now()) where team_id = 'platform';
commit;

insert into public."LiteLLM_OrganizationMembership" (user_id, organization_id, user_role, created_at, updated_at) values ('demo-user-41', 'northwind', 'internal_user', timezone('UTC', now()), timezone('UTC', now()));

-- change: the team Customer Support is renamed to Customer Success
update public."LiteLLM_TeamTable" set team_alias = 'Customer Success', updated_at = timezone('UTC', now()) where team_id = 'support';

-- change: Lucas Ferreira moves from Research to Data & Analytics
begin;
select pg_advisory_xact_lock(hashtext('research'));
update public."LiteLLM_TeamTable" set members_with_roles = (select coalesce(jsonb_agg(e order by o), '[]') from jsonb_array_elements(members_with_roles) with ordinality x (e, o) where e ->> 'user_id' is distinct from 'demo-user-14'), updated_at = timezone('UTC', now()) where team_id = 'research';
update public."LiteLLM_UserTable" set teams = array_remove(teams, 'research'), updated_at = timezone('UTC', now()) where user_id = 'demo-user-14';
delete from public."LiteLLM_TeamMembership" where team_id = 'research' and user_id = 'demo-user-14';
delete from public."LiteLLM_VerificationToken" where team_id = 'research' and user_id = 'demo-user-14';
commit;

begin;
select pg_advisory_xact_lock(hashtext('data'));
update public."LiteLLM_UserTable" set teams = teams || 'data'::text, updated_at = timezone('UTC', now()) where user_id = 'demo-user-14' and not ('data' = any (teams));
insert into public."LiteLLM_TeamMembership" (user_id, team_id) values ('demo-user-14', 'data') on conflict do nothing;
update public."LiteLLM_TeamTable" set members_with_roles = members_with_roles || '[{"user_id": "demo-user-14", "user_email": null, "role": "user"}]', updated_at = timezone('UTC', now()) where team_id = 'data';
commit;

-- change: the team Design Studio may use claude-sonnet as well
update public."LiteLLM_TeamTable" set models = '{gpt-4o,claude-sonnet}', updated_at = timezone('UTC', now()) where team_id = 'design';

-- change: a spend flush touches everybody, and uses up the budget of Samuel Adeyemi
-- access: samuel.adeyemi@northwind.example
update public."LiteLLM_UserTable" set spend = spend + 0.0123, updated_at = timezone('UTC', now());

update public."LiteLLM_VerificationToken" set spend = spend + 0.0123, total_spend = total_spend + 0.0123, last_active = timezone('UTC', now()), updated_at = timezone('UTC', now());

update public."LiteLLM_TeamTable" set spend = spend + 0.0456, updated_at = timezone('UTC', now());

insert into public."LiteLLM_TeamMembership" (user_id, team_id, spend, total_spend) select user_id, team_id, 0.0123, 0.0123 from public."LiteLLM_TeamMembership" on conflict (user_id, team_id) do update set spend = "LiteLLM_TeamMembership".spend + excluded.spend, total_spend = greatest("LiteLLM_TeamMembership".total_spend, "LiteLLM_TeamMembership".spend) + excluded.total_spend;

update public."LiteLLM_OrganizationTable" set spend = spend + 0.0789, updated_at = timezone('UTC', now());

update public."LiteLLM_OrganizationMembership" set spend = spend + 0.0123, updated_at = timezone('UTC', now());

update public."LiteLLM_UserTable" set spend = spend + 48.3, updated_at = timezone('UTC', now()) where user_id = 'demo-user-06';

-- change: LiteLLM resets the budget of Samuel Adeyemi
update public."LiteLLM_UserTable" set spend = spend - spend, budget_reset_at = timezone('UTC', date_trunc('day', now()) + interval '60 days'), updated_at = timezone('UTC', now()) where user_id = 'demo-user-06';

-- change: Carlos Echeverría leaves: his account is deleted
delete from public."LiteLLM_VerificationToken" where user_id = 'demo-user-23';

begin;
select pg_advisory_xact_lock(hashtext('data'));
update public."LiteLLM_TeamTable" set members_with_roles = (select coalesce(jsonb_agg(e order by o), '[]') from jsonb_array_elements(members_with_roles) with ordinality x (e, o) where e ->> 'user_id' is distinct from 'demo-user-23'), updated_at = timezone('UTC', now()) where members_with_roles @> '[{"user_id": "demo-user-23"}]';
update public."LiteLLM_UserTable" set teams = '{}', updated_at = timezone('UTC', now()) where user_id = 'demo-user-23';
delete from public."LiteLLM_OrganizationMembership" where user_id = 'demo-user-23';
delete from public."LiteLLM_TeamMembership" where user_id = 'demo-user-23';
delete from public."LiteLLM_UserTable" where user_id = 'demo-user-23';
commit;

-- change: the identity provider deactivates Priya Raman
update public."LiteLLM_UserTable" set metadata = metadata || '{"scim_active": false}', updated_at = timezone('UTC', now()) where user_id = 'demo-user-03';

update public."LiteLLM_VerificationToken" set blocked = true, metadata = metadata || '{"scim_blocked": true}', updated_at = timezone('UTC', now()) where user_id = 'demo-user-03' and blocked is not true;

-- change: Priya Raman is back
update public."LiteLLM_UserTable" set metadata = metadata - 'scim_active', updated_at = timezone('UTC', now()) where user_id = 'demo-user-03';

update public."LiteLLM_VerificationToken" set blocked = false, metadata = metadata - 'scim_blocked', updated_at = timezone('UTC', now()) where user_id = 'demo-user-03' and blocked and metadata ? 'scim_blocked';

-- change: Tobias Okafor becomes an administrator
update public."LiteLLM_UserTable" set user_role = 'proxy_admin', updated_at = timezone('UTC', now()) where user_id = 'demo-user-02';

-- change: Freya Jørgensen marries: a new e-mail address
update public."LiteLLM_UserTable" set user_email = 'freya.lindholm@fabrikam.example', user_alias = 'Freya Lindholm', updated_at = timezone('UTC', now()) where user_id = 'demo-user-33';
