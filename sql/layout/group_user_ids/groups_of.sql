-- The groups of account $1 (text). A piece of sql/layout/*/sees.sql.
select g.id from "group" g where json_typeof(g.user_ids) = 'array' and g.user_ids::jsonb ? $1
