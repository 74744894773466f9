-- Who of LiteLLM's users is a person with a usable e-mail, and if not, why not.
-- One row per LiteLLM user. unusable_because is NULL for those who should have an account.
create or replace view person as
select u.user_id, u.user_email, u.email, u.user_alias, u.user_role, u.team_id, u.teams, u.organization_id,
       -- LiteLLM leaves created_at NULL in some rows: they count as the youngest.
       coalesce(u.created_at, '~') as created_at,
       case
           when u.user_id in ('default_user_id', 'litellm-proxy-budget') then 'pseudo user of LiteLLM'
           when u.user_email is null or u.user_email = '' then 'no e-mail'
           when u.email is null then 'not a usable e-mail'
           -- What locked accounts are given when their e-mail goes to somebody else (project/vacate_emails.sql): nobody's.
           when u.email like '%@departed.invalid' then 'not a usable e-mail'
           when u.metadata -> 'scim_active' = 'false'::jsonb then 'deactivated by SCIM'
       end as unusable_because
  from litellm_user u;
