"""A made-up LiteLLM: models, organizations, teams, people and keys, and changes of all of them."""

import datetime
import random
import secrets

import psycopg2
import psycopg2.extras

EXTRA, UNGOVERNED = 'config-model', 'nobody-governs-this'  # in the policy's models.extra; in no table and no list
MODELS = {
    'gpt-4o': ['beta'],
    'gpt-4o-mini': [],
    'claude-3': ['premium', 'beta'],
    'claude-3-haiku': [],
    'mistral-large': ['premium'],
    'openai/o1': ['reasoning'],
    'openai/o3': ['reasoning'],
    'llama 3.1': [],
    'gemini-pro': [],
    'paused': ['beta'],
    'late': ['premium'],
}
OWN = {'private-1': 't1', 'private-2': 't2'}  # by public name: the team whose model it is
SERVED = [*MODELS, *OWN, EXTRA, UNGOVERNED]


def email_of(user):
    return (user['user_email'] or '').strip().lower()


class Db:
    def __init__(self, url):
        self.c = psycopg2.connect(url)
        self.c.autocommit = True
        self.cursor = self.c.cursor(cursor_factory=psycopg2.extras.RealDictCursor)

    def rows(self, sql, *args):
        self.cursor.execute(sql, args or None)
        return self.cursor.fetchall() if self.cursor.description else []

    def insert(self, table, **row):
        row = {k: psycopg2.extras.Json(v) if isinstance(v, dict) or k == 'members_with_roles' else v for k, v in row.items()}
        self.rows(f'insert into "LiteLLM_{table}" ({",".join(row)}) values ({",".join(["%s"] * len(row))})', *row.values())


class World:
    """Rows as LiteLLM writes them, by chance, but always the same for a seed."""

    BY = dict(created_by='x', updated_by='x')

    def __init__(self, db, seed, people):
        self.db, self.r, self.count, self.next_key = db, random.Random(seed), people, 0

    def names(self, *special):
        r = self.r
        return r.choice(
            [
                [],
                None,
                ['*'],
                ['all-proxy-models'],
                ['no-such-model'],
                ['openai/*'],
                ['claude*', 'gpt.4o'],
                ['beta'],
                ['premium', 'gemini-pro'],
                ['*o*', 'reasoning'],
            ]
            + [r.sample(sorted(MODELS), r.randint(1, 6)) for _ in range(6)]
            + [[EXTRA, 'gpt-4o', 'beta', 'private-1']]
            + list(special)
        )

    def fill(self):
        db, r = self.db, self.r
        for name, tags in MODELS.items():
            if name != 'late':
                self.model(name, tags, name == 'paused')
        self.model('gpt-4o', [], True)  # one deployment of two is blocked
        for name, team in OWN.items():
            db.insert(
                'ProxyModelTable',
                model_id=f'm-{name}',
                model_name=f'model_name_{team}_{name}',
                litellm_params={},
                model_info={'team_id': team, 'team_public_model_name': name, 'access_groups': ['own']},
                **self.BY,
            )
        for i in range(6):
            db.insert('BudgetTable', budget_id=f'ob{i}', **self.BY)
            db.insert(
                'OrganizationTable',
                organization_id=f'o{i}',
                organization_alias=f'Organization {i}',
                budget_id=f'ob{i}',
                models=self.names(),
                **self.BY,
            )
        for i in range(4):
            db.insert('BudgetTable', budget_id=f'mb{i}', allowed_models=self.names() or [], **self.BY)
            db.insert(
                'AccessGroupTable',
                access_group_id=f'g{i}',
                access_group_name=f'g{i}',
                access_model_names=r.sample(sorted(MODELS), 2),
                assigned_team_ids=[f't{i}'],
            )
            db.insert('ProjectTable', project_id=f'p{i}', project_alias=f'p{i}', models=self.names(), blocked=i == 3, **self.BY)
        alias = db.rows(
            "insert into \"LiteLLM_ModelTable\" (aliases, created_by, updated_by) values ('{\"gpt-4o\": \"claude-3\"}', 'x', 'x') returning id"
        )[0]['id']
        for i in range(14):
            db.insert(
                'TeamTable',
                team_id=f't{i}',
                team_alias=f'Team {i}',
                organization_id=f'o{r.randrange(6)}' if r.random() < 0.5 else None,
                models=self.names(['all-team-models'], ['no-default-models', 'gpt-4o'], ['own']),
                members_with_roles=[],
                blocked=i == 13,
                access_group_ids=[f'g{r.randrange(4)}'] if i % 4 == 0 else [],
                model_id=alias if i == 3 else None,
            )
        for n in range(self.count):
            self.person(n)

    def model(self, name, tags, blocked=False):
        self.db.insert(
            'ProxyModelTable',
            model_id=secrets.token_hex(8),
            model_name=name,
            litellm_params={},
            model_info={'access_groups': tags} if tags else {},
            blocked=blocked,
            **self.BY,
        )

    def person(self, n):
        db, r, u = self.db, self.r, f'person-{n}'
        email = None if n % 40 == 17 else f' Person.{n}@Example.com ' if n % 9 == 4 else f'person.{n}@example.com'
        db.insert(
            'UserTable',
            user_id=u,
            user_alias=f'Person {n}',
            user_email=email,
            user_role='proxy_admin' if n % 45 == 7 else 'internal_user',
            models=self.names(['no-default-models'], ['no-default-models', 'gpt-4o'], [], [], []),
            organization_id='o2' if n % 30 == 1 else None,
            metadata={'scim_active': False} if n % 50 == 23 else {},
            teams=[],
        )
        for o in r.sample(range(6), r.choice([0, 0, 1, 1, 2])):
            db.insert('OrganizationMembership', user_id=u, organization_id=f'o{o}', user_role='internal_user')
        teams = r.sample(range(14), r.choice([0, 0, 1, 1, 1, 2, 3]))
        for t in teams:
            self.join(u, email, f't{t}')
        for _ in range(r.choice([0, 0, 0, 1, 1, 2, 3])):
            self.key(u, r.choice([None] + [f't{t}' for t in teams] * 2 + ['t5']))

    def join(self, user, email, team):
        by_email = email and self.r.random() < 0.2
        entry = {'user_id': None if by_email else user, 'user_email': (email or '').upper() or None, 'role': 'user'}
        self.db.rows(
            'update "LiteLLM_TeamTable" set members_with_roles = members_with_roles || %s where team_id = %s',
            psycopg2.extras.Json([entry]),
            team,
        )
        self.db.rows('update "LiteLLM_UserTable" set teams = teams || %s::text where user_id = %s', team, user)
        self.db.insert(
            'TeamMembership', user_id=user, team_id=team, budget_id=f'mb{self.r.randrange(4)}' if self.r.random() < 0.25 else None
        )

    def leave(self, user, team):
        db = self.db
        email = email_of(db.rows('select user_email from "LiteLLM_UserTable" where user_id = %s', user)[0])
        db.rows(
            '''update "LiteLLM_TeamTable" set members_with_roles = coalesce((
                   select jsonb_agg(e) from jsonb_array_elements(members_with_roles) e
                    where e ->> 'user_id' is distinct from %s and lower(btrim(coalesce(e ->> 'user_email', '-'))) <> %s), '[]')
                where team_id = %s''',
            user,
            email,
            team,
        )
        db.rows('delete from "LiteLLM_TeamMembership" where user_id = %s and team_id = %s', user, team)
        db.rows('delete from "LiteLLM_VerificationToken" where user_id = %s and team_id = %s', user, team)

    def key(self, user, team):
        r, day, self.next_key = self.r, datetime.timedelta(days=1), self.next_key + 1
        now = datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None)
        self.db.insert(
            'VerificationToken',
            token=f'{self.next_key:064x}',
            user_id=user,
            team_id='litellm-dashboard' if r.random() < 0.08 else team,
            models=self.names(['all-team-models'], [], []),
            blocked=r.choice([None, None, False, False, True]),
            expires=r.choice([None, None, None, now + day, now - day]),
            key_type=r.choice([None, None, 'default', 'llm_api', 'management', 'read_only']),
            allowed_routes=r.choice(
                [[], [], [], ['llm_api_routes'], ['/chat/completions'], ['management_routes'], ['/v1/embeddings'], ['/v1/*']]
            ),
            aliases={'gpt-4o': 'gemini-pro'} if r.random() < 0.1 else {},
            project_id=f'p{r.randrange(4)}' if r.random() < 0.15 else None,
            access_group_ids=[f'g{r.randrange(4)}'] if r.random() < 0.2 else [],
        )

    def churn(self):
        db, r = self.db, self.r

        def some(table, column, count):
            return r.sample(sorted(x[column] for x in db.rows(f'select {column} from "LiteLLM_{table}"')), count)

        for table, column, count in (
            ('TeamTable', 'team_id', 6),
            ('OrganizationTable', 'organization_id', 2),
            ('UserTable', 'user_id', 12),
            ('VerificationToken', 'token', 8),
            ('ProjectTable', 'project_id', 1),
        ):
            for i in some(table, column, count):
                db.rows(f'update "LiteLLM_{table}" set models = %s where {column} = %s', self.names(), i)
        db.c.autocommit = False  # people change teams, in one transaction
        for u in some('UserTable', 'user_id', 12):
            user = db.rows('select user_email, teams from "LiteLLM_UserTable" where user_id = %s', u)[0]
            for t in user['teams'][:1]:
                self.leave(u, t)
            new = f't{r.randrange(14)}'
            if new not in user['teams']:
                self.join(u, user['user_email'], new)
        db.c.commit()
        db.c.autocommit = True
        for t in some('VerificationToken', 'token', 10):
            db.rows('update "LiteLLM_VerificationToken" set blocked = not coalesce(blocked, false) where token = %s', t)
        for t in some('VerificationToken', 'token', 3):
            db.rows(
                "update \"LiteLLM_VerificationToken\" set expires = now() at time zone 'UTC' - interval '1 hour' where token = %s",
                t,
            )
        for t in some('VerificationToken', 'token', 3):
            db.rows('delete from "LiteLLM_VerificationToken" where token = %s', t)
        for u in some('UserTable', 'user_id', 6):
            self.key(u, None)
        for name, blocked in (('claude-3-haiku', True), ('openai/o3', True), ('paused', False)):
            db.rows('update "LiteLLM_ProxyModelTable" set blocked = %s where model_name = %s', blocked, name)
        db.rows('delete from "LiteLLM_ProxyModelTable" where model_name = \'llama 3.1\'')
        self.model('late', MODELS['late'])
        db.rows("update \"LiteLLM_TeamTable\" set blocked = not blocked where team_id in ('t4', 't13')")
        db.rows(
            'update "LiteLLM_AccessGroupTable" set access_model_names = %s where access_group_id = \'g0\'', ['late', 'openai/o1']
        )
        left = "metadata -> 'scim_active' = 'false'"
        back = [x['user_id'] for x in db.rows(f'select user_id from "LiteLLM_UserTable" where {left} order by 1')]
        for u in r.sample(back, min(2, len(back))):
            db.rows("update \"LiteLLM_UserTable\" set metadata = metadata - 'scim_active' where user_id = %s", u)
        gone = some('UserTable', 'user_id', 10)
        for u in gone[:5]:
            for t in db.rows('select team_id from "LiteLLM_TeamMembership" where user_id = %s', u):
                self.leave(u, t['team_id'])
            for table in ('VerificationToken', 'OrganizationMembership', 'UserTable'):
                db.rows(f'delete from "LiteLLM_{table}" where user_id = %s', u)
        for u in gone[5:]:
            db.rows("update \"LiteLLM_UserTable\" set metadata = metadata || '{\"scim_active\": false}' where user_id = %s", u)
            db.rows('update "LiteLLM_VerificationToken" set blocked = true where user_id = %s', u)
        for u in some('UserTable', 'user_id', 2):
            db.rows(
                '''update "LiteLLM_UserTable" set user_email = 'new.' || user_id || '@example.com', user_role = 'internal_user'
                   where user_id = %s''',
                u,
            )
        for n in range(self.count, self.count + 6):
            self.person(n)
        self.count += 6
