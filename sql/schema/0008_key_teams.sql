-- Whose keys are for a team: they may be of people its roster does not name. Runs on: target, search_path = our schema.
create index litellm_key_team_id on litellm_key using hash (team_id) where team_id is not null;
