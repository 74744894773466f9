-- litellm-churn.sql : one round of what the LiteLLM 1.110.2 endpoints and background jobs write, after litellm-seed.sql.
--
--   for r in $(seq 1 100); do psql -d litellm -v round=$r -v flush_keys=500 -v flushes=3 -f litellm-churn.sql; done
--
-- Variables: round (any number, makes new ids and picks rows), flush_keys (keys in one spend flush), flushes (flushes
-- per round), legacy=1 to add what only 1.77.3 did (user_id rewritten by SCIM, roster pushed without a transaction).
-- Every COMMIT below is a transaction boundary of the product: statements outside BEGIN/COMMIT run in autocommit there
-- too.

\set ON_ERROR_STOP on
\if :{?round}      \else \set round 1 \endif
\if :{?flush_keys} \else \set flush_keys 500 \endif
\if :{?flushes}    \else \set flushes 1 \endif
\if :{?legacy}     \else \set legacy 0 \endif
\set QUIET on
SET client_min_messages = warning;
SELECT 'c' || :'round' AS tag, md5('uid' || :'round')::uuid AS new_user, md5('team' || :'round' || 'n')::uuid AS new_team,
       md5('org' || :'round' || 'n')::uuid AS new_org, encode(sha256(convert_to('sk-churn-' || :'round', 'UTF8')), 'hex') AS new_tok,
       encode(sha256(convert_to('sk-churn-' || :'round' || '-b', 'UTF8')), 'hex') AS new_tok2,
       encode(sha256(convert_to('sk-rot-' || :'round', 'UTF8')), 'hex') AS rot_tok,
       encode(sha256(convert_to('sk-auto-' || :'round', 'UTF8')), 'hex') AS auto_tok \gset
CREATE FUNCTION pg_temp.utc() RETURNS timestamp(3) LANGUAGE sql VOLATILE AS $$ SELECT (clock_timestamp() AT TIME ZONE 'UTC')::timestamp(3) $$;
CREATE FUNCTION pg_temp.noise(seed text, bytes int) RETURNS text LANGUAGE sql IMMUTABLE AS
  $$ SELECT left(string_agg(md5(seed || i), ''), bytes) FROM generate_series(1, bytes / 32 + 1) i $$;
-- rows this round works on: '' when there is none
SELECT coalesce((SELECT team_id FROM "LiteLLM_TeamTable" WHERE jsonb_array_length(members_with_roles) > 0 AND jsonb_typeof(members_with_roles) = 'array'
                 ORDER BY md5(:'tag' || team_id) LIMIT 1), '') AS team_a,
       coalesce((SELECT team_id FROM "LiteLLM_TeamTable" ORDER BY md5(:'tag' || 'b' || team_id) LIMIT 1), '') AS team_b,
       coalesce((SELECT organization_id FROM "LiteLLM_OrganizationTable" ORDER BY md5(:'tag' || organization_id) LIMIT 1), '') AS org_a,
       coalesce((SELECT user_id FROM "LiteLLM_UserTable" WHERE user_id NOT IN ('default_user_id', 'litellm-proxy-budget') ORDER BY md5(:'tag' || 'd' || user_id) LIMIT 1), '') AS del_user,
       coalesce((SELECT user_id FROM "LiteLLM_UserTable" WHERE user_id NOT IN ('default_user_id', 'litellm-proxy-budget') ORDER BY md5(:'tag' || 'e' || user_id) LIMIT 1), '') AS upd_user,
       coalesce((SELECT token FROM "LiteLLM_VerificationToken" WHERE pg_column_size(metadata) > 2000 ORDER BY md5(:'tag' || token) LIMIT 1), '') AS rot_key,
       coalesce((SELECT token FROM "LiteLLM_VerificationToken" WHERE token NOT LIKE 'litellm-%' ORDER BY md5(:'tag' || 'x' || token) LIMIT 1), '') AS key_x,
       coalesce((SELECT token FROM "LiteLLM_VerificationToken" WHERE token NOT LIKE 'litellm-%' ORDER BY md5(:'tag' || 'y' || token) LIMIT 1), '') AS key_y,
       coalesce((SELECT access_group_id FROM "LiteLLM_AccessGroupTable" ORDER BY md5(:'tag' || access_group_id) LIMIT 1), '') AS ag \gset
SELECT coalesce((SELECT e->>'user_id' FROM "LiteLLM_TeamTable" t, jsonb_array_elements(t.members_with_roles) e
                 WHERE t.team_id = :'team_a' AND e->>'user_id' IS NOT NULL AND e->>'user_id' <> :'del_user' ORDER BY md5(:'tag' || (e->>'user_id')) LIMIT 1), '') AS mover \gset

-- ============ /user/new {teams: [A], organizations: [O]}: user, key, then the team, then the organization
INSERT INTO "LiteLLM_UserTable" (user_id, user_email, user_role, models, teams, metadata, spend, max_budget, created_at, updated_at)
VALUES (:'new_user', 'New.' || :'tag' || '@Example.com', 'internal_user', ARRAY['gpt-4o'], ARRAY[]::text[], '{}', 0, 20, pg_temp.utc(), pg_temp.utc());
INSERT INTO "LiteLLM_VerificationToken" (token, key_name, user_id, models, spend, metadata, created_by, created_at, updated_at)
VALUES (:'new_tok', 'sk-...abcd', :'new_user', ARRAY['gpt-4o'], 0, '{}', 'default_user_id', pg_temp.utc(), pg_temp.utc());
BEGIN;  -- /team/member_add
SELECT pg_advisory_xact_lock(hashtext(:'team_a')) IS NULL \g /dev/null
SELECT user_id FROM "LiteLLM_UserTable" WHERE user_id = :'new_user' FOR UPDATE \g /dev/null
INSERT INTO "LiteLLM_UserTable" (user_id, teams, models, user_role) VALUES (:'new_user', ARRAY[:'team_a'], ARRAY[]::text[], 'internal_user')
  ON CONFLICT (user_id) DO UPDATE SET user_id = EXCLUDED.user_id, updated_at = pg_temp.utc();       -- an UPDATE that changes nothing but updated_at
UPDATE "LiteLLM_UserTable" SET teams = teams || :'team_a'::text, updated_at = pg_temp.utc() WHERE user_id = :'new_user' AND NOT (:'team_a' = ANY(teams));
INSERT INTO "LiteLLM_TeamMembership" (user_id, team_id) VALUES (:'new_user', :'team_a') ON CONFLICT DO NOTHING;
UPDATE "LiteLLM_TeamTable" SET members_with_roles = members_with_roles || jsonb_build_array(jsonb_build_object('user_id', :'new_user', 'user_email', 'New.' || :'tag' || '@Example.com', 'role', 'user')), updated_at = pg_temp.utc()
  WHERE team_id = :'team_a';
COMMIT;
INSERT INTO "LiteLLM_OrganizationMembership" (user_id, organization_id, user_role, created_at, updated_at)
  SELECT :'new_user', :'org_a', 'internal_user', pg_temp.utc(), pg_temp.utc() WHERE :'org_a' <> '';

-- ============ /team/new with one member, then /team/update (alias, models, budget)
BEGIN;
INSERT INTO "LiteLLM_TeamTable" (team_id, team_alias, members_with_roles, admins, members, models, metadata, max_budget, created_at, updated_at)
VALUES (:'new_team', 'Churn ' || :'tag' || ' 🧪', '[]', ARRAY[]::text[], ARRAY[]::text[], ARRAY['gpt-4o-mini'], '{}', 30, pg_temp.utc(), pg_temp.utc());
COMMIT;
BEGIN;
SELECT pg_advisory_xact_lock(hashtext(:'new_team')) IS NULL \g /dev/null
UPDATE "LiteLLM_UserTable" SET teams = teams || :'new_team'::text, updated_at = pg_temp.utc() WHERE user_id = :'new_user';
INSERT INTO "LiteLLM_TeamMembership" (user_id, team_id) VALUES (:'new_user', :'new_team');
UPDATE "LiteLLM_TeamTable" SET members_with_roles = jsonb_build_array(jsonb_build_object('user_id', :'new_user', 'user_email', NULL, 'role', 'admin')), updated_at = pg_temp.utc() WHERE team_id = :'new_team';
COMMIT;
UPDATE "LiteLLM_TeamTable" SET team_alias = 'Renamed ' || :'tag', models = ARRAY['gpt-4o', 'claude-sonnet'], max_budget = 99, updated_at = pg_temp.utc() WHERE team_id = :'new_team';
UPDATE "LiteLLM_TeamTable" SET organization_id = NULLIF(:'org_a', ''), updated_at = pg_temp.utc() WHERE team_id = :'new_team';      -- move the team into an organization

-- ============ move a user: /team/member_delete on A (takes the user's keys of that team with it), /team/member_add on B
BEGIN;
SELECT pg_advisory_xact_lock(hashtext(:'team_a')) IS NULL \g /dev/null
UPDATE "LiteLLM_TeamTable" SET members_with_roles = (SELECT coalesce(jsonb_agg(e ORDER BY o), '[]') FROM jsonb_array_elements(members_with_roles) WITH ORDINALITY x(e, o) WHERE e->>'user_id' IS DISTINCT FROM :'mover'),
       updated_at = pg_temp.utc() WHERE team_id = :'team_a' AND :'mover' <> '';
UPDATE "LiteLLM_UserTable" SET teams = array_remove(teams, :'team_a'), updated_at = pg_temp.utc() WHERE user_id = :'mover';
DELETE FROM "LiteLLM_TeamMembership" WHERE team_id = :'team_a' AND user_id = :'mover';
INSERT INTO "LiteLLM_DeletedVerificationToken" (id, token, key_name, key_alias, user_id, team_id, models, metadata, spend, deleted_at, deleted_by)
  SELECT gen_random_uuid(), token, key_name, key_alias, user_id, team_id, models, metadata, spend, pg_temp.utc(), 'default_user_id' FROM "LiteLLM_VerificationToken" WHERE user_id = :'mover' AND team_id = :'team_a';
DELETE FROM "LiteLLM_VerificationToken" WHERE user_id = :'mover' AND team_id = :'team_a';
COMMIT;
BEGIN;
SELECT pg_advisory_xact_lock(hashtext(:'team_b')) IS NULL \g /dev/null
UPDATE "LiteLLM_UserTable" SET teams = teams || :'team_b'::text, updated_at = pg_temp.utc() WHERE user_id = :'mover' AND NOT (:'team_b' = ANY(teams));
INSERT INTO "LiteLLM_TeamMembership" (user_id, team_id) SELECT :'mover', :'team_b' WHERE :'mover' <> '' ON CONFLICT DO NOTHING;
UPDATE "LiteLLM_TeamTable" SET members_with_roles = (CASE WHEN jsonb_typeof(members_with_roles) = 'array' THEN members_with_roles ELSE '[]' END)
         || jsonb_build_array(jsonb_build_object('user_id', :'mover', 'user_email', NULL, 'role', 'user')), updated_at = pg_temp.utc()
  WHERE team_id = :'team_b' AND :'mover' <> '' AND NOT members_with_roles @> jsonb_build_array(jsonb_build_object('user_id', :'mover'));
COMMIT;

-- ============ keys: /key/generate, /key/update (metadata grows past 8 kB), /key/block, /key/unblock, /key/delete
INSERT INTO "LiteLLM_VerificationToken" (token, key_name, key_alias, user_id, team_id, models, metadata, blocked, created_by, created_at, updated_at)
VALUES (:'new_tok2', 'sk-...wxyz', 'churn ' || :'tag', :'new_user', :'new_team', ARRAY['all-team-models'], '{}', NULL, :'new_user', pg_temp.utc(), pg_temp.utc());
UPDATE "LiteLLM_VerificationToken" SET metadata = jsonb_build_object('blob', pg_temp.noise(:'tag', 12000)), max_budget = 7, settings_updated_at = pg_temp.utc(), updated_at = pg_temp.utc() WHERE token = :'new_tok2';
UPDATE "LiteLLM_VerificationToken" SET blocked = true, settings_updated_at = pg_temp.utc(), updated_at = pg_temp.utc() WHERE token = :'key_x';
UPDATE "LiteLLM_VerificationToken" SET blocked = false, settings_updated_at = pg_temp.utc(), updated_at = pg_temp.utc() WHERE token = :'key_x';
INSERT INTO "LiteLLM_DeletedVerificationToken" (id, token, key_name, user_id, team_id, models, spend, deleted_at, deleted_by)
  SELECT gen_random_uuid(), token, key_name, user_id, team_id, models, spend, pg_temp.utc(), 'default_user_id' FROM "LiteLLM_VerificationToken" WHERE token = :'key_y';
DELETE FROM "LiteLLM_VerificationToken" WHERE token = :'key_y';
UPDATE "LiteLLM_AccessGroupTable" SET assigned_key_ids = array_remove(assigned_key_ids, :'key_y') WHERE :'key_y' = ANY(assigned_key_ids);

-- ============ /key/regenerate with grace_period: archive row, deprecated row, then UPDATE of the primary key; metadata is TOASTed and unchanged
INSERT INTO "LiteLLM_DeletedVerificationToken" (id, token, key_name, key_alias, user_id, team_id, models, metadata, spend, deleted_at, deleted_by)
  SELECT gen_random_uuid(), token, key_name, key_alias, user_id, team_id, models, metadata, spend, pg_temp.utc(), 'default_user_id' FROM "LiteLLM_VerificationToken" WHERE token = :'rot_key';
INSERT INTO "LiteLLM_DeprecatedVerificationToken" (id, token, active_token_id, revoke_at, created_at)
  SELECT gen_random_uuid(), :'rot_key', :'rot_tok', pg_temp.utc() + interval '24 hours', pg_temp.utc() WHERE :'rot_key' <> ''
  ON CONFLICT (token) DO UPDATE SET active_token_id = EXCLUDED.active_token_id, revoke_at = EXCLUDED.revoke_at;
UPDATE "LiteLLM_VerificationToken" SET token = :'rot_tok', key_name = 'sk-...rota', settings_updated_at = pg_temp.utc(), updated_at = pg_temp.utc() WHERE token = :'rot_key';
UPDATE "LiteLLM_AccessGroupTable" SET assigned_key_ids = array_append(array_remove(array_remove(assigned_key_ids, :'rot_key'), :'rot_tok'), :'rot_tok') WHERE :'rot_key' = ANY(assigned_key_ids);
-- auto-rotation = the same, without a grace period, plus a second UPDATE for the rotation fields
INSERT INTO "LiteLLM_DeletedVerificationToken" (id, token, key_name, user_id, models, spend, deleted_at, deleted_by, litellm_changed_by)
  SELECT gen_random_uuid(), token, key_name, user_id, models, spend, pg_temp.utc(), 'litellm_internal_jobs', 'litellm_internal_jobs' FROM "LiteLLM_VerificationToken" WHERE token = :'new_tok';
UPDATE "LiteLLM_VerificationToken" SET token = :'auto_tok', key_name = 'sk-...auto', settings_updated_at = pg_temp.utc(), updated_at = pg_temp.utc() WHERE token = :'new_tok';
UPDATE "LiteLLM_VerificationToken" SET rotation_count = coalesce(rotation_count, 0) + 1, last_rotation_at = pg_temp.utc(), key_rotation_at = pg_temp.utc() + interval '30 days', updated_at = pg_temp.utc() WHERE token = :'auto_tok';

-- ============ users: /user/update (e-mail, role), an SSO log-in (writes the same e-mail back), SCIM deactivation and its key blocks
UPDATE "LiteLLM_UserTable" SET user_email = 'Changed.' || :'tag' || '@Example.com', user_role = 'internal_user_viewer', updated_at = pg_temp.utc() WHERE user_id = :'new_user';
UPDATE "LiteLLM_UserTable" SET user_email = lower(user_email), updated_at = pg_temp.utc() WHERE user_id = :'upd_user';
UPDATE "LiteLLM_UserTable" SET metadata = metadata || '{"scim_active": false}', updated_at = pg_temp.utc() WHERE user_id = :'new_user';
UPDATE "LiteLLM_VerificationToken" SET blocked = true, metadata = metadata || '{"scim_blocked": true}', updated_at = pg_temp.utc() WHERE user_id = :'new_user' AND blocked IS NOT TRUE;
UPDATE "LiteLLM_UserTable" SET metadata = metadata - 'scim_active', updated_at = pg_temp.utc() WHERE user_id = :'new_user';
UPDATE "LiteLLM_VerificationToken" SET blocked = false, metadata = metadata - 'scim_blocked', updated_at = pg_temp.utc() WHERE user_id = :'new_user' AND blocked AND metadata ? 'scim_blocked';
-- UI log-in: a session key of the pretend team, 24 h
INSERT INTO "LiteLLM_VerificationToken" (token, key_name, user_id, team_id, models, expires, max_budget, created_at, updated_at)
VALUES (encode(sha256(convert_to('sk-ui-' || :'tag', 'UTF8')), 'hex'), 'sk-...uises', :'new_user', 'litellm-dashboard', ARRAY[]::text[], pg_temp.utc() + interval '24 hours', 1, pg_temp.utc(), pg_temp.utc());

-- ============ models: /model/new, /model/update with a rename (allow lists rewritten in one statement), /model/block, /model/delete
INSERT INTO "LiteLLM_ProxyModelTable" (model_id, model_name, litellm_params, model_info, created_by, updated_by, created_at, updated_at)
VALUES (md5('m' || :'tag')::uuid, 'churn-model-' || :'tag', '{"model": "ZW5jcnlwdGVk"}', '{"db_model": true, "access_groups": ["beta-models"]}', 'default_user_id', 'default_user_id', pg_temp.utc(), pg_temp.utc());
UPDATE "LiteLLM_TeamTable" SET models = models || ('churn-model-' || :'tag'), updated_at = pg_temp.utc() WHERE team_id = :'new_team';
UPDATE "LiteLLM_ProxyModelTable" SET model_name = 'renamed-model-' || :'tag', updated_at = pg_temp.utc() WHERE model_id = md5('m' || :'tag')::uuid::text;
WITH t AS (UPDATE "LiteLLM_TeamTable" SET models = array_replace(models, 'churn-model-' || :'tag', 'renamed-model-' || :'tag') WHERE 'churn-model-' || :'tag' = ANY(models) RETURNING 1),
     k AS (UPDATE "LiteLLM_VerificationToken" SET models = array_replace(models, 'churn-model-' || :'tag', 'renamed-model-' || :'tag') WHERE 'churn-model-' || :'tag' = ANY(models) RETURNING 1),
     o AS (UPDATE "LiteLLM_OrganizationTable" SET models = array_replace(models, 'churn-model-' || :'tag', 'renamed-model-' || :'tag') WHERE 'churn-model-' || :'tag' = ANY(models) RETURNING 1),
     p AS (UPDATE "LiteLLM_ProjectTable" SET models = array_replace(models, 'churn-model-' || :'tag', 'renamed-model-' || :'tag') WHERE 'churn-model-' || :'tag' = ANY(models) RETURNING 1),
     u AS (UPDATE "LiteLLM_UserTable" SET models = array_replace(models, 'churn-model-' || :'tag', 'renamed-model-' || :'tag') WHERE 'churn-model-' || :'tag' = ANY(models) RETURNING 1)
SELECT count(*) FROM (SELECT * FROM t UNION ALL SELECT * FROM k UNION ALL SELECT * FROM o UNION ALL SELECT * FROM p UNION ALL SELECT * FROM u) x \g /dev/null
UPDATE "LiteLLM_ProxyModelTable" SET blocked = true, updated_at = pg_temp.utc() WHERE model_id = md5('m' || :'tag')::uuid::text;
DELETE FROM "LiteLLM_ProxyModelTable" WHERE model_id = md5('m' || :'tag')::uuid::text;

-- ============ /v1/access_group update: group row and both mirrors in one transaction
BEGIN;
UPDATE "LiteLLM_AccessGroupTable" SET access_model_names = CASE WHEN 'gpt-4o' = ANY(access_model_names) THEN array_remove(access_model_names, 'gpt-4o') ELSE access_model_names || 'gpt-4o'::text END,
       assigned_team_ids = assigned_team_ids || :'new_team'::text, updated_at = pg_temp.utc() WHERE access_group_id = :'ag';
UPDATE "LiteLLM_TeamTable" SET access_group_ids = coalesce(access_group_ids, '{}') || :'ag'::text, updated_at = pg_temp.utc() WHERE team_id = :'new_team' AND :'ag' <> '';
COMMIT;

-- ============ a transaction that fails: must never be seen
BEGIN;
UPDATE "LiteLLM_UserTable" SET user_email = 'rolled-back@example.com', user_role = 'proxy_admin' WHERE user_id = :'new_user';
INSERT INTO "LiteLLM_TeamTable" (team_id, team_alias, models) VALUES ('rolled-back-' || :'tag', 'never', ARRAY[]::text[]);
ROLLBACK;

-- ============ spend flush (update_spend job): one transaction per table, one UPDATE per entity, rows in key order
SELECT set_config('churn.keys', :'flush_keys', false), set_config('churn.flushes', :'flushes', false), set_config('churn.tag', :'tag', false) \g /dev/null
CREATE TEMP TABLE IF NOT EXISTS _flush (token text, user_id text, team_id text, org_id text, cost float8);
DO $do$
DECLARE r record; f int; tag text := current_setting('churn.tag');
BEGIN
  FOR f IN 1 .. current_setting('churn.flushes')::int LOOP
    DELETE FROM _flush;
    INSERT INTO _flush SELECT v.token, v.user_id, v.team_id, coalesce(v.organization_id, t.organization_id), 0.0001 + random() / 50
      FROM "LiteLLM_VerificationToken" v LEFT JOIN "LiteLLM_TeamTable" t USING (team_id)
      WHERE (v.expires IS NULL OR v.expires > pg_temp.utc()) AND v.blocked IS NOT TRUE ORDER BY md5(tag || f || v.token) LIMIT current_setting('churn.keys')::int;
    COMMIT;
    FOR r IN SELECT user_id, sum(cost) AS c FROM _flush WHERE user_id IS NOT NULL GROUP BY 1 ORDER BY 1 LOOP
      UPDATE "LiteLLM_UserTable" SET spend = spend + r.c, updated_at = pg_temp.utc() WHERE user_id = r.user_id; END LOOP;
    COMMIT;
    FOR r IN SELECT token, sum(cost) AS c FROM _flush GROUP BY 1 ORDER BY 1 LOOP
      UPDATE "LiteLLM_VerificationToken" SET spend = spend + r.c, total_spend = total_spend + r.c, last_active = pg_temp.utc(), updated_at = pg_temp.utc() WHERE token = r.token; END LOOP;
    COMMIT;
    FOR r IN SELECT team_id, sum(cost) AS c FROM _flush WHERE team_id IS NOT NULL GROUP BY 1 ORDER BY 1 LOOP
      UPDATE "LiteLLM_TeamTable" SET spend = spend + r.c, updated_at = pg_temp.utc() WHERE team_id = r.team_id; END LOOP;
    COMMIT;
    -- members: one INSERT .. ON CONFLICT for all of them; may create a row for a rostered member who had none
    INSERT INTO "LiteLLM_TeamMembership" (user_id, team_id, spend, total_spend)
      SELECT m.user_id, m.team_id, m.c, m.c FROM (SELECT user_id, team_id, sum(cost) AS c FROM _flush WHERE team_id IS NOT NULL AND user_id IS NOT NULL GROUP BY 1, 2) m
      WHERE EXISTS (SELECT 1 FROM "LiteLLM_TeamTable" t WHERE t.team_id = m.team_id AND t.members_with_roles @> jsonb_build_array(jsonb_build_object('user_id', m.user_id)))
         OR EXISTS (SELECT 1 FROM "LiteLLM_TeamMembership" x WHERE x.user_id = m.user_id AND x.team_id = m.team_id)
      ON CONFLICT (user_id, team_id) DO UPDATE SET spend = "LiteLLM_TeamMembership".spend + EXCLUDED.spend,
        total_spend = GREATEST("LiteLLM_TeamMembership".total_spend, "LiteLLM_TeamMembership".spend) + EXCLUDED.total_spend;
    COMMIT;
    FOR r IN SELECT org_id, sum(cost) AS c FROM _flush WHERE org_id IS NOT NULL GROUP BY 1 ORDER BY 1 LOOP
      UPDATE "LiteLLM_OrganizationTable" SET spend = spend + r.c, updated_at = pg_temp.utc() WHERE organization_id = r.org_id; END LOOP;
    COMMIT;
    FOR r IN SELECT org_id, user_id, sum(cost) AS c FROM _flush WHERE org_id IS NOT NULL AND user_id IS NOT NULL GROUP BY 1, 2 ORDER BY 1, 2 LOOP
      UPDATE "LiteLLM_OrganizationMembership" SET spend = spend + r.c, updated_at = pg_temp.utc() WHERE organization_id = r.org_id AND user_id = r.user_id; END LOOP;
    COMMIT;
    -- daily rollup: 100 rows a statement, a transaction each
    INSERT INTO "LiteLLM_DailyUserSpend" (id, user_id, date, api_key, model, model_group, custom_llm_provider, mcp_namespaced_tool_name, endpoint, prompt_tokens, completion_tokens, spend, api_requests, successful_requests, updated_at)
      SELECT gen_random_uuid(), coalesce(user_id, ''), to_char(pg_temp.utc(), 'YYYY-MM-DD'), token, 'gpt-4o-2024-11-20', 'gpt-4o', 'openai', '', '/chat/completions', 200, 100, cost, 1, 1, pg_temp.utc() FROM _flush LIMIT 100
      ON CONFLICT (user_id, date, api_key, model, custom_llm_provider, mcp_namespaced_tool_name, endpoint) DO UPDATE SET spend = "LiteLLM_DailyUserSpend".spend + EXCLUDED.spend,
        api_requests = "LiteLLM_DailyUserSpend".api_requests + 1, updated_at = EXCLUDED.updated_at;
    COMMIT;
    -- request log, 100 rows a statement
    INSERT INTO "LiteLLM_SpendLogs" (request_id, call_type, api_key, spend, "startTime", "endTime", model, "user", team_id, metadata, status, created_at, updated_at)
      SELECT 'chatcmpl-' || gen_random_uuid(), 'acompletion', token, cost, pg_temp.utc(), pg_temp.utc(), 'gpt-4o', coalesce(user_id, ''), team_id,
             jsonb_build_object('user_api_key', token, 'pad', pg_temp.noise(token || f, 900)), 'success', pg_temp.utc(), pg_temp.utc() FROM _flush LIMIT 100;
    COMMIT;
  END LOOP;
END $do$;
-- retention: 1,000 rows a statement
DELETE FROM "LiteLLM_SpendLogs" WHERE (request_id) IN (SELECT request_id FROM "LiteLLM_SpendLogs" WHERE "startTime" < pg_temp.utc() - interval '3 days' LIMIT 1000);

-- ============ budget reset (every ~10 minutes): keys, users, teams by decrement, then the budget-table cascade in one transaction
BEGIN;
UPDATE "LiteLLM_VerificationToken" SET spend = spend - spend, budget_reset_at = pg_temp.utc() + interval '30 days', updated_at = pg_temp.utc()
  WHERE token IN (SELECT token FROM "LiteLLM_VerificationToken" WHERE budget_duration IS NOT NULL ORDER BY md5(:'tag' || token) LIMIT 20);
COMMIT;
BEGIN;
UPDATE "LiteLLM_UserTable" SET spend = spend - spend, budget_reset_at = pg_temp.utc() + interval '30 days', updated_at = pg_temp.utc()
  WHERE user_id IN (SELECT user_id FROM "LiteLLM_UserTable" WHERE budget_duration IS NOT NULL ORDER BY md5(:'tag' || user_id) LIMIT 10);
COMMIT;
BEGIN;
UPDATE "LiteLLM_TeamMembership" SET total_spend = spend WHERE budget_id = ANY(ARRAY['free-tier']) AND spend > total_spend;
UPDATE "LiteLLM_TeamMembership" SET spend = 0 WHERE budget_id = 'free-tier';
UPDATE "LiteLLM_VerificationToken" SET spend = 0, updated_at = pg_temp.utc() WHERE budget_id = 'free-tier' AND budget_duration IS NULL AND spend > 0;
UPDATE "LiteLLM_OrganizationTable" SET spend = 0, updated_at = pg_temp.utc() WHERE budget_id = 'free-tier' AND spend > 0;
UPDATE "LiteLLM_BudgetTable" SET budget_reset_at = pg_temp.utc() + interval '1 day', updated_at = pg_temp.utc() WHERE budget_id = 'free-tier';
COMMIT;

-- ============ /user/delete: keys go first and are NOT archived, then one transaction for the rest
DELETE FROM "LiteLLM_VerificationToken" WHERE user_id = :'del_user';
BEGIN;
SELECT pg_advisory_xact_lock(hashtext(team_id)) IS NULL FROM "LiteLLM_TeamTable" WHERE members_with_roles @> jsonb_build_array(jsonb_build_object('user_id', :'del_user')) ORDER BY team_id \g /dev/null
UPDATE "LiteLLM_TeamTable" SET members_with_roles = (SELECT coalesce(jsonb_agg(e ORDER BY o), '[]') FROM jsonb_array_elements(members_with_roles) WITH ORDINALITY x(e, o) WHERE e->>'user_id' IS DISTINCT FROM :'del_user'), updated_at = pg_temp.utc()
  WHERE members_with_roles @> jsonb_build_array(jsonb_build_object('user_id', :'del_user'));
UPDATE "LiteLLM_UserTable" SET teams = ARRAY[]::text[], updated_at = pg_temp.utc() WHERE user_id = :'del_user';
DELETE FROM "LiteLLM_InvitationLink" WHERE user_id = :'del_user' OR created_by = :'del_user' OR updated_by = :'del_user';
DELETE FROM "LiteLLM_OrganizationMembership" WHERE user_id = :'del_user';
DELETE FROM "LiteLLM_TeamMembership" WHERE user_id = :'del_user';
DELETE FROM "LiteLLM_UserTable" WHERE user_id = :'del_user';
COMMIT;

-- ============ /team/delete of the team made above
INSERT INTO "LiteLLM_DeletedVerificationToken" (id, token, key_name, user_id, team_id, models, spend, deleted_at, deleted_by)
  SELECT gen_random_uuid(), token, key_name, user_id, team_id, models, spend, pg_temp.utc(), 'default_user_id' FROM "LiteLLM_VerificationToken" WHERE team_id = :'new_team';
DELETE FROM "LiteLLM_VerificationToken" WHERE team_id = :'new_team';
BEGIN;
SELECT pg_advisory_xact_lock(hashtext(:'new_team')) IS NULL \g /dev/null
INSERT INTO "LiteLLM_DeletedTeamTable" (id, team_id, team_alias, organization_id, members_with_roles, models, spend, deleted_at, deleted_by)
  SELECT gen_random_uuid(), team_id, team_alias, organization_id, members_with_roles, models, spend, pg_temp.utc(), 'default_user_id' FROM "LiteLLM_TeamTable" WHERE team_id = :'new_team';
DELETE FROM "LiteLLM_TeamTable" WHERE team_id = :'new_team';
UPDATE "LiteLLM_UserTable" SET teams = array_remove(teams, :'new_team') WHERE :'new_team' = ANY(teams);       -- raw SQL: updated_at untouched
DELETE FROM "LiteLLM_TeamMembership" WHERE team_id = :'new_team';
COMMIT;
UPDATE "LiteLLM_AccessGroupTable" SET assigned_team_ids = array_remove(assigned_team_ids, :'new_team') WHERE :'new_team' = ANY(assigned_team_ids);

-- ============ /organization/new, a team and a member in it, /organization/delete: four statements, four transactions, nothing archived,
-- user.teams and LiteLLM_TeamMembership keep pointing at the team that is gone
INSERT INTO "LiteLLM_BudgetTable" (budget_id, max_budget, created_by, updated_by, created_at, updated_at) VALUES ('ob-' || :'tag', 10, 'default_user_id', 'default_user_id', pg_temp.utc(), pg_temp.utc());
INSERT INTO "LiteLLM_OrganizationTable" (organization_id, organization_alias, budget_id, models, created_by, updated_by, created_at, updated_at)
VALUES (:'new_org', 'Churn org ' || :'tag', 'ob-' || :'tag', ARRAY['gpt-4o'], 'default_user_id', 'default_user_id', pg_temp.utc(), pg_temp.utc());
INSERT INTO "LiteLLM_OrganizationMembership" (user_id, organization_id, user_role, created_at, updated_at) SELECT user_id, :'new_org', 'org_admin', pg_temp.utc(), pg_temp.utc() FROM "LiteLLM_UserTable" WHERE user_id = :'new_user';
BEGIN;
INSERT INTO "LiteLLM_TeamTable" (team_id, team_alias, organization_id, members_with_roles, models, created_at, updated_at)
VALUES ('orgteam-' || :'tag', 'Org team ' || :'tag', :'new_org', jsonb_build_array(jsonb_build_object('user_id', :'new_user', 'user_email', NULL, 'role', 'admin')), ARRAY[]::text[], pg_temp.utc(), pg_temp.utc());
UPDATE "LiteLLM_UserTable" SET teams = teams || ('orgteam-' || :'tag'), updated_at = pg_temp.utc() WHERE user_id = :'new_user';
INSERT INTO "LiteLLM_TeamMembership" (user_id, team_id) VALUES (:'new_user', 'orgteam-' || :'tag');
COMMIT;
UPDATE "LiteLLM_UserTable" SET organization_id = :'new_org', updated_at = pg_temp.utc() WHERE user_id = :'new_user';
DELETE FROM "LiteLLM_TeamTable" WHERE organization_id = :'new_org';
DELETE FROM "LiteLLM_OrganizationMembership" WHERE organization_id = :'new_org';
DELETE FROM "LiteLLM_VerificationToken" WHERE organization_id = :'new_org';
DELETE FROM "LiteLLM_OrganizationTable" WHERE organization_id = :'new_org';     -- foreign key sets UserTable.organization_id to NULL: an UPDATE in the WAL nobody issued

-- ============ only LiteLLM 1.77.3: SCIM POST /Users for a known e-mail rewrites the user's primary key; the foreign key carries it into
-- LiteLLM_OrganizationMembership (part of that table's key), nothing carries it into keys, rosters or LiteLLM_TeamMembership
SELECT :legacy = 1 AS legacy_on \gset
\if :legacy_on
UPDATE "LiteLLM_UserTable" SET user_id = 'scim-' || :'tag' || '@idp.example', updated_at = pg_temp.utc() WHERE user_id = :'upd_user';
UPDATE "LiteLLM_UserTable" SET teams = teams || :'team_a'::text WHERE user_id = 'scim-' || :'tag' || '@idp.example';   -- and pushes a team twice
\endif
\unset QUIET
\echo litellm-churn.sql: round :round done
