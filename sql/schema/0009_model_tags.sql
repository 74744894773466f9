-- The access groups of models that are no rows of LiteLLM's database. Runs on: target, search_path = our schema.
alter table other_model add tags text[] not null default '{}';
comment on column other_model.tags is 'The access groups LiteLLM''s config.yaml tags the model with (/v1/model/info).';
