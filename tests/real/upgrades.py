"""LiteLLM and Open WebUI are upgraded while the daemon runs."""

import threading
import time

from products import Daemon, LiteLlm, OpenWebUi

POLICY = '[models]\npoll_seconds = 2\n'


class Upgrades:
    def __init__(self, machine, provider, old):
        self.machine, self.check = machine, machine.check
        self.litellm = LiteLlm(machine, provider, old[0])
        self.litellm.migrate()
        self.litellm.start()
        self.webui = OpenWebUi(machine, old[1], f'{self.litellm.base}/v1', self.litellm.shared_key()).start().first_administrator()
        self.daemon = Daemon(machine, self.litellm, self.webui, POLICY).start()
        self.daemon.check('status', '--wait', 'now')
        self.began, self.keys = self.daemon.process.pid, {}

    def fill(self):
        post = self.litellm.post
        self.org = post('/organization/new', organization_alias='Company', models=['gpt-4', 'gpt-3.5-turbo', 'claude-3'])[
            'organization_id'
        ]
        for i in range(3):
            post(
                '/team/new',
                team_id=f't{i}',
                team_alias=f'Team {i}',
                models=[['gpt-4'], [], ['claude-3', 'gpt-3.5-turbo']][i],
                organization_id=self.org,
            )
        for n in range(12):
            post('/user/new', user_id=f'u{n}', user_email=f'u{n}@example.com', user_alias=f'User {n}', auto_create_key=False)
            post('/team/member_add', team_id=f't{n % 3}', member={'role': 'user', 'user_id': f'u{n}'})
            if n % 2:
                post('/key/generate', user_id=f'u{n}', team_id=f't{n % 3}', models=['gpt-4', 'claude-3'])

    def same(self, when):
        """Everybody sees what they may, and keys are the ones they were."""
        self.daemon.check('status', '--wait', 'now')
        time.sleep(3)
        people = self.litellm.db.rows(
            'select user_id, user_email from "LiteLLM_UserTable" where user_id ~ \'^u[0-9]+$\' order by user_id'
        )
        wrong, sets = [], set()
        for p in people:
            told, seen = self.daemon.access(p['user_email']), self.webui.models(p['user_email'])
            may = {m['model'] for m in told['models'] if m['may']}
            sets.add(frozenset(may))
            if not told['agrees'] or seen != may:
                wrong.append((p['user_id'], seen, may, told['note']))
        self.check(
            not wrong and len(sets) > 2, f'{len(people)} people see what they may {when}: {len(sets)} different sets', wrong, sets
        )
        keys = self.webui.keys()
        changed = [e for e, k in self.keys.items() if keys.get(e) != k]
        self.check(not changed and len(keys) > 5, f'{len(keys)} personal API keys, the ones they were, {when}', changed)
        self.keys = keys
        wrong = [e for e, k in keys.items() if e.startswith('u') and self.webui.models(token=k) != self.webui.models(e)]
        self.check(not wrong, f'and they work {when}', wrong)
        groups = self.webui.groups()
        members = {f'u{n}@example.com' for n in range(0, 12, 3)}
        self.check(members <= groups.get('Team 0', set()) and len(groups) >= 4, f'the groups are there {when}', groups)
        began = time.monotonic()
        # What LiteLLM's migrations add is copied when they are over, up to a minute later.
        while self.daemon.ask('verify').returncode == 3 and time.monotonic() - began < 90:
            time.sleep(3)
        print(f'     verify was clean after {time.monotonic() - began:.0f} s', flush=True)
        self.daemon.check('verify')
        self.check(self.daemon.process.poll() is None and self.daemon.process.pid == self.began, f'it is the same process {when}')

    def change(self, n, when):
        """A new person, in a team, with a key, arrives in Open WebUI."""
        began = time.monotonic()
        self.litellm.post(
            '/user/new', user_id=f'u{n}', user_email=f'u{n}@example.com', user_alias=f'User {n}', auto_create_key=False
        )
        self.litellm.post('/team/member_add', team_id='t0', member={'role': 'user', 'user_id': f'u{n}'})
        self.litellm.post('/key/generate', user_id=f'u{n}', team_id='t0', models=['gpt-4', 'claude-3'])
        self.daemon.settle()
        email = f'u{n}@example.com'
        there = email in self.webui.accounts() and email in self.webui.groups().get('Team 0', ()) and email in self.webui.keys()
        self.check(there, f'somebody new arrives {when}, with group and key, in {time.monotonic() - began:.1f} s')
        seen = self.webui.models(email)
        self.check(seen == {'gpt-4'}, f'and sees the model of the team {when}', seen)

    def meanwhile(self, upgrade, version, when):
        """People come to LiteLLM during an upgrade, wherever it answers; the daemon has them all afterwards."""
        done, came, wanted = threading.Event(), [], 0

        def come():
            nonlocal wanted
            while not done.wait(0.2):
                wanted += 1
                user = f'during-{version}-{wanted}'
                body = {'user_id': user, 'user_email': f'{user}@example.com', 'auto_create_key': True}
                try:
                    if self.litellm.call('POST', '/user/new', body)[0] == 200:
                        came.append(body['user_email'])
                except OSError:
                    pass  # it does not run just now

        thread = threading.Thread(target=come, daemon=True)
        thread.start()
        try:
            upgrade(version)
        finally:
            done.set()
            thread.join()
        self.daemon.check('status', '--wait', 'now')
        accounts, keys = self.webui.accounts(), self.webui.keys()
        missing = [e for e in came if e not in accounts or e not in keys]
        self.check(
            came and not missing,
            f'{len(came)} of {wanted} people could come to LiteLLM during {when}, all have account and key',
            missing,
        )

    def open_webui(self, version):
        """Its own migrations, on tables the daemon writes to meanwhile."""
        self.webui.stop()
        self.webui.release(version)
        self.webui.start()

    def lite_llm(self, version):
        """The newer release's migrations on the database of the older, which still runs; then the newer is started on it."""
        self.litellm.release(version)
        began = time.monotonic()
        self.litellm.migrate()
        print(f'     the migrations to LiteLLM {version} took {time.monotonic() - began:.0f} s', flush=True)
        self.litellm.restart()

    def all(self, new):
        self.fill()
        self.same('at first')
        self.change(30, 'at first')
        self.meanwhile(self.lite_llm, new[0], "LiteLLM's upgrade")
        self.change(31, "after LiteLLM's upgrade")
        self.same("after LiteLLM's upgrade")
        self.meanwhile(self.open_webui, new[1], "Open WebUI's upgrade")
        self.change(32, "after Open WebUI's upgrade")
        self.same("after Open WebUI's upgrade")
        self.litellm.post('/user/delete', user_ids=['u1'])
        self.litellm.post('/team/member_update', team_id='t1', user_id='u4', allowed_models=['claude-3'])
        self.daemon.settle()
        time.sleep(2)
        self.check(not isinstance(self.webui.models('u1@example.com'), set), 'somebody deleted is refused')
        seen = self.webui.models('u4@example.com')
        self.check(seen == {'claude-3'}, 'a limit only the newer LiteLLM has narrows somebody', seen)
        self.daemon.check('verify')
        self.daemon.check('failures', 'list')
        errors = self.machine.log(self.webui.name).count('Traceback (most recent call last)')
        self.check(not errors, 'Open WebUI logged no exception', errors)
        self.daemon.stop()
        self.webui.stop()
        self.litellm.stop()


def run(machine, provider, old, new):
    Upgrades(machine, provider, old).all(new)
