-- What LiteLLM's migrations from 1.77.3 to 1.109.1 do to the tables that are published, in their order: a paragraph is a migration,
-- and a transaction. Condensed: of tables and columns that nothing here reads, one stands for all.

alter table "LiteLLM_VerificationToken" add column auto_rotate boolean default false, add column rotation_interval text;

create table "LiteLLM_ProjectTable" (project_id text primary key, project_alias text,
    team_id text references "LiteLLM_TeamTable" (team_id) on delete set null on update cascade,
    budget_id text references "LiteLLM_BudgetTable" (budget_id) on delete set null on update cascade,
    metadata jsonb not null default '{}', models text[], spend double precision not null default 0, blocked boolean not null default false);
alter table "LiteLLM_VerificationToken" add column project_id text
    references "LiteLLM_ProjectTable" (project_id) on delete set null on update cascade;

alter table "LiteLLM_ProjectTable" add column description text, add column model_rpm_limit jsonb not null default '{}';

alter table "LiteLLM_TeamTable" add column router_settings jsonb default '{}';
alter table "LiteLLM_VerificationToken" add column router_settings jsonb default '{}';

create index "LiteLLM_UserTable_user_email_lower_idx" on "LiteLLM_UserTable" (lower(user_email));

alter table "LiteLLM_TeamTable" add column policies text[] default array[]::text[];
alter table "LiteLLM_UserTable" add column policies text[] default array[]::text[];
alter table "LiteLLM_VerificationToken" add column policies text[] default array[]::text[];

alter table "LiteLLM_TeamTable" add column soft_budget double precision;

alter table "LiteLLM_TeamTable" add column access_group_ids text[] default array[]::text[];
alter table "LiteLLM_VerificationToken" add column access_group_ids text[] default array[]::text[];
create table "LiteLLM_AccessGroupTable" (access_group_id text primary key, access_group_name text not null unique,
    access_model_ids text[] default array[]::text[], assigned_team_ids text[] default array[]::text[],
    assigned_key_ids text[] default array[]::text[]);

-- The index that takes long on a large database goes here: the table above has not got its columns yet.

alter table "LiteLLM_AccessGroupTable" drop column access_model_ids, add column access_model_names text[] default array[]::text[];

alter table "LiteLLM_VerificationToken" add column last_active timestamp(3);

create index "LiteLLM_TeamTable_organization_id_idx" on "LiteLLM_TeamTable" (organization_id);

alter table "LiteLLM_VerificationToken" add column budget_limits jsonb;
alter table "LiteLLM_TeamTable" add column budget_limits jsonb;

alter table "LiteLLM_BudgetTable" add column allowed_models text[] default array[]::text[];
alter table "LiteLLM_TeamTable" add column default_team_member_models text[] default array[]::text[];

alter table "LiteLLM_TeamMembership" add column total_spend double precision not null default 0;

alter table "LiteLLM_ProxyModelTable" add column blocked boolean not null default false;

alter table "LiteLLM_VerificationToken" add column key_type text;

alter table "LiteLLM_BudgetTable" add column temp_budget_increase double precision;
alter table "LiteLLM_BudgetTable" add column temp_budget_expiry timestamp(3);

alter table "LiteLLM_AccessGroupTable" add column access_skill_names text[] default array[]::text[];
