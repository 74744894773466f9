-- People for the demo: 3 organizations, 6 teams, 40 people, 8 keys, 4 models. Runs on: source, LiteLLM 1.110.2, an empty database.
-- Plain SQL. Key N is the string sk-demo-N, its row holds the sha256 of that. Everyone and every address is made up.
--
-- Awkward on purpose: addresses in mixed case (3, 12, 27), people without one (18, 31), two accounts with one address
-- in different case (5 and 36), a deactivated person (22), a team entry by e-mail only (research: 12), somebody in a team
-- whose account is gone (support: former-employee), two teams with one name in different case (platform, 'platform').
begin;

create temp table demo_person (
    n int primary key, name text, email text, role text, teams text[], organizations text[]
) on commit drop;
insert into demo_person values
    ( 1, 'Mara Lindqvist',      'mara.lindqvist@northwind.example',     'proxy_admin',          '{platform}',            '{northwind}'),
    ( 2, 'Tobias Okafor',       'tobias.okafor@northwind.example',      'internal_user',        '{platform,research}',   '{northwind}'),
    ( 3, 'Priya Raman',         'Priya.Raman@Northwind.example',        'internal_user',        '{research}',            '{northwind}'),
    ( 4, 'Jonas Weidmann',      'jonas.weidmann@northwind.example',     'internal_user',        '{platform}',            '{northwind}'),
    ( 5, 'Elena Castellanos',   'elena.castellanos@northwind.example',  'internal_user',        '{research}',            '{northwind}'),
    ( 6, 'Samuel Adeyemi',      'samuel.adeyemi@northwind.example',     'internal_user',        '{platform}',            '{northwind}'),
    ( 7, 'Ingrid Halvorsen',    'ingrid.halvorsen@northwind.example',   'internal_user_viewer', '{support}',             '{northwind}'),
    ( 8, 'Ravi Deshpande',      'ravi.deshpande@northwind.example',     'internal_user',        '{support}',             '{northwind}'),
    ( 9, 'Chloé Marchand',      'chloe.marchand@northwind.example',     'internal_user',        '{support,design}',      '{northwind}'),
    (10, 'Daniel Kowalczyk',    'daniel.kowalczyk@northwind.example',   'internal_user',        '{design}',              '{northwind}'),
    (11, 'Aisha Rahimi',        'aisha.rahimi@northwind.example',       'internal_user',        '{design}',              '{northwind}'),
    (12, 'Matteo Brambilla',    'Matteo.Brambilla@northwind.example',   'internal_user',        '{platform}',            '{northwind}'),
    (13, 'Hanna Virtanen',      'hanna.virtanen@northwind.example',     'internal_user',        '{platform,support}',    '{northwind}'),
    (14, 'Lucas Ferreira',      'lucas.ferreira@northwind.example',     'internal_user',        '{research}',            '{northwind}'),
    (15, 'Yuki Tanabe',         'yuki.tanabe@contoso.example',          'internal_user',        '{data}',                '{contoso}'),
    (16, 'Omar Haddad',         'omar.haddad@contoso.example',          'internal_user',        '{data}',                '{contoso}'),
    (17, 'Sofia Papadaki',      'sofia.papadaki@contoso.example',       'internal_user',        '{data,platform-2}',     '{contoso}'),
    (18, 'Build Service',       null,                                   'internal_user',        '{platform}',            '{}'),
    (19, 'Marek Novotný',       'marek.novotny@contoso.example',        'internal_user',        '{platform-2}',          '{contoso}'),
    (20, 'Grace Muthoni',       'grace.muthoni@contoso.example',        'internal_user',        '{platform-2}',          '{contoso}'),
    (21, 'Felix Baumgärtner',   'felix.baumgaertner@contoso.example',   'internal_user',        '{data}',                '{contoso}'),
    (22, 'Nadia Petrenko',      'nadia.petrenko@contoso.example',       'internal_user',        '{data}',                '{contoso}'),
    (23, 'Carlos Echeverría',   'carlos.echeverria@contoso.example',    'internal_user_viewer', '{data}',                '{contoso}'),
    (24, 'Mei-Ling Chou',       'meiling.chou@contoso.example',         'internal_user',        '{platform-2}',          '{contoso}'),
    (25, 'Patrick O''Rourke',   'patrick.orourke@contoso.example',      'internal_user',        '{platform-2}',          '{contoso}'),
    (26, 'Zeynep Arslan',       'zeynep.arslan@contoso.example',        'proxy_admin_viewer',   '{}',                    '{contoso}'),
    (27, 'Henrik Dahl',         'Henrik.DAHL@contoso.example',          'internal_user',        '{data}',                '{contoso}'),
    (28, 'Amara Nwosu',         'amara.nwosu@fabrikam.example',         'internal_user',        '{design}',              '{fabrikam}'),
    (29, 'Viktor Szabó',        'viktor.szabo@fabrikam.example',        'internal_user',        '{design}',              '{fabrikam}'),
    (30, 'Leila Mansouri',      'leila.mansouri@fabrikam.example',      'internal_user',        '{support}',             '{fabrikam}'),
    (31, 'Nightly Reports',     null,                                   null,                   '{}',                    '{}'),
    (32, 'Andrés Villalobos',   'andres.villalobos@fabrikam.example',   'internal_user',        '{support}',             '{fabrikam}'),
    (33, 'Freya Jørgensen',     'freya.jorgensen@fabrikam.example',     'internal_user',        '{support}',             '{fabrikam}'),
    (34, 'Kwame Boateng',       'kwame.boateng@fabrikam.example',       'internal_user',        '{research}',            '{fabrikam}'),
    (35, 'Sinéad Gallagher',    'sinead.gallagher@fabrikam.example',    'internal_user',        '{research}',            '{fabrikam,northwind}'),
    (36, 'Elena Castellanos',   'Elena.Castellanos@Northwind.Example',  'internal_user',        '{support}',             '{}'),
    (37, 'Dmitri Volkov',       'dmitri.volkov@fabrikam.example',       'internal_user',        '{platform}',            '{fabrikam}'),
    (38, 'Beatriz Almeida',     'beatriz.almeida@fabrikam.example',     'internal_user',        '{data}',                '{fabrikam}'),
    (39, 'Noah Rosenthal',      'noah.rosenthal@fabrikam.example',      'customer',             '{}',                    '{fabrikam}'),
    (40, 'Isla McTavish',       'isla.mctavish@fabrikam.example',       'internal_user',        '{design}',              '{fabrikam}');

create temp table demo_team (team_id text primary key, alias text, organization text, admin int, models text[]) on commit drop;
insert into demo_team values
    ('platform',   'Platform',          'northwind',  1, '{gpt-4o,gpt-4o-mini,claude-sonnet}'),
    ('research',   'Research',          'northwind',  2, '{}'),
    ('support',    'Customer Support',  'northwind',  7, '{gpt-4o-mini}'),
    ('design',     'Design Studio 🎨',  null,        10, '{gpt-4o}'),
    ('data',       'Data & Analytics',  'contoso',   15, '{all-proxy-models}'),
    ('platform-2', 'platform',          'contoso',   17, '{gpt-4o-mini}');

insert into public."LiteLLM_ProxyModelTable" (model_id, model_name, litellm_params, model_info, created_by, updated_by)
select 'demo-' || name, name, jsonb_build_object('model', provider || name), jsonb_build_object('id', 'demo-' || name, 'db_model', true),
       'default_user_id', 'default_user_id'
  from (values ('gpt-4o', 'openai/'), ('gpt-4o-mini', 'openai/'), ('claude-sonnet', 'anthropic/'), ('gemini-flash', 'gemini/')) as m (name, provider);

insert into public."LiteLLM_BudgetTable" (budget_id, max_budget, budget_duration, created_by, updated_by)
values ('demo-northwind', 2000, '30d', 'default_user_id', 'default_user_id'),
       ('demo-contoso',   1000, '30d', 'default_user_id', 'default_user_id'),
       ('demo-fabrikam',  null, null,  'default_user_id', 'default_user_id');

insert into public."LiteLLM_OrganizationTable" (organization_id, organization_alias, budget_id, models, created_by, updated_by)
values ('northwind', 'Northwind', 'demo-northwind', '{}',                   'default_user_id', 'default_user_id'),
       ('contoso',   'Contoso',   'demo-contoso',   '{gpt-4o,gpt-4o-mini}', 'default_user_id', 'default_user_id'),
       ('fabrikam',  'Fabrikam',  'demo-fabrikam',  '{}',                   'default_user_id', 'default_user_id');

insert into public."LiteLLM_UserTable" (user_id, user_alias, user_email, user_role, teams, models, spend, max_budget, budget_duration, budget_reset_at, metadata,
                                        created_at, updated_at)
select 'demo-user-' || to_char(n, 'FM00'), name, email, role, teams, '{}',
       -- Two are near their budgets (21, 30), one has used it up (27).
       case n when 21 then 46.2 when 27 then 52.75 when 30 then 41.5 else round((n * 37 % 100)::numeric / 7, 2) end, case when n % 3 = 0 then 50 end,
       case when n % 3 = 0 then '30d' end, case when n % 3 = 0 then timezone('UTC', date_trunc('day', now()) + interval '30 days') end,
       case when n = 22 then '{"scim_active": false}'::jsonb else '{}' end, timezone('UTC', now()), timezone('UTC', now())
  from demo_person;

insert into public."LiteLLM_TeamTable" (team_id, team_alias, organization_id, admins, members, members_with_roles, models, max_budget, metadata, created_at, updated_at)
select t.team_id, t.alias, t.organization, '{}', '{}',
       coalesce((select jsonb_agg(jsonb_build_object('user_id', 'demo-user-' || to_char(p.n, 'FM00'), 'user_email', p.email,
                                                     'role', case when p.n = t.admin then 'admin' else 'user' end) order by p.n)
                   from demo_person p where t.team_id = any (p.teams)), '[]')
       || case t.team_id
              when 'research' then '[{"user_id": null, "user_email": "matteo.brambilla@northwind.example", "role": "user"}]'::jsonb
              when 'support' then '[{"user_id": "former-employee", "user_email": null, "role": "user"}]'
              else '[]'
          end,
       t.models, case when t.organization is not null then 500 end, '{}', timezone('UTC', now()), timezone('UTC', now())
  from demo_team t;

insert into public."LiteLLM_TeamMembership" (user_id, team_id)
select 'demo-user-' || to_char(p.n, 'FM00'), team_id from demo_person p, unnest(p.teams) as team_id;

insert into public."LiteLLM_OrganizationMembership" (user_id, organization_id, user_role, created_at, updated_at)
select 'demo-user-' || to_char(p.n, 'FM00'), organization_id, case when p.n in (1, 15, 28) then 'org_admin' else 'internal_user' end,
       timezone('UTC', now()), timezone('UTC', now())
  from demo_person p, unnest(p.organizations) as organization_id;

insert into public."LiteLLM_VerificationToken" (token, key_name, key_alias, user_id, team_id, models, spend, max_budget, metadata, created_by, created_at, updated_at)
select encode(sha256(convert_to('sk-demo-' || k.n, 'UTF8')), 'hex'), 'sk-...mo-' || k.n, k.alias, k.user_id, k.team_id, k.models::text[],
       k.n * 0.5, 20, '{}', 'default_user_id', timezone('UTC', now()), timezone('UTC', now())
  from (values (1, 'mara laptop',      'demo-user-01', null,       '{}'),
               (2, 'tobias notebook',  'demo-user-02', 'research', '{all-team-models}'),
               (3, null,               'demo-user-03', null,       '{gpt-4o}'),
               (4, 'support bot',      null,           'support',  '{gpt-4o-mini}'),
               (5, 'yuki pipelines',   'demo-user-15', 'data',     '{all-team-models}'),
               (6, null,               'demo-user-22', null,       '{}'),
               (7, 'amara figma',      'demo-user-28', 'design',   '{gpt-4o}'),
               (8, 'nightly reports',  'demo-user-31', null,       '{gpt-4o-mini}')) as k (n, alias, user_id, team_id, models);

commit;
