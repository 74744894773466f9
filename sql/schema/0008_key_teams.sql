-- Whose keys are for a team: they may be of people its roster does not name. Runs on: target, search_path = our schema. Without the
-- sessions of LiteLLM's own pages, which are all for one "team".
create index litellm_key_team_id on litellm_key using hash (team_id) where user_id is not null and team_id <> 'litellm-dashboard';
