"""Budgets that end chats: people chat through Open WebUI with the key everybody shares until theirs is used up, and again once it is raised."""

import time

from products import HERE, Daemon, LiteLlm, OpenWebUi

POLICY = """
[models]
poll_seconds = 5
[access]
budgets = "enforce"
[budgets]
chats = "customer"
"""
MAPPING = """
  user_header_mappings:
    - {header_name: X-OpenWebUI-User-Email, litellm_user_role: customer}
"""
MODEL = 'gpt-4'
LITTLE = 0.0004  # dollars: a chat or two of the made-up provider
FLUSH = 60  # seconds: LiteLLM writes what was spent every five to ten, and more slowly on a busy machine


class Budgets:
    def __init__(self, machine, provider, litellm, webui):
        self.machine, self.check = machine, machine.check
        config = f'{machine.work}/litellm-with-mapping.yaml'
        with open(f'{HERE}/litellm/litellm.yaml') as theirs, open(config, 'w') as ours:
            # general_settings is what it ends with.
            ours.write(theirs.read().rstrip() + MAPPING)
        self.litellm = LiteLlm(machine, provider, litellm, config=config)
        self.litellm.migrate()
        self.litellm.start()
        key = self.litellm.shared_key()
        # Whoever signs up there by themselves may use it.
        self.webui = OpenWebUi(machine, webui, f'{self.litellm.base}/v1', key, env={'DEFAULT_USER_ROLE': 'user'}).start().first_administrator()
        self.daemon = Daemon(machine, self.litellm, self.webui, POLICY)

    def run(self):
        # In Open WebUI before LiteLLM knows of her: adopted.
        self.webui.call('POST', '/api/v1/auths/signin', {'email': '', 'password': ''}, email='adele@x.example')
        for name in ('paula', 'adele', 'rosa'):
            self.litellm.post(
                '/user/new', user_id=name, user_email=f'{name}@x.example', user_alias=name, max_budget=LITTLE if name != 'rosa' else 10
            )
        # With no key but the team's: another one would be a way around the member's budget.
        self.litellm.post('/user/new', user_id='tom', user_email='tom@x.example', user_alias='tom', auto_create_key=False)
        team = self.litellm.post('/team/new', team_alias='Spenders', models=[MODEL])['team_id']
        self.litellm.post('/team/member_add', team_id=team, member={'role': 'user', 'user_id': 'tom'}, max_budget_in_team=LITTLE)
        key = self.litellm.post('/key/generate', user_id='tom', team_id=team)['key']
        self.daemon.start()
        self.daemon.check('status', '--wait', 'now')
        for name in ('paula', 'adele', 'rosa', 'tom'):
            self.eventually(lambda name=name: MODEL in self.sees(name), f'{name} sees {MODEL}')

        for name in ('paula', 'adele'):
            self.spend(name, lambda name=name: self.chats(name))
            self.refused(name)
        self.spend('tom', lambda: self.litellm.chat(key, MODEL))
        self.refused('tom')
        self.check(self.chats('rosa'), 'rosa, who has a budget left, goes on chatting')
        said = self.daemon.ask('access', 'paula@x.example').stdout
        self.check('used up: budget of user paula' in said, '`access` says why', said)
        self.daemon.check('verify')

        # Killed in between: what is raised meanwhile counts at the next start.
        self.daemon.kill()
        for name in ('paula', 'adele'):
            self.litellm.post('/user/update', user_id=name, max_budget=10)
        self.daemon.start()
        self.litellm.post('/team/member_update', team_id=team, user_id='tom', max_budget_in_team=10)
        for name in ('paula', 'adele', 'tom'):
            self.eventually(lambda name=name: MODEL in self.sees(name), f'{name} sees {MODEL} again once the budget is raised')
            self.check(self.chats(name), f'{name} chats again')
        self.daemon.check('verify')
        said = self.daemon.ask('doctor').stdout
        self.check('budgets and chats: LiteLLM books chats under' in said, 'doctor says that chats count', said)

    def sees(self, name):
        models = self.webui.models(f'{name}@x.example')
        return models if isinstance(models, set) else set()

    def chats(self, name):
        status, answer = self.webui.chat(MODEL, self.webui.sign_in(f'{name}@x.example'))
        return status == 200 and 'Made-up answer' in str(answer)

    def spend(self, name, chat):
        began, asked = time.monotonic(), 0
        while self.sees(name) and time.monotonic() - began < FLUSH:
            if asked < 10:
                chat()
                asked += 1
            time.sleep(0.5)
        took = time.monotonic() - began
        self.check(not self.sees(name), f'{name} sees no model any more, after {asked} chats and {took:.0f} s', self.daemon.status())

    def refused(self, name):
        status, answer = self.webui.chat(MODEL, self.webui.sign_in(f'{name}@x.example'))
        self.check(status in (400, 403, 404) and 'Made-up' not in str(answer), f'Open WebUI refuses a chat of {name}', status, answer)

    def eventually(self, holds, what):
        began = time.monotonic()
        while not holds() and time.monotonic() - began < FLUSH:
            time.sleep(0.5)
        self.check(holds(), what, self.daemon.status())

    def end(self):
        self.daemon.stop()
        self.webui.stop()
        self.litellm.stop()


def run(machine, provider, litellm, webui):
    budgets = Budgets(machine, provider, litellm, webui)
    try:
        budgets.run()
    finally:
        budgets.end()
