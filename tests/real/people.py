"""What a hundred people may use: LiteLLM's own answers to each of their keys, `access`, and what Open WebUI shows them."""

import collections
import concurrent.futures
import time

from products import ADMIN, Daemon, LiteLlm, OpenWebUi
from rule import Rule
from world import World

POLICY = '[models]\npoll_seconds = 2\n[brake]\npeople = 100\n'


class People:
    def __init__(self, machine, provider, litellm, webui, args):
        self.machine, self.check = machine, machine.check
        self.litellm = LiteLlm(machine, provider, litellm)
        self.litellm.migrate()
        self.litellm.start()
        key = self.litellm.shared_key()
        self.webui = OpenWebUi(machine, webui, f'{self.litellm.base}/v1', key).start().first_administrator()
        self.daemon = Daemon(machine, self.litellm, self.webui, POLICY).start()
        self.daemon.check('status', '--wait', 'now')
        self.new = [int(n) for n in litellm.split('.')] >= [1, 110]
        self.world = World(self.litellm, args.seed, args.people, self.new)
        self.seen_before = set()

    def end(self):
        self.daemon.stop()
        self.webui.stop()
        self.litellm.stop()

    def served(self):
        """What LiteLLM serves, with the access groups of each."""
        served = collections.defaultdict(set)
        for m in self.litellm.call('GET', '/v1/model/info')[1]['data']:
            served[m['model_name']] |= set((m.get('model_info') or {}).get('access_groups') or [])
        listed = {m['id'] for m in self.litellm.call('GET', '/v1/models')[1]['data']}
        return {name: tags for name, tags in served.items() if name in listed}

    def ask(self, questions):
        """LiteLLM's answers to (key, model), as many at a time as it likes."""
        began = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            answers = dict(zip(questions, pool.map(lambda q: self.litellm.chat(*q), questions), strict=True))
        print(f'     LiteLLM was asked {len(questions)} times in {time.monotonic() - began:.0f} s', flush=True)
        return answers

    def probe(self, user_id, team_id):
        """A key that limits nothing."""
        return self.litellm.post('/key/generate', user_id=user_id, **({'team_id': team_id} if team_id else {}))['key']

    def compare(self, when):
        self.daemon.settle()
        time.sleep(3)  # the daemon asks LiteLLM for its models every two seconds; Open WebUI keeps a list for one
        self.daemon.settle()
        served = self.served()
        rule = Rule(self.litellm.db, served)
        people = {u: user for u, user in rule.users.items() if rule.active(user) and u.startswith('person-')}
        # First everything of ours, since the keys made for LiteLLM's answers change what people may use.
        sees = {u: self.webui.models(rule.email(user)) for u, user in people.items()}
        told = {u: self.daemon.access(rule.email(user)) for u, user in people.items()}
        self.personal_keys(rule, people, sees, when)
        self.accounts(rule, people, when)
        models = sorted(served)
        asked = [(u, k['team_id'], k, self.world.keys[k['token']]) for u, user in people.items() for k in rule.keys_of(user)]
        probes = [
            (u, t, None, self.probe(u, t))
            for u, user in people.items()
            if user['user_role'] != 'proxy_admin'
            for t in rule.open_paths(user)
        ]
        answers = self.ask([(key, m) for *_, key in asked + probes for m in models])
        if probes:
            self.litellm.post('/key/delete', keys=[key for *_, key in probes])
        named, wrong = collections.Counter(), []
        paths = collections.defaultdict(list)
        for u, team_id, row, key in asked + probes:
            paths[u].append((team_id, row, key))
        everything = self.webui.models(ADMIN)
        for u, user in people.items():
            # An administrator sees all there is, whatever the lists say.
            if user['user_role'] == 'proxy_admin':
                expected = everything
            else:
                expected = self.expected(rule, user, paths[u], answers, models, named)
            mine = sees[u] if isinstance(sees[u], set) else {f'refused: {sees[u]}'}
            said = {m['model'] for m in told[u]['models'] if m['may']}
            if mine != expected or not told[u]['agrees'] or user['user_role'] != 'proxy_admin' and said != mine:
                wrong.append(u)
                self.explain(rule, user, paths[u], answers, expected, mine, said, len(wrong) <= 5)
        sets = len(set(map(frozenset, (s for s in sees.values() if isinstance(s, set)))))
        none = sum(not s for s in sees.values())
        print('     LiteLLM answers and we do not allow, by name of the difference:', dict(named) or 'nowhere')
        self.check(
            not wrong,
            f'{len(people)} people see what LiteLLM answers to their {len(asked)} keys and on their {len(probes)} paths without one, '
            f'{len(models)} models, {when}: {sets} different sets, {none} people see none',
            wrong,
        )
        return rule, people, sees

    def expected(self, rule, user, paths, answers, models, named):
        """What LiteLLM answers on any path, but for the named differences."""
        may, reasons = set(), collections.defaultdict(set)
        for team_id, row, key in paths:
            for m in models:
                if answers[key, m][0]:
                    names = rule.denies(user, team_id, row, m)
                    if names:
                        reasons[m] |= names
                    else:
                        may.add(m)
        for m in reasons.keys() - may:
            for name in reasons[m]:
                named[name] += 1
        return may

    def explain(self, rule, user, paths, answers, expected, mine, said, at_length):
        print(
            f'     {user["user_id"]} ({user["user_role"]}, {user["models"]}): LiteLLM and the rule say {sorted(expected)}, '
            f'Open WebUI shows {sorted(mine)}, access says {sorted(said)}'
        )
        if not at_length:
            return
        for team_id, row, _ in paths:
            columns = ('models', 'aliases', 'blocked', 'expires', 'key_type', 'allowed_routes', 'access_group_ids', 'project_id')
            print(
                '       path',
                team_id,
                {c: str(row.get(c)) for c in columns if row.get(c)} if row else 'without a key',
                {
                    c: str(v)
                    for c, v in (rule.teams.get(team_id) or {}).items()
                    if c in ('models', 'organization_id', 'blocked', 'access_group_ids') and v
                },
            )
        for model in sorted((mine | said) ^ expected | mine ^ said)[:2]:
            print(
                '      ',
                model,
                *((team_id, *answers[key, model]) for team_id, _, key in paths if (key, model) in answers),
                sep='\n         ',
            )
            print(self.daemon.told(rule.email(user), model))

    def personal_keys(self, rule, people, sees, when):
        def alive(k):
            return (
                not k['blocked'] and (k['expires'] is None or k['expires'] >= now) and not k['metadata'].get('service_account_id')
            )

        now = self.litellm.db.one("select now() at time zone 'UTC'")
        should = {rule.email(user) for u, user in people.items() if any(map(alive, rule.keys_of(user)))}
        keys = {e: k for e, k in self.webui.keys().items() if e in {rule.email(u) for u in people.values()}}
        self.check(keys.keys() == should, f'{len(should)} people have a personal API key {when}', keys.keys() ^ should)
        wrong = [
            u
            for u, user in people.items()
            if rule.email(user) in keys and self.webui.models(token=keys[rule.email(user)]) != sees[u]
        ]
        self.check(not wrong, 'with each of these keys the list of models is the same', wrong)

    def accounts(self, rule, people, when):
        """The active accounts are the people, and who has left is refused."""
        active = {e for e, a in self.webui.accounts().items() if a['role'] != 'pending'}
        should = {rule.email(u) for u in people.values()}
        self.check(active == should, f'{len(should)} active accounts are the people of LiteLLM {when}', active ^ should)
        left = self.seen_before - should
        refused = [e for e in left if not isinstance(self.webui.models(e), set)]
        self.check(len(refused) == len(left), f'{len(left)} people who left are refused, old sessions too', left - set(refused))
        self.seen_before |= should
        for path in ('/api/v1/users/all', '/api/v1/groups/', '/api/v1/models/base'):
            status, answer = self.webui.call('GET', path, token=self.webui.tokens[ADMIN])
            self.check(status == 200, f"the administrator's {path}", status, answer)

    def use(self, rule, people, sees):
        """A chat with a model somebody may use and one they may not; then they are deactivated, and come back."""
        keys = self.webui.keys()
        user = next(u for u in sorted(people) if rule.email(people[u]) in keys and 1 < len(sees[u]) < 8)
        email = rule.email(people[user])
        token, key = self.webui.sign_in(email), keys[email]
        may, may_not = min(sees[user] - {'paused'}), min(rule.served.keys() - sees[user])
        for what, token_or_key, stream in (
            ('a session', token, False),
            ('a session, streamed', token, True),
            ('the personal API key', key, False),
        ):
            status, answer = self.webui.chat(may, token_or_key, stream)
            self.check(
                status == 200 and 'Made-up answer' in str(answer), f'a chat by {what} with a model that is allowed', status, answer
            )
            status, answer = self.webui.chat(may_not, token_or_key, stream)
            self.check(
                status in (400, 403, 404) and 'Made-up' not in str(answer),
                f'a chat by {what} with one that is not is refused',
                status,
                answer,
            )
        settings = {'ui': {'theme': 'dark', 'real': user}}
        self.check(self.webui.call('POST', '/api/v1/users/user/settings/update', settings, token)[0] == 200, 'settings are saved')
        chat = {'chat': {'title': 'to be kept', 'messages': [], 'history': {'messages': {}, 'currentId': None}}}
        self.check(self.webui.call('POST', '/api/v1/chats/new', chat, token)[0] == 200, 'a chat is saved')
        active = 'update "LiteLLM_UserTable" set metadata = metadata || %s where user_id = %s'
        self.litellm.db.rows(active, '{"scim_active": false}', user)
        self.daemon.settle()
        self.check(not isinstance(self.webui.models(token=token), set), 'somebody deactivated is refused, their old session too')
        self.check(not isinstance(self.webui.models(token=key), set), 'and their API key')
        self.litellm.db.rows(active, '{"scim_active": true}', user)
        self.daemon.settle()
        self.webui.tokens.pop(email)
        self.check(
            self.webui.models(email) == sees[user] == self.webui.models(token=key),
            'back again, they and their key see the same models',
        )
        again = self.webui.sign_in(email)
        kept = self.webui.call('GET', '/api/v1/users/user/settings', token=again)[1]
        self.check((kept or {}).get('ui', {}).get('real') == user, 'and their settings are there', kept)
        chats = self.webui.call('GET', '/api/v1/chats/', token=again)[1]
        self.check('to be kept' in [c['title'] for c in chats], 'and their chat', chats)

    def all(self, rounds):
        began = time.monotonic()
        self.world.fill()
        print(
            f'     made with {self.world.calls} calls in {time.monotonic() - began:.0f} s; refused by LiteLLM: {sum(self.world.refused.values())}'
        )
        for what, times in self.world.refused.most_common(6):
            print(f'       {times} times {what}')
        # It remembers rows for a minute, and some were changed behind its back.
        self.litellm.restart()
        self.use(*self.compare('at first'))
        for i in range(rounds):
            self.world.churn()
            self.compare(f'after changes, round {i + 1}')
        self.daemon.check('verify')
        self.daemon.check('failures', 'list')
        errors = self.machine.log(self.webui.name).count('Traceback (most recent call last)')
        self.check(not errors, 'Open WebUI logged no exception', errors)


def run(machine, provider, litellm, webui, args):
    people = People(machine, provider, litellm, webui, args)
    people.all(args.rounds)
    people.end()
