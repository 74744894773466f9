-- What model access needs besides the mirror. Runs on: target, search_path = our schema.
-- Hash indexes: see 0002_mirror.sql.

create index litellm_team_membership_budget_id on litellm_team_membership using hash (budget_id) where budget_id is not null;
create index litellm_key_project_id on litellm_key using hash (project_id) where project_id is not null;

alter table policy add column model_prefix text not null default '', add column group_min integer not null default 5;
comment on column policy.model_prefix is 'What Open WebUI puts before the names of LiteLLM''s models, the dot included; usually nothing.';

create table other_model (
    name   text collate "C" not null,
    origin text not null check (origin in ('polled', 'policy')),
    primary key (name, origin)
);
comment on table other_model is 'Models LiteLLM serves that are no rows of its database: the last answer of /v1/models, and models.extra of the policy.';

create table model_set (
    hash   text collate "C" primary key,
    name   text    not null,
    models text[]  not null,
    people integer not null
) with (fillfactor = 50);
comment on table model_set is 'Sets of models (Open WebUI ids, in order) that people have, and how many have each.';

create table effective_access (
    user_id  text collate "C" primary key,
    webui_id text collate "C" not null,
    set_hash text collate "C" not null
);
create index effective_access_webui_id on effective_access (webui_id);
create index effective_access_set_hash on effective_access (set_hash);
comment on table effective_access is 'Which set of models a LiteLLM user has, through which Open WebUI account. No row: no model, no account, or an admin.';

-- ---------------------------------------------------------------- the ledger, continued

create table model_row (
    model_id    text collate "C" primary key,
    origin      text    not null check (origin in ('created', 'found')),
    active      boolean not null default true,
    made_public boolean
);
comment on table model_row is 'Open WebUI''s row for each known model. found: it was there before us and is not ours.';
comment on column model_row.active is 'false: LiteLLM does not serve it any more; the row is set inactive if we made it.';
comment on column model_row.made_public is 'true: it was public and we took that away, as the policy says.';

create table access_group (
    set_hash text collate "C" primary key,
    webui_id text collate "C" not null unique
);
comment on table access_group is 'Open WebUI groups of people with the same set of models, wholly ours.';

create table access_member (
    user_id  text collate "C" not null,
    group_id text collate "C" not null,
    primary key (user_id, group_id)
);
comment on table access_member is 'Who we put into which access group, by Open WebUI ids.';

create table model_grant (
    principal_type text not null check (principal_type in ('user', 'group')),
    principal_id   text collate "C" not null,
    model_id       text collate "C" not null,
    primary key (principal_type, principal_id, model_id)
);
comment on table model_grant is 'The grants we made, by principal and model: Open WebUI gives them new ids whenever somebody saves a model.';
