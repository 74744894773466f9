-- Our copy of the LiteLLM columns the projection needs. Runs on: target, search_path = our schema.
-- Values are text, text[] or jsonb as LiteLLM's server sent them: staging cannot fail on a value.
-- The columns are those of src/catalog.rs, in its order (a test compares them).
--
-- Indexes on anything but a primary key of LiteLLM's are hash indexes: those columns are free text of any length, and
-- a btree refuses a long one.

create table litellm_user (
    user_id text collate "C" primary key,
    user_email text, email text collate "C", user_alias text, user_role text, team_id text collate "C", teams text[],
    organization_id text collate "C", models text[], metadata jsonb, created_at text collate "C"
);
comment on column litellm_user.email is 'user_email, usable: trimmed, lower case, one @; NULL if it cannot be used.';
create index litellm_user_email on litellm_user (email);
create index litellm_user_team_id on litellm_user using hash (team_id) where team_id is not null;
create index litellm_user_organization_id on litellm_user using hash (organization_id) where organization_id is not null;

create table litellm_team (
    team_id text collate "C" primary key,
    team_alias text, organization_id text collate "C", members_with_roles jsonb, models text[], blocked text,
    model_id text, access_group_ids text[], metadata jsonb
);
create index litellm_team_organization_id on litellm_team using hash (organization_id) where organization_id is not null;

create table litellm_organization (
    organization_id text collate "C" primary key,
    organization_alias text, models text[]
);

create table litellm_organization_membership (
    user_id text collate "C", organization_id text collate "C", user_role text,
    primary key (user_id, organization_id)
);
create index litellm_organization_membership_organization_id on litellm_organization_membership (organization_id);

create table litellm_team_membership (
    user_id text collate "C", team_id text collate "C", budget_id text,
    primary key (user_id, team_id)
);

create table litellm_key (
    token text collate "C" primary key,
    user_id text collate "C", team_id text collate "C", organization_id text, project_id text, models text[], aliases jsonb,
    blocked text, expires text, allowed_routes text[], key_type text, access_group_ids text[], metadata jsonb, created_at text
);
create index litellm_key_user_id on litellm_key using hash (user_id) where user_id is not null;

create table litellm_budget (budget_id text collate "C" primary key, allowed_models text[]);

create table litellm_proxy_model (
    model_id text collate "C" primary key, model_name text, model_info jsonb, blocked text
);

create table litellm_model_aliases (id text collate "C" primary key, aliases jsonb);

create table litellm_access_group (
    access_group_id text collate "C" primary key, access_group_name text, access_model_names text[],
    assigned_team_ids text[], assigned_key_ids text[]
);

create table litellm_project (
    project_id text collate "C" primary key, team_id text collate "C", models text[], blocked text
);

-- Derived from litellm_team.members_with_roles by sql/mirror/team_roster.sql: one row per entry,
-- so that a change of one member of a large team touches one person.
create table team_roster (
    team_id text collate "C" not null,
    user_id text collate "C",
    email   text collate "C",
    check ((user_id is null) <> (email is null))
);
create index team_roster_team_id on team_roster (team_id);
create index team_roster_user_id on team_roster using hash (user_id) where user_id is not null;
create index team_roster_email on team_roster using hash (email) where email is not null;
comment on table team_roster is 'Who is in which team: by user id, or by e-mail where LiteLLM only has that.';
