"""The four scenarios of the integration guide people come from, call by call, with what it promises after each."""

import secrets

from products import Daemon, LiteLlm, OpenWebUi

POLICY = '[models]\npoll_seconds = 5\n'
COMPANY, AI, PRODUCT = 'Tech Company Inc', 'AI Research Team', 'Product Team'
ADVANCED, BASIC = ['gpt-4', 'claude-3', 'qwen3-omni-30b-thinking'], ['gpt-3.5-turbo']
ALICE, BOB, CAROL = 'alice.wang@techcompany.com', 'bob.chen@techcompany.com', 'carol.liu@techcompany.com'


class Scenarios:
    def __init__(self, machine, provider, litellm, webui):
        self.machine, self.check = machine, machine.check
        self.litellm = LiteLlm(machine, provider, litellm)
        self.litellm.migrate()
        self.litellm.start()
        key = self.litellm.shared_key()
        self.webui = OpenWebUi(machine, webui, f'{self.litellm.base}/v1', key).start().first_administrator()
        self.daemon = Daemon(machine, self.litellm, self.webui, POLICY).start()
        self.daemon.check('status', '--wait', 'now')
        self.minted = {}

    def end(self):
        self.daemon.stop()
        self.webui.stop()
        self.litellm.stop()

    def post(self, path, **body):
        """One call; the daemon has passed it when it returns."""
        answer = self.litellm.post(path, **body)
        self.daemon.settle()
        return answer

    def organization(self, alias, models):
        status, answer = self.litellm.call('POST', '/organization/new', {'organization_alias': alias, 'models': models})
        if status == 200:
            print('     POST /organization/new: 200')
            return answer['organization_id']
        print(f"     POST /organization/new: {status}, behind LiteLLM's licence: its rows are inserted with SQL")
        id, by = secrets.token_hex(8), dict(created_by='default_user_id', updated_by='default_user_id')
        self.litellm.db.insert('BudgetTable', budget_id=f'b-{id}', **by)
        self.litellm.db.insert(
            'OrganizationTable', organization_id=id, organization_alias=alias, budget_id=f'b-{id}', models=models, **by
        )
        return id

    def account(self, email, name, role, *groups):
        """Account, groups and personal key, as Open WebUI has them."""
        has = self.webui.accounts().get(email)
        self.check(
            has and (has['name'], has['role']) == (name, role),
            f'{email} has an account: "{name}", {role}',
            dict(has or {}) or 'none',
        )
        mine = {g for g, members in self.webui.groups().items() if email in members}
        self.check(mine == set(groups), f'{email} is in the groups {sorted(groups)}', sorted(mine))

    def key(self, email):
        """A personal key, the same all the time, and Open WebUI takes it."""
        key = self.webui.keys().get(email)
        self.check(key and key == self.minted.setdefault(email, key), f'{email} has a personal API key, always the same', bool(key))
        seen, by_key = self.webui.models(email), self.webui.models(token=key or 'none')
        self.check(seen == by_key, f'{email} sees the same models with it', seen, by_key)

    def sees(self, email, models):
        seen = self.webui.models(email)
        self.check(seen == set(models), f'{email} sees {sorted(models)}', seen, self.daemon.access(email))

    def everything(self):
        """All that LiteLLM serves."""
        return {m['id'] for m in self.litellm.call('GET', '/v1/models')[1]['data']}

    def one(self):
        org = self.organization(COMPANY, ['gpt-4', 'gpt-3.5-turbo', 'claude-3', 'qwen3-omni-30b-thinking'])
        self.daemon.settle()
        self.check(self.webui.groups().get(COMPANY) == set(), f'the group {COMPANY} is there, empty', self.webui.groups())
        self.ai = self.post('/team/new', team_alias=AI, organization_id=org, models=ADVANCED, max_budget=5000.0)['team_id']
        self.check(self.webui.groups().get(AI) == set(), f'the group {AI} is there, empty', self.webui.groups())
        self.product = self.post('/team/new', team_alias=PRODUCT, organization_id=org, models=BASIC, max_budget=1000.0)['team_id']
        self.check(self.webui.groups().get(PRODUCT) == set(), f'the group {PRODUCT} is there, empty', self.webui.groups())
        self.org = org

    def two(self):
        person = dict(user_role='internal_user', organization_id=self.org)
        self.post(
            '/user/new',
            user_id='ai_researcher_001',
            user_alias='Dr. Alice Wang',
            user_email=ALICE,
            team_id=self.ai,
            models=ADVANCED,
            max_budget=2000.0,
            **person,
        )
        self.account(ALICE, f'{AI}-Dr. Alice Wang', 'user', AI, COMPANY)
        self.sees(ALICE, ADVANCED)
        self.alice = self.post(
            '/key/generate',
            user_id='ai_researcher_001',
            key_alias='alice_primary_key',
            models=ADVANCED,
            max_budget=2000.0,
            duration=None,
        )['key']
        self.key(ALICE)
        self.sees(ALICE, ADVANCED)
        self.post(
            '/user/new',
            user_id='product_manager_001',
            user_alias='Bob Chen',
            user_email=BOB,
            team_id=self.product,
            models=BASIC,
            max_budget=500.0,
            **person,
        )
        self.account(BOB, f'{PRODUCT}-Bob Chen', 'user', PRODUCT, COMPANY)
        self.bob = self.post(
            '/key/generate',
            user_id='product_manager_001',
            key_alias='bob_limited_key',
            models=BASIC,
            max_budget=500.0,
            rpm_limit=20,
            duration='30d',
        )['key']
        self.key(BOB)
        self.sees(BOB, BASIC)
        self.post(
            '/user/new',
            user_id='system_admin_001',
            user_alias='Carol Liu',
            user_email=CAROL,
            user_role='proxy_admin',
            organization_id=self.org,
            models=['all-proxy-models'],
        )
        # No release of LiteLLM writes down the organization that /user/new names.
        self.account(CAROL, 'Carol Liu', 'admin')
        self.post(
            '/key/generate', user_id='system_admin_001', key_alias='carol_admin_key', models=['all-proxy-models'], duration=None
        )
        self.key(CAROL)
        self.sees(CAROL, self.everything())

    def chats(self, who, key, models):
        """LiteLLM itself and Open WebUI let somebody chat with the same models, and no other."""
        for model in sorted(self.everything()):
            direct = self.litellm.chat(key, model)[0]
            status, answer = self.webui.chat(model, self.webui.sign_in(who))
            through = status == 200 and 'Made-up answer' in str(answer)
            self.check(
                direct == through == (model in models),
                f'{who} may {"" if model in models else "not "}chat with {model}, in LiteLLM and in Open WebUI',
                direct,
                status,
                answer,
            )

    def three(self):
        for who, key, models in ((ALICE, self.alice, ADVANCED), (BOB, self.bob, BASIC)):
            status, answer = self.litellm.call('GET', '/v1/models', key=key)
            listed = {m['id'] for m in answer['data']} if status == 200 else status
            self.check(listed == set(models), f"LiteLLM lists {sorted(models)} for {who}'s key", listed)
            self.chats(who, key, models)

    def four(self):
        both = ['gpt-3.5-turbo', 'gpt-4']
        self.post('/user/update', user_id='product_manager_001', models=both)
        # His key still names one model, and it is what he has.
        self.sees(BOB, BASIC)
        temporary = self.post(
            '/key/generate',
            user_id='product_manager_001',
            key_alias='bob_temp_premium_key',
            models=both,
            max_budget=200.0,
            duration='7d',
        )['key']
        self.key(BOB)
        self.sees(BOB, both)
        self.chats(BOB, temporary, both)
        more = {'team_id': self.ai, 'models': [*ADVANCED, 'dall-e-3']}
        status, answer = self.litellm.call('POST', '/team/update', more)
        if status != 200:
            # The guide's organization does not have the model its team is given here.
            print(f'     POST /team/update: {status}, {str(answer)[:160]}')
            print('     The organization gets the model with SQL, LiteLLM starts again, and the call is made again')
            sql = 'update "LiteLLM_OrganizationTable" set models = array_append(models, \'dall-e-3\') where organization_id = %s'
            self.litellm.db.rows(sql, self.org)
            self.litellm.restart()  # it remembers organizations
            self.litellm.post('/team/update', **more)
        self.daemon.settle()
        # The team has a model more, Alice's own list and keys have not.
        self.sees(ALICE, ADVANCED)
        for user, email in (
            ('ai_researcher_002', 'david.kim@techcompany.com'),
            ('ai_researcher_003', 'emma.zhang@techcompany.com'),
        ):
            self.post('/user/new', user_id=user, user_email=email, team_id=self.ai, models=ADVANCED)
            self.account(email, email.split('@')[0], 'user', AI, COMPANY)
            self.post('/key/generate', user_id=user, key_alias=f'{user}_key', models=ADVANCED)
            self.key(email)
            self.sees(email, ADVANCED)
        groups = self.webui.groups()
        self.check(
            groups[AI] == {ALICE, 'david.kim@techcompany.com', 'emma.zhang@techcompany.com'}, f'three are in {AI}', groups[AI]
        )

    def all(self):
        for number, part in enumerate((self.one, self.two, self.three, self.four), 1):
            print(f'scenario {number}', flush=True)
            part()
        self.daemon.check('verify')


def run(machine, provider, litellm, webui):
    scenarios = Scenarios(machine, provider, litellm, webui)
    scenarios.all()
    scenarios.end()
