"""A storm of calls to LiteLLM, while the daemon is killed again and again."""

import collections
import random
import struct
import threading
import time

from products import Daemon, LiteLlm, OpenWebUi

POLICY = '[models]\npoll_seconds = 2\n[brake]\npeople = 1000\n'
CALLERS, SECONDS, KILLS = 6, 75, 10
MODELS = ['gpt-4', 'gpt-3.5-turbo', 'claude-3', 'dall-e-3', 'openai/gpt-4o', 'research', 'all-proxy-models']


class Witness:
    """Reads the same publication through a slot of its own, and counts what LiteLLM committed."""

    def __init__(self, litellm, webui):
        self.source, self.target, self.slot = litellm, webui, f'witness_{litellm.url.rsplit("/", 1)[1]}'
        self.source.db.rows("select pg_create_logical_replication_slot(%s, 'pgoutput')", self.slot)

    def count(self, until):
        """Transactions and row changes since the slot was made that ended at or before a position."""
        high, low = (int(part, 16) for part in until.split('/'))
        limit, transactions, changes, inside = high << 32 | low, 0, 0, 0
        peek = """select data from pg_logical_slot_peek_binary_changes(%s, null, null,
                    'proto_version', '1', 'publication_names', 'litellm_webui_sync')"""
        for row in self.source.db.rows(peek, self.slot):
            data = bytes(row['data'])
            if data[:1] == b'B':
                inside = 0
            elif data[:1] in b'IUD':
                inside += 1
            elif data[:1] == b'C' and inside and struct.unpack('>Q', data[10:18])[0] <= limit:
                transactions, changes = transactions + 1, changes + inside
        return transactions, changes

    def look(self):
        """What the daemon says it has applied, and what it should have by its own position."""
        row = self.target.db.rows(
            'select transactions_applied as t, changes_applied as c, end_lsn::text as at from litellm_webui_sync.checkpoint'
        )[0]
        return (row['t'], row['c']), self.count(row['at'])

    def drop(self):
        self.source.db.rows('select pg_drop_replication_slot(%s)', self.slot)


class Caller(threading.Thread):
    """Somebody who administers LiteLLM in a hurry, with people of their own and teams everybody shares."""

    def __init__(self, litellm, number, seed, until):
        super().__init__(daemon=True)
        self.litellm, self.number, self.r, self.until = litellm, number, random.Random(seed * 100 + number), until
        self.people, self.keys, self.members, self.answers, self.next = [], [], [], collections.Counter(), 0

    def models(self):
        return self.r.sample(MODELS, self.r.randint(1, 3)) if self.r.random() < 0.8 else []

    def run(self):
        acts = [self.user_new] * 3 + [self.key_new] * 3 + [self.member_add] * 3 + [
            self.team_new, self.team_update, self.user_update, self.key_update, self.key_delete, self.key_block,
            self.member_delete, self.member_update, self.user_delete, self.chat,
        ]  # fmt: skip
        while time.monotonic() < self.until:
            path, body = self.r.choice(acts)() or (None, None)
            if path:
                try:
                    status, answer = self.litellm.call('POST', path, body)
                except OSError as e:
                    status, answer = type(e).__name__, {}
                self.answers[f'{path} {status}'] += 1
                if status == 200 and path == '/key/generate':
                    self.keys.append(answer['key'])
                if status == 200 and path == '/user/new':
                    self.people.append(body['user_id'])

    def user_new(self):
        self.next += 1
        u = f'storm-{self.number}-{self.next}'
        return '/user/new', dict(
            user_id=u,
            user_email=f'{u}@example.com',
            user_alias=f'Storm {self.number} {self.next}',
            models=self.models(),
            auto_create_key=self.r.random() < 0.3,
        )

    def team(self):
        return f'team-{self.r.randrange(8)}'

    def team_new(self):
        return '/team/new', dict(team_id=f'team-{self.number}-{self.r.randrange(99)}', team_alias='Of one', models=self.models())

    def team_update(self):
        return '/team/update', dict(team_id=self.team(), models=self.models(), team_alias=f'Team {self.r.randrange(99)}')

    def user_update(self):
        if self.people:
            u = self.r.choice(self.people)
            return '/user/update', dict(user_id=u, models=self.models(), user_alias=f'{u} {self.r.randrange(99)}')

    def user_delete(self):
        if len(self.people) > 5:
            return '/user/delete', dict(user_ids=[self.people.pop(self.r.randrange(len(self.people)))])

    def key_new(self):
        if self.people:
            team = {'team_id': self.team()} if self.r.random() < 0.4 else {}
            return '/key/generate', dict(user_id=self.r.choice(self.people), models=self.models(), **team)

    def key_update(self):
        if self.keys:
            return '/key/update', dict(key=self.r.choice(self.keys), models=self.models())

    def key_block(self):
        if self.keys:
            return self.r.choice(['/key/block', '/key/unblock']), dict(key=self.r.choice(self.keys))

    def key_delete(self):
        if self.keys:
            return '/key/delete', dict(keys=[self.keys.pop(self.r.randrange(len(self.keys)))])

    def member_add(self):
        if self.people:
            pair = self.team(), self.r.choice(self.people)
            self.members.append(pair)
            return '/team/member_add', dict(team_id=pair[0], member=dict(role='user', user_id=pair[1]))

    def member_delete(self):
        if self.members:
            team, user = self.members.pop(self.r.randrange(len(self.members)))
            return '/team/member_delete', dict(team_id=team, user_id=user)

    def member_update(self):
        if self.members:
            team, user = self.r.choice(self.members)
            return '/team/member_update', dict(team_id=team, user_id=user, allowed_models=self.models())

    def chat(self):
        if self.keys:
            body = {'model': self.r.choice(MODELS[:4]), 'messages': [{'role': 'user', 'content': 'Hello'}]}
            self.litellm.call('POST', '/v1/chat/completions', body, self.r.choice(self.keys))


def run(machine, provider, litellm, webui, args):
    check = machine.check
    litellm = LiteLlm(machine, provider, litellm)
    litellm.migrate()
    litellm.start()
    webui = OpenWebUi(machine, webui, f'{litellm.base}/v1', litellm.shared_key()).start().first_administrator()
    for i in range(8):
        litellm.post('/team/new', team_id=f'team-{i}', team_alias=f'Team {i}', models=[])
    daemon = Daemon(machine, litellm, webui, POLICY).start()
    daemon.check('status', '--wait', 'now')
    witness = Witness(litellm, webui)
    daemon.settle()
    applied, expected = witness.look()

    began = time.monotonic()
    callers = [Caller(litellm, i, args.seed, began + SECONDS) for i in range(CALLERS)]
    for c in callers:
        c.start()
    r, kills = random.Random(args.seed), 0
    while any(c.is_alive() for c in callers):
        time.sleep(r.uniform(0.3, 2 * SECONDS / KILLS - 0.3))
        if kills < KILLS:
            daemon.kill()
            kills += 1
            daemon.start()
    for c in callers:
        c.join()
    answers = sum((c.answers for c in callers), collections.Counter())
    print(f'     {sum(answers.values())} calls in {time.monotonic() - began:.0f} s:', dict(sorted(answers.items())))
    check(sum(n for what, n in answers.items() if what.endswith(' 200')) > 200, 'LiteLLM did most of it', answers)
    check(kills >= 5, f'the daemon was killed {kills} times')
    daemon.check('status', '--wait', 'now')
    daemon.check('verify')
    daemon.check('failures', 'list')
    applied_now, expected_now = witness.look()
    did = tuple(b - a for a, b in zip(applied, applied_now, strict=True))
    should = tuple(b - a for a, b in zip(expected, expected_now, strict=True))
    check(did == should and did[0] > 200, f'{did[0]} transactions and {did[1]} changes were applied, each exactly once', should)
    witness.drop()

    people = litellm.db.rows('select user_id, user_email from "LiteLLM_UserTable" where user_id like \'storm-%\' order by user_id')
    accounts = {e for e, a in webui.accounts().items() if a['role'] != 'pending'}
    check(
        accounts == {p['user_email'] for p in people},
        f'{len(people)} people have an account',
        accounts ^ {p['user_email'] for p in people},
    )
    some = r.sample(people, min(15, len(people)))
    wrong = []
    for p in some:
        told = daemon.access(p['user_email'])
        may = {m['model'] for m in told['models'] if m['may']}
        if not told['agrees'] or webui.models(p['user_email']) != may:
            wrong.append((p['user_id'], webui.models(p['user_email']), may))
    check(not wrong, f'{len(some)} of them see what they may', wrong)
    daemon.stop()
    webui.stop()
    litellm.stop()
