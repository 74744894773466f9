//! Many people with lists of models at every level, for figures about model access. Plain SQL, LiteLLM 1.110.2.

/// How many people there are.
pub const PEOPLE: u32 = 20_000;
/// How many of them are in team `t1`.
pub const BIG_TEAM: u32 = 5_000;

/// SQL for an empty LiteLLM 1.110.2: [`PEOPLE`] people, 400 teams (`t1` with [`BIG_TEAM`] of them), 40 organizations,
/// 40 models, three keys each, and lists at every level.
pub fn many_with_lists() -> String {
    with_lists(PEOPLE, BIG_TEAM)
}

/// The same of so many `people`, so many of them in team `t1`.
pub fn with_lists(people: u32, big_team: u32) -> String {
    let keys = 3 * people;
    format!(
        "insert into \"LiteLLM_ProxyModelTable\" (model_id, model_name, litellm_params, model_info, created_by, updated_by)
         select i::text, 'model-' || lpad(i::text, 2, '0'), '{{}}', jsonb_build_object('access_groups', jsonb_build_array('tag-' || i % 5)), '', ''
           from generate_series(1, 40) i;
         insert into \"LiteLLM_BudgetTable\" (budget_id, created_by, updated_by) select 'b' || i, '', '' from generate_series(1, 40) i;
         insert into \"LiteLLM_OrganizationTable\" (organization_id, organization_alias, budget_id, models, created_by, updated_by)
         select 'o' || i, 'Org ' || i, 'b' || i,
                case i % 3 when 0 then '{{}}' when 1 then array['model-0*', 'tag-1', 'tag-2'] else array['all-proxy-models'] end, '', ''
           from generate_series(1, 40) i;
         insert into \"LiteLLM_UserTable\" (user_id, user_email, user_role, models, created_at)
         select 'u' || i, 'u' || i || '@x.test', 'internal_user',
                case when i % 10 < 6 then array['no-default-models'] when i % 10 = 6 then array['model-' || lpad((1 + i % 40)::text, 2, '0'), 'tag-' || i % 7, 'model-' || i % 4 || '*'] else '{{}}' end,
                '2026-01-01'
           from generate_series(1, {people}) i;
         insert into \"LiteLLM_TeamTable\" (team_id, team_alias, organization_id, members_with_roles, models)
         select 't' || t, 'Team ' || t, case when t % 4 > 0 then 'o' || (1 + t % 40) end,
                (select coalesce(jsonb_agg(jsonb_build_object('user_id', 'u' || i, 'user_email', null, 'role', 'user')), '[]')
                   from generate_series(1, {people}) i
                  where case t when 1 then i <= {big_team} else i % 200 = t % 200 and i % 2 = t % 2 end),
                case t % 5 when 0 then '{{}}' when 1 then array['model-0*', 'model-1*', 'tag-4'] when 2 then array['tag-1', 'tag-2'] when 3 then array['model-2*'] else array['all-team-models'] end
           from generate_series(1, 400) t;
         insert into \"LiteLLM_VerificationToken\" (token, user_id, team_id, models)
         select encode(sha256(('k' || i)::bytea), 'hex'), 'u' || (1 + i % {people}), case when i % 3 = 0 then 't' || (1 + i % 400) end,
                case i % 4 when 0 then array['model-0*', 'model-1*', 'model-' || lpad((1 + i % 37)::text, 2, '0')] when 1 then array['tag-' || i % 5] else '{{}}' end
           from generate_series(1, {keys}) i;"
    )
}
