-- What tells that a table of LiteLLM's was rewritten. Runs on: target, search_path = our schema.

create table table_file (
    name     text   primary key,
    filenode bigint not null
);
comment on table table_file is 'The file (relfilenode) of each of LiteLLM''s tables when its rows were last looked at: another one means that they were rewritten, which puts no row in the stream.';

alter table resnapshot add column because text;
comment on column resnapshot.because is 'Why it was asked for, where neither a person nor the schedule did.';

-- Lists are kept in one dimension: an older program kept them as they came.
update litellm_user set models = array(select unnest(models)) where array_ndims(models) > 1;
update litellm_team set models = array(select unnest(models)) where array_ndims(models) > 1;
update litellm_team set access_group_ids = array(select unnest(access_group_ids)) where array_ndims(access_group_ids) > 1;
update litellm_organization set models = array(select unnest(models)) where array_ndims(models) > 1;
update litellm_key set models = array(select unnest(models)) where array_ndims(models) > 1;
update litellm_key set allowed_routes = array(select unnest(allowed_routes)) where array_ndims(allowed_routes) > 1;
update litellm_key set access_group_ids = array(select unnest(access_group_ids)) where array_ndims(access_group_ids) > 1;
update litellm_budget set allowed_models = array(select unnest(allowed_models)) where array_ndims(allowed_models) > 1;
update litellm_access_group set access_model_names = array(select unnest(access_model_names)) where array_ndims(access_model_names) > 1;
update litellm_access_group set assigned_team_ids = array(select unnest(assigned_team_ids)) where array_ndims(assigned_team_ids) > 1;
update litellm_project set models = array(select unnest(models)) where array_ndims(models) > 1;
