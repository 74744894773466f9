-- At every start, when both products have made their tables: what the daemon's role `sync` may do, and no more. The same as
-- `litellm-webui-sync setup --print-sql`. Runs in psql as the superuser, and again without harm.

\set ON_ERROR_STOP on

\connect litellm
\echo LiteLLM: reading its tables, and a publication of them
create temporary view mirrored as
select format('public.%I', name) as name, to_regclass(format('public.%I', name)) as relation
  from unnest(array['LiteLLM_UserTable', 'LiteLLM_TeamTable', 'LiteLLM_OrganizationTable', 'LiteLLM_OrganizationMembership',
                    'LiteLLM_TeamMembership', 'LiteLLM_VerificationToken', 'LiteLLM_BudgetTable', 'LiteLLM_ProxyModelTable',
                    'LiteLLM_ModelTable', 'LiteLLM_AccessGroupTable', 'LiteLLM_ProjectTable', 'LiteLLM_EndUserTable',
                    'LiteLLM_BudgetWindowSpend']) as name
 where to_regclass(format('public.%I', name)) is not null;

grant usage on schema public to sync;
select format('grant select on %s to sync', name) from mirrored \gexec
-- To tell, once, what people had chatted before the present windows of their budgets; it is not published.
select 'grant select on public."LiteLLM_DailyEndUserSpend" to sync' where to_regclass('public."LiteLLM_DailyEndUserSpend"') is not null \gexec
select format('create publication litellm_webui_sync for table %s', string_agg(name, ', ')) from mirrored
 where not exists (select from pg_publication where pubname = 'litellm_webui_sync')
having count(*) > 0 \gexec
-- Tables that a new release of LiteLLM has added.
select format('alter publication litellm_webui_sync add table %s', name) from mirrored
 where relation not in (select r.prrelid from pg_publication_rel r join pg_publication p on p.oid = r.prpubid
                         where p.pubname = 'litellm_webui_sync') \gexec

\connect webui
set client_min_messages = warning;
\echo Open WebUI: accounts, groups, keys and models, and a schema of our own
grant usage on schema public to sync;
grant select, insert, update on public."user", public.auth, public.model to sync;
grant select, insert, update, delete on public."group" to sync;
grant select, insert, delete on public.group_member, public.api_key, public.access_grant to sync;
-- Where the prefix_id of Open WebUI's connection to LiteLLM stands.
grant select on public.config to sync;
create schema if not exists litellm_webui_sync authorization sync;
