-- What model access needs besides the mirror. Runs on: target, search_path = our schema.
-- Hash indexes: see 0002_mirror.sql.

create index litellm_team_membership_budget_id on litellm_team_membership using hash (budget_id) where budget_id is not null;
create index litellm_key_project_id on litellm_key using hash (project_id) where project_id is not null;
