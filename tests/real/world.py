"""A hundred people in LiteLLM, narrowed in every way: by its API, and with SQL where a licence or the API stands in the way."""

import collections
import hashlib
import random

# Besides those of litellm.yaml: name and access groups of the models in LiteLLM's database.
MODELS = {
    'gpt-4o-mini': ['beta'],
    'claude-3-haiku': [],
    'mistral-large': ['premium', 'beta'],
    'openai/o1': ['reasoning'],
    'llama 3.1': [],
    'paused': ['beta'],
}
CONFIG = ['gpt-4', 'gpt-3.5-turbo', 'claude-3', 'qwen3-omni-30b-thinking', 'dall-e-3', 'openai/gpt-4o']
ALL = [*CONFIG, *MODELS]
BY = dict(created_by='default_user_id', updated_by='default_user_id')


class World:
    """By chance, but always the same for a seed."""

    def __init__(self, litellm, seed, people, new):
        self.litellm, self.db, self.r, self.count = litellm, litellm.db, random.Random(seed), people
        self.new = new  # access groups, projects, what a member of a team may use: later releases only
        self.keys = {}  # by hash: the key itself
        self.refused, self.calls = collections.Counter(), 0

    def post(self, path, **body):
        """A call that LiteLLM may refuse, as it refuses people."""
        self.calls += 1
        status, answer = self.litellm.call('POST', path, body)
        if status in (200, 201):
            return answer
        self.refused[f'{path} {status} {str(answer)[:160]}'] += 1
        return None

    def names(self, *special):
        r = self.r
        return r.choice(
            [
                [],
                ['*'],
                ['all-proxy-models'],
                ['no-such-model'],
                ['openai/*'],
                ['claude*', 'gpt.4o*'],
                ['beta'],
                ['premium', 'dall-e-3'],
                ['research', 'gpt-4'],
                ['*o*', 'reasoning'],
                ['beta', '*mini', 'claude-3'],
            ]
            + [r.sample(sorted(ALL), r.randint(1, 6)) for _ in range(7)]
            + list(special)
        )

    def fill(self):
        r = self.r
        for name, tags in MODELS.items():
            row = self.litellm.model(name, tags)
            if name == 'paused':
                self.paused = row['model_id']
        self.organizations()
        self.groups = []
        for i in range(14):
            self.team(i)
        if self.new:
            for i in range(4):
                group = self.post(
                    '/v1/access_group',
                    access_group_name=f'Group {i}',
                    access_model_names=r.sample(sorted(ALL), 2),
                    assigned_team_ids=[f't{i}', f't{i + 4}'],
                )
                self.groups.append(group['access_group_id'])
        for n in range(self.count):
            self.person(n)
        self.by_hand()

    def organizations(self):
        for i in range(6):
            self.db.insert('BudgetTable', budget_id=f'ob{i}', **BY)
            self.db.insert(
                'OrganizationTable',
                organization_id=f'o{i}',
                organization_alias=f'Organization {i}',
                budget_id=f'ob{i}',
                models=[],
                **BY,
            )

    def team(self, i):
        aliases = {'model_aliases': {'gpt-4': 'claude-3'}} if i == 3 else {}
        self.post(
            '/team/new',
            team_id=f't{i}',
            team_alias=f'Team {i}',
            models=self.names(['all-team-models'], ['no-default-models', 'gpt-4'], ['all-proxy-models']),
            **({'organization_id': f'o{self.r.randrange(6)}'} if self.r.random() < 0.5 else {}),
            **aliases,
        )
        if i == 13:
            self.post('/team/block', team_id='t13')

    def person(self, n):
        r, u, email = self.r, f'person-{n}', f'person.{n}@example.com'
        # Added to a team by another spelling of their e-mail, somebody becomes two people in 1.77.3.
        email = email.title() if n % 9 == 4 else email
        self.post(
            '/user/new',
            user_id=u,
            user_alias=f'Person {n}',
            user_email=email,
            user_role='proxy_admin' if n % 45 == 7 else r.choice(['internal_user', 'internal_user', 'internal_user_viewer']),
            models=self.names(['no-default-models'], ['no-default-models', 'gpt-4'], [], [], []),
            auto_create_key=False,
        )
        teams = [f't{t}' for t in r.sample(range(14), r.choice([0, 0, 1, 1, 1, 2, 3]))]
        for t in teams:
            self.join(u, email, t)
        for _ in range(r.choice([0, 0, 0, 1, 1, 2, 3])):
            self.key(u, r.choice([None] + teams * 2 + ['t5']))
        if n % 10 == 3 and teams:
            self.key(u, teams[0], models=['all-team-models'])

    def join(self, user, email, team):
        who = {'user_email': email} if self.r.random() < 0.2 else {'user_id': user}
        self.post('/team/member_add', team_id=team, member={'role': 'user', **who})
        if self.new and self.r.random() < 0.25:
            self.post('/team/member_update', team_id=team, user_id=user, allowed_models=self.names() or ['gpt-4'])

    def key(self, user, team, **options):
        r = self.r
        more = dict(models=self.names(['all-team-models'], [], []))
        if team:
            more['team_id'] = team
        if self.new:
            more['key_type'] = r.choice(['default', 'default', 'default', 'llm_api', 'llm_api', 'management', 'read_only'])
            if r.random() < 0.2:
                more['access_group_ids'] = [r.choice(self.groups)]
        if r.random() < 0.12:
            more['aliases'] = {'gpt-4': 'gpt-4o-mini'}
        made = self.post('/key/generate', user_id=user, **{**more, **options})
        if made:
            self.keys[hashlib.sha256(made['key'].encode()).hexdigest()] = made['key']
            if r.random() < 0.12:
                self.post('/key/block', key=made['key'])
        return made

    def by_hand(self):
        """What the API does not write without a licence, or not any more: LiteLLM reads it all the same."""
        db, r = self.db, self.r
        set_models = 'update "LiteLLM_{}" set models = %s where {} = %s'
        for i in range(6):
            db.rows(set_models.format('OrganizationTable', 'organization_id'), self.names(), f'o{i}')
        for n in range(self.count):
            u = f'person-{n}'
            for o in r.sample(range(6), r.choice([0, 0, 0, 1, 1, 2])):
                db.insert('OrganizationMembership', user_id=u, organization_id=f'o{o}', user_role='internal_user')
            if n % 12 == 5:
                db.rows(set_models.format('UserTable', 'user_id'), None, u)
            if n % 30 == 1:
                db.rows('update "LiteLLM_UserTable" set organization_id = \'o2\' where user_id = %s', u)
            if n % 50 == 23 and self.new:
                db.rows('update "LiteLLM_UserTable" set metadata = \'{"scim_active": false}\' where user_id = %s', u)
        db.rows(set_models.format('TeamTable', 'team_id'), None, 't6')
        db.rows(
            """update "LiteLLM_TeamTable" set members_with_roles = (select jsonb_agg(e || '{"user_id": null}')
                 from jsonb_array_elements(members_with_roles) e) where team_id = 't8' and members_with_roles <> '[]'
                  and not exists (select from jsonb_array_elements(members_with_roles) e where e ->> 'user_email' is null)"""
        )
        tokens = [
            k['token'] for k in db.rows('select token from "LiteLLM_VerificationToken" order by token') if k['token'] in self.keys
        ]
        r.shuffle(tokens)
        for t in tokens[:6]:
            db.rows(set_models.format('VerificationToken', 'token'), None, t)
        for t in tokens[6:12]:
            db.rows(
                "update \"LiteLLM_VerificationToken\" set expires = now() at time zone 'UTC' - interval '1 hour' where token = %s",
                t,
            )
        for t in tokens[12:20]:
            routes = r.choice([['llm_api_routes'], ['/chat/completions'], ['management_routes'], ['/v1/embeddings'], ['/v1/*']])
            db.rows('update "LiteLLM_VerificationToken" set allowed_routes = %s where token = %s', routes, t)
        if not self.new:
            return
        self.post('/model/block', model_id=self.paused)
        for i in range(4):
            db.insert('ProjectTable', project_id=f'p{i}', project_alias=f'p{i}', models=self.names(), blocked=i == 3, **BY)
        for t in tokens[20:32]:
            db.rows('update "LiteLLM_VerificationToken" set project_id = %s where token = %s', f'p{r.randrange(4)}', t)

    def churn(self):
        """Changes, all by the API, which LiteLLM itself heeds at once."""
        r = self.r
        people = [f'person-{n}' for n in range(self.count)]
        teams = [f't{i}' for i in range(14)]
        for t in r.sample(teams, 6):
            self.post('/team/update', team_id=t, models=self.names())
        for u in r.sample(people, 15):
            self.post('/user/update', user_id=u, models=self.names() or ['*'])
        for key in r.sample(sorted(self.keys.values()), min(10, len(self.keys))):
            self.post('/key/update', key=key, models=self.names())
        for key in r.sample(sorted(self.keys.values()), min(6, len(self.keys))):
            self.post(r.choice(['/key/block', '/key/unblock']), key=key)
        for key in r.sample(sorted(self.keys.values()), min(5, len(self.keys))):
            self.post('/key/delete', keys=[key])
        for key in r.sample(sorted(self.keys.values()), min(4, len(self.keys))):
            # Whatever type it was made with.
            self.post('/key/update', key=key, allowed_routes=r.choice([['llm_api_routes'], ['info_routes']]))
        for u in r.sample(people, 12):
            teams_now = self.db.rows('select teams from "LiteLLM_UserTable" where user_id = %s', u)[0]['teams'] or []
            for t in teams_now[:1]:
                self.post('/team/member_delete', team_id=t, user_id=u)
            new = r.choice(teams)
            if new not in teams_now:
                self.post('/team/member_add', team_id=new, member={'role': 'user', 'user_id': u})
        for u in r.sample(people, 6):
            self.key(u, None)
        self.post('/team/block', team_id='t4')
        self.post('/team/unblock', team_id='t13')
        gone = r.sample(people, 4)
        self.post('/user/delete', user_ids=gone)
        if self.new:
            self.post('/model/unblock', model_id=self.paused)
        for n in range(self.count, self.count + 4):
            self.person(n)
        self.count += 4
