"""What runs: LiteLLM with a model provider behind it, Open WebUI in front of it, and the daemon between their databases."""

import glob
import json
import os
import secrets
import signal
import subprocess

from machine import Db, free_port, http

HERE = os.path.dirname(os.path.abspath(__file__))
MASTER = 'sk-real-test-master'  # LiteLLM's administrator, here
HEADER = 'X-Forwarded-Email'  # what a single sign-on proxy in front of Open WebUI would set
ADMIN = 'admin@local.example'


class Provider:
    """An OpenAI-compatible server that answers everything, whichever model is asked for."""

    ANSWER = 'Made-up answer.'

    def __init__(self, machine):
        port = free_port()
        self.url = f'http://127.0.0.1:{port}/v1'
        process = machine.start('provider', ['node', f'{HERE}/litellm/fake-openai', str(port)], {})
        machine.wait('provider', process, lambda: http('GET', f'{self.url}/models')[0] == 200)


class LiteLlm:
    def __init__(self, machine, provider, version, url=None, config=f'{HERE}/litellm/litellm.yaml', env=()):
        self.machine, self.provider, self.config, self.env = machine, provider, config, dict(env)
        self.url = url or machine.database('litellm')
        self.db, self.port, self.process = Db(self.url), free_port(), None
        self.base = f'http://127.0.0.1:{self.port}'
        self.release(version)

    def release(self, version):
        self.version, self.name = version, f'litellm-{version}'
        self.venv = f'{self.machine.cache}/{self.name}'
        [self.site] = glob.glob(f'{self.venv}/lib/python3.*/site-packages')

    def migrate(self):
        """As a release of LiteLLM migrates its database when it starts."""
        more = f'{HERE}/litellm/beyond-{self.version}.sql'
        more = [more] if os.path.exists(more) else []
        subprocess.run([f'{HERE}/litellm/migrate.sh', self.url, self.site, *more], check=True)

    def start(self):
        self.process = self.machine.start(
            self.name,
            [f'{self.venv}/bin/litellm', '--config', self.config, '--host', '127.0.0.1', '--port', str(self.port)],
            {
                'PATH': f'{HERE}/litellm/bin:{self.venv}/bin:{os.environ["PATH"]}',
                'DATABASE_URL': self.url,
                'PRISMA_QUERY_ENGINE_BINARY': f'{HERE}/litellm/query-engine',
                'RIG_NODE_MODULES': f'{self.machine.cache}/prisma/node_modules',
                'RIG_PRISMA_PY': '0.11.0',
                'LITELLM_MASTER_KEY': MASTER,
                'LITELLM_SALT_KEY': 'sk-real-test-salt',
                'FAKE_OPENAI': self.provider.url,
                'DISABLE_SCHEMA_UPDATE': 'true',
                'LITELLM_LOCAL_MODEL_COST_MAP': 'True',
                'LITELLM_LOG': 'WARNING',
                'LITELLM_TELEMETRY': 'False',
                'NO_DOCS': 'True',
                **self.env,
            },
        )
        took = self.machine.wait(self.name, self.process, lambda: self.call('GET', '/health/readiness')[1].get('db') == 'connected')
        print(f'LiteLLM {self.version} started in {took:.0f} s', flush=True)
        return self

    def stop(self):
        self.machine.end(self.process)

    def restart(self):
        """Forgets what it remembers of rows that were changed behind its back."""
        self.stop()
        return self.start()

    def call(self, method, path, body=None, key=MASTER):
        return http(method, self.base + path, body, {'Authorization': f'Bearer {key}'})

    def post(self, path, **body):
        """A call that has to work."""
        status, answer = self.call('POST', path, body)
        if status not in (200, 201):
            raise RuntimeError(f'LiteLLM {self.version}: POST {path} {body}: {status} {str(answer)[:500]}')
        return answer

    def model(self, name, tags=()):
        """A model in LiteLLM's database; the answer's model_id is its row."""
        params = {'model': f'openai/{name}', 'api_base': self.provider.url, 'api_key': 'none'}
        return self.post(
            '/model/new', model_name=name, litellm_params=params, model_info={'access_groups': list(tags)} if tags else {}
        )

    def chat(self, key, model):
        """Whether LiteLLM answers a chat, by either of its paths, and what it said if not."""
        body = {'model': model, 'messages': [{'role': 'user', 'content': 'Hello'}], 'max_tokens': 5}
        for path in ('/v1/chat/completions', '/chat/completions'):
            status, answer = self.call('POST', path, body, key)
            if status == 200 and Provider.ANSWER in str(answer):
                return True, ''
            # 1.77.3 refuses a route by an exception that nobody catches.
            route = (status, answer, self.version) == (500, 'Internal Server Error', '1.77.3')
            if status not in (400, 401, 403, 404, 422) and not route:
                raise RuntimeError(f'a chat with {model}: {status} {str(answer)[:500]}')
            if not route and 'route' not in str(answer):
                break
        return False, f'{status} {str(answer)[:300]}'

    def shared_key(self):
        """The key Open WebUI has for everybody, made as people are told to."""
        return self.post(
            '/key/generate', models=['all-proxy-models'], key_alias='openwebui_global_key', user_id='openwebui_system'
        )['key']


class OpenWebUi:
    def __init__(self, machine, version, models_url, models_key, url=None, env=()):
        self.machine, self.env = machine, dict(env)
        self.url = url or machine.database('webui')
        self.db, self.port, self.process = Db(self.url), free_port(), None
        self.base, self.secret, self.tokens = f'http://127.0.0.1:{self.port}', secrets.token_hex(32), {}
        self.models_url, self.models_key = models_url, models_key
        self.data = f'{machine.work}/open-webui-{self.port}'
        os.mkdir(self.data)
        self.release(version)

    def release(self, version):
        self.version, self.name = version, f'open-webui-{version}'
        self.venv = f'{self.machine.cache}/{self.name}'

    def start(self):
        os.makedirs(f'{self.data}/static', exist_ok=True)
        self.process = self.machine.start(
            self.name,
            [f'{self.venv}/bin/open-webui', 'serve', '--host', '127.0.0.1', '--port', str(self.port)],
            {
                'DATABASE_URL': self.url,
                'DATA_DIR': self.data,
                'HOME': self.data,
                'STATIC_DIR': f'{self.data}/static',
                'WEBUI_SECRET_KEY': self.secret,
                'WEBUI_AUTH_TRUSTED_EMAIL_HEADER': HEADER,
                'BYPASS_MODEL_ACCESS_CONTROL': 'False',
                'ENABLE_API_KEY': 'True',  # its name until 0.6.43
                'ENABLE_API_KEYS': 'True',
                'USER_PERMISSIONS_FEATURES_API_KEYS': 'True',
                'ENABLE_FORWARD_USER_INFO_HEADERS': 'True',
                'OPENAI_API_BASE_URL': self.models_url,
                'OPENAI_API_KEY': self.models_key,
                'ENABLE_EVALUATION_ARENA_MODELS': 'False',
                'ENABLE_OLLAMA_API': 'False',
                'RAG_EMBEDDING_ENGINE': 'openai',
                'RAG_OPENAI_API_BASE_URL': self.models_url,
                'RAG_OPENAI_API_KEY': self.models_key,
                'AUDIO_STT_ENGINE': 'openai',
                'OFFLINE_MODE': 'True',
                'HF_HUB_OFFLINE': '1',
                'ENABLE_VERSION_UPDATE_CHECK': 'False',
                'ANONYMIZED_TELEMETRY': 'False',
                'DO_NOT_TRACK': 'true',
                'SCARF_NO_ANALYTICS': 'true',
                **self.env,
            },
        )
        took = self.machine.wait(self.name, self.process, lambda: self.call('GET', '/health')[0] == 200)
        print(f'Open WebUI {self.version} started in {took:.0f} s', flush=True)
        return self

    def stop(self):
        self.machine.end(self.process)

    def call(self, method, path, body=None, token=None, email=None):
        headers = {**({'Authorization': f'Bearer {token}'} if token else {}), **({HEADER: email} if email else {})}
        return http(method, self.base + path, body, headers)

    def first_administrator(self):
        """Nothing is written before there is one: whoever comes second never becomes one."""
        body = {'name': 'Admin', 'email': ADMIN, 'password': secrets.token_hex(12)}
        status, who = self.call('POST', '/api/v1/auths/signup', body, email=ADMIN)
        self.machine.check(status == 200 and who['role'] == 'admin', 'the first sign-up is the administrator', status, who)
        self.tokens[ADMIN] = who['token']
        return self

    def sign_in(self, email):
        """A token, or why there is none. Kept: signing in often is refused."""
        if email not in self.tokens:
            status, who = self.call('POST', '/api/v1/auths/signin', {'email': '', 'password': ''}, email=email)
            if status != 200 or who['role'] == 'pending':
                return None
            self.tokens[email] = who['token']
        return self.tokens[email]

    def models(self, email=None, token=None):
        """The models somebody sees, or the status of the refusal."""
        token = token or self.sign_in(email)
        status, answer = self.call('GET', '/api/models', token=token)
        return {m['id'] for m in answer['data']} if status == 200 else status

    def chat(self, model, token, stream=False):
        body = {'model': model, 'stream': stream, 'messages': [{'role': 'user', 'content': 'hello'}]}
        return self.call('POST', '/api/chat/completions', body, token)

    def accounts(self):
        """By e-mail: id, name and role."""
        return {r['email']: r for r in self.db.rows('select id, email, name, role from "user"') if r['email'] != ADMIN}

    def groups(self):
        """By name: the e-mails of its members. Those that only carry models are left out."""
        lists = self.db.one(
            "select exists (select from pg_attribute where attrelid = '\"group\"'::regclass and attname = 'user_ids')"
        )
        members = (
            'select g.id, m.user_id from "group" g, json_array_elements_text(g.user_ids) m (user_id)'
            if lists
            else 'select group_id as id, user_id from group_member'
        )
        return {
            r['name']: set(r['emails'])
            for r in self.db.rows(
                f"""select g.name, coalesce(array_agg(u.email) filter (where u.email is not null), '{{}}') as emails
                      from "group" g left join ({members}) m on m.id = g.id left join "user" u on u.id = m.user_id
                     where g.id not like 'grp\\_models\\_%' group by g.id, g.name"""
            )
        }

    def keys(self):
        """Personal API keys by e-mail."""
        table = self.db.one("select to_regclass('api_key') is not null")
        sql = (
            'select email, key from api_key join "user" on "user".id = user_id'
            if table
            else 'select email, api_key as key from "user"'
        )
        return {r['email']: r['key'] for r in self.db.rows(sql) if r['key']}


class Daemon:
    def __init__(self, machine, litellm, webui, policy=''):
        self.machine, self.process = machine, None
        path = f'{machine.work}/policy-{webui.port}.toml'
        with open(path, 'w') as f:
            f.write(policy)
        self.settings = {
            'PATH': os.environ['PATH'],
            'LITELLM_DATABASE_URL': litellm.url,
            'WEBUI_DATABASE_URL': webui.url,
            'LITELLM_WEBUI_SYNC_LITELLM_URL': litellm.base,
            'LITELLM_WEBUI_SYNC_LITELLM_KEY': MASTER,
            'LITELLM_WEBUI_SYNC_CONFIG': path,
            'LITELLM_WEBUI_SYNC_HTTP': f'127.0.0.1:{free_port()}',
            # A slot is one for a whole server, and databases follow each other here.
            'LITELLM_WEBUI_SYNC_SLOT': 'sync_' + litellm.url.rsplit('/', 1)[1],
        }

    def start(self):
        self.process = self.machine.start('daemon', [self.machine.daemon, 'run'], self.settings)
        return self

    def kill(self):
        self.machine.end(self.process, signal.SIGKILL)

    def stop(self):
        self.machine.end(self.process)

    def ask(self, *command, timeout=300):
        return subprocess.run([self.machine.daemon, *command], env=self.settings, capture_output=True, text=True, timeout=timeout)

    def check(self, *command, expect=0):
        r = self.ask(*command)
        return self.machine.check(
            r.returncode == expect,
            f'litellm-webui-sync {" ".join(command)} ends with {expect}',
            r.returncode,
            r.stdout[-3000:],
            r.stderr[-3000:],
        )

    def settle(self):
        """Until everything LiteLLM committed so far is in Open WebUI; quiet when it works."""
        r = self.ask('status', '--wait', 'now')
        if r.returncode:
            self.machine.check(
                False, 'the daemon keeps up', r.returncode, r.stdout[-2000:], r.stderr[-2000:], self.machine.log('daemon')[-2000:]
            )
        return r.returncode == 0

    def access(self, email):
        r = self.ask('access', email, '--json')
        try:
            return json.loads(r.stdout)
        except ValueError:
            return {'note': (r.stdout + r.stderr)[-500:], 'models': [], 'agrees': False}

    def told(self, email, model):
        return self.ask('access', email, model).stdout

    def status(self):
        return json.loads(self.ask('status', '--json').stdout)
