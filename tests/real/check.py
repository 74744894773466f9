"""What tests/real/run runs: Open WebUI, the daemon and a made-up LiteLLM, and what people see compared with what they should."""

import argparse
import http.server
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

from rule import Rule
from stand_in import ANSWER, StandIn
from world import EXTRA, SERVED, Db, World, email_of

HEADER = 'X-Forwarded-Email'  # what a single sign-on proxy in front would set


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


class Run:
    def __init__(self, args):
        self.server, self.work, self.daemon = os.environ.pop('REAL_SERVER'), args.work, args.daemon
        self.base, self.started, self.failed, self.checks, self.compared = (f'http://127.0.0.1:{free_port()}', [], 0, 0, [])
        self.http = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        self.tokens, self.served = {}, set()

    def check(self, ok, what, *details):
        self.checks += 1
        self.failed += not ok
        print('ok  ' if ok else 'FAIL', what, *(details if not ok else ()), flush=True)
        return ok

    def start(self, name, command, env):
        log = open(f'{self.work}/{name}.log', 'wb')
        base = {k: os.environ[k] for k in ('PATH', 'LANG', 'LD_LIBRARY_PATH') if k in os.environ}  # no proxies, nobody's settings
        self.started.append(
            subprocess.Popen(
                command,
                env={**base, **env},
                cwd=self.work,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        )
        return self.started[-1]

    def stop(self):
        for p in reversed(self.started):
            p.terminate()
        for p in self.started:
            try:
                p.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(p.pid, signal.SIGKILL)
                p.wait()

    def call(self, method, path, body=None, token=None, email=None):
        headers = {
            'Content-Type': 'application/json',
            **({'Authorization': f'Bearer {token}'} if token else {}),
            **({HEADER: email} if email else {}),
        }
        request = urllib.request.Request(
            self.base + path, json.dumps(body).encode() if body is not None else None, headers, method=method
        )
        try:
            with self.http.open(request, timeout=60) as answer:
                text = answer.read().decode()
                return answer.status, json.loads(text) if 'json' in answer.headers.get('Content-Type', '') else text
        except urllib.error.HTTPError as e:
            return e.code, e.read().decode(errors='replace')[:200]

    def sign_in(self, email):
        status, who = self.call('POST', '/api/v1/auths/signin', {'email': '', 'password': ''}, email=email)
        return status, who['token'] if status == 200 and who['role'] != 'pending' else None

    def models(self, token):
        status, answer = self.call('GET', '/api/models', token=token)
        return {m['id'] for m in answer['data']} if status == 200 else status

    def sync(self, *command, expect=0):
        r = subprocess.run([self.daemon, *command], env=self.settings, capture_output=True, text=True, timeout=180)
        return self.check(
            r.returncode == expect,
            f'litellm-webui-sync {" ".join(command)} ends with {expect}',
            r.returncode,
            r.stdout[-3000:],
            r.stderr[-3000:],
        )

    def launch(self):
        """Open WebUI on an empty database, its first administrator, and the daemon on an empty LiteLLM."""
        stand_in = http.server.ThreadingHTTPServer(('127.0.0.1', 0), StandIn)
        threading.Thread(target=stand_in.serve_forever, daemon=True).start()
        models = f'http://127.0.0.1:{stand_in.server_address[1]}/v1'
        for d in ('data', 'home', 'static'):
            os.mkdir(f'{self.work}/{d}')
        began = time.monotonic()
        webui = self.start(
            'open-webui',
            [
                os.path.join(os.path.dirname(sys.executable), 'open-webui'),
                'serve',
                '--host',
                '127.0.0.1',
                '--port',
                self.base.rsplit(':', 1)[1],
            ],
            {
                'DATABASE_URL': f'{self.server}/webui',
                'DATA_DIR': f'{self.work}/data',
                'HOME': f'{self.work}/home',
                'STATIC_DIR': f'{self.work}/static',
                'WEBUI_SECRET_KEY': secrets.token_hex(32),
                'WEBUI_AUTH_TRUSTED_EMAIL_HEADER': HEADER,
                'BYPASS_MODEL_ACCESS_CONTROL': 'False',
                'ENABLE_API_KEYS': 'True',
                'USER_PERMISSIONS_FEATURES_API_KEYS': 'True',
                'OPENAI_API_BASE_URL': models,
                'OPENAI_API_KEY': 'x',
                'ENABLE_OLLAMA_API': 'False',
                'RAG_EMBEDDING_ENGINE': 'openai',
                'RAG_OPENAI_API_BASE_URL': models,
                'RAG_OPENAI_API_KEY': 'x',
                'AUDIO_STT_ENGINE': 'openai',
                'OFFLINE_MODE': 'True',
                'HF_HUB_OFFLINE': '1',
                'ENABLE_VERSION_UPDATE_CHECK': 'False',
                'ANONYMIZED_TELEMETRY': 'False',
                'DO_NOT_TRACK': 'true',
                'SCARF_NO_ANALYTICS': 'true',
            },
        )
        while True:
            try:
                if self.call('GET', '/health')[0] == 200:
                    break
            except OSError:
                pass
            if webui.poll() is not None or time.monotonic() - began > 300:
                sys.exit('Open WebUI did not start:\n' + open(f'{self.work}/open-webui.log', errors='replace').read()[-3000:])
            time.sleep(0.5)
        print(
            f'Open WebUI {self.call("GET", "/api/version")[1]["version"]} started in {time.monotonic() - began:.0f} s', flush=True
        )
        status, who = self.call(
            'POST',
            '/api/v1/auths/signup',
            {'name': 'Admin', 'email': 'admin@local.example', 'password': secrets.token_hex(12)},
            email='admin@local.example',
        )
        self.check(status == 200 and who['role'] == 'admin', 'the first sign-up is the administrator', status, who)
        self.admin = who['token']
        with open(f'{self.work}/policy.toml', 'w') as policy:
            policy.write(f'[models]\nextra = ["{EXTRA}"]\n[brake]\npeople = 100\n')
        self.settings = {
            'LITELLM_DATABASE_URL': f'{self.server}/litellm',
            'WEBUI_DATABASE_URL': f'{self.server}/webui',
            'LITELLM_WEBUI_SYNC_CONFIG': f'{self.work}/policy.toml',
            'LITELLM_WEBUI_SYNC_HTTP': f'127.0.0.1:{free_port()}',
        }
        self.start('daemon', [self.daemon, 'run'], self.settings)
        self.litellm, self.webui = Db(f'{self.server}/litellm'), Db(f'{self.server}/webui')
        self.sync('status', '--wait', 'now')

    def compare(self, when):
        """Everybody signs in and looks at the list of models; who has left cannot."""
        self.sync('status', '--wait', 'now')
        time.sleep(2)  # Open WebUI keeps a list of models for a second
        rule = Rule(self.litellm)
        serves = {name for name, _, _ in rule.served}
        self.served |= serves
        people, wrong, refused = rule.people(self.served - serves), 0, 0
        for user_id, expected in people.items():
            status, token = self.sign_in(email_of(rule.users[user_id]))
            seen = self.models(token) if token else f'sign-in {status}'
            if seen != expected:
                wrong += 1
                print(f'     {user_id}: should see {sorted(expected)}, sees {sorted(seen) if isinstance(seen, set) else seen}')
                if wrong <= 3 and isinstance(seen, set):
                    model = min(seen ^ expected)
                    print(f'     {model}; LiteLLM has:', *rule.about(rule.users[user_id]), sep='\n       ')
                    print(
                        subprocess.run(
                            [self.daemon, 'access', email_of(rule.users[user_id]), model],
                            env=self.settings,
                            capture_output=True,
                            text=True,
                        ).stdout
                    )
            if token:
                self.tokens[user_id] = (email_of(rule.users[user_id]), token)
        self.compared.append(f'{len(people)} people {when}, {wrong} wrong')
        self.check(
            not wrong,
            f'{len(people)} people see what they may {when}: {len(set(map(frozenset, people.values())))} different sets, '
            f'{sum(not m for m in people.values())} people see none',
        )
        for user_id in set(self.tokens) - set(people):
            email, token = self.tokens[user_id]
            refused += self.is_out(email, token)
        gone = len(set(self.tokens) - set(people))
        self.check(refused == gone, f'{gone} people who left are refused, old sessions too', refused)
        keys = {r['user_id']: r['key'] for r in self.webui.rows('select user_id, key from api_key')}
        have, should = {u for u in people if 'usr_' + u in keys}, rule.with_key(people)
        self.check(
            have == should,
            f'{len(should)} people have a personal API key {when}',
            'only there:',
            have - should,
            'missing:',
            should - have,
        )
        wrong = [u for u in sorted(have) if self.models(keys['usr_' + u]) != people[u]]
        self.check(not wrong, 'with each of these keys the list of models is the same', wrong)
        for path in (
            '/api/v1/users/?page=1',
            '/api/v1/users/all',
            '/api/v1/groups/',
            '/api/v1/models/list',
            '/api/v1/models/base',
            '/api/models',
        ):
            status, answer = self.call('GET', path, token=self.admin)
            self.check(status == 200, f'the administrator\'s {path}', status, answer)
        shown = self.call('GET', '/api/v1/users/all', token=self.admin)[1]
        accounts = {u['email'] for u in shown['users'] if u['role'] != 'pending'} - {'admin@local.example'}
        should = {email_of(rule.users[u]) for u in people}
        self.check(accounts == should, f'{len(should)} active accounts are the people of LiteLLM {when}', accounts ^ should)
        return rule, people, keys

    def is_out(self, email, token):
        return self.sign_in(email)[1] is None and self.call('GET', '/api/models', token=token)[0] in (401, 403)

    def use(self, rule, people, keys):
        """A chat with a model somebody may use and one they may not; then they are deactivated, and come back."""
        user = next(u for u in sorted(people) if 'usr_' + u in keys and 1 < len(people[u]) < 8)
        email, token = self.tokens[user]
        may, may_not = min(people[user]), min(set(SERVED) - people[user])

        def chat(model, stream=False, token=token):
            body = {'model': model, 'stream': stream, 'messages': [{'role': 'user', 'content': 'hello'}]}
            return self.call('POST', '/api/chat/completions', body, token)

        for stream in (False, True):
            status, answer = chat(may, stream)
            self.check(
                status == 200 and ANSWER in str(answer),
                f'a chat with a model that is allowed, {"" if stream else "not "}streamed',
                status,
                answer,
            )
            status, answer = chat(may_not, stream)
            self.check(
                status in (400, 403, 404) and ANSWER not in str(answer), 'a chat with one that is not is refused', status, answer
            )
        key = keys['usr_' + user]
        status, answer = chat(may, token=key)
        self.check(status == 200 and ANSWER in str(answer), 'a chat with the personal API key', status, answer)
        status, answer = chat(may_not, token=key)
        self.check(status in (400, 403, 404), 'a chat with the key and a forbidden model is refused', status, answer)
        settings = {'ui': {'theme': 'dark', 'real': user}}
        status, answer = self.call('POST', '/api/v1/users/user/settings/update', settings, token)
        self.check(status == 200, 'settings are saved', status, answer)
        status, answer = self.call(
            'POST',
            '/api/v1/chats/new',
            {'chat': {'title': 'to be kept', 'messages': [], 'history': {'messages': {}, 'currentId': None}}},
            token,
        )
        self.check(status == 200, 'a chat is saved', status, answer)

        active = 'update "LiteLLM_UserTable" set metadata = metadata || %s where user_id = %s'
        self.litellm.rows(active, '{"scim_active": false}', user)
        self.sync('status', '--wait', 'now')
        self.check(
            self.is_out(email, token),
            'somebody deactivated is refused, their old session too',
            self.sign_in(email),
            self.models(token),
        )
        self.check(self.models(key) in (401, 403), 'and their API key', self.models(key))
        self.litellm.rows(active, '{"scim_active": true}', user)
        self.sync('status', '--wait', 'now')
        status, again = self.sign_in(email)
        self.check(again and self.models(again) == people[user], 'back again, they sign in and see the same models', status)
        self.check(self.models(key) == people[user], 'and their API key works again', self.models(key))
        kept = self.call('GET', '/api/v1/users/user/settings', token=again)[1]
        self.check((kept or {}).get('ui', {}).get('real') == user, 'and their settings are there', kept)
        chats = self.call('GET', '/api/v1/chats/', token=again)[1]
        self.check([c['title'] for c in chats] == ['to be kept'], 'and their chat', chats)

    def all(self, args):
        self.launch()
        world = World(self.litellm, args.seed, args.people)
        world.fill()
        self.use(*self.compare('at first'))
        for i in range(args.rounds):
            world.churn()
            self.compare('after changes' + f', round {i + 1}' * (args.rounds > 1))
        self.sync('verify')
        self.sync('failures', 'list')
        errors = open(f'{self.work}/open-webui.log', errors='replace').read().count('Traceback (most recent call last)')
        self.check(not errors, 'Open WebUI logged no exception', errors)


def main():
    p = argparse.ArgumentParser()
    p.add_argument('--daemon', required=True)
    p.add_argument('--work', required=True)
    p.add_argument('--seed', type=int, default=1)
    p.add_argument('--people', type=int, default=100)
    p.add_argument('--rounds', type=int, default=1)
    args = p.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    began, run = time.monotonic(), Run(args)
    try:
        run.all(args)
    finally:
        run.stop()
        print(
            f'{run.checks} checks, {run.failed} failed; {"; ".join(run.compared)}; '
            f'seed {args.seed}; {time.monotonic() - began:.0f} s',
            flush=True,
        )
    sys.exit(1 if run.failed else 0)


main()
