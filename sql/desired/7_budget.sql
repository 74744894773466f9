-- Whom a used-up budget takes a path to models from: one row per LiteLLM user, kind of budget and id. They may have others left.
create or replace view budget_person as
select id as user_id, kind, id, team_id from budget_closed where kind in ('user', 'team_member')
union
select k.user_id, b.kind, b.id, b.team_id from budget_closed b join litellm_key k on k.token = b.id
 where b.kind = 'key' and k.user_id is not null
union
select u.user_id, b.kind, b.id, b.team_id from budget_closed b join litellm_user u on u.email = b.email
 where b.kind = 'customer'
union
select p.user_id, b.kind, b.id, b.team_id from budget_closed b join team_person p on p.team_id = b.id where b.kind = 'team'
union
select k.user_id, b.kind, b.id, b.team_id from budget_closed b join litellm_key k on k.team_id = b.id
 where b.kind = 'team' and k.user_id is not null and k.team_id <> 'litellm-dashboard'
union
select p.user_id, b.kind, b.id, b.team_id
  from budget_closed b join litellm_team t on t.organization_id = b.id join team_person p on p.team_id = t.team_id
 where b.kind = 'organization'
union
select k.user_id, b.kind, b.id, b.team_id
  from budget_closed b join litellm_team t on t.organization_id = b.id join litellm_key k on k.team_id = t.team_id
 where b.kind = 'organization' and k.user_id is not null and k.team_id <> 'litellm-dashboard'
union
select o.user_id, b.kind, b.id, b.team_id from budget_closed b join access_organization o on o.organization_id = b.id
 where b.kind = 'organization';
